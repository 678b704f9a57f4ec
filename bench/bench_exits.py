"""What an exit point costs beside the layer it may save: 64 rows of 256 tokens, D = 128, half of the rows leave.

`pytest bench/bench_exits.py --benchmark-enable` times the parts; `python bench/bench_exits.py` times them in turns,
for 1 and 2 threads, and writes their shares of a layer to bench/results/exits.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import pytest
import torch
from common import RESULTS
from transformers import BertConfig, BertForSequenceClassification

from moco_rt._C import Exits, PackedBatch, Results

STORED = RESULTS / "exits.json"
ROWS, TOKENS, HIDDEN = 64, 256, 128
GROUP = f"exit point beside a layer, {ROWS} x {TOKENS} x {HIDDEN}"


def make_hidden():
    return torch.randn(ROWS, TOKENS, HIDDEN, generator=torch.Generator().manual_seed(0))


def make_exits(hidden):
    """One rule, which fires on the upper half of the rows."""
    weight = torch.zeros(HIDDEN)
    weight[0] = 1.0
    threshold = hidden[:, 0, 0].sort().values[ROWS // 2 - 1].item()
    exits = Exits(1, 2)
    exits.add_linear(0, torch.tensor([0.0, -5.0]), feature="cls", weight=weight, bias=0.0, threshold=threshold)
    return exits


def make_layer():
    config = BertConfig(hidden_size=HIDDEN, num_attention_heads=2, intermediate_size=512, num_hidden_layers=1)
    return BertForSequenceClassification(config).eval().bert.encoder.layer[0]


def make_batch(hidden):
    batch = PackedBatch(torch.ones(ROWS, TOKENS, dtype=torch.int64))
    batch.unpad(hidden)
    return batch


def make_results():
    return Results(ROWS, 2, dtype=torch.float32)


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def _threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
@pytest.mark.benchmark(group=GROUP)
def bench_rule_and_compaction(benchmark):
    hidden = make_hidden()
    exits = make_exits(hidden)

    def apply(batch, results):
        return exits.apply(batch, results), batch

    left, batch = benchmark.pedantic(
        apply, setup=lambda: ((make_batch(hidden), make_results()), {}), rounds=50, warmup_rounds=5
    )
    assert left == ROWS // 2
    stay = hidden[:, 0, 0] <= hidden[:, 0, 0].sort().values[ROWS // 2 - 1]
    assert torch.equal(batch.hidden, hidden[stay].reshape(-1, HIDDEN))


@pytest.mark.usefixtures("_threads")
@pytest.mark.benchmark(group=GROUP)
def bench_with_unpadding_and_padding(benchmark):
    hidden = make_hidden()
    exits = make_exits(hidden)

    def whole(batch):
        batch.unpad(hidden)
        exits.apply(batch, make_results())
        return batch.pad()

    padded = benchmark.pedantic(whole, setup=lambda: ((make_batch(hidden),), {}), rounds=50, warmup_rounds=5)
    assert padded.shape == (ROWS // 2, TOKENS, HIDDEN)


@pytest.mark.usefixtures("_threads")
@pytest.mark.benchmark(group=GROUP)
@torch.no_grad()
def bench_one_layer(benchmark):
    hidden, layer = make_hidden(), make_layer()
    output = benchmark.pedantic(layer, args=(hidden,), rounds=10, warmup_rounds=2)
    assert output.shape == hidden.shape


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@torch.no_grad()
def shares_of_a_layer(threads, rounds=30):
    """Medians over rounds of each part's time over a layer's, all in turns."""
    torch.set_num_threads(threads)
    hidden, layer = make_hidden(), make_layer()
    exits = make_exits(hidden)
    shares = {"rule and compaction": [], "with unpadding and padding": []}
    for round_ in range(rounds + 3):
        batch, results = make_batch(hidden), make_results()
        unpad = seconds(lambda batch=batch: batch.unpad(hidden))
        apply = seconds(lambda batch=batch, results=results: exits.apply(batch, results))
        pad = seconds(batch.pad)
        one_layer = seconds(lambda: layer(hidden))
        if round_ >= 3:  # the first warm up
            shares["rule and compaction"].append(apply / one_layer)
            shares["with unpadding and padding"].append((unpad + apply + pad) / one_layer)
    return {part: round(statistics.median(values), 5) for part, values in shares.items()}


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    result = {f"{threads} threads": shares_of_a_layer(threads) for threads in (1, 2)}
    result["torch"] = torch.__version__
    result["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    STORED.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
