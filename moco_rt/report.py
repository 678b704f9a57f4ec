"""Measured comparisons, as tables and pictures."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import igraph
import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.neighbors import kneighbors_graph

from moco_rt.torch_early_exit_models import EarlyExitTextClassificationModel

#: Blue, orange, green, ... (Okabe and Ito): distinct for colour-blind readers.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")


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
    sites, rules = [], []
    for i, batch in enumerate(batches):
        for which in (0, 1) if i % 2 == 0 else (1, 0):
            start = time.perf_counter()
            output = models[which](**batch)
            predicted = output.logits.argmax(dim=1).cpu().numpy()  # on a GPU this is what is waited for
            seconds[i, which] = time.perf_counter() - start
            predictions[which].append(predicted)
            if which == 1:
                sites.append(output.exit_site.cpu().numpy())
                rules.append(output.exit_rule.cpu().numpy())
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
        exits=_count_exits(accelerated, np.concatenate(sites), np.concatenate(rules)),
    )


def _count_exits(
    model: EarlyExitTextClassificationModel, sites: NDArray[Any], rules: NDArray[Any]
) -> dict[str, dict[int, int]]:
    exits: dict[str, dict[int, int]] = {}
    for place, site in enumerate(model.sites):
        for rule_id, exit in model.policy.at(site):
            by_class = exits.setdefault(site, {})
            left = int(((sites == place) & (rules == rule_id)).sum())
            by_class[exit.predicted_class] = by_class.get(exit.predicted_class, 0) + left
    return exits


def draw_exits(comparison: Comparison, class_names: Mapping[int, str]) -> Figure:
    """Where rows left, and with which class: one bar a site."""
    figure = Figure(figsize=(7, 1.5 + 0.5 * (len(comparison.exits) + 1)), layout="constrained")
    axes = figure.subplots()
    names = [*comparison.exits, "ran to the end"]
    start = np.zeros(len(names))
    for i, (value, name) in enumerate(class_names.items()):
        counts = [by_class.get(value, 0) for by_class in comparison.exits.values()] + [0]
        share = 100 * np.array(counts) / comparison.rows
        axes.barh(names, share, left=start, color=_COLOURS[i % len(_COLOURS)], label=f"left as {name}")
        start += share
    end = 100 * (1 - comparison.exited)
    axes.barh(names, [0.0] * (len(names) - 1) + [end], color="#BBBBBB", label="the full model's label")
    for place, share in enumerate([*start[:-1], end]):
        axes.text(share + 1, place, f"{share:.1f}%", va="center")
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("rows (%)")
    axes.set_title(f"Where {comparison.rows:,} rows left the network")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_knn_graph(features: NDArray[np.float32], classes: NDArray[Any], *, k: int, title: str, target: str) -> Figure:
    """The k-nearest-neighbour graph of features (rows, size), laid out by its springs, coloured by class."""
    edges = np.stack(kneighbors_graph(features, k).nonzero(), axis=1)
    graph = igraph.Graph(n=len(features), edges=edges.tolist()).simplify()
    # Springs from the plane of greatest variance: seeded by the data, so that the same rows draw the same picture.
    # Without variance rows would lie on one point, from where springs cannot part them.
    start = PCA(n_components=2, svd_solver="covariance_eigh").fit_transform(features)
    start += np.random.default_rng(0).normal(scale=1e-3 * (np.abs(start).max() + 1), size=start.shape)
    igraph.set_random_number_generator(random.Random(0))
    layout = graph.layout_fruchterman_reingold(seed=start.tolist(), niter=300, grid="grid")
    igraph.set_random_number_generator(random)  # what it draws from by default
    points = np.array(layout.coords)

    figure = Figure(figsize=(7, 7), layout="constrained")
    axes = figure.subplots()
    lines = points[np.array(graph.get_edgelist())]
    axes.add_collection(LineCollection(list(lines), colors="#00000010", linewidths=0.3))
    handles = []
    for i, value in enumerate(np.unique(classes)):
        colour = _COLOURS[i % len(_COLOURS)]
        where = points[classes == value]
        axes.scatter(where[:, 0], where[:, 1], s=6, color=colour, linewidths=0, zorder=2)
        handles.append(Line2D([], [], marker="o", linestyle="", color=colour, label=f"{target}: {value}"))
    axes.legend(handles=handles, frameon=False)
    axes.set_title(title)
    axes.set_axis_off()
    return figure
