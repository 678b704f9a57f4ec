"""Certificate: the promise about a policy, and the counts that it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any

from moco_rt.storage.fields import rebuild

#: Name of the variant that is the model as it was given.
GIVEN = "as given"
#: Names of a single unit, by the plural that certificates store.
_SINGULAR = {"rows": "row", "queries": "query"}


def percent(share: float) -> str:
    """Return a share as a percentage with as many decimals as it has: 0.999 is 99.9%, never 100%."""
    return f"{100 * share:.10g}%"


def at_most(share: float) -> str:
    """Return a share that is not exceeded as a percentage, rounded up: two decimals, of small ones two digits."""
    return f"{_rounded_up(share):f}%"


def all_but(share: float) -> str:
    """Return what is left of 100% at least where a share is not exceeded, rounded down: 0.00004 leaves 99.9960%."""
    return f"{100 - _rounded_up(share):f}%"


def _rounded_up(share: float) -> Decimal:
    exact = Decimal(f"{100 * share:.10g}")  # 1 - 0.95 is 5%, not more
    if not -1 <= share <= 1:  # no share, from a file that was not written by us
        return exact
    decimals = min(max(2, 1 - exact.adjusted()), 10) if exact else 2
    return exact.quantize(Decimal(1).scaleb(-decimals), ROUND_CEILING)


@dataclass(frozen=True)
class ExitCount:
    """Calibration rows that left by one exit with one class.

    Attributes:
        site: the exit's site.
        predicted_class: the class that the rows leave with; 0 where answers are no classes.
        fired: distinct rows that left there with that class.
        wrong: those of them whose answer is not the full model's.
        upper_bound: Clopper and Pearson's upper bound on the share of wrong answers among such rows. The bounds of all
            exits and classes hold together with the certificate's confidence if the policy is taken as fixed; that
            the same rows chose the policy along its path is not paid for. The certificate is about the whole policy.
    """

    site: str
    predicted_class: int
    fired: int
    wrong: int
    upper_bound: float


@dataclass(frozen=True)
class ClassPromise:
    """One class under the promise `per class`: of the rows to which the given model gives it.

    Attributes:
        predicted_class: the class.
        alpha: highest share of its rows that may get another answer; None: nothing is promised.
        rows: distinct calibration rows of the class.
        disagreements: those of them whose answer differs.
    """

    predicted_class: int
    alpha: float | None
    rows: int
    disagreements: int


@dataclass(frozen=True)
class Certificate:
    """A promise about rows like the calibration rows, and the counts that show it, with confidence 1 - delta.

    Confident: P(the answer differs from that of the model as it was given) <= alpha. Other promises have fields of
    their own. The unit that is counted is the distinct row: rows that the tokenizer turns into equal tokens count
    once, for the copies of a row say nothing new. What the copies weigh stands beside it (`disagreement_in_all`).

    Attributes:
        alpha: highest share of rows whose answer may differ; None: another promise was asked for.
        delta: the chance, over the choice of calibration rows, that the promise does not hold.
        rows: distinct calibration rows.
        disagreements: distinct calibration rows whose answer differs.
        seconds_full: expected seconds of a distinct row without exits, on the machine where the policy was found.
        seconds: expected seconds of a distinct row with exits.
        exits: counts by exit and class, for those by which a calibration row left.
        accuracy_full: share of right labels without exits among all calibration rows, copies included; None: no labels
            were passed.
        accuracy: the same with exits.
        rows_in_all: calibration rows with their copies; None: found before rows were compared (version 1 on disk).
        disagreement_in_all: share of all calibration rows, copies included, whose answer differs; None likewise.
        variant: name of the variant that is run; the answers that count are those of the model as it was given.
        promise: its name, see `promises`.
        classes: what is promised of each class, and what was counted; empty: another promise was asked for.
        max_drop: highest share of rows by which the accuracy may fall; None likewise.
        drop_bound: the smallest such share that the calibration rows show; None likewise.
        units: plural name of what is counted: rows, or queries with their candidates.
        answer: what must stay the same of each: the label, a set of labels, a score within a tolerance, the first
            candidates.

    Raises:
        ValueError: it counts no rows, or something else than rows or queries, or rows take no time.
    """

    alpha: float | None
    delta: float
    rows: int
    disagreements: int
    seconds_full: float
    seconds: float
    exits: tuple[ExitCount, ...]
    accuracy_full: float | None = None
    accuracy: float | None = None
    rows_in_all: int | None = None
    disagreement_in_all: float | None = None
    variant: str = GIVEN
    promise: str = "confident"
    classes: tuple[ClassPromise, ...] = ()
    max_drop: float | None = None
    drop_bound: float | None = None
    units: str = "rows"
    answer: str = "label"

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"Certificate: rows must be at least 1 (got {self.rows})")
        if not self.seconds > 0:
            raise ValueError(f"Certificate: seconds must be above 0 (got {self.seconds})")
        if self.units not in _SINGULAR:
            raise ValueError(f"Certificate: units must be {' or '.join(_SINGULAR)} (got {self.units!r})")

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None) -> Certificate | None:
        """Rebuild a certificate from what `dataclasses.asdict` made of it; None stays None."""
        return None if stored is None else rebuild(cls, stored)

    @property
    def speedup(self) -> float:
        """Expected time of a row without exits, divided by the time with them."""
        return self.seconds_full / self.seconds

    def sentence(self) -> str:
        """Return the promise alone, in a line; of each class after the first in one more."""
        return "\n".join(self._promised())

    def expected(self) -> str:
        """Return the time of a row with and without exits in a line."""
        form = "" if self.variant == GIVEN else f" in {self.variant}"
        return (
            f"expected {1e3 * self.seconds:.3f} ms a {_SINGULAR[self.units]}{form} "
            f"instead of {1e3 * self.seconds_full:.3f}: {self.speedup:.2f}x"
        )

    def table(self) -> str:
        """Return the promise, and the counts by exit and class, as aligned text."""
        lines = [
            *self._promised(),
            self.expected(),
        ]
        if self.accuracy is not None and self.accuracy_full is not None:
            lines.append(f"accuracy {self.accuracy:.2%}, without exits {self.accuracy_full:.2%}")
        if not self.exits:
            unchanged = self.variant == GIVEN and self.disagreements == 0
            return "\n".join([*lines, "no exits: the model as it was given runs" if unchanged else "no exits"])
        if self.units == "queries":
            return "\n".join([*lines, *self._candidates()])
        width = max(20, *(len(count.site) + 2 for count in self.exits))
        classes = 6 if self.answer == "label" else 0  # characters
        lines.append(f"{'exit':<{width}}{'class'[:classes]:>{classes}}{'left':>9}{'wrong':>7}{'at most wrong':>15}")
        lines += [
            f"{count.site:<{width}}{str(count.predicted_class)[:classes]:>{classes}}{count.fired / self.rows:>9.1%}"
            f"{count.wrong:>7}{at_most(count.upper_bound):>15}"
            for count in self.exits
        ]
        left = sum(count.fired for count in self.exits)
        return "\n".join([*lines, f"{'ran to the end':<{width + classes}}{1 - left / self.rows:>9.1%}"])

    def _candidates(self) -> list[str]:
        """Return a line for each site where candidates left."""
        width = max(20, *(len(count.site) + 2 for count in self.exits))
        return [f"{'exit':<{width}}{'left a query':>13}{'wrong':>7}"] + [
            f"{count.site:<{width}}{count.fired / self.rows:>13.1f}{count.wrong:>7}" for count in self.exits
        ]

    def _promised(self) -> list[str]:
        """Return the promise in a line, or of each class in one."""
        sure = f"with {percent(1 - self.delta)} confidence"
        if self.alpha is not None:
            return [
                f"same {self.answer} as the full model for at least {all_but(self.alpha)} of {self.units}, {sure} "
                f"({self._counted()})"
            ]
        if self.max_drop is not None:
            shown = f"; shown: {at_most(self.drop_bound)}" if self.drop_bound is not None else ""
            return [f"accuracy lower by at most {at_most(self.max_drop)} of rows, {sure}{shown} ({self._counted()})"]
        return [f"of the rows to which the full model gives a class, {sure} ({self._counted()}):"] + [
            f"  class {promised.predicted_class}: "
            + ("nothing promised" if promised.alpha is None else f"at least {all_but(promised.alpha)} keep it")
            + f" ({promised.disagreements} of {promised.rows:,} differ)"
            for promised in self.classes
        ]

    def _counted(self) -> str:
        if self.rows_in_all is None or self.disagreement_in_all is None:
            return f"{self.disagreements} of {self.rows:,} calibration {self.units} differ"
        counted = f"{self.disagreements} of {self.rows:,} distinct calibration rows differ"
        if self.rows_in_all == self.rows:
            return counted
        return f"{counted}; of all {self.rows_in_all:,}, copies included, {at_most(self.disagreement_in_all)}"
