"""Early exits for fine-tuned transformer classifiers: the same answers, sooner."""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

try:
    from moco_rt._C import cpu_isa
except ModuleNotFoundError as error:
    raise ImportError(
        "moco_rt here is the bare source folder, not what was built from it: leave the folder, or make an editable "
        "install in it (make install)"
    ) from error

from moco_rt import fork as _fork  # noqa: F401 -- what it registers

if TYPE_CHECKING:
    from moco_rt.analysis.capture import capture
    from moco_rt.analysis.frame import MLFrame
    from moco_rt.analysis.rule_finder import AnalyticsEngine, NoSufficientRuleError
    from moco_rt.architectures.pack import pack
    from moco_rt.architectures.tasks import MultiLabel, Ranking, Regression, SingleLabel
    from moco_rt.cascades.cascade import Cascade
    from moco_rt.cascades.queues import TierError
    from moco_rt.compression.compress import compress
    from moco_rt.policies.bag_of_tokens import BagOfTokens
    from moco_rt.policies.conditions import LinearCondition, LinearRule, OffRamp
    from moco_rt.ranking.reranker import EarlyExitReranker
    from moco_rt.runtime.classifiers.image import EarlyExitImageClassificationModel
    from moco_rt.runtime.model import EarlyExitTextClassificationModel
    from moco_rt.runtime.outputs import EarlyExitOutput
    from moco_rt.serving.predictor import Predictor
    from moco_rt.tuning.accelerate import accelerate
    from moco_rt.tuning.quantize import quantize
    from moco_rt.tuning.recertify import recertify

cpu_isa()  # a MOCO_MAX_ISA that names no instruction set is refused here, not by the first batch

__version__ = importlib.metadata.version("moco-rt")

#: Where the public names live. They are imported when they are first used: a process that only runs a model needs
#: neither the search, nor the analytics, nor the libraries that these bring along.
_HOMES = {
    "AnalyticsEngine": "analysis.rule_finder",
    "BagOfTokens": "policies.bag_of_tokens",
    "Cascade": "cascades.cascade",
    "EarlyExitImageClassificationModel": "runtime.classifiers.image",
    "EarlyExitOutput": "runtime.outputs",
    "EarlyExitReranker": "ranking.reranker",
    "EarlyExitTextClassificationModel": "runtime.model",
    "LinearCondition": "policies.conditions",
    "LinearRule": "policies.conditions",
    "MLFrame": "analysis.frame",
    "MultiLabel": "architectures.tasks",
    "NoSufficientRuleError": "analysis.rule_finder",
    "OffRamp": "policies.conditions",
    "Predictor": "serving.predictor",
    "Ranking": "architectures.tasks",
    "Regression": "architectures.tasks",
    "SingleLabel": "architectures.tasks",
    "TierError": "cascades.queues",
    "accelerate": "tuning.accelerate",
    "capture": "analysis.capture",
    "compress": "compression.compress",
    "pack": "architectures.pack",
    "quantize": "tuning.quantize",
    "recertify": "tuning.recertify",
}

__all__ = [
    "AnalyticsEngine",
    "BagOfTokens",
    "Cascade",
    "EarlyExitImageClassificationModel",
    "EarlyExitOutput",
    "EarlyExitReranker",
    "EarlyExitTextClassificationModel",
    "LinearCondition",
    "LinearRule",
    "MLFrame",
    "MultiLabel",
    "NoSufficientRuleError",
    "OffRamp",
    "Predictor",
    "Ranking",
    "Regression",
    "SingleLabel",
    "TierError",
    "accelerate",
    "capture",
    "compress",
    "pack",
    "quantize",
    "recertify",
]


def __getattr__(name: str) -> Any:
    """A public name, imported from its room (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names beside what is loaded already."""
    return sorted({*globals(), *__all__})
