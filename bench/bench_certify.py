"""What a promise about these rows costs and keeps: `python bench/bench_certify.py`.

`accelerate` on some reviews of ../shared/data/imdb/test; then all reviews of it, those among them, are labelled with a
certificate about just these rows, and by the model as it was given. Prints what was drawn and promised, what was true,
and the seconds of both, each the first of its kind, on warm kernels. Ten minutes; needs `../shared`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from common import SHARED, read_jsonl

import moco_rt
from moco_rt import EarlyExitTextClassificationModel
from moco_rt.architectures import load_classifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="minilm-imdb", help="of ../shared/models")
    parser.add_argument("--rows", type=int, help="to be labelled; all where none is given")
    parser.add_argument("--accelerate-rows", type=int, default=8000)
    parser.add_argument("--fast", type=Path, help="a folder of what accelerate found, in place of these rows")
    parser.add_argument("--certify", type=float, default=0.99)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, tokenizer = load_classifier(str(SHARED / "models" / options.model))
    texts = [row["text"] for row in read_jsonl(SHARED / "data/imdb/test.jsonl", options.rows)]
    if options.fast is None:
        fast = moco_rt.accelerate(
            model, texts[: options.accelerate_rows], tokenizer=tokenizer, max_length=options.max_length
        )
    else:
        fast = EarlyExitTextClassificationModel.from_pretrained(options.fast)
    print(fast.report())
    full = EarlyExitTextClassificationModel(fast.given.model)
    full.predict(texts[:256], tokenizer=tokenizer, max_length=options.max_length)

    start = time.perf_counter()
    found = fast.predict(texts, certify=options.certify, confidence=options.confidence)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    given = full.predict(texts, tokenizer=tokenizer, max_length=options.max_length)
    full_seconds = time.perf_counter() - start

    certificate = found.certificate
    assert certificate is not None
    differing = int((found.labels != given.labels).sum())
    form = "as given" if fast.runs_as_given else fast.policy.certificate.variant
    print(
        f"{options.model}, {form}: N {certificate.rows:,}, n {certificate.drawn:,}, "
        f"errors {certificate.disagreements}, at most {certificate.differing} ({certificate.bound:.3%}), "
        f"in truth {differing} ({differing / certificate.rows:.3%}); {seconds:.1f} s, all in full {full_seconds:.1f} s "
        f"({full_seconds / seconds:.2f}x)"
    )
    print(certificate)
    assert differing <= certificate.differing


if __name__ == "__main__":
    main()
