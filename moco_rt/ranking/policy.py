"""RankingPolicy: estimates, margins and what is promised of them; on disk `ranking.json` and `ranking.safetensors`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from moco_rt.certification.certificate import Certificate
from moco_rt.policies.fingerprints import check_made_for
from moco_rt.ranking.estimates import RETRIEVED, ScoreEstimate
from moco_rt.ranking.ranked import Elimination
from moco_rt.storage.fields import typed_fields
from moco_rt.storage.manifest import read_manifest, read_tensors, whole

FORMAT, VERSION = "moco_rt ranking", 1
JSON, TENSORS = "ranking.json", "ranking.safetensors"
#: What a monitor has seen.
MONITOR = "ranking-monitor.json"


@dataclass(frozen=True, eq=False)
class RankingPolicy:
    """Exits of a reranker.

    Attributes:
        keep_top: k, how many candidates of a query must stay the first ones.
        estimates: E, in the order of their sites.
        margins: (E,) float32, see `elimination.eliminated`.
        certificate: the promise; None: nothing is promised.
        made_for: what it rests on, see `fingerprints.run_identity`.
    """

    keep_top: int
    estimates: Sequence[ScoreEstimate]
    margins: NDArray[np.float32]
    certificate: Certificate | None = None
    made_for: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.margins.shape != (len(self.estimates),):
            raise ValueError(
                f"RankingPolicy: margins must be one for each of {len(self.estimates)} estimates "
                f"(got shape {self.margins.shape})"
            )

    @cached_property
    def elimination(self) -> Elimination:
        """Return it ready to run."""
        return Elimination(self.estimates, self.margins, self.keep_top)

    @cached_property
    def nobody_leaves(self) -> Elimination:
        """Return what numbers exits as `elimination` does, and lets no candidate leave."""
        return Elimination(self.estimates, np.full_like(self.margins, np.inf), self.keep_top)

    def save(self, directory: Path) -> None:
        """Write both files into a directory."""
        text = {
            "format": FORMAT,
            "version": VERSION,
            "keep_top": self.keep_top,
            "sites": [estimate.site for estimate in self.estimates],
            "made_for": self.made_for,
            "certificate": None if self.certificate is None else asdict(self.certificate),
        }
        tensors = {f"estimates.{place}": estimate.weight for place, estimate in enumerate(self.estimates)}
        save_file({**tensors, "margins": self.margins}, directory / TENSORS)
        (directory / JSON).write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(
        cls, json_file: Path, tensors_file: Path, identity: Mapping[str, Any], sites: Sequence[str]
    ) -> RankingPolicy:
        """Read both files.

        Args:
            json_file: `ranking.json`.
            tensors_file: `ranking.safetensors`.
            identity: of the model, see `fingerprints.model_identity`.
            sites: of the model, in their order.

        Raises:
            ValueError: a file is broken, of another format or version, or of another model.
        """
        text = read_manifest(json_file, FORMAT, (VERSION,))
        tensors = read_tensors(tensors_file)
        with whole(json_file):
            check_made_for(text["made_for"], identity, str(json_file))
            made_for, certificate = text["made_for"], Certificate.of(text["certificate"])
            keep_top = typed_fields(cls, {"keep_top": text["keep_top"]})["keep_top"]
            stored, known = list(text["sites"]), [RETRIEVED, *sites]
            if stored != [site for site in known if site in stored]:
                raise ValueError(f"{json_file} must have sites of the model, in their order (got {stored})")
        with whole(tensors_file):
            estimates = [ScoreEstimate(site, tensors[f"estimates.{place}"]) for place, site in enumerate(stored)]
            return cls(keep_top, estimates, tensors["margins"], certificate, made_for)
