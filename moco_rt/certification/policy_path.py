"""PolicyPath: all policies that a certificate was looked for along, compact enough to be stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
        disagreements: (P,) int64, distinct calibration rows whose answer differs.
        seconds: (P,) float64, their mean seconds.
        rows: n, distinct calibration rows.
        certified: index of the last policy that fulfils the guarantee; all before it do as well.
        chosen: index of the policy that was taken.
    """

    variants: tuple[str, ...]
    variant: NDArray[np.int64]
    thresholds: NDArray[np.float32]
    disagreements: NDArray[np.int64]
    seconds: NDArray[np.float64]
    rows: int
    certified: int
    chosen: int

    def operating_points(self) -> NDArray[np.float64]:
        """Return mean seconds and share of differing rows of every policy: (P, 2) float64."""
        return np.column_stack([self.seconds, self.disagreements / self.rows])
