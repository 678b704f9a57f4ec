"""The quantiser plug-in by which transformers saves and loads models with int8 layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from moco_rt.quantization.int8_linear import Int8Linear

METHOD = "moco_rt_int8"
#: Version of the format in which an `Int8Linear` stores its weights.
VERSION = 2


@register_quantization_config(METHOD)
class Int8Config(QuantizationConfigMixin):
    """The entry `quantization_config` of a model with int8 layers: their paths and the version of their format.

    Args:
        modules: paths of the int8 layers within the model.
        version: of the format in which an `Int8Linear` stores its weights.

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
            model.set_submodule(name, Int8Linear(linear.in_features, linear.out_features, linear.weight.device))
        return model

    def get_new_dtype(self, *args: Any, **kwargs: Any) -> None:
        """None: every tensor stays as it was stored."""

    def is_serializable(self) -> bool:
        """True: `save_pretrained` writes such models."""
        return True

    @property
    def is_trainable(self) -> bool:
        """False: int8 weights have no gradient."""
        return False


def is_int8(model: Any) -> bool:
    """True if a model has int8 layers. model: any with a Hugging Face `config`."""
    return isinstance(getattr(model.config, "quantization_config", None), Int8Config)
