"""EProcess: evidence that a promised error rate is exceeded, valid at any time one looks."""

from __future__ import annotations

import numpy as np

#: Bets of the mixture: small ones find small excesses after many rows, large ones large excesses after few.
_BETS = np.array([0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0])


class EProcess:
    """Evidence against "at most a share `level` of rows is wrong", valid whenever one looks.

    E_T = mean over bets b of prod_i (1 + b (wrong_i - level)), b < 1 / level. Under the null hypothesis it is a
    non-negative supermartingale that starts at 1, so that P(it ever reaches 1 / delta) <= delta (Ville's inequality).

    Attributes:
        level: the promised share of wrong rows, inside (0, 1).
        rows: rows checked so far.
        wrong: those of them that were wrong.
    """

    def __init__(self, level: float):
        self.level = level
        self.rows = 0
        self.wrong = 0

    def update(self, wrong: int, rows: int) -> None:
        """Add `rows` observations, `wrong` of them wrong."""
        self.rows += rows
        self.wrong += wrong

    @property
    def evidence(self) -> float:
        """E_T. It depends on how many rows were wrong, not on their order."""
        bets = _BETS[1 / self.level > _BETS]
        right = self.rows - self.wrong
        log = self.wrong * np.log1p(bets * (1 - self.level)) + right * np.log1p(-bets * self.level)
        return float(np.exp(np.minimum(log, 700)).mean())
