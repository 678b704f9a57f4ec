"""The result of a benchmark: one table, and what stands above and below it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moco_rt.benchmark.measure import Figures
from moco_rt.engines import BASELINE

_HEAD = ("engine", "rows/s", "times HF", "p50 ms", "p99 ms", "same label", "MiB", "start s", "per million texts")


def check_picture(path: Path) -> None:
    """Refuse a picture that could not be drawn, before anything is measured for it.

    Raises:
        ImportError: matplotlib, of the extra `analysis`, is missing.
        ValueError: its ending is of no format that is drawn, or its folder is not there.
    """
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise ImportError('matplotlib must be installed to draw (pip install "moco_rt[analysis]")') from None
    if path.suffix.lower().removeprefix(".") not in FigureCanvasBase.get_supported_filetypes():
        raise ValueError(f"out must end in .png, .svg or another format of pictures (got {path})")
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"out must be a file in a folder that is there (got {path})")


@dataclass(frozen=True)
class Result:
    """The figures of all engines, and what they were measured on.

    Attributes:
        figures: by engine; the baseline is among them.
        rows: N, how many texts each labelled in a turn.
        threads: of each engine.
        price: of a core for an hour, in whatever currency.
        missing: by engine that is not installed, what to type to have it.
        promise: of the policy, in a line; None: none ran.
    """

    figures: Mapping[str, Figures]
    rows: int
    threads: int
    price: float
    missing: Mapping[str, str]
    promise: str | None

    def rate(self, name: str) -> float:
        """Return the rows per second of an engine: by its median turn."""
        return self.rows / float(np.median(self.figures[name].seconds))

    def speedup(self, name: str) -> float:
        """Return how many times faster than the baseline it is: the median of the ratios within each turn."""
        turns = zip(self.figures[BASELINE].seconds, self.figures[name].seconds, strict=False)  # one may have failed
        ratios = [baseline / own for baseline, own in turns]
        return float(np.median(ratios))

    def cost(self, name: str) -> float:
        """Return what a million texts cost."""
        return 1e6 / self.rate(name) / 3600 * self.threads * self.price

    def same_label(self, name: str) -> float:
        """Return the share of the texts that get the baseline's label."""
        ours, theirs = self.figures[name].labels, self.figures[BASELINE].labels
        assert ours is not None
        assert theirs is not None
        return float((ours == theirs).mean())

    def done(self) -> list[str]:
        """Return the engines that have figures, the fastest last."""
        names = [name for name, figures in self.figures.items() if figures.failed is None]
        return sorted(names, key=self.rate)

    def table(self) -> str:
        """Return the table, and lines about promises, versions, failures and what is not installed."""
        lines = [_HEAD] + [self._line(name) for name in self.done()]
        widths = [max(len(line[i]) for line in lines) for i in range(len(_HEAD))]
        text = []
        for name, *cells in lines:
            aligned = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
            text.append("  ".join([name.ljust(widths[0]), *aligned]))
        versions = {name: version for figures in self.figures.values() for name, version in figures.versions.items()}
        below = [f"{self.rows:,} texts a turn, {self.threads} threads; a core costs {self.price:g} an hour"]
        below += [] if self.promise is None else [f"with exits: {self.promise}"]
        below.append(", ".join(f"{name} {version}" for name, version in sorted(versions.items())))
        below += [f"{name} failed: {each.failed}" for name, each in self.figures.items() if each.failed is not None]
        below += [f"{name} is not installed: {command}" for name, command in self.missing.items()]
        return "\n".join([*text, "", *below])

    def _line(self, name: str) -> tuple[str, ...]:
        figures = self.figures[name]
        return (
            name,
            f"{self.rate(name):,.0f}" if self.rate(name) >= 100 else f"{self.rate(name):.3g}",
            f"{self.speedup(name):.2f}",
            f"{np.percentile(figures.single_ms, 50):.1f}",
            f"{np.percentile(figures.single_ms, 99):.1f}",
            f"{self.same_label(name):.2%}",
            f"{figures.mib_peak:,}",
            f"{figures.start_seconds:.1f}",
            f"{self.cost(name):.3g}",
        )

    def draw(self, path: Path) -> None:
        """Draw rows per second by engine, one bar each, into a file.

        Raises:
            ImportError: matplotlib, of the extra `analysis`, is missing.
        """
        from matplotlib.figure import Figure

        names = self.done()
        figure = Figure(figsize=(8, 1 + 0.4 * len(names)), layout="constrained")
        axes = figure.subplots()
        colours = ["#D55E00" if name.startswith("moco_rt") else "#999999" for name in names]
        axes.barh(names, [self.rate(name) for name in names], color=colours)
        for place, name in enumerate(names):
            axes.text(
                self.rate(name),
                place,
                f" {self.rate(name):,.0f}  ({self.same_label(name):.1%} same label)",
                va="center",
            )
        axes.margins(x=0.35)
        axes.set_xlabel("texts per second")
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path)
