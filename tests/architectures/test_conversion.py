"""Classifiers in int8: made, run, saved, loaded, and what is refused."""

from __future__ import annotations

import copy
import json
import warnings

import pytest
import torch
from instruction_sets import check_same_everywhere, run_python
from parity import make_inputs
from transformers import (
    AutoModelForSequenceClassification,
    DistilBertForSequenceClassification,
    ElectraForSequenceClassification,
    RobertaForSequenceClassification,
)

from moco_rt import EarlyExitTextClassificationModel, capture
from moco_rt._C import PackedBatch, can_multiply
from moco_rt.architectures import architecture_of
from moco_rt.architectures.conversion import int8_copy, to_dtype
from moco_rt.quantization.hf_quantizer import is_int8
from moco_rt.quantization.int8_linear import Int8Linear

LENGTHS = [9, 1, 17, 33, 4, 60]
FAMILIES = [ElectraForSequenceClassification, RobertaForSequenceClassification, DistilBertForSequenceClassification]


@pytest.fixture(scope="module")
def inputs():
    return make_inputs(LENGTHS)


@pytest.fixture(scope="module")
def model(tiny_bert):
    return tiny_bert(2, 64, 4, labels=3, initializer_range=0.1)


@pytest.fixture(scope="module")
def int8(model):
    """It, in int8."""
    return int8_copy(model)


def int8_layers(model):
    return [name for name, module in model.named_modules() if isinstance(module, Int8Linear)]


def test_linear_layers_inside_the_encoders_layers_become_int8_and_nothing_else(model, int8):
    names = int8_layers(int8)
    assert len(names) == 12
    assert all(name.startswith("bert.encoder.layer.") for name in names)
    assert not int8_layers(model)
    assert (is_int8(model), is_int8(int8)) == (False, True)
    assert (model.dtype, int8.dtype) == (torch.float32, torch.float32)


def test_layers_that_are_kept_stay_in_float32(model):
    kept = "bert.encoder.layer.1.output.dense"
    names = int8_layers(int8_copy(model, keep=[kept]))
    assert len(names) == 11
    assert kept not in names


@torch.no_grad()
@pytest.mark.parametrize("model_class", [None, *FAMILIES])
def test_every_family_answers_nearly_as_in_float32(tiny_classifier, model, model_class, inputs):
    if model_class is not None:
        model = tiny_classifier(model_class, num_hidden_layers=2, initializer_range=0.05)
    fast = EarlyExitTextClassificationModel(model, backend="packed", dtype="int8")
    assert (fast.backend, fast.dtype) == ("packed", torch.float32)
    difference = (fast(**inputs).logits.float() - model(**inputs).logits).abs().max()
    assert 0 < difference < 0.2  # of logits around 1, with random weights that nothing smoothes


@torch.no_grad()
def test_layers_left_in_float32_run_beside_those_in_int8(model, inputs):
    everything = [name for linears in architecture_of(model).linear_groups() for name in linears]
    expected = EarlyExitTextClassificationModel(model)(**inputs).logits
    assert torch.equal(EarlyExitTextClassificationModel(int8_copy(model, keep=everything))(**inputs).logits, expected)
    for linears in architecture_of(model).linear_groups():
        kept = EarlyExitTextClassificationModel(int8_copy(model, keep=list(linears)), backend="packed")
        assert 0 < (kept(**inputs).logits - expected).abs().max() < 0.2


@torch.no_grad()
def test_it_survives_the_disk_bit_by_bit(int8, inputs, tmp_path):
    fast = EarlyExitTextClassificationModel(int8)
    fast.save_pretrained(tmp_path)
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    assert loaded.backend == "packed"
    assert torch.equal(loaded(**inputs).logits, fast(**inputs).logits)
    for (name, own), (other, theirs) in zip(int8.state_dict().items(), loaded.model.state_dict().items(), strict=True):
        assert name == other
        assert own.dtype == theirs.dtype
        assert torch.equal(own, theirs)


