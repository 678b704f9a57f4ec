"""From seconds to figures, and the table of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from moco_rt.engines import BASELINE, OURS, is_rival, precision

HEAD = (
    *("model", "lengths", "batch", "engine", "rows/s", f"x {BASELINE}", "x best rival", "p50 ms", "p99 ms"),
    *("GFLOP/s", "of GEMM peak", "MiB loaded", "MiB peak", "max difference", "same label"),
)


def summarise(cell: dict, results: Mapping[str, dict]) -> dict:
    """The cell with an entry for each engine: its figures, or why it failed.

    Args:
        cell: what was asked, and `gflop`, the useful work in one repetition.
        results: `failed`; or `seconds` of each batch by repetition, `logits` of each batch, and more facts to keep.
    """
    done = {name: result for name, result in results.items() if "failed" not in result}
    seconds = {name: np.array(result["seconds"]) for name, result in done.items()}
    totals = {name: batches.sum(axis=1) for name, batches in seconds.items()}
    reference = np.concatenate(done[BASELINE]["logits"])
    engines: dict[str, dict] = dict(results)
    for name, result in done.items():
        logits, median = np.concatenate(result["logits"]), float(np.median(totals[name]))
        peak = cell["gemm_gflops"].get(precision(name))
        engines[name] = {
            "rows_per_second": round(len(logits) / median, 2),
            "speedup": ratio(totals[BASELINE], totals[name]),
            "p50_ms": round(1e3 * float(np.percentile(seconds[name], 50)), 3),
            "p99_ms": round(1e3 * float(np.percentile(seconds[name], 99)), 3),
            "gflops": round(cell["gflop"] / median, 1),
            "of_gemm_peak": peak and round(cell["gflop"] / median / peak, 3),
            "max_difference": float(np.abs(logits - reference).max()),
            "same_label": float((logits.argmax(axis=1) == reference.argmax(axis=1)).mean()),
            "seconds": [round(float(total), 5) for total in totals[name]],
        } | {fact: value for fact, value in result.items() if fact not in ("logits", "seconds")}
    for name in done:
        if name.startswith(OURS) and (rival := best_rival(totals, precision(name))):
            engines[name] |= {"best_rival": rival, "times_best_rival": ratio(totals[rival], totals[name])}
    peaks = {name: round(gflops, 1) for name, gflops in cell["gemm_gflops"].items()}
    return cell | {"rows": len(reference), "gflop": round(cell["gflop"], 3), "gemm_gflops": peaks, "engines": engines}


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """How many times faster: the median of the ratios within each repetition."""
    return round(float(np.median(np.asarray(slow) / np.asarray(fast))), 3)


def readable(rate: float) -> str:
    """Rows per second."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def best_rival(totals: Mapping[str, Sequence[float]], of_precision: str) -> str | None:
    """The rival of that precision with the smallest median."""
    rivals = [name for name in totals if is_rival(name) and precision(name) == of_precision]
    return min(rivals, key=lambda name: np.median(totals[name]), default=None)


def table(cells: Mapping[str, dict]) -> str:
    """All cells in markdown, one line per engine."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---" * 4 + "|---:" * (len(HEAD) - 4) + "|"]
    for cell in cells.values():
        for name, figures in cell["engines"].items():
            place = [cell["model"], cell["law"], str(cell["batch_rows"]), name]
            rest = ["failed: " + figures["failed"]] if "failed" in figures else _line(figures)
            lines.append("| " + " | ".join(place + rest) + " |")
    return "\n".join(lines)


def _line(figures: dict) -> list[str]:
    times, rival = figures.get("times_best_rival"), figures.get("best_rival")
    share = figures["of_gemm_peak"]
    return [
        readable(figures["rows_per_second"]),
        f"{figures['speedup']:.2f}",
        f"{times:.2f} ({rival})" if times else "",
        f"{figures['p50_ms']:.2f}",
        f"{figures['p99_ms']:.2f}",
        f"{figures['gflops']:.0f}",
        f"{share:.0%}" if share else "",
        f"{figures['mib_loaded']:,}",
        f"{figures['mib_peak']:,}",
        f"{figures['max_difference']:.1e}",
        f"{figures['same_label']:.2%}",
    ]
