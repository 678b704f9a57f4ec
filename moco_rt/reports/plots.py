"""Pictures: the neighbourhoods of a representation, and where rows left a network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from moco_rt.analysis.knn_graph import COLOURS, NO_FORMULAS, draw_knn_graph
from moco_rt.policies.findings import SearchReport
from moco_rt.reports.comparison import Comparison

#: Groups of rows in a picture by length or by score.
_BINS = 10


@rc_context(NO_FORMULAS)
def draw_exits(comparison: Comparison, class_names: Mapping[int, str]) -> Figure:
    """Draw the share of rows that left at each site, by class: one bar a site."""
    figure = Figure(figsize=(7, 1.5 + 0.5 * (len(comparison.exits) + 1)), layout="constrained")
    axes = figure.subplots()
    names = [*comparison.exits, "ran to the end"]
    start = np.zeros(len(names))
    for i, (value, name) in enumerate(class_names.items()):
        counts = [by_class.get(value, 0) for by_class in comparison.exits.values()] + [0]
        share = 100 * np.array(counts) / comparison.rows
        axes.barh(names, share, left=start, color=COLOURS[i % len(COLOURS)], label=f"left as {name}")
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


@rc_context(NO_FORMULAS)
def draw_paths(findings: SearchReport) -> Figure:
    """Agreement against time: all policies of all methods, and the chosen one."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    highest = max(4 * (findings.chosen[1] if findings.alpha is None else findings.alpha), 0.01)
    for i, (method, path) in enumerate(findings.paths.items()):
        near = path[path[:, 1] <= highest]
        colour, width = COLOURS[i % len(COLOURS)], 2.5 if i == 0 else 1.2
        # Between two policies there is none: the next safer one is the slower one.
        points = near[np.argsort(near[:, 1], kind="stable")]
        axes.step(
            100 * points[:, 1],
            1e3 * points[:, 0],
            where="post",
            color=colour,
            linewidth=width,
            label=method,
            zorder=3 - i,
        )
    if len(findings.variants) > 1:
        for i, (name, (seconds, share)) in enumerate(findings.variants.items()):
            colour = COLOURS[i % len(COLOURS)]
            axes.scatter([100 * share], [1e3 * seconds], marker="D", color=colour, label=f"{name}, without exits")
    axes.scatter(
        [100 * findings.chosen[1]], [1e3 * findings.chosen[0]], s=90, facecolors="none", edgecolors="black", zorder=5
    )
    if findings.alpha is not None:
        axes.axvline(100 * findings.alpha, color="#888888", linestyle="--", linewidth=1)
    axes.axhline(1e3 * findings.seconds_full, color="#888888", linewidth=1)
    full = 1e3 * findings.seconds_full
    axes.text(1.0, full, "without exits", transform=axes.get_yaxis_transform(), va="bottom", ha="right")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("rows with another answer than the full model's (%)")
    axes.set_ylabel("expected time of a row (ms)")
    axes.set_title("Agreement against time")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


@rc_context(NO_FORMULAS)
def draw_exits_by_length(findings: SearchReport) -> Figure:
    """Share of rows that leave at each site, for rows of ten lengths."""
    edges = np.unique(np.quantile(findings.lengths, np.linspace(0, 1, _BINS + 1)).astype(int))
    place = np.clip(np.searchsorted(edges, findings.lengths, side="right") - 1, 0, max(0, len(edges) - 2))
    names = [
        f"{edges[i]}-{edges[min(i + 1, len(edges) - 1)]}" if len(edges) > 1 else str(edges[0])
        for i in range(max(1, len(edges) - 1))
    ]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    start = np.zeros(len(names))
    for e, site in enumerate([*findings.sites, "ran to the end"]):
        share = np.array([100 * (findings.exits[place == i] == e).mean() for i in range(len(names))])
        colour = "#BBBBBB" if e == len(findings.sites) else COLOURS[e % len(COLOURS)]
        axes.bar(names, share, bottom=start, color=colour, label=site)
        start += share
    axes.set_xlabel("tokens")
    axes.set_ylabel("rows (%)")
    axes.set_title("Exits by length")
    axes.tick_params(axis="x", rotation=45)
    figure.legend(loc="outside right upper", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


@rc_context(NO_FORMULAS)
def draw_reliability(findings: SearchReport) -> Figure:
    """Draw how often each off-ramp has the full model's answer, against its score."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for e, site in enumerate(findings.sites):
        score, right = findings.scores[e], findings.predicted[e] == findings.labels
        groups = np.array_split(np.argsort(score), _BINS)
        axes.plot(
            [float(score[group].mean()) for group in groups],
            [100 * float(right[group].mean()) for group in groups],
            marker="o",
            color=COLOURS[e % len(COLOURS)],
            label=site,
        )
    lowest = float(findings.scores.min())
    axes.plot([lowest, 1], [100 * lowest, 100], color="#888888", linestyle="--", linewidth=1)
    axes.set_xlabel("score of the off-ramp")
    axes.set_ylabel("rows with the full model's answer (%)")
    axes.set_title("Reliability, a tenth of the rows a point")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_neighbours(findings: SearchReport) -> Figure:
    """Draw rows as the last off-ramp sees them, by the full model's label where it chooses one."""
    sample = findings.sample
    return draw_knn_graph(
        sample,
        np.array(findings.class_names)[findings.labels[: len(sample)]],
        k=15,
        title=f"{findings.sites[-1]}: 15 nearest neighbours",
        target="label" if len(findings.class_names) > 1 else None,
    )
