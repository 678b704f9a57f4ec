"""PolicyPath: all policies that a certificate was looked for along, compact enough to be stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moco_rt.certification.certificate import all_but

#: What stands in place of the count of a policy that the rows have not tested.
NOT_TESTED = -1


@dataclass(frozen=True, eq=False)
class PolicyPath:
    """P policies, from "nothing changes" to the fastest, with what they did to n calibration rows.

    With the counts, another policy can be chosen, for another guarantee too, without any data:
    `fixed_sequence(disagreements, rows, guarantee)` is all that the test needs.

    Attributes:
        variants: names of the variants that policies run.
        variant: (P,) int64, place in `variants` of the one that a policy runs.
        thresholds: (P, E, G) float32 over the E exits of the variant that was chosen and their G groups; infinite in
            policies of other variants.
        disagreements: (P,) int64, distinct calibration rows whose answer differs; `NOT_TESTED` in policies of other
            variants where the rows are fresh ones, see `recertify`.
        seconds: (P,) float64, their mean seconds.
        rows: n, distinct calibration rows.
        certified: index of the last policy that fulfils the guarantee; all before it do as well.
        chosen: index of the policy that was taken.
        fired: (P, E) int64, distinct calibration rows that left by each exit, none in policies of other variants; None:
            they were not kept, as in files of earlier versions.
        wrong: (P, E) int64, those of them whose answer differs; None likewise.

    Raises:
        ValueError: shapes do not fit together, or a place is none.
    """

    variants: tuple[str, ...]
    variant: NDArray[np.int64]
    thresholds: NDArray[np.float32]
    disagreements: NDArray[np.int64]
    seconds: NDArray[np.float64]
    rows: int
    certified: int
    chosen: int
    fired: NDArray[np.int64] | None = None
    wrong: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        policies = len(self.seconds)
        shapes = [np.shape(each) for each in (self.variant, self.seconds, self.disagreements, self.thresholds)]
        if shapes[:3] != [(policies,)] * 3 or len(shapes[3]) != 3 or shapes[3][0] != policies:
            raise ValueError(f"PolicyPath: all must have shape (P,), thresholds (P, E, G) (got {shapes})")
        counts = [np.shape(each) for each in (self.fired, self.wrong) if each is not None]
        if counts and counts != [shapes[3][:2]] * 2:
            raise ValueError(f"PolicyPath: fired and wrong must both have shape {shapes[3][:2]} (got {counts})")
        if self.fired is not None and self.wrong is not None:
            kinds = {self.fired.dtype.kind, self.wrong.dtype.kind}
            if kinds != {"i"} or not ((self.wrong >= 0) & (self.wrong <= self.fired) & (self.fired <= self.rows)).all():
                raise ValueError(f"PolicyPath: fired and wrong must be counts of {self.rows} rows (got others)")
        variants, last = np.unique(self.variant), policies - 1
        if variants.dtype.kind != "i" or not ((variants >= 0) & (variants < len(self.variants))).all():
            raise ValueError(f"PolicyPath: variant must be places in {len(self.variants)} variants (got {variants})")
        if not (0 <= self.certified <= last and 0 <= self.chosen <= last and self.rows >= 1):
            got = f"{self.certified}, {self.chosen} and {self.rows}"
            raise ValueError(f"PolicyPath: certified and chosen must be from 0 to {last}, rows above 0 (got {got})")

    def compare_variants(self) -> list[str]:
        """Return a line about each of several variants: its fastest policy that keeps the promise, and its fate.

        Policies that another one beats in time and in answers do not stand on the path.
        """
        if len(self.variants) == 1:
            return []
        width = max(len(name) for name in self.variants)
        return [f"{name:<{width}}  {self._fate(place)}" for place, name in enumerate(self.variants)]

    def _fate(self, variant: int) -> str:
        policies = np.flatnonzero(self.variant == variant)
        if len(policies) == 0:
            return "another variant is faster with fewer other answers, whatever is asked for"
        if (self.disagreements[policies] == NOT_TESTED).any():
            return "not tested on the rows of this certificate"
        kept = policies[policies <= self.certified]
        if len(kept) == 0:
            first = int(policies[0])
            return f"{self._counted(first)}: not certified, the first of its policies on the path"
        fastest = int(kept[self.seconds[kept].argmin()])
        return f"{self._counted(fastest)}: {'taken' if fastest == self.chosen else 'slower'}"

    def _counted(self, policy: int) -> str:
        same = all_but(float(self.disagreements[policy] / self.rows))
        return f"{1e3 * self.seconds[policy]:.3f} ms, same answers {same}"

    def operating_points(self) -> NDArray[np.float64]:
        """Return mean seconds and share of differing rows of every policy that the rows have tested: (P, 2) float64."""
        tested = self.disagreements != NOT_TESTED
        return np.column_stack([self.seconds[tested], self.disagreements[tested] / self.rows])
