"""`moco-rt report`: one self-contained HTML file about a policy, with pictures."""

from __future__ import annotations

import base64
import html
import io

import numpy as np
from matplotlib.figure import Figure

from moco_rt.certificate import Certificate
from moco_rt.findings import Findings
from moco_rt.pictures import COLOURS, draw_knn_graph

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; }
img { max-width: 100%; }
"""
_BINS = 10


def report_page(name: str, certificate: Certificate, findings: Findings) -> str:
    """The page.

    Args:
        name: of the model.
        certificate: of its policy.
        findings: how it was found.
    """
    pictures = [
        (
            draw_paths(findings),
            "Every point is a policy: how often it changes a label, and the time it takes. The circle is the one that "
            "was certified; the dashed line is what it promises, further left is safer.",
        )
    ]
    if findings.sites:
        pictures += [
            (draw_exits_by_length(findings), "Where rows leave, by their length in tokens."),
            (draw_reliability(findings), "How often an off-ramp is right, where it says it is this sure."),
            (
                draw_knn_graph(
                    findings.sample,
                    np.array(findings.class_names)[findings.labels[: len(findings.sample)]],
                    k=15,
                    title=f"{findings.sites[-1]}: 15 nearest neighbours",
                    target="label",
                ),
                "Rows as the last off-ramp sees them; neighbours are connected.",
            ),
        ]
    body = "\n".join(f"<p>{html.escape(text)}</p>\n{_image(figure)}" for figure, text in pictures)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{html.escape(name)}</title>\n'
        f"<style>{_STYLE}</style>\n<h1>{html.escape(name)}</h1>\n<pre>{html.escape(certificate.table())}</pre>\n"
        f"{body}\n</html>\n"
    )


def draw_paths(findings: Findings) -> Figure:
    """Agreement against time: all policies of all methods, and the chosen one."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    highest = max(4 * findings.alpha, 0.01)
    for i, (method, path) in enumerate(findings.paths.items()):
        near = path[path[:, 1] <= highest]
        colour, width = COLOURS[i % len(COLOURS)], 2.5 if i == 0 else 1.2
        # Between two policies there is none: who wants to be safer takes the slower one.
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
    axes.scatter(
        [100 * findings.chosen[1]], [1e3 * findings.chosen[0]], s=90, facecolors="none", edgecolors="black", zorder=5
    )
    axes.axvline(100 * findings.alpha, color="#888888", linestyle="--", linewidth=1)
    axes.axhline(1e3 * findings.seconds_full, color="#888888", linewidth=1)
    full = 1e3 * findings.seconds_full
    axes.text(1.0, full, "without exits", transform=axes.get_yaxis_transform(), va="bottom", ha="right")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("rows with another label than the full model's (%)")
    axes.set_ylabel("expected time of a row (ms)")
    axes.set_title("Agreement against time")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_exits_by_length(findings: Findings) -> Figure:
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


def draw_reliability(findings: Findings) -> Figure:
    """How often each off-ramp has the full model's label, against its score."""
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
    axes.set_xlabel("highest probability of the off-ramp")
    axes.set_ylabel("rows with the full model's label (%)")
    axes.set_title("Reliability, a tenth of the rows a point")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _image(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
