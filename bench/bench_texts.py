"""From texts to labels: `python bench/bench_texts.py`, what tokenising takes of it and what a faster library saves.

`predict` of all reviews of the test set with `tiny-imdb` and a policy certified at 98%; tokenising alone; and computing
alone, from ids: in turns with Hugging Face's library alone and with tokie beside it. The least of several runs counts.
Ten minutes, most of them for the policy, which `--policy` keeps for the next time; needs `../shared`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import SHARED, read_jsonl

import moco_rt
from moco_rt import EarlyExitTextClassificationModel
from moco_rt.architectures import load_classifier
from moco_rt.encoding import EncodedTexts
from moco_rt.inputs.batching import packed_batches
from moco_rt.inputs.prefetch import CHUNK_TEXTS
from moco_rt.inputs.tokenization import encode

MODEL, AGREEMENT, MAX_LENGTH = "tiny-imdb", 0.98, 256
#: The value of MOCO_FAST_TEXTS by the library that encodes.
LIBRARIES = {"Hugging Face": "0", "tokie": "1"}


def make_policy(directory: Path) -> None:
    model, tokenizer = load_classifier(str(SHARED / "models" / MODEL))
    texts = [row["text"] for row in read_jsonl(SHARED / "data" / "imdb/unlabelled.jsonl", None)]
    # In the model's own dtype, so that what tokenising takes can be compared from one machine to another.
    options: dict[str, Any] = {"tokenizer": tokenizer, "max_length": MAX_LENGTH, "agreement": AGREEMENT, "dtype": None}
    moco_rt.accelerate(model, texts, **options).save_pretrained(directory)


def encode_all(tokenizer: Any, texts: list[str]) -> list[EncodedTexts]:
    return [encode(tokenizer, texts[i : i + CHUNK_TEXTS], MAX_LENGTH) for i in range(0, len(texts), CHUNK_TEXTS)]


def compute_all(model: EarlyExitTextClassificationModel, chunks: list[EncodedTexts]) -> None:
    for chunk in chunks:
        for _, batch in packed_batches(chunk):
            model.forward_packed(batch)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, default=None, help="of the test set; all by default")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--policy", type=Path, help="where the model with its policy is, or is to be kept")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-options.threads :])  # the libraries' threads too
    with tempfile.TemporaryDirectory() as temporary:
        directory = options.policy or Path(temporary) / "model"
        if not directory.exists():
            make_policy(directory)
        model = EarlyExitTextClassificationModel.from_pretrained(directory)
    texts = [row["text"] for row in read_jsonl(SHARED / "data" / "imdb/test.jsonl", options.rows)]
    chunks = encode_all(model.tokenizer, texts)
    parts: dict[str, Callable[[], object]] = {
        "predict": lambda: model.predict(texts),
        "tokenising alone": lambda: encode_all(model.tokenizer, texts),
    }
    least = {"computing alone": seconds(lambda: compute_all(model, chunks))}
    for _ in range(options.repetitions):
        least["computing alone"] = min(least["computing alone"], seconds(lambda: compute_all(model, chunks)))
        for library, switch in LIBRARIES.items():
            os.environ["MOCO_FAST_TEXTS"] = switch
            for part, work in parts.items():
                name = f"{part}, {library}"
                least[name] = min(least.get(name, float("inf")), seconds(work))
    for name, time_taken in least.items():
        print(f"{name}: {len(texts) / time_taken:,.0f} reviews/s")
    for library in LIBRARIES:
        tokenising = least[f"tokenising alone, {library}"]
        print(f"tokenising is {tokenising / (tokenising + least['computing alone']):.0%} of the work with {library}")


if __name__ == "__main__":
    main()
