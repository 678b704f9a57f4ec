"""The statement that a certificate makes true: how much may differ, and how surely."""

from __future__ import annotations

from dataclasses import dataclass

from moco_rt.statistics.arguments import check_share


@dataclass(frozen=True)
class Guarantee:
    """P(a unit differs) <= max_disagreement, with confidence 1 - delta over the choice of calibration units.

    Attributes:
        max_disagreement: highest share of units that may differ, inside (0, 1). For a policy a unit is a row and
            differs when its label is not the full model's; for a one-sided rule it is a row of another class that the
            rule fires on.
        delta: the chance, over the choice of calibration units, that the statement is false, inside (0, 1).

    Raises:
        ValueError: a number is not inside (0, 1).
    """

    max_disagreement: float
    delta: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_disagreement", check_share("max_disagreement", self.max_disagreement))
        object.__setattr__(self, "delta", check_share("delta", self.delta))

    @classmethod
    def of_agreement(cls, agreement: float, confidence: float) -> Guarantee:
        """Build it from the complements that users state: the share that agrees, and the confidence.

        Raises:
            ValueError: a share is not inside (0, 1).
        """
        return cls(1 - check_share("agreement", agreement), 1 - check_share("confidence", confidence))

    @property
    def agreement(self) -> float:
        """1 - max_disagreement."""
        return 1 - self.max_disagreement

    @property
    def confidence(self) -> float:
        """1 - delta."""
        return 1 - self.delta
