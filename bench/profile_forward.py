"""Where the time of a forward goes: `python bench/profile_forward.py ../shared/models/minilm-sst2 --tokens 25`.

Shares are of threads x wall time. `waiting`: a thread had nothing to do, or did what is not listed (copying rows,
taking buffers). `loop`: moco_rt/runtime/packed.py and the calls into the extension. `checks`: the rest of Python,
before and after the loop.
"""

from __future__ import annotations

import argparse
import time
from unittest import mock

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from moco_rt import BagOfTokens, EarlyExitTextClassificationModel, LinearCondition, OffRamp
from moco_rt._C import start_profile, stop_profile
from moco_rt.architectures.sites import TOKENS, all_sites
from moco_rt.runtime import packed
from moco_rt.tuning import candidate_sites


def shares(model: EarlyExitTextClassificationModel, rows: int, tokens: int, forwards: int) -> dict[str, float]:
    """Share of each part in `forwards` forwards, and `ms`, of one."""
    ids = torch.randint(1000, model.config.vocab_size, (rows, tokens), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    for _ in range(3):
        model(ids, mask)
    loop, run = 0.0, packed.forward

    def timed(*inputs):
        nonlocal loop
        start = time.perf_counter()
        results = run(*inputs)
        loop += time.perf_counter() - start
        return results

    with mock.patch.object(packed, "forward", timed):
        start_profile()
        start = time.perf_counter()
        for _ in range(forwards):
            model(ids, mask)
        wall = time.perf_counter() - start
        seconds = stop_profile()
    threads = torch.get_num_threads()
    inside = seconds.pop("extension")
    seconds["waiting"] = threads * inside - sum(seconds.values())
    found = {part: spent / (threads * wall) for part, spent in seconds.items()}
    # While Python works, one thread does and the others wait.
    return {**found, "loop": (loop - inside) / wall, "checks": (wall - loop) / wall, "ms": 1e3 * wall / forwards}


def add_rules(fast: EarlyExitTextClassificationModel) -> None:
    """At every site with hidden states but the last, behind which there is nothing to save."""
    for site in all_sites(fast.config.num_hidden_layers)[:-1]:
        fast.add_rule(LinearCondition(np.zeros(fast.config.hidden_size, np.float32), 0.0, 1.0, bound=0.01), 0, site)


def add_off_ramps(fast: EarlyExitTextClassificationModel) -> None:
    """Wherever `accelerate` tries them, on the first token beside the mean; on the token ids a bag."""
    size = (fast.config.num_labels, 2 * fast.config.hidden_size)
    layer = (np.zeros(size, np.float32), np.zeros(size[0], np.float32))
    fast.add_off_ramp(BagOfTokens.closed(np.zeros((2**18, size[0])), layer[1], 1.0), TOKENS)
    for site in candidate_sites(fast)[1:]:
        fast.add_off_ramp(OffRamp.closed((layer,), feature="cls+mean", site=site), site)


EXITS = {"rules": add_rules, "off-ramps": add_off_ramps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="directory or name of a classifier")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "int8"), default="float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--forwards", type=int, default=20)
    parser.add_argument("--exits", choices=EXITS, help="at their sites, such as no row meets (none)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dtype = arguments.dtype if arguments.dtype == "int8" else getattr(torch, arguments.dtype)
    model = AutoModelForSequenceClassification.from_pretrained(arguments.model)
    fast = EarlyExitTextClassificationModel(model, dtype=dtype)
    if arguments.exits:
        EXITS[arguments.exits](fast)
    found = shares(fast, arguments.rows, arguments.tokens, arguments.forwards)
    print(
        f"{found.pop('ms'):.3f} ms a forward, {arguments.rows} rows of {arguments.tokens} tokens, "
        f"{arguments.dtype}, {arguments.threads} threads, backend {fast.backend}"
    )
    for part, share in found.items():
        print(f"{part:10} {100 * share:5.1f}%")


if __name__ == "__main__":
    main()
