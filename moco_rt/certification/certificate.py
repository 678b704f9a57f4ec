"""What is promised of a policy, and the counts that it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ExitCount:
    """What the calibration rows say of one exit and one class.

    Attributes:
        site: where.
        predicted_class: the class the rows leave with.
        fired: rows that left there with it.
        wrong: of these, rows with another label than the full model's.
        upper_bound: the share of wrong labels among such rows is at most this (Clopper-Pearson; of a policy taken as
            given, all exits and classes together with the certificate's confidence. That the same rows chose where
            along the path it lies is not paid for: what is certified is the whole).
    """

    site: str
    predicted_class: int
    fired: int
    wrong: int
    upper_bound: float


@dataclass(frozen=True)
class Certificate:
    """P(label differs from the full model's) <= alpha, with confidence 1 - delta, on rows like the calibration rows.

    Attributes:
        alpha: the share of labels that may differ.
        delta: the chance, over the choice of calibration rows, that this does not hold.
        rows: calibration rows.
        disagreements: how many of them got another label.
        seconds_full: expected time of a row without exits, on the machine where the policy was found.
        seconds: expected time of a row with them.
        exits: by exit and class, those where a calibration row left.
        accuracy_full: share of right labels without exits on the calibration rows; None where labels were not given.
        accuracy: with exits.
    """

    alpha: float
    delta: float
    rows: int
    disagreements: int
    seconds_full: float
    seconds: float
    exits: tuple[ExitCount, ...]
    accuracy_full: float | None = None
    accuracy: float | None = None

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None) -> Certificate | None:
        """What `dataclasses.asdict` made of one, or of none."""
        if stored is None:
            return None
        counts = tuple(ExitCount(**count) for count in stored["exits"])
        return cls(**{**stored, "exits": counts})

    @property
    def speedup(self) -> float:
        """Expected time of a row without exits over the time with them."""
        return self.seconds_full / self.seconds

    def table(self) -> str:
        """What is promised, and the counts by exit and class, as aligned text."""
        lines = [
            f"same label as the full model on at least {1 - self.alpha:.2%} of rows, with {1 - self.delta:.0%} "
            f"confidence ({self.disagreements} of {self.rows:,} calibration rows differ)",
            f"expected {1e3 * self.seconds:.3f} ms a row instead of {1e3 * self.seconds_full:.3f}: {self.speedup:.2f}x",
        ]
        if self.accuracy is not None and self.accuracy_full is not None:
            lines.append(f"accuracy {self.accuracy:.2%}, without exits {self.accuracy_full:.2%}")
        if not self.exits:
            return "\n".join([*lines, "no exits"])
        width = max(20, *(len(count.site) + 2 for count in self.exits))
        lines.append(f"{'exit':<{width}}{'class':>6}{'left':>9}{'wrong':>7}{'at most wrong':>15}")
        lines += [
            f"{count.site:<{width}}{count.predicted_class:>6}{count.fired / self.rows:>9.1%}{count.wrong:>7}"
            f"{count.upper_bound:>15.2%}"
            for count in self.exits
        ]
        left = sum(count.fired for count in self.exits)
        return "\n".join([*lines, f"{'ran to the end':<{width + 6}}{1 - left / self.rows:>9.1%}"])
