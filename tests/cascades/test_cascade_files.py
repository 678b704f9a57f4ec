"""A cascade on disk: the same bits, the same promise; what has no form there is refused."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tier_samples import assert_same_bits, count_words, make_texts

from moco_rt import Cascade, EarlyExitTextClassificationModel, LinearCondition
from moco_rt.cascades.cascade_files import is_cascade
from moco_rt.certification.certificate import Certificate, ExitCount

INF = float("inf")
CERTIFICATE = Certificate(0.013, 0.05, 700, 3, 0.1 / 3, 0.01 / 7, (ExitCount("tier 0 end", 1, 200, 2, 0.031),), 0.9)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def fast(tiny_bert):
    """Rows leave it early."""
    fast = EarlyExitTextClassificationModel(tiny_bert(3, seed=4))
    weight = torch.randn(32, generator=torch.Generator().manual_seed(0)).numpy()
    fast.add_rule(LinearCondition(weight, 0.0, 3.0, 0.01), 1, "encoder.0.attention")
    return fast


@pytest.fixture
def make(fast, tiny_bert, word_tokenizer):
    """`make(thresholds)`: two models and a third, the first with exits."""

    def make(thresholds):
        models = [fast, tiny_bert(2, seed=1), tiny_bert(3, seed=3)]
        return Cascade([(model, word_tokenizer) for model in models], thresholds=thresholds)

    return make


@pytest.mark.parametrize("thresholds", [[0.7, 0.8], [[0.6, 0.9], [INF, 0.7]], [INF, -INF], [INF, INF]], ids=str)
def test_bits_and_thresholds_survive_the_disk(make, thresholds, tmp_path):
    cascade, texts = make(thresholds), make_texts(200)
    cascade.save_pretrained(tmp_path / "new" / "folder")
    loaded = Cascade.from_pretrained(tmp_path / "new" / "folder")
    expected = cascade.predict(texts)
    assert_same_bits(loaded.predict(texts), expected)
    assert len(set(expected.tier.tolist())) > 1
    assert (expected.exit_rule >= 0).any()
    for one, other in zip(loaded.tiers[:-1], cascade.tiers[:-1], strict=True):
        assert torch.equal(one.thresholds, other.thresholds)
    assert loaded.tiers[-1].thresholds is None


def test_all_of_a_tier_survives_the_disk(make, tmp_path):
    cascade, texts = make([0.7, 0.8]), make_texts(100)
    first, second, last = cascade.tiers
    first, second = replace(first, temperature=1 / 3, batch_tokens=2048), replace(second, max_length=9)
    cascade = Cascade.of([first, second, last], None)
    cascade.save_pretrained(tmp_path)
    loaded = Cascade.from_pretrained(tmp_path)
    for name in ("temperature", "batch_tokens", "max_length", "class_names"):
        assert [getattr(tier, name) for tier in loaded.tiers] == [getattr(tier, name) for tier in cascade.tiers]
    assert [after.tokenises_like(loaded.tiers[0]) for after in loaded.tiers] == [True, False, True]
    assert_same_bits(loaded.predict(texts), cascade.predict(texts))


def test_classes_in_another_order_survive_the_disk(tiny_bert, word_tokenizer, tmp_path):
    names = ["sad", "so so", "glad"]
    pairs = [
        (tiny_bert(2, labels=3, seed=seed, id2label={i: names[c] for i, c in enumerate(order)}), word_tokenizer)
        for seed, order in ((1, (2, 0, 1)), (2, (0, 1, 2)))
    ]
    cascade, texts = Cascade(pairs, thresholds=[[0.5, 0.6, 0.7]]), make_texts(100)
    cascade.save_pretrained(tmp_path)
    loaded = Cascade.from_pretrained(tmp_path)
    assert loaded.tiers[0].class_names == ("glad", "sad", "so so")
    assert_same_bits(loaded.predict(texts), cascade.predict(texts))


@pytest.mark.parametrize("certificate", [None, CERTIFICATE], ids=["none", "one"])
def test_the_certificate_survives_the_disk(make, certificate, tmp_path):
    cascade = make([0.7, 0.8])
    cascade.certificate = certificate
    cascade.save_pretrained(tmp_path)
    loaded = Cascade.from_pretrained(tmp_path)
    assert loaded.certificate == certificate
    assert loaded.report() == cascade.report()


def test_a_cascade_can_be_saved_where_one_is(make, tmp_path):
    make([0.7, 0.8]).save_pretrained(tmp_path)
    make([0.6, INF]).save_pretrained(tmp_path)
    assert Cascade.from_pretrained(tmp_path).tiers[0].thresholds.tolist() == pytest.approx([0.6, 0.6])


def test_a_tier_stands_in_a_folder_of_its_own(make, fast, word_tokenizer, tmp_path):
    make([0.7, 0.8]).save_pretrained(tmp_path)
    texts = make_texts(50)
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path / "tier-0")
    found, expected = (model.predict(texts, tokenizer=word_tokenizer) for model in (loaded, fast))
    assert torch.equal(found.probs, expected.probs)


def test_what_a_tokenizer_was_told_survives_the_disk(tiny_bert, word_tokenizer, tmp_path):
    tokenizer = copy.deepcopy(word_tokenizer)
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer.truncation_side = "left"
    cascade = Cascade([(tiny_bert(seed=1), tokenizer), (tiny_bert(seed=2), tokenizer)], thresholds=[0.7], max_length=9)
    cascade.save_pretrained(tmp_path)  # before it has cut any text
    pairs = list(zip(make_texts(50, seed=1), make_texts(50, seed=2), strict=True))
    assert_same_bits(Cascade.from_pretrained(tmp_path).predict(pairs), cascade.predict(pairs))


def test_the_backend_of_a_tier_survives_the_disk(tiny_bert, word_tokenizer, tmp_path):
    slow = EarlyExitTextClassificationModel(tiny_bert(seed=1), backend="reference")
    Cascade([(slow, word_tokenizer), (tiny_bert(seed=2), word_tokenizer)], thresholds=[0.7]).save_pretrained(tmp_path)
    assert [tier.model.backend for tier in Cascade.from_pretrained(tmp_path).tiers] == ["reference", "packed"]


def test_a_cascade_of_version_1_is_still_read(make, tmp_path):
    cascade, texts = make([0.7, 0.8]), make_texts(100)
    cascade.save_pretrained(tmp_path)
    about = json.loads((tmp_path / "cascade.json").read_text())
    for tier in about["tiers"]:
        del tier["made_of"], tier["backend"]
    (tmp_path / "cascade.json").write_text(json.dumps({**about, "version": 1}))
    assert_same_bits(Cascade.from_pretrained(tmp_path).predict(texts), cascade.predict(texts))


def test_a_watched_cascade_is_loaded_whatever_was_done_to_it_since(make, tmp_path):
    cascade = make([0.7, 0.8])
    cascade.certificate = CERTIFICATE
    monitor = cascade.monitor(rate=1.0)
    cascade.predict(make_texts(100))
    assert sum(process.rows for process in monitor.processes) > 0
    cascade.tiers[1].model.add_rule(LinearCondition(np.zeros(32), 1.0, 0.0, 0.1), 1, "embeddings")
    cascade.save_pretrained(tmp_path)
    loaded = Cascade.from_pretrained(tmp_path)
    assert len(loaded.watched_by.ways) == len(monitor.ways) + 1
    assert sum(process.rows for process in loaded.watched_by.processes) == 0  # of other ways nothing is known
    cascade.certificate = None
    cascade.save_pretrained(tmp_path)
    assert Cascade.from_pretrained(tmp_path).watched_by is None


# What is refused


def test_a_tier_that_was_replaced_is_refused(make, tiny_bert, tmp_path, one_line_error):
    make([0.7, 0.8]).save_pretrained(tmp_path)
    EarlyExitTextClassificationModel(tiny_bert(2, seed=9)).save_pretrained(tmp_path / "tier-1")
    with one_line_error(ValueError, f"tier 1 of {tmp_path} was made for a model with another weights: "):
        Cascade.from_pretrained(tmp_path)


def test_a_tier_with_other_ways_out_is_not_certified(make, tmp_path):
    cascade = make([0.7, 0.8])
    cascade.certificate = CERTIFICATE
    cascade.save_pretrained(tmp_path)
    first = EarlyExitTextClassificationModel.from_pretrained(tmp_path / "tier-0")
    first.save_pretrained(tmp_path / "tier-0")
    assert Cascade.from_pretrained(tmp_path).is_certified  # nothing has changed
    first.add_rule(LinearCondition(np.zeros(32), 1.0, 0.0, 0.1), 1, "embeddings")
    first.save_pretrained(tmp_path / "tier-0")
    loaded = Cascade.from_pretrained(tmp_path)
    assert loaded.certificate == CERTIFICATE
    assert not loaded.is_certified
    loaded.save_pretrained(tmp_path)
    assert not Cascade.from_pretrained(tmp_path).is_certified


def test_another_temperature_or_threshold_is_not_certified_and_earlier_files_are_taken_at_their_word(make, tmp_path):
    cascade = make([0.7, 0.8])
    cascade.certificate = CERTIFICATE
    cascade.save_pretrained(tmp_path / "saved")

    def changed(change):
        shutil.copytree(tmp_path / "saved", tmp_path / "changed", dirs_exist_ok=True)
        file = tmp_path / "changed" / "cascade.json"
        about = json.loads(file.read_text(encoding="utf-8"))
        for tier in about["tiers"]:
            change(tier)
        file.write_text(json.dumps(about), encoding="utf-8")
        return Cascade.from_pretrained(tmp_path / "changed")

    assert not changed(lambda tier: tier.update(temperature=2.0)).is_certified
    assert changed(lambda tier: tier.pop("ways_out")).is_certified
    make([0.6, 0.8]).save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "cascade.safetensors", tmp_path / "saved")
    assert not Cascade.from_pretrained(tmp_path / "saved").is_certified


def test_a_tokenizer_that_was_replaced_is_refused(make, word_tokenizer, tmp_path, one_line_error):
    make([0.7, 0.8]).save_pretrained(tmp_path)
    other = copy.deepcopy(word_tokenizer)
    other.add_tokens(["splendid"])
    other.save_pretrained(tmp_path / "tier-2")
    with one_line_error(ValueError, f"tier 2 of {tmp_path} was made for a model with another tokenizer: "):
        Cascade.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"made_of": "cls"}, "must be whole (got "),
        ({"made_of": None}, "must be whole (got "),
        ({"tokenizer": {"backend_tokenizer": None}}, "settings of a tokenizer must be some of "),
    ],
    ids=["made of a string", "made of nothing", "another setting"],
)
def test_a_forged_tier_is_refused(make, tmp_path, one_line_error, change, words):
    make([0.7, 0.8]).save_pretrained(tmp_path)
    about = json.loads((tmp_path / "cascade.json").read_text())
    about["tiers"][1] |= change
    (tmp_path / "cascade.json").write_text(json.dumps(about))
    with one_line_error(ValueError, words):
        Cascade.from_pretrained(tmp_path)


@pytest.mark.parametrize("file", ["cascade.json", "cascade.safetensors"])
def test_a_broken_file_is_refused_by_its_name(make, tmp_path, one_line_error, file):
    make([0.7, 0.8]).save_pretrained(tmp_path)
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:20])
    with one_line_error(ValueError, f"{tmp_path / file} must be a "):
        Cascade.from_pretrained(tmp_path)


@pytest.mark.parametrize("field", ["temperature", "max_length", "tokenizer", "batch_tokens"])
def test_a_field_of_a_tier_that_is_missing_is_named(make, tmp_path, one_line_error, field):
    make([0.7, 0.8]).save_pretrained(tmp_path)
    about = json.loads((tmp_path / "cascade.json").read_text())
    del about["tiers"][1][field]
    (tmp_path / "cascade.json").write_text(json.dumps(about))
    with one_line_error(ValueError, f"{tmp_path / 'cascade.json'} must be whole ({field} is missing)"):
        Cascade.from_pretrained(tmp_path)


def test_a_function_cannot_be_saved(fast, word_tokenizer, tmp_path, one_line_error):
    cascade = Cascade([count_words, (fast, word_tokenizer)], thresholds=[0.9])
    with one_line_error(ValueError, "tier 0 must be a model to be saved (got a function)"):
        cascade.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_rule_without_a_form_on_disk_cannot_be_saved(tiny_bert, word_tokenizer, tmp_path):
    model = EarlyExitTextClassificationModel(tiny_bert())
    model.add_rule(lambda x: x[:, 0] > 0, 1, "embeddings")
    with pytest.raises(ValueError, match=r"to be saved \(got a callable\)"):
        Cascade([(model, word_tokenizer)], thresholds=[]).save_pretrained(tmp_path)
    assert not is_cascade(tmp_path)


def test_where_saving_fails_what_was_there_stays(make, tiny_bert, word_tokenizer, tmp_path):
    before = make([0.7, 0.8])
    before.save_pretrained(tmp_path)
    model = EarlyExitTextClassificationModel(tiny_bert())
    model.add_rule(lambda x: x[:, 0] > 0, 1, "embeddings")
    with pytest.raises(ValueError, match="got a callable"):
        Cascade([(m, word_tokenizer) for m in (tiny_bert(seed=7), model)], thresholds=[0.5]).save_pretrained(tmp_path)
    again = Cascade.from_pretrained(tmp_path)
    assert torch.equal(again.predict(["a good film", "bad"]).probs, before.predict(["a good film", "bad"]).probs)


def test_where_no_cascade_is_there_is_none_to_load(fast, tmp_path, one_line_error):
    fast.save_pretrained(tmp_path / "model")
    for place in (tmp_path / "nowhere", tmp_path, tmp_path / "model"):
        assert not is_cascade(place)
        with one_line_error(ValueError, f"{place} must hold a cascade (cascade.json is missing)"):
            Cascade.from_pretrained(place)


@pytest.mark.parametrize("change", [{"version": 3}, {"version": None}, {"format": "moco_rt policy"}], ids=str)
def test_another_version_is_refused(make, change, tmp_path, one_line_error):
    make([0.7, 0.8]).save_pretrained(tmp_path)
    about = tmp_path / "cascade.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), **change}))
    said = {"format": "moco_rt cascade", "version": 2, **change}
    words = f"must be a moco_rt cascade of version 1 or 2 (got {said['format']!r}, version {said['version']})"
    with one_line_error(ValueError, words):
        Cascade.from_pretrained(tmp_path)


def test_without_a_tier_it_is_not_loaded_nor_looked_for_elsewhere(make, tmp_path, one_line_error):
    make([0.7, 0.8]).save_pretrained(tmp_path)
    shutil.rmtree(tmp_path / "tier-1")
    with one_line_error(ValueError, f"{tmp_path} must hold tier-1 (it is missing)"):
        Cascade.from_pretrained(tmp_path)


def test_without_its_thresholds_it_is_not_loaded(make, tmp_path):
    make([0.7, 0.8]).save_pretrained(tmp_path)
    (tmp_path / "cascade.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"cascade\.safetensors"):
        Cascade.from_pretrained(tmp_path)


def test_a_tier_whose_thresholds_are_missing_is_not_taken_to_be_always_sure(make, tmp_path):
    make([0.7, 0.8]).save_pretrained(tmp_path / "three")
    Cascade([(tier.model, tier.tokenizer) for tier in make([0.7, 0.8]).tiers[1:]], thresholds=[0.5]).save_pretrained(
        tmp_path / "two"
    )
    (tmp_path / "two" / "cascade.safetensors").replace(tmp_path / "three" / "cascade.safetensors")
    with pytest.raises((ValueError, KeyError)):
        Cascade.from_pretrained(tmp_path / "three")
