"""Measured comparisons of a model without and with its rules."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from moco_rt.runtime.model import EarlyExitTextClassificationModel


@dataclass(frozen=True)
class Comparison:
    """One model without and with its rules, on the same rows.

    Attributes:
        rows: how many.
        threads: torch's.
        seconds_baseline: wall time without rules, seconds_accelerated: with them; batch by batch in turns.
        speedup: median over batches of time without / time with.
        agreement: share of rows with the label that they have without rules.
        accuracy_baseline: share of right labels without rules, accuracy: with; None where labels are not known.
        exits: rows that left, by site and by the class they left with; sites without exits are not in it.
    """

    rows: int
    threads: int
    seconds_baseline: float
    seconds_accelerated: float
    speedup: float
    agreement: float
    accuracy_baseline: float | None
    accuracy: float | None
    exits: Mapping[str, Mapping[int, int]]

    @property
    def time_reduction(self) -> float:
        """1 - time with rules / time without."""
        return 1 - self.seconds_accelerated / self.seconds_baseline

    @property
    def exited(self) -> float:
        """Share of rows that left early."""
        return sum(sum(by_class.values()) for by_class in self.exits.values()) / self.rows

    def table(self) -> str:
        """The comparison as aligned text."""
        lines = [
            f"{self.rows:,} rows, {self.threads} threads",
            f"{'':<24}{'without rules':>15}{'with rules':>15}",
            f"{'time (s)':<24}{self.seconds_baseline:>15.2f}{self.seconds_accelerated:>15.2f}",
            f"{'rows/s':<24}{self.rows / self.seconds_baseline:>15,.0f}{self.rows / self.seconds_accelerated:>15,.0f}",
        ]
        if self.accuracy is not None and self.accuracy_baseline is not None:
            lines.append(f"{'accuracy':<24}{self.accuracy_baseline:>15.2%}{self.accuracy:>15.2%}")
        lines.append(f"{'agreement':<24}{'':>15}{self.agreement:>15.2%}")
        for site, by_class in self.exits.items():
            left = sum(by_class.values()) / self.rows
            lines.append(f"{'left at ' + site:<24}{'':>15}{left:>15.1%}")
        lines.append(f"{'ran to the end':<24}{'':>15}{1 - self.exited:>15.1%}")
        lines.append(f"time saved: {self.time_reduction:.1%}; median speed-up of a batch: {self.speedup:.2f}x")
        return "\n".join(lines)


def compare(
    baseline: EarlyExitTextClassificationModel,
    accelerated: EarlyExitTextClassificationModel,
    batches: Sequence[Mapping[str, torch.Tensor]],
    labels: NDArray[np.integer] | None = None,
) -> Comparison:
    """Run two models over the same batches, in turns and with turned order, and compare.

    Args:
        baseline: the model without rules.
        accelerated: the same model with rules.
        batches: inputs of both.
        labels: (rows,) true classes in the order of the batches, where they are known.
    """
    models = (baseline, accelerated)
    for model in models:
        model(**batches[0])  # warm-up: the first call pays for buffers and threads
    seconds = np.zeros((len(batches), 2))
    predictions: tuple[list[NDArray[Any]], list[NDArray[Any]]] = ([], [])
    sites = []
    for i, batch in enumerate(batches):
        for which in (0, 1) if i % 2 == 0 else (1, 0):
            start = time.perf_counter()
            output = models[which](**batch)
            predicted = output.logits.argmax(dim=1).cpu().numpy()  # on a GPU this is what is waited for
            seconds[i, which] = time.perf_counter() - start
            predictions[which].append(predicted)
            if which == 1:
                sites.append(output.exit_site.cpu().numpy())
    without, with_rules = (np.concatenate(values) for values in predictions)
    return Comparison(
        rows=len(without),
        threads=torch.get_num_threads(),
        seconds_baseline=float(seconds[:, 0].sum()),
        seconds_accelerated=float(seconds[:, 1].sum()),
        speedup=float(np.median(seconds[:, 0] / seconds[:, 1])),
        agreement=float((without == with_rules).mean()),
        accuracy_baseline=None if labels is None else float((without == labels).mean()),
        accuracy=None if labels is None else float((with_rules == labels).mean()),
        exits=_count_exits(accelerated, np.concatenate(sites), with_rules),
    )


def _count_exits(
    model: EarlyExitTextClassificationModel, sites: NDArray[Any], labels: NDArray[Any]
) -> dict[str, dict[int, int]]:
    """Count the rows that left at each site that has exits, by label."""
    return {
        site: {c: int(((sites == place) & (labels == c)).sum()) for c in range(model.policy.num_classes)}
        for place, site in enumerate(model.sites)
        if model.policy.at(site)
    }
