"""Early exits for fine-tuned transformer classifiers: the same answers, sooner."""

from typing import TYPE_CHECKING, Any

import torch

try:
    from moco_rt._build import TORCH_VERSION as _BUILT_FOR
except ModuleNotFoundError as error:
    raise ImportError(
        "moco_rt here is the bare source folder, not what was built from it: leave the folder, or make an editable "
        "install in it (make install)"
    ) from error


def _minor(version: str) -> list[str]:
    return version.split("+")[0].split(".")[:2]


# Before the extension is touched: beside another torch it would fail on an undefined symbol, or worse, later.
if _minor(torch.__version__) != _minor(_BUILT_FOR):
    raise ImportError(
        f"moco_rt was built for torch {_BUILT_FOR} and found torch {torch.__version__}: "
        f"install the torch it was built for (pip install 'torch=={'.'.join(_minor(_BUILT_FOR))}.*') or build it "
        "for this one (pip install --no-build-isolation --no-deps --force-reinstall FOLDER_OF_ITS_SOURCES)"
    )

from moco_rt import fork as _fork  # noqa: F401 -- what it registers
from moco_rt._C import cpu_isa
from moco_rt.accelerate import accelerate
from moco_rt.capture import capture
from moco_rt.cascade import Cascade
from moco_rt.ml_frame import MLFrame
from moco_rt.pools import TierError
from moco_rt.prediction import EarlyExitOutput
from moco_rt.quantization import quantize
from moco_rt.rules import LinearCondition, LinearRule, OffRamp
from moco_rt.torch_early_exit_models import EarlyExitTextClassificationModel

if TYPE_CHECKING:
    from moco_rt.analytics import AnalyticsEngine, NoSufficientRuleError

cpu_isa()  # a MOCO_MAX_ISA that names no instruction set is refused here, not by the first batch

__version__ = "0.1.0"

__all__ = [
    "AnalyticsEngine",
    "Cascade",
    "EarlyExitOutput",
    "EarlyExitTextClassificationModel",
    "LinearCondition",
    "LinearRule",
    "MLFrame",
    "NoSufficientRuleError",
    "OffRamp",
    "TierError",
    "accelerate",
    "capture",
    "quantize",
]


def __getattr__(name: str) -> Any:
    """Analytics bring scikit-learn, igraph and Matplotlib along, which whoever only runs a model has no memory for."""
    if name in ("AnalyticsEngine", "NoSufficientRuleError"):
        from moco_rt import analytics

        return getattr(analytics, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
