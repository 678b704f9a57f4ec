"""The dials of `compress`: each with each, as any library's numbers, and what is refused before any work."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch

from moco_rt import EarlyExitTextClassificationModel, compress
from moco_rt.compression import compress as compress_module
from moco_rt.compression.dials import Dials

TEXTS = ["the good film was not bad", "a film", "bad bad but the film was good good good", "not the film"] * 5
DIALS = {"width": 0.6, "sparsity": 0.5, "block": (4, 1), "lengths": 0.7}


def dials_of(model, **given):
    defaults = {"width": 1, "sparsity": 0, "block": (1, 4), "lengths": None, "epochs": 0, "seed": 0}
    return Dials.of(model, **{**defaults, **given})


def share_of_zeros(model):
    weights = [weight for name, weight in model.named_parameters() if ".layer." in name and weight.ndim == 2]
    return float(torch.cat([(weight == 0).flatten() for weight in weights]).float().mean())


@pytest.mark.parametrize("epochs", [0, 1])
@pytest.mark.parametrize(
    "names",
    [*itertools.combinations(["width", "sparsity", "lengths"], 2), ("width", "sparsity", "block", "lengths")],
    ids=" and ".join,
)
def test_all_dials_can_be_turned_at_once(tiny_bert, word_tokenizer, names, epochs):
    turned = {name: DIALS[name] for name in names}
    small = compress(tiny_bert(3), TEXTS, tokenizer=word_tokenizer, epochs=epochs, **turned)
    assert (sum(small.config.neurons) < 3 * 128) == ("width" in names)
    assert share_of_zeros(small) == pytest.approx(0.5 if "sparsity" in names else 0.0, abs=0.01)
    assert bool(small.config.lengths) == ("lengths" in names)
    batch = word_tokenizer(TEXTS[:4], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = small(**batch).logits
    torch.testing.assert_close(EarlyExitTextClassificationModel(small)(**batch).logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("often")
def test_numbers_of_numpy_are_those_of_python(tiny_bert, word_tokenizer, tmp_path):
    """They go into a configuration in JSON, and into a checkpoint that is read as data alone."""
    file = tmp_path / "recovery.pt"
    given = {"width": np.float64(0.75), "sparsity": np.float32(0.5), "block": np.array([1, 4]), "seed": np.int64(1)}
    given |= {"lengths": {np.int64(0): np.float32(0.5)}, "epochs": np.int32(1), "tokenizer": word_tokenizer}
    for _ in range(2):  # the second goes on from what the first left
        small = compress(tiny_bert(), TEXTS, checkpoint=file, **given)
    small.save_pretrained(tmp_path)
    found = json.loads((tmp_path / "config.json").read_text())
    assert found["compression"] == {
        "width": 0.75,
        "sparsity": 0.5,
        "block": [1, 4],
        "lengths": {"0": 0.5},
        "epochs": 1,
    }
    assert found["lengths"] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"width": "half"}, "width must be above 0 and at most 1 (got half)"),
        ({"width": float("nan")}, "width must be above 0 and at most 1 (got nan)"),
        ({"width": np.float32(1.5)}, "width must be above 0 and at most 1 (got 1.5)"),
        ({"sparsity": None}, "sparsity must be at least 0 and below 1 (got None)"),
        ({"sparsity": np.float32(1)}, "sparsity must be at least 0 and below 1 (got 1.0)"),
        ({"block": 4}, "block must be (outputs, inputs), one of (1, 1), (1, 4), (4, 1) (got 4)"),
        ({"block": "1x4"}, "block must be (outputs, inputs), one of (1, 1), (1, 4), (4, 1) (got 1x4)"),
        ({"block": (1, 4.0)}, "block must be (outputs, inputs), one of (1, 1), (1, 4), (4, 1) (got (1, 4.0))"),
        ({"block": (2, 2)}, "block must be (outputs, inputs), one of (1, 1), (1, 4), (4, 1) (got (2, 2))"),
        ({"lengths": np.float32(1.5)}, "lengths must be above 0 and at most 1 (got 1.5)"),
        ({"lengths": (1, 0.5)}, "lengths must be a share, or a dict from numbers of layers to shares (got (1, 0.5))"),
        ({"lengths": {"1": 0.5}}, "lengths must be a share, or a dict from numbers of layers to shares (got {'1': "),
        ({"lengths": {0: "half"}}, "lengths must be shares above 0 and at most 1 that never rise (got [nan, nan])"),
        ({"lengths": 0.1}, "lengths must leave at least 0.30 (got 0.1)"),
        ({"epochs": 1.5}, "epochs must be a whole number (got 1.5)"),
        ({"epochs": "3"}, "epochs must be a whole number (got '3')"),
        ({"seed": -1}, "seed must be at least 0 (got -1)"),
        ({"seed": 2**64}, f"seed must be below 2**64 (got {2**64})"),
        ({"seed": None}, "seed must be a whole number (got None)"),
    ],
    ids=str,
)
def test_what_is_no_such_number_is_refused(tiny_bert, given, words, one_line_error):
    with one_line_error(ValueError, words):
        dials_of(tiny_bert(), **given)


def test_tokens_of_one_layer_are_all_read(tiny_bert, one_line_error):
    with one_line_error(ValueError, "lengths must be 1 for a model of one layer, which reads all tokens (got 0.5)"):
        dials_of(tiny_bert(1), lengths=0.5)
    assert dials_of(tiny_bert(1), lengths=1).lengths == 1.0


def test_dials_are_read_before_any_work(tiny_bert, word_tokenizer, monkeypatch, one_line_error):
    monkeypatch.setattr(compress_module, "encode", None)
    with one_line_error(ValueError, "epochs must be a whole number (got 1.5)"):
        compress(tiny_bert(), TEXTS, tokenizer=word_tokenizer, epochs=1.5)
