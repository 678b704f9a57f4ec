"""Models with their policies, on disk and back."""

from __future__ import annotations

import copy
import json
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from parity import make_inputs
from path_samples import with_path
from safetensors.numpy import save_file
from tokenizers import normalizers

from moco_rt import EarlyExitTextClassificationModel, LinearCondition
from moco_rt.certification.certificate import Certificate, ExitCount
from moco_rt.inputs.tokenizer_identity import legacy_tokenizer_fingerprint, tokenizer_fingerprint
from moco_rt.policies import policy_files
from moco_rt.policies.conditions import OffRamp
from moco_rt.policies.findings import SearchReport
from moco_rt.policies.fingerprints import fingerprint, model_identity
from moco_rt.policies.policy import PolicyState
from moco_rt.policies.policy_files import JSON, TENSORS

INPUTS = make_inputs([5, 9, 3, 12, 7, 1, 20, 4] * 3, pairs=True)
HIDDEN, CLASSES = 32, 3
RAMP, RULE = "encoder.0.attention", "encoder.1.output"

backends = pytest.mark.parametrize("backend", ["packed", "reference"])


def off_ramp(hidden=8, seed=1, threshold=0.7):
    rng = np.random.default_rng(seed)
    sizes = [2 * HIDDEN, *([hidden] if hidden else []), CLASSES]
    layers = tuple(
        (rng.normal(0, 0.5, (outputs, inputs)).astype(np.float32), rng.normal(size=outputs).astype(np.float32))
        for inputs, outputs in pairwise(sizes)
    )
    return OffRamp(layers, np.full(CLASSES, threshold), np.full(CLASSES, 0.02), temperature=1.3)


def make_fast(tiny_bert, backend="auto", exits=True, **options):
    model = tiny_bert(layers=3, labels=CLASSES)
    fast = EarlyExitTextClassificationModel(model, backend=backend, **options)
    if exits:
        fast.add_off_ramp(off_ramp(), RAMP)
        weight = np.random.default_rng(0).normal(size=HIDDEN).astype(np.float32)
        fast.add_rule(LinearCondition(weight, 0.1, 1.5, 0.01), 2, RULE)
    return fast


def assert_same_answers(found, expected):
    found, expected = found(**INPUTS), expected(**INPUTS)
    assert torch.equal(found.logits, expected.logits)
    assert found.exit_site.tolist() == expected.exit_site.tolist()
    assert found.exit_rule.tolist() == expected.exit_rule.tolist()


# There and back again


@backends
@pytest.mark.parametrize("exits", [False, True], ids=["no exits", "exits"])
def test_a_model_comes_back_with_the_same_answers(tmp_path, tiny_bert, backend, exits):
    saved = make_fast(tiny_bert, backend, exits)
    saved.save_pretrained(tmp_path)
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path, backend=backend)
    assert loaded.backend == backend
    assert_same_answers(loaded, saved)
    left = set(loaded(**INPUTS).exit_rule.tolist())
    assert left == ({-1, 0, 1} if exits else {-1})


def test_a_name_may_be_a_string(tmp_path, tiny_bert):
    saved = make_fast(tiny_bert)
    saved.save_pretrained(str(tmp_path / "model"))
    assert_same_answers(EarlyExitTextClassificationModel.from_pretrained(str(tmp_path / "model")), saved)


def test_a_converted_model_comes_back_in_its_own_dtype(tmp_path, tiny_bert):
    saved = make_fast(tiny_bert, "reference", dtype=torch.bfloat16)
    saved.save_pretrained(tmp_path)
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path, backend="reference")
    assert loaded.dtype == torch.bfloat16
    assert_same_answers(loaded, saved)