@pytest.mark.parametrize("dtype", [None, "auto", torch.float32])
def test_transformers_loads_it_as_it_was_saved(int8, tmp_path, dtype):
    int8.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=dtype)
    assert int8_layers(loaded) == int8_layers(int8)
    for own, theirs in zip(int8.state_dict().values(), loaded.state_dict().values(), strict=True):
        assert torch.equal(own, theirs)


def test_on_disk_it_takes_a_byte_a_weight(tiny_bert, tmp_path):
    model = tiny_bert(2, 128, 4)
    sizes = {}
    for name, saved in (("float32", model), ("int8", int8_copy(model))):
        saved.save_pretrained(tmp_path / name)
        sizes[name] = (tmp_path / name / "model.safetensors").stat().st_size
    layers = [linear for group in architecture_of(model).linear_groups() for linear in group.values()]
    weights = sum(linear.weight.numel() for linear in layers)
    scales = sum(4 * (linear.in_features + linear.out_features) for linear in layers)
    assert sizes["int8"] <= sizes["float32"] - 3 * weights + scales + 4096  # of names


@torch.no_grad()
def test_the_kernels_read_the_models_own_weights(int8, inputs):
    model = copy.deepcopy(int8)
    fast = EarlyExitTextClassificationModel(model)
    before = fast(**inputs).logits  # by now everything is packed
    for name in ("attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense"):
        weight = model.get_submodule(f"bert.encoder.layer.0.{name}").weight
        kept = weight.clone()
        weight.zero_()
        assert not torch.equal(fast(**inputs).logits, before)
        weight.copy_(kept)
        assert torch.equal(fast(**inputs).logits, before)


def test_a_model_in_int8_stays_in_int8(int8, one_line_error):
    assert to_dtype(int8, None) is int8
    assert to_dtype(int8, "int8") is int8
    with one_line_error(ValueError, "dtype must be int8, as the model's weights are (got torch.float32)"):
        EarlyExitTextClassificationModel(int8, dtype=torch.float32)


def test_a_policy_knows_that_it_is_of_int8(model, int8, tmp_path, one_line_error):
    fast = EarlyExitTextClassificationModel(int8)
    fast.save_pretrained(tmp_path)
    assert fast.policy.made_for["dtype"] == "int8"
    with one_line_error(ValueError, "was made for a model with another"):
        EarlyExitTextClassificationModel(model).load_policy(tmp_path)


@pytest.mark.skipif(not can_multiply(torch.bfloat16), reason="the processor does not multiply bfloat16")
def test_a_policy_for_one_numeric_form_of_int8_is_refused_for_the_other(int8, inputs, tmp_path, one_line_error):
    fast = EarlyExitTextClassificationModel(copy.deepcopy(int8).to(torch.bfloat16))
    assert fast(**inputs).logits.dtype == torch.bfloat16
    fast.save_pretrained(tmp_path)
    assert fast.policy.made_for["dtype"] == "int8+bfloat16"
    with one_line_error(ValueError, "was made for a model with another dtype"):
        EarlyExitTextClassificationModel(int8).load_policy(tmp_path)


def test_where_bytes_cannot_be_multiplied_nothing_slower_runs(model, monkeypatch, one_line_error):
    def refuse(*_):
        raise ValueError("no VNNI")

    fast = EarlyExitTextClassificationModel(model)
    monkeypatch.setattr(type(fast._backend.architecture), "encoder", refuse)
    with one_line_error(ValueError, "no VNNI"):
        EarlyExitTextClassificationModel(model, dtype="int8")


def test_what_was_loaded_is_saved_again(int8, tmp_path):
    int8.save_pretrained(tmp_path / "once")
    EarlyExitTextClassificationModel.from_pretrained(tmp_path / "once").save_pretrained(tmp_path / "twice")
    twice = EarlyExitTextClassificationModel.from_pretrained(tmp_path / "twice").model
    for own, theirs in zip(int8.state_dict().values(), twice.state_dict().values(), strict=True):
        assert torch.equal(own, theirs)


def test_weights_of_another_form_are_refused(int8, tmp_path, one_line_error):
    int8.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["version"] += 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    with one_line_error(ValueError, "int8 weights must be of version 2 (got 3): quantize the model anew"):
        EarlyExitTextClassificationModel.from_pretrained(tmp_path)


