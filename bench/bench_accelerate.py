"""What `moco_rt.accelerate` takes, and what its policy adds to a start: `python bench/bench_accelerate.py`.

One call on 20,000 reviews: wall time, peak memory of the process. Then, in turns, starts with the policy's files and
without: model and tokenizer from disk, and one text through them. Two minutes; needs `../shared`.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import SHARED, read_jsonl

import moco_rt
from moco_rt import EarlyExitTextClassificationModel
from moco_rt.architectures import load_classifier, load_tokenizer
from moco_rt.policies.policy_files import JSON, TENSORS

STARTS = 15


def seconds_to_start(directory: Path) -> float:
    """From files to the first label."""
    start = time.perf_counter()
    model = EarlyExitTextClassificationModel.from_pretrained(directory)
    model.predict(["a film"], tokenizer=load_tokenizer(model.model))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny-imdb", help="of ../shared/models")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, tokenizer = load_classifier(str(SHARED / "models" / options.model))
    texts = [row["text"] for row in read_jsonl(SHARED / "data" / "imdb/unlabelled.jsonl", options.rows)]
    start = time.perf_counter()
    fast = moco_rt.accelerate(model, texts, tokenizer=tokenizer, max_length=options.max_length)
    seconds = time.perf_counter() - start
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"accelerate {options.model} on {len(texts):,} rows, {options.threads} threads: {seconds:.1f} s, {gib:.2f} GiB"
    )

    with tempfile.TemporaryDirectory() as root:
        with_policy, without = Path(root) / "with", Path(root) / "without"
        for directory in (with_policy, without):
            fast.save_pretrained(directory)
            tokenizer.save_pretrained(directory)
        for name in (JSON, TENSORS):
            (without / name).unlink()
        starts = [(seconds_to_start(with_policy), seconds_to_start(without)) for _ in range(STARTS)]
    more = statistics.median(theirs - bare for theirs, bare in starts)
    bare = statistics.median(bare for _, bare in starts)
    print(f"start without the policy {1e3 * bare:.0f} ms, with it {1e3 * more:+.0f} ms (medians of {STARTS} in turns)")


if __name__ == "__main__":
    main()