def test_certificate_and_closed_exits_come_back(tmp_path, tiny_bert):
    saved = make_fast(tiny_bert)
    saved.policy.certificate = Certificate(0.01, 0.05, 5000, 3, 2.0, 1.0, (ExitCount(RAMP, 1, 800, 3, 0.01),))
    saved.policy.close([1])
    saved.save_pretrained(tmp_path)
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    assert loaded.policy.certificate == saved.policy.certificate
    assert loaded.policy.closed == {1}
    assert set(loaded(**INPUTS).exit_rule.tolist()) == {-1, 0}


def test_a_saved_model_is_still_a_plain_classifier(tmp_path, tiny_bert):
    saved = make_fast(tiny_bert)
    saved.save_pretrained(tmp_path)
    plain = type(saved.model).from_pretrained(tmp_path).eval()
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, saved.model.state_dict()[name]), name
    assert plain.config.num_labels == CLASSES


def test_a_plain_classifier_has_no_exits(tmp_path, tiny_bert):
    plain = tiny_bert(layers=3, labels=CLASSES)
    plain.save_pretrained(tmp_path)
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    assert (loaded.policy.exits, loaded.policy.certificate) == ((), None)
    assert_same_answers(loaded, EarlyExitTextClassificationModel(plain))
    loaded.add_off_ramp(off_ramp(), RAMP)
    assert 0 in loaded(**INPUTS).exit_rule.tolist()


def test_saving_says_what_the_policy_was_made_for(tmp_path, tiny_bert):
    saved = make_fast(tiny_bert)
    saved.policy.made_for = {"tokenizer": "t", "max_length": 64}
    saved.save_pretrained(tmp_path)
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path).policy.made_for
    assert loaded == {"tokenizer": "t", "max_length": 64, **model_identity(saved.model)}
    assert (loaded["weights"], loaded["dtype"]) == (fingerprint(saved.model), "float32")


def test_a_policy_is_taken_from_elsewhere(tmp_path, tiny_bert):
    saved = make_fast(tiny_bert)
    saved.save_pretrained(tmp_path)
    other = make_fast(tiny_bert, exits=False)
    other.load_policy(tmp_path)
    assert_same_answers(other, saved)


# What is refused


def test_a_policy_of_other_weights_is_refused(tmp_path, tiny_bert, one_line_error):
    saved = make_fast(tiny_bert)
    saved.save_pretrained(tmp_path)
    tuned = copy.deepcopy(saved.model)
    with torch.no_grad():
        tuned.classifier.weight.mul_(1.01)
    tuned.save_pretrained(tmp_path)
    words = f"was made for a model with another weights: {fingerprint(saved.model)} (got {fingerprint(tuned)})"
    with one_line_error(ValueError, words):
        EarlyExitTextClassificationModel.from_pretrained(tmp_path)


def test_a_policy_of_another_dtype_is_refused(tmp_path, tiny_bert):
    make_fast(tiny_bert).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"was made for a model with another (weights|dtype)"):
        EarlyExitTextClassificationModel.from_pretrained(tmp_path, dtype=torch.bfloat16, backend="reference")


def test_a_policy_of_another_dtype_is_refused_for_its_dtype(tmp_path, tiny_bert):
    make_fast(tiny_bert).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"was made for a model with another dtype: float32 \(got bfloat16\)$"):
        EarlyExitTextClassificationModel.from_pretrained(tmp_path, dtype=torch.bfloat16, backend="reference")


@pytest.mark.parametrize(
    ("config", "what"),
    [({"layers": 2}, "sites"), ({"labels": 2}, "num_classes"), ({"hidden": 64}, "hidden_size")],
    ids=str,
)
def test_a_policy_of_a_model_of_another_shape_is_refused(tmp_path, tiny_bert, config, what):
    make_fast(tiny_bert).save_pretrained(tmp_path)
    other = EarlyExitTextClassificationModel(tiny_bert(**{"layers": 3, "labels": CLASSES, **config}))
    with pytest.raises(ValueError, match=rf"^{tmp_path / JSON} must be of a model with {what} "):
        other.load_policy(tmp_path)
    assert other.policy.exits == ()


