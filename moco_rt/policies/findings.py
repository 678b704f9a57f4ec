"""SearchReport: how a policy was found, in numbers only; it holds no text of the rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from moco_rt.storage.fields import typed_fields
from moco_rt.storage.manifest import parse_json, read_tensors, whole

#: Rows whose feature is kept for the picture of a neighbourhood.
SAMPLE = 1000


@dataclass(frozen=True)
class SearchReport:
    """The record of a search on the n distinct calibration rows, for a report.

    Attributes:
        sites: names of the policy's E sites.
        class_names: names of the classes, by number.
        seconds_full: expected seconds of a row without exits.
        paths: method -> (policies, 2): expected seconds of a row, and share of rows whose answer is not the full
            model's, from the slowest policy to the fastest.
        chosen: (2,) the same of the certified policy.
        alpha: highest share of differing labels that the certificate allows; None: it promises something else.
        exits: (n,) index in `sites` of the exit of each row; E: it runs to the end.
        lengths: (n,) tokens.
        labels: (n,) labels of the full model; where answers are no labels, 0, and `class_names` has one name.
        predicted: (E, n) class that each off-ramp predicts; there 0 where it has the full model's answer, else 1.
        scores: (E, n) score of that prediction.
        sample: (at most 1,000, size), the feature of the first rows at the policy's last site; (0, 1) where no off-ramp
            of the policy reads one.
        remarks: what else is to be said of the calibration rows, one statement a line.
        variants: of each form of the model that was tried, without exits: expected seconds of a row, and share of rows
            whose answer is not that of the model as it was given.
    """

    sites: Sequence[str]
    class_names: Sequence[str]
    seconds_full: float
    paths: Mapping[str, NDArray[np.float64]]
    chosen: NDArray[np.float64]
    alpha: float | None
    exits: NDArray[np.int64]
    lengths: NDArray[np.int64]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    scores: NDArray[np.float32]
    sample: NDArray[np.float32]
    remarks: str = ""
    variants: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def save(self, file: str | Path) -> None:
        """Write the report as a safetensors file."""
        arrays = {
            **{f"paths.{name}": path for name, path in self.paths.items()},
            **{name: getattr(self, name) for name in _ARRAYS},
        }
        about = {name: getattr(self, name) for name in _ABOUT}
        about["methods"] = list(self.paths)  # in their order, which the file does not keep
        compact = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        save_file(compact, file, metadata={"about": json.dumps(about)})

    @classmethod
    def load(cls, file: str | Path) -> SearchReport:
        """Read a report that `save` wrote.

        Raises:
            ValueError: the file is broken, or holds something else.
        """
        tensors = read_tensors(file)
        with whole(file):
            with safe_open(str(file), framework="numpy") as stored:
                about = parse_json((stored.metadata() or {})["about"], file)
            known: dict[str, Any] = typed_fields(cls, {name: about[name] for name in _ABOUT})
            known |= {name: tensors[name] for name in _ARRAYS}
            report = cls(paths={name: tensors[f"paths.{name}"] for name in about["methods"]}, **known)
            report.check()
        return report

    def check(self) -> None:
        """Raise TypeError unless all arrays fit together."""
        sites, rows = len(self.sites), len(self.exits)
        shapes = {
            **dict.fromkeys(("exits", "lengths", "labels"), (rows,)),
            **dict.fromkeys(("predicted", "scores"), (sites, rows)),
            "chosen": (2,),
            "sample": (len(self.sample), *self.sample.shape[1:2]),
        }
        fit = all(getattr(self, name).shape == shape for name, shape in shapes.items())
        pairs = [*(path.shape[1:] for path in self.paths.values()), *((len(two),) for two in self.variants.values())]
        labels = (self.labels >= 0) & (self.labels < len(self.class_names))
        exits = (self.exits >= 0) & (self.exits <= sites)
        if not (fit and all(pair == (2,) for pair in pairs) and labels.all() and exits.all()):
            raise TypeError("arrays that do not fit together")


_ABOUT = ("sites", "class_names", "seconds_full", "alpha", "remarks", "variants")
_ARRAYS = ("chosen", "exits", "lengths", "labels", "predicted", "scores", "sample")
