"""What an exit point costs: one rule and the compaction of half of a batch, beside the layer it may save."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from moco_rt._C import Exits, PackedBatch, Results

ROWS, TOKENS, HIDDEN = 64, 256, 128


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def _threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def hidden():
    return torch.randn(ROWS, TOKENS, HIDDEN, generator=torch.Generator().manual_seed(0))


@pytest.mark.usefixtures("_threads")
@pytest.mark.benchmark(group="exit point beside a layer, 64 x 256 x 128")
def bench_rule_and_compaction(benchmark, hidden):
    mask = torch.ones(ROWS, TOKENS, dtype=torch.int64)
    weight = torch.zeros(HIDDEN)
    weight[0] = 1.0
    threshold = hidden[:, 0, 0].sort().values[ROWS // 2 - 1].item()  # the rule fires on the upper half of the rows
    exits = Exits(1, 2)
    exits.add_linear(0, torch.tensor([0.0, -5.0]), feature="cls", weight=weight, bias=0.0, threshold=threshold)

    def fresh():
        batch = PackedBatch(mask)
        batch.unpad(hidden)
        return (batch, Results(ROWS, 2, dtype=torch.float32, device=torch.device("cpu"))), {}

    def exit_point(batch, results):
        return exits.apply(batch, results), batch

    left, batch = benchmark.pedantic(exit_point, setup=fresh, rounds=50, warmup_rounds=5)
    assert left == ROWS // 2
    stay = hidden[:, 0, 0] <= threshold
    assert torch.equal(batch.hidden, hidden[stay].reshape(-1, HIDDEN))


@pytest.mark.usefixtures("_threads")
@pytest.mark.benchmark(group="exit point beside a layer, 64 x 256 x 128")
def bench_one_layer(benchmark, hidden):
    config = BertConfig(hidden_size=HIDDEN, num_attention_heads=2, intermediate_size=512, num_hidden_layers=1)
    layer = BertForSequenceClassification(config).eval().bert.encoder.layer[0]

    @torch.no_grad()
    def run():
        return layer(hidden)

    output = benchmark.pedantic(run, rounds=10, warmup_rounds=2)
    assert output.shape == hidden.shape
