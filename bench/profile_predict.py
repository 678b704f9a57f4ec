"""Where the time from a file of texts to a file of labels goes: `python bench/profile_predict.py FAST TEXTS`.

FAST is what `accelerate` wrote. Each stage runs alone over all texts, as `moco-rt predict` runs it in chunks: the lines
of the file to texts, texts to ids, ids to answers, answers to lines, lines to the disk. Printed are its wall time, its
processor time, and its share of all stages' processor time; then the whole run, in which the next chunk's texts are
read and tokenised while one is computed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from moco_rt import EarlyExitTextClassificationModel
from moco_rt._C import cpu_isa
from moco_rt.inputs.file_formats import FileFormat
from moco_rt.inputs.prefetch import CHUNK_TEXTS
from moco_rt.inputs.text_files import open_rows
from moco_rt.runtime.prediction import join_parts, predict_rows, tokeniser_of
from moco_rt.serving.label_files import predict_file
from moco_rt.serving.label_rows import LabelRows

STAGES = ("lines to texts", "texts to ids", "ids to answers", "answers to lines", "lines to the disk")


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it gives, and its seconds of wall time and of processor time."""
    wall, processor = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - wall, time.process_time() - processor


def read(source: Path) -> list[Any]:
    with open_rows(source) as rows:
        return [row.text for row in rows]


def stages(fast: EarlyExitTextClassificationModel, source: Path, folder: Path) -> list[tuple[float, float]]:
    """Wall and processor seconds of each stage."""
    tokenise = tokeniser_of(fast, None, None)
    labels = LabelRows(fast, FileFormat.JSONL)
    texts, *reading = timed(lambda: read(source))
    chunks = [texts[start : start + CHUNK_TEXTS] for start in range(0, len(texts), CHUNK_TEXTS)]
    rows, *encoding = timed(lambda: [tokenise(chunk) for chunk in chunks])
    answers, *computing = timed(lambda: join_parts(predict_rows(fast, part, fast.forward_packed) for part in rows))
    lines, *forming = timed(lambda: labels.lines(answers))
    _, *writing = timed(lambda: (folder / "alone.jsonl").write_bytes(b"".join(lines)))
    return [tuple(seconds) for seconds in (reading, encoding, computing, forming, writing)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fast", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    fast = EarlyExitTextClassificationModel.from_pretrained(options.fast)
    rows = len(read(options.texts))
    print(f"{rows:,} texts, {cpu_isa()}, torch {torch.__version__}")
    print("| threads | stage | wall s | processor s | share |\n|---:|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for threads in options.threads:
            torch.set_num_threads(threads)
            stages(fast, options.texts, folder)  # whatever is made once
            found = stages(fast, options.texts, folder)
            all_of_it = sum(processor for _, processor in found)
            for stage, (wall, processor) in zip(STAGES, found, strict=True):
                print(f"| {threads} | {stage} | {wall:.2f} | {processor:.2f} | {processor / all_of_it:.0%} |")
            out = folder / f"{threads}.jsonl"
            counts, wall, processor = timed(lambda out=out: predict_file(fast, fast.tokenizer, options.texts, out))
            assert counts == (0, rows)
            print(f"| {threads} | all, {rows / wall:,.0f} texts/s | {wall:.2f} | {processor:.2f} | |")


if __name__ == "__main__":
    main()