def test_without_this_package_it_is_not_loaded_as_if_it_were_in_floats(int8, tmp_path):
    int8.save_pretrained(tmp_path)
    code = f"from transformers import AutoModelForSequenceClassification as A; A.from_pretrained({str(tmp_path)!r})"
    assert run_python("import moco_rt.quantization; " + code).returncode == 0
    assert run_python(code).returncode != 0


LOGITS = """
import hashlib, sys, torch, moco_rt
fast = moco_rt.EarlyExitTextClassificationModel.from_pretrained(sys.argv[1])
ids = torch.arange(1, 91).view(6, 15)
logits = fast(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
print(hashlib.sha256(logits.numpy().tobytes()).hexdigest())
"""


def test_a_saved_model_gives_the_same_bits_on_every_processor_since_avx2(int8, tmp_path):
    int8.save_pretrained(tmp_path)
    check_same_everywhere(LOGITS, str(tmp_path))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_shows_in_its_token_and_in_no_other_row(int8, packed_dtype, value):
    encoder = architecture_of(int8).encoder(packed_dtype)
    batch = PackedBatch(make_inputs([3, 40, 5])["attention_mask"])
    hidden = torch.randn(3, 40, 64, dtype=packed_dtype)
    hidden[1, 7, 9] = value
    batch.unpad(hidden)
    encoder.feed_forward(0, batch)
    assert batch.hidden.isnan().any(1).nonzero().tolist() == [[3 + 7]]
    encoder.attention(1, batch)
    assert batch.hidden.isnan().any(1).tolist() == [False] * 3 + [True] * 40 + [False] * 5


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (["query"], "layers that read the same tokens must all be int8 with the same smooth, or none of them"),
        (["key", "value"], "layers that read the same tokens must all be int8 with the same smooth, or none of them"),
    ],
)
def test_layers_that_share_their_input_are_quantised_together(model, one_line_error, keep, words):
    names = [f"bert.encoder.layer.0.attention.self.{name}" for name in keep]
    with one_line_error(ValueError, words):
        EarlyExitTextClassificationModel(int8_copy(model, keep=names))


@pytest.mark.parametrize("dtype", ["float", "int4", 8])
def test_other_dtypes_are_refused(model, one_line_error, dtype):
    words = f"dtype must be a torch.dtype or one of int8, float32, bfloat16, float16 (got {dtype!r})"
    with one_line_error(TypeError, words):
        EarlyExitTextClassificationModel(model, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.int8, torch.long, torch.bool, torch.complex64], ids=str)
def test_dtypes_that_are_no_floating_point_are_refused(model, one_line_error, dtype):
    with one_line_error(TypeError, f'dtype must be floating point, or "int8" by its name (got {dtype})'):
        EarlyExitTextClassificationModel(model, dtype=dtype)


@torch.no_grad()
def test_the_reference_backend_says_what_the_packed_one_must(int8, inputs):
    packed = EarlyExitTextClassificationModel(int8, backend="packed")
    reference = EarlyExitTextClassificationModel(int8, backend="reference")
    assert reference.backend == "reference"
    torch.testing.assert_close(packed(**inputs).logits, reference(**inputs).logits, atol=0.1, rtol=0)


def test_capture_says_that_it_is_slow(int8, word_tokenizer, caplog):
    frame = capture(int8, word_tokenizer, ["a good film", "the bad film"], sites="encoder.0.attention")
    assert len(frame) == 2
    assert "capture runs the model's own modules" in caplog.text


def test_a_model_can_be_copied(int8, inputs):
    fast = EarlyExitTextClassificationModel(int8)
    assert torch.equal(copy.deepcopy(fast)(**inputs).logits, fast(**inputs).logits)


def test_an_untrained_head_is_warned_of_once(tiny_bert):
    model = tiny_bert()
    torch.nn.init.zeros_(model.classifier.bias)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        EarlyExitTextClassificationModel(model, dtype="int8")
    assert len({str(warning.message) for warning in caught}) == 1