def test_a_plain_callable_is_refused(tmp_path, tiny_bert, one_line_error):
    fast = make_fast(tiny_bert)
    fast.add_rule(lambda cls: cls[:, 0] > 0, 0, RULE)
    with one_line_error(ValueError, f"the condition at {RULE} must be a LinearCondition or an OffRamp to be saved"):
        fast.save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []


# What a monitor has seen


def test_a_monitor_goes_on_where_it_was(tmp_path, tiny_bert):
    saved = make_fast(tiny_bert)
    monitor = saved.monitor(rate=0.5, seed=3)
    monitor.record_checks(np.array([0] * 9 + [1] * 4), np.zeros(13, bool))
    saved.save_pretrained(tmp_path)
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    again = tmp_path / "again"
    loaded.save_pretrained(again)
    state = json.loads((again / "monitor.json").read_text())
    assert state == monitor.state()
    del state["identity"]
    assert state == {"rate": 0.5, "delta": 0.05, "step": None, "rows": [9, 4], "wrong": [0, 0]}


def test_a_loaded_monitor_draws_other_rows_each_time(tmp_path, tiny_bert):
    saved = make_fast(tiny_bert)
    saved.monitor(rate=0.1, seed=0)
    saved.save_pretrained(tmp_path)
    loaded = [EarlyExitTextClassificationModel.from_pretrained(tmp_path)._monitor for _ in range(2)]
    drawn = [monitor.sample_rows(np.zeros(1000, int)).tolist() for monitor in loaded]
    assert drawn[0] != drawn[1]


def test_an_alarm_while_a_model_is_saved_leaves_policy_and_counts_of_one_moment(tmp_path, tiny_bert, monkeypatch):
    fast = with_path(EarlyExitTextClassificationModel(tiny_bert(2, labels=CLASSES)))
    fast.policy.take_step(4)
    monitor = fast.monitor(rate=1)
    monitor.record_checks(np.zeros(10, int), np.zeros(10, bool), 4)

    def slowly(tensors, file):
        monitor.record_checks(np.zeros(500, int), np.ones(500, bool), 4)
        save_file(tensors, file)

    monkeypatch.setattr(policy_files, "save_file", slowly)
    fast.save_pretrained(tmp_path)
    assert fast.policy.step < 4
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    state = loaded._monitor.state()
    assert (loaded.policy.step, state["step"], state["rows"][0], state["wrong"][0]) == (4, 4, 10, 0)


def test_a_monitor_of_a_policy_that_has_no_exits_left_is_not_saved(tmp_path, tiny_bert):
    saved = make_fast(tiny_bert)
    saved.monitor(rate=0.5)
    saved.policy.state = PolicyState()
    saved.save_pretrained(tmp_path)
    assert EarlyExitTextClassificationModel.from_pretrained(tmp_path)._monitor is None


def test_a_loaded_model_goes_on_watching_and_closes_exits(tmp_path, tiny_bert):
    saved = make_fast(tiny_bert, exits=False)
    full = saved(**INPUTS).logits.argmax(dim=1)
    rarest = int(full.bincount(minlength=CLASSES).argmin())
    bias = np.eye(CLASSES, dtype=np.float32)[rarest]
    always = OffRamp(
        ((np.zeros((CLASSES, 2 * HIDDEN)), bias),), np.full(CLASSES, -np.inf), np.full(CLASSES, 0.01)
    )  # fmt: skip
    saved.add_off_ramp(always, RAMP)
    saved.monitor(rate=1)
    saved.save_pretrained(tmp_path)
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    assert (loaded(**INPUTS).exit_rule == 0).all()
    assert loaded.policy.closed == {0}
    assert (loaded(**INPUTS).exit_rule == -1).all()
    # What was found out is saved with it.
    loaded.save_pretrained(tmp_path / "again")
    assert EarlyExitTextClassificationModel.from_pretrained(tmp_path / "again").policy.closed == {0}


