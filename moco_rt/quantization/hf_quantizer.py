"""Models with int8 layers as transformers saves and loads them, by its own door for quantised models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from moco_rt.quantization.int8_linear import Int8Linear

METHOD = "moco_rt_int8"
#: Of the form in which an `Int8Linear` keeps its weights.
VERSION = 1


@register_quantization_config(METHOD)
class Int8Config(QuantizationConfigMixin):
    """What `config.json` says of a model's int8 layers: which they are.

    Args:
        modules: paths of those layers.
        version: of the form of their weights.

    Raises:
        ValueError: the version is not this one's.
    """

    def __init__(self, modules: Sequence[str] = (), version: int = VERSION, **_: Any):
        if version != VERSION:
            raise ValueError(f"int8 weights must be of version {VERSION} (got {version}): quantize the model anew")
        self.quant_method: Any = METHOD  # transformers lists its own
        self.modules = list(modules)
        self.version = version


@register_quantizer(METHOD)
class Int8Quantizer(HfQuantizer):
    """Makes room for the int8 layers before `from_pretrained` loads what was saved."""

    requires_calibration = True
    quantization_config: Int8Config

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        for name in self.quantization_config.modules:
            linear = model.get_submodule(name)
            model.set_submodule(name, Int8Linear(linear.in_features, linear.out_features))
        return model

    def get_new_dtype(self, *args: Any, **kwargs: Any) -> None:
        """None: every tensor stays as it was stored."""

    def is_serializable(self) -> bool:
        """Yes."""
        return True

    @property
    def is_trainable(self) -> bool:
        """No."""
        return False


def is_int8(model: Any) -> bool:
    """Whether a model has int8 layers."""
    return isinstance(getattr(model.config, "quantization_config", None), Int8Config)
