"""The k-nearest-neighbour graph of a representation, drawn."""

from __future__ import annotations

import random
from typing import Any

import igraph
import numpy as np
from matplotlib import rc_context
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.neighbors import kneighbors_graph

#: Blue, orange, green, ... (Okabe and Ito): distinct for colour-blind readers.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
#: Names of classes are drawn as they are: what stands between dollars is no formula.
NO_FORMULAS: Any = {"text.parse_math": False}


@rc_context(NO_FORMULAS)
def draw_knn_graph(
    features: NDArray[np.float32], classes: NDArray[Any], *, k: int, title: str, target: str | None
) -> Figure:
    """Draw the k-nearest-neighbour graph of features (rows, size), laid out by its springs, coloured by class.

    Args:
        features: of the rows.
        classes: (rows,).
        k: neighbours of each row.
        title: of the picture.
        target: what the classes are of, for the legend; None: there is none.
    """
    edges = np.stack(kneighbors_graph(features, k).nonzero(), axis=1)
    graph = igraph.Graph(n=len(features), edges=edges.tolist()).simplify()
    # Springs from the plane of greatest variance: the same rows draw the same picture. A little noise, because
    # springs cannot part rows that lie on one point.
    start = PCA(n_components=2, svd_solver="randomized", random_state=0).fit_transform(
        np.pad(features, [(0, 0), (0, 1)])
    )
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
        colour = COLOURS[i % len(COLOURS)]
        where = points[classes == value]
        axes.scatter(where[:, 0], where[:, 1], s=6, color=colour, linewidths=0, zorder=2)
        handles.append(Line2D([], [], marker="o", linestyle="", color=colour, label=f"{target}: {value}"))
    if target is not None:
        axes.legend(handles=handles, frameon=False)
    axes.set_title(title)
    axes.set_axis_off()
    return figure