def test_without_a_monitor_none_is_saved(tmp_path, tiny_bert):
    make_fast(tiny_bert).save_pretrained(tmp_path)
    assert {JSON, TENSORS, "config.json", "model.safetensors"} <= {file.name for file in tmp_path.iterdir()}
    assert not (tmp_path / "monitor.json").exists()
    assert EarlyExitTextClassificationModel.from_pretrained(tmp_path)._monitor is None


def test_the_monitor_of_an_older_model_does_not_outlive_it(tmp_path, tiny_bert):
    older = make_fast(tiny_bert)
    older.monitor(rate=1).record_checks(np.zeros(500, int), np.zeros(500, bool))
    older.save_pretrained(tmp_path)
    make_fast(tiny_bert).save_pretrained(tmp_path)
    assert EarlyExitTextClassificationModel.from_pretrained(tmp_path)._monitor is None


def test_where_there_is_no_policy_the_model_keeps_its_own(tmp_path, tiny_bert):
    fast = make_fast(tiny_bert)
    fast.model.save_pretrained(tmp_path)
    fast.load_policy(tmp_path)
    assert len(fast.policy.exits) == 2


def test_a_certificate_does_not_pass_to_weights_that_were_loaded_since(tmp_path, tiny_bert):
    fast = make_fast(tiny_bert)
    fast.policy.certificate = Certificate(0.01, 0.05, 5000, 3, 2.0, 1.0, ())
    fast.save_pretrained(tmp_path)
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    loaded.model.load_state_dict(tiny_bert(layers=3, labels=CLASSES, seed=1).state_dict())
    with pytest.raises(ValueError, match="weights"):
        loaded.save_pretrained(tmp_path / "tuned")


# The tokenizer


def test_a_model_comes_back_with_its_tokenizer(tmp_path, tiny_bert, word_tokenizer):
    tokenizer = copy.deepcopy(word_tokenizer)
    tokenizer.truncation_side = "left"
    saved = make_fast(tiny_bert)
    saved.tokenizer = tokenizer
    saved.policy.made_for["tokenizer"] = tokenizer_fingerprint(tokenizer)
    saved.save_pretrained(tmp_path)
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    texts = ["good film " * 40, "bad"]
    assert torch.equal(loaded.predict(texts).probs, saved.predict(texts).probs)
    assert tokenizer_fingerprint(loaded.tokenizer) == tokenizer_fingerprint(tokenizer)


def test_another_tokenizer_than_the_policys_is_refused(tiny_bert, word_tokenizer, one_line_error):
    fast = make_fast(tiny_bert)
    fast.tokenizer = word_tokenizer
    fast.policy.made_for["tokenizer"] = tokenizer_fingerprint(word_tokenizer)
    other = copy.deepcopy(word_tokenizer)
    other.backend_tokenizer.normalizer = normalizers.Lowercase()
    for tokenizer in (None, word_tokenizer):
        fast.predict(["good"], tokenizer=tokenizer)
    with one_line_error(ValueError, "tokenizer must be the one that the policy was found with"):
        fast.predict(["good"], tokenizer=other)


def test_the_fingerprint_in_an_older_policy_still_counts(tiny_bert, word_tokenizer, one_line_error):
    fast = make_fast(tiny_bert)
    fast.policy.made_for["tokenizer"] = legacy_tokenizer_fingerprint(word_tokenizer)
    fast.predict(["good"], tokenizer=word_tokenizer)
    other = copy.deepcopy(word_tokenizer)
    other.add_tokens(["plot"])
    with one_line_error(ValueError, "tokenizer must be the one that the policy was found with"):
        fast.predict(["good"], tokenizer=other)


def test_without_tokenizer_files_a_model_carries_none(tmp_path, tiny_bert):
    make_fast(tiny_bert).save_pretrained(tmp_path)
    assert EarlyExitTextClassificationModel.from_pretrained(tmp_path).tokenizer is None


