"""Every engine on every cell: `cd bench && python -m peers`.

Cells are stored as they are done: a run can be done in parts. Engines take the place of their older figures, and those
that a run leaves out keep theirs, so all of one precision should run together. The main cells take hours.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common import RESULTS

from moco_rt.engines import ENGINES, WorkerFailedError
from peers.cells import Bench, Cell
from peers.report import table
from peers.rows import IMAGES, LAWS

STORED = RESULTS / "peers.json"
#: The laws of length that each model is measured under unless others are asked for.
MAIN = {
    "minilm-sst2": ("sst2", "16", "64", "128", "256", "512"),
    "minilm-sst2-sparse80": ("16", "64"),
    "minilm-imdb": ("imdb-256", "imdb-512"),
    "tiny-imdb": ("imdb-256", "imdb-512", "256"),
    "bert-base": ("sst2", "128", "imdb-256"),
    "modernbert-base": ("sst2", "imdb-256"),
    "mpnet-base": ("sst2", "imdb-256"),
    "deberta-v3-base": ("sst2", "imdb-256"),
    "qwen3-0.6b": ("sst2",),
    "vit-base": (IMAGES,),
}


def measured(options: argparse.Namespace) -> Iterator[tuple[Cell, dict]]:
    """The cells asked for, one by one."""
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(model, options.engines, options.threads, Path(folder))
            for law in options.laws or MAIN[model]:
                for batch_rows in options.batches:
                    cell = Cell(model, law, batch_rows)
                    try:
                        result = bench.measure(cell, options.repetitions, options.seconds)
                    except WorkerFailedError as error:
                        print(f"{cell}: {error}", flush=True)
                        continue
                    if result is None:
                        print(f"{cell}: left out, a batch costs too much", flush=True)
                    else:
                        yield cell, result


def store(cell: Cell, result: dict, out: Path) -> None:
    """Put the cell among those in the file, and the table of them all beside it."""
    cells = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    engines = cells.get(str(cell), {"engines": {}})["engines"] | result["engines"]
    cells[str(cell)] = result | {"engines": engines}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(cells, indent=1) + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(table(cells) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="peers", description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MAIN, default=list(MAIN))
    parser.add_argument("--laws", nargs="+", choices=LAWS, help="for every model (those it is meant for)")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 64, 512], help="rows of a batch (%(default)s)")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of the baseline for one repetition (%(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=STORED)
    options = parser.parse_args()
    # The workers inherit these: as many threads for whoever asks the environment, and nothing from the network.
    os.environ |= {
        "OMP_NUM_THREADS": str(options.threads),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    done = {}
    for cell, result in measured(options):
        done[str(cell)] = result
        store(cell, result, options.out)
        print(f"{cell}: done", flush=True)
    print(table(done))


if __name__ == "__main__":
    main()
