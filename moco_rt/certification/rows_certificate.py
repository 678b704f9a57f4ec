"""RowsCertificate: the promise about the answers to these very rows, of which some were drawn and also run in full."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moco_rt.certification.certificate import at_most, percent
from moco_rt.storage.fields import rebuild


@dataclass(frozen=True)
class RowsCertificate:
    """A promise about the answers that were delivered for N rows, whatever the rows are.

    With probability `confidence` over the draw, at most the share 1 - agreement of the answers are not those of the
    model as it was given. The unit that is counted is the row: rows with equal texts count each.

    Attributes:
        rows: N.
        drawn: rows that were drawn at random without replacement and run in full; their answers are the given model's.
        disagreements: drawn rows that another answer was found for, by the policy that was taken or one before it on
            its path; where none was taken, by the first.
        bound: share of the N answers that differ at most, with that confidence; 0: all were run in full.
        agreement: the share of answers that was asked to be the given model's, inside (0, 1).
        confidence: the probability over the draw, inside (0, 1).
        step: index on the certified path of the policy that the other rows were run with; None: the path was not used.
        in_full: all rows were run by the model as it was given.
        seed: of the draw.
    """

    rows: int
    drawn: int
    disagreements: int
    bound: float
    agreement: float
    confidence: float
    step: int | None
    in_full: bool
    seed: int

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> RowsCertificate:
        """Rebuild a certificate from what `dataclasses.asdict` made of it."""
        return rebuild(cls, stored)

    @property
    def delta(self) -> float:
        """1 - confidence."""
        return 1 - self.confidence

    @property
    def differing(self) -> int:
        """Number of answers that differ at most: `bound` as a count of rows."""
        return round(self.bound * self.rows)

    def __str__(self) -> str:
        drawn = (
            f"{self.drawn:,} rows were drawn at random and run in full, and {self.disagreements:,} of them would have "
            "got another answer"
        )
        if self.in_full:
            looked = f" ({drawn})" if self.drawn else ""
            return f"all {self.rows:,} rows were run in full by the model as it was given: no answer differs{looked}"
        return (
            f"at most {self.differing:,} of {self.rows:,} answers ({at_most(self.bound)}) are not those of the model "
            f"as it was given, with {percent(self.confidence)} confidence: {drawn}"
        )