@pytest.mark.parametrize("older", [{"cls_token": "[SEP]"}, {"unk_token": "<unk>", "cls_token": "<s>"}], ids=str)
def test_files_of_an_older_tokenizer_go_where_a_model_brings_its_own(tmp_path, tiny_bert, word_tokenizer, older):
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(older))
    for name in ("added_tokens.json", "vocab.json", "preprocessor_config.json"):
        (tmp_path / name).write_text("{}")
    theirs = {"pytorch_model.bin", "notes.txt", "vocab.csv", "tokenizer.notes.json", "chat_template_notes.md"}
    for name in ("merges.txt", "tokenizer.model", *theirs):
        (tmp_path / name).write_text("older")
    saved = make_fast(tiny_bert)
    saved.tokenizer = word_tokenizer
    saved.policy.made_for["tokenizer"] = tokenizer_fingerprint(word_tokenizer)
    saved.save_pretrained(tmp_path)
    expected = {JSON, TENSORS, "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in tmp_path.iterdir()} == {*expected, *theirs}
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    texts = ["good film", "bad"]
    assert torch.equal(loaded.predict(texts).probs, saved.predict(texts).probs)


def test_nothing_is_saved_beside_an_adapter(tmp_path, tiny_bert, one_line_error):
    """It may be the only one there is, and would be put into the model."""
    (tmp_path / "adapter_config.json").write_text("{}")
    with one_line_error(
        ValueError, "must hold no adapter, which would be put into the model (got adapter_config.json)"
    ):
        make_fast(tiny_bert).save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter_config.json"]


def test_a_tokenizer_that_its_owner_has_saved_stays_where_a_model_brings_none(tmp_path, tiny_bert, word_tokenizer):
    word_tokenizer.save_pretrained(tmp_path)
    make_fast(tiny_bert).save_pretrained(tmp_path)
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    assert tokenizer_fingerprint(loaded.tokenizer) == tokenizer_fingerprint(word_tokenizer)


def test_a_model_keeps_its_tokenizer_in_a_pickle(tiny_bert, word_tokenizer):
    fast = make_fast(tiny_bert)
    fast.tokenizer = word_tokenizer
    again = pickle.loads(pickle.dumps(fast))
    assert torch.equal(again.predict(["good film"]).probs, fast.predict(["good film"]).probs)


# Saving where a model was loaded from


def report():
    rows = np.arange(4)
    return SearchReport(
        sites=[RAMP],
        class_names=list("abc"),
        seconds_full=2.0,
        paths={"search": np.array([[2.0, 0.0], [1.0, 0.01]])},
        chosen=np.array([1.0, 0.01]),
        alpha=0.01,
        exits=rows % 2,
        lengths=rows,
        labels=rows % 3,
        predicted=rows[None],
        scores=rows[None].astype(np.float32),
        sample=np.ones((2, 3), np.float32),
        variants={"as given": [2.0, 0.0], "int8": [1.5, 0.01]},
    )


def test_what_was_loaded_may_be_saved_where_it_came_from(tmp_path, tiny_bert):
    saved = make_fast(tiny_bert)
    saved.search_report = report()
    saved.monitor(rate=0.25, delta=0.01).record_checks(np.array([0, 1, 1]), np.zeros(3, bool))
    saved.save_pretrained(tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {"findings.safetensors", "monitor.json", JSON, TENSORS} <= set(files)
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)  # may map the file with the weights
    for _ in range(2):
        loaded.save_pretrained(tmp_path)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
        assert torch.equal(loaded.run({}, **INPUTS).logits, saved.run({}, **INPUTS).logits)
        loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    assert json.loads(files["monitor.json"])["delta"] == 0.01


def test_a_save_that_fails_leaves_what_was_there(tmp_path, tiny_bert):
    make_fast(tiny_bert).save_pretrained(tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = make_fast(tiny_bert, exits=False)
    other.add_rule(lambda cls: cls[:, 0] > 0, 0, RULE)
    with pytest.raises(ValueError, match="to be saved"):
        other.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_a_model_in_several_files_is_loaded_and_becomes_one_file(tmp_path, tiny_bert):
    saved = make_fast(tiny_bert)
    saved.save_pretrained(tmp_path)
    saved.model.save_pretrained(tmp_path, max_shard_size="20kB")
    (tmp_path / "model.safetensors").unlink(missing_ok=True)
    (tmp_path / "notes.txt").write_text("mine")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    assert_same_answers(loaded, saved)
    loaded.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.glob("model*")] == ["model.safetensors"]
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert_same_answers(EarlyExitTextClassificationModel.from_pretrained(tmp_path), saved)


@pytest.mark.parametrize("names", [{1: "a", 2: "b"}, {0: "a", 2: "b"}, {"0": "a", "3": "b"}, {-1: "a", 0: "b"}])
def test_classes_that_are_not_named_from_0_on_are_refused(tmp_path, tiny_bert, one_line_error, names):
    model = tiny_bert(labels=2)
    model.config.id2label = {int(number): name for number, name in names.items()}
    words = f"config.id2label must name the classes 0 to 1 (got names of {', '.join(str(int(n)) for n in names)})"
    with one_line_error(ValueError, words):
        EarlyExitTextClassificationModel(model)
    tiny_bert(labels=2).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "id2label": {str(n): c for n, c in names.items()}}))
    with one_line_error(ValueError, words):
        EarlyExitTextClassificationModel.from_pretrained(tmp_path)


# Float16, and several dtypes in one model


@pytest.mark.parametrize("asked", [None, "float16", torch.float16, "float32"])
def test_a_checkpoint_in_float16_is_computed_in_float32_on_a_cpu(tmp_path, tiny_bert, caplog, asked):
    model = tiny_bert(layers=3, labels=CLASSES)
    model.half().save_pretrained(tmp_path)
    fast = EarlyExitTextClassificationModel.from_pretrained(tmp_path, dtype=asked)
    assert (fast.backend, fast.dtype) == ("packed", torch.float32)
    words = [] if asked == "float32" else ["dtype: float32, because float16 is slow on a CPU"]
    assert caplog.messages == words
    with torch.no_grad():
        torch.testing.assert_close(fast(**INPUTS).logits, model.float()(**INPUTS).logits, atol=1e-4, rtol=0)


def test_a_model_made_float16_on_a_cpu_goes_on_in_float32(tiny_bert, caplog):
    fast = make_fast(tiny_bert)
    before = fast(**INPUTS)
    fast.half()
    assert (fast.backend, fast.dtype) == ("packed", torch.float32)
    assert "float16 is slow on a CPU" in caplog.text
    torch.testing.assert_close(fast(**INPUTS).logits, before.logits, atol=0.05, rtol=0)


def test_a_model_in_several_dtypes_is_computed_in_float32(tiny_bert, caplog, packed_dtype):
    model = tiny_bert(layers=3, labels=CLASSES).to(packed_dtype)
    model.classifier.float()
    model.bert.pooler.bfloat16()
    fast = EarlyExitTextClassificationModel(model)
    assert (fast.backend, fast.dtype) == ("packed", torch.float32)
    assert caplog.messages == ["dtype: float32, because the model's weights are in several dtypes (bfloat16, float32)"]
    assert EarlyExitTextClassificationModel(model, dtype="bfloat16").dtype == torch.bfloat16
    with torch.no_grad():
        torch.testing.assert_close(fast(**INPUTS).logits, model.float()(**INPUTS).logits, atol=1e-4, rtol=0)


def test_a_copy_in_another_dtype_is_refused_where_a_forward_was_replaced(tiny_bert, one_line_error):
    model = tiny_bert()
    model.classifier.forward = lambda pooled: pooled[:, :2]
    words = "must be the model's own where a forward was replaced (got bfloat16, and another forward of classifier)"
    with one_line_error(ValueError, words):
        EarlyExitTextClassificationModel(model, dtype="bfloat16")
