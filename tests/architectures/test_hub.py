"""Models by name: found in a folder, on a hub that is made up here, or refused at once in one line."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import errors
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification

from moco_rt import EarlyExitTextClassificationModel
from moco_rt.architectures import Source, find_file, find_source, find_tokenizer, hub
from moco_rt.architectures.hub import load_model
from moco_rt.architectures.image_processors import find_image_processor


@pytest.fixture
def answer(monkeypatch):
    """`answer(error)`: the hub answers so when it is asked for a model; returns what it was asked."""

    def make(error=None):
        asked = []

        def ask(url, **options):
            asked.append((url, options))
            if error is not None:
                raise error

        monkeypatch.setattr(hub, "get_hf_file_metadata", ask)
        return asked

    return make


def http(kind):
    return kind("two\nlines", response=SimpleNamespace(headers={}, request=None, status_code=404))


def test_a_folder_is_found_without_asking_anybody(answer, tmp_path):
    asked = answer(OSError("no network"))
    source = Source(str(tmp_path), revision="main")
    assert find_source(source) is source
    assert asked == []


def test_a_folder_is_found_again_from_another_folder(tiny_bert, tmp_path, monkeypatch):
    tiny_bert(1).save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    source = find_source(Source("model"))
    loaded = load_model(source)
    monkeypatch.chdir("/")
    assert find_file(source, "config.json") == tmp_path / "model" / "config.json"
    assert loaded.name_or_path == str(tmp_path / "model")


def test_the_revision_and_the_token_are_handed_on(answer, monkeypatch):
    asked = answer()
    downloaded = []

    def download(name, file, **options):
        downloaded.append((name, file, options))
        raise errors.LocalEntryNotFoundError("none")

    monkeypatch.setattr(hub, "hf_hub_download", download)
    source = find_source(Source("some/model", revision="abc", token="secret"))
    ((url, options),) = asked
    assert "/some/model/resolve/abc/config.json" in url
    assert options["token"] == "secret"
    assert find_file(source, "policy.json") is None
    options = {"revision": "abc", "token": "secret", "local_files_only": False, "subfolder": ""}
    assert downloaded == [("some/model", "policy.json", options)]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (lambda: http(RepositoryNotFoundError), "(no folder some/model, and not on the hub)"),
        (lambda: http(GatedRepoError), "some/model is gated: ask for access on its page, then give token= or log in"),
        (lambda: http(RevisionNotFoundError), "revision must be one of some/model (got 'abc')"),
        (lambda: EntryNotFoundError("none"), "some/model must hold config.json (the hub has none)"),
        (lambda: ConnectionError("no\nnetwork"), "(no folder some/model, not downloaded before, hub not reached)"),
        (lambda: RuntimeError("no network"), "(no folder some/model, not downloaded before, hub not reached)"),
    ],
    ids=["unknown", "gated", "revision", "no model", "offline", "no network"],
)
def test_what_the_hub_does_not_give_is_said_in_one_line(answer, one_line_error, error, words):
    asked = answer(error())
    with one_line_error(OSError, words):
        EarlyExitTextClassificationModel.from_pretrained("some/model", revision="abc")
    assert len(asked) == 1


def test_without_network_what_was_downloaded_before_will_do(answer, monkeypatch):
    answer(ConnectionError("no network"))
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_, **__: "/cache/config.json")
    assert find_source(Source("some/model")).local_files_only


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (lambda: EntryNotFoundError("none"), "some/model must hold policy.json (the hub has none)"),
        (lambda: ConnectionError("no network"), "(no folder some/model, not downloaded before, hub not reached)"),
    ],
    ids=["no policy", "offline"],
)
def test_a_policy_that_is_not_there_is_refused_in_one_line(answer, one_line_error, tiny_bert, error, words):
    asked = answer(error())
    with one_line_error(OSError, words):
        EarlyExitTextClassificationModel(tiny_bert(2)).load_policy("some/model")
    ((url, _),) = asked
    assert "/some/model/resolve/main/policy.json" in url


def test_local_files_only_asks_nobody(answer, one_line_error):
    asked = answer()
    with one_line_error(OSError, "(no folder some/model, not downloaded before"):
        EarlyExitTextClassificationModel.from_pretrained("some/model", local_files_only=True)
    assert asked == []


@pytest.mark.parametrize("name", ["a/b/c", "../nowhere", "no such folder"])
def test_names_that_cannot_be_on_the_hub_are_refused(one_line_error, name):
    with one_line_error(OSError, f"(no folder {name}, and not on the hub)"):
        EarlyExitTextClassificationModel.from_pretrained(name)


def save_in_one_file(weights, file, kind):
    if kind == "safetensors":
        save_file({name: weight.contiguous() for name, weight in weights.items()}, file, metadata={"format": "pt"})
    else:
        torch.save(weights, file)


def save_weights(weights, folder, kind, parts):
    """As transformers names files of weights: one, or several with an index."""
    stem, ending = {"safetensors": ("model", "safetensors"), "pickled": ("pytorch_model", "bin")}[kind]
    if parts == 1:
        save_in_one_file(weights, folder / f"{stem}.{ending}", kind)
        return
    names = sorted(weights)
    files = [f"{stem}-{part + 1:05}-of-{parts:05}.{ending}" for part in range(parts)]
    for part, file in enumerate(files):
        save_in_one_file({name: weights[name] for name in names[part::parts]}, folder / file, kind)
    places = {name: files[place % parts] for place, name in enumerate(names)}
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


@pytest.fixture
def trained_for_int8():
    """A model, and its weights as SparseML saves them."""
    model = BertForSequenceClassification(
        BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=99)
    ).eval()
    weights = {}
    for name, weight in model.state_dict().items():
        stem, _, leaf = name.rpartition(".")
        if ".encoder." in name and "LayerNorm" not in name:
            weights[f"{stem}.module.{leaf}"] = weight
            weights[f"{stem}.module.weight_fake_quant.scale"] = torch.ones(1)
            weights[f"{stem}.quant.activation_post_process.zero_point"] = torch.zeros(1, dtype=torch.int32)
        else:
            weights[name] = weight
    return model, weights


def assert_same_weights(found, expected):
    for name, weight in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], weight, rtol=0, atol=0)


@pytest.mark.parametrize("parts", [1, 2], ids=["one file", "several files"])
@pytest.mark.parametrize("kind", ["safetensors", "pickled"])
def test_weights_that_sparseml_trained_for_int8_are_read_by_their_plain_names(tmp_path, trained_for_int8, kind, parts):
    """Its linear layers are wrapped; beside each weight lie the scales by which training imitated int8."""
    given, weights = trained_for_int8
    given.config.save_pretrained(tmp_path)
    save_weights(weights, tmp_path, kind, parts)
    loaded = load_model(str(tmp_path))
    assert loaded.name_or_path == str(tmp_path)
    assert_same_weights(loaded, given)
    loaded.save_pretrained(tmp_path / "again")
    zeros = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    torch.save(zeros, tmp_path / "again" / "pytorch_model.bin")  # which transformers would not read either
    assert_same_weights(load_model(str(tmp_path / "again")), given)


def test_of_two_files_of_weights_that_sparseml_trained_the_one_is_read_that_transformers_reads(
    tmp_path, trained_for_int8
):
    given, weights = trained_for_int8
    given.config.save_pretrained(tmp_path)
    save_weights(weights, tmp_path, "safetensors", 1)
    save_weights({name: torch.zeros_like(weight) for name, weight in weights.items()}, tmp_path, "pickled", 1)
    assert_same_weights(load_model(str(tmp_path)), given)


def test_weights_that_sparseml_trained_under_a_name_that_is_not_known_are_refused(
    tmp_path, trained_for_int8, one_line_error
):
    given, weights = trained_for_int8
    config = {**given.config.to_dict(), "model_type": "bert", "transformers_weights": "others.safetensors"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_in_one_file(weights, tmp_path / "others.safetensors", "safetensors")
    with one_line_error(OSError, "must hold its weights in one of model.safetensors, "):
        load_model(str(tmp_path))


def test_pickled_weights_of_others_are_left_to_transformers(tmp_path):
    given = BertForSequenceClassification(
        BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=99)
    )
    given.config.save_pretrained(tmp_path)
    torch.save(given.state_dict(), tmp_path / "pytorch_model.bin")
    loaded = load_model(str(tmp_path))
    assert torch.equal(loaded.classifier.weight, given.classifier.weight)


@pytest.fixture
def custom_code(tmp_path, tiny_bert):
    """A model in a folder that names code of its own, which notes that it was run."""
    tiny_bert(2).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    maps = {"AutoConfig": "own_code.Config", "AutoModelForSequenceClassification": "own_code.Model"}
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": maps}))
    (tmp_path / "own_code.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w').close()")
    return tmp_path


def test_code_that_lies_with_a_model_is_never_run_and_nobody_is_asked(custom_code, monkeypatch, one_line_error):
    """transformers asks on standard input, where texts may come from."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with one_line_error(ValueError, f"{custom_code} must need no code but transformers' own (got custom code, "):
        load_model(str(custom_code))
    assert not (custom_code / "was_run").exists()


def test_code_that_lies_with_a_tokenizer_or_an_image_processor_is_never_run(
    custom_code, monkeypatch, one_line_error, word_tokenizer
):
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    word_tokenizer.save_pretrained(custom_code)
    settings = json.loads((custom_code / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own_code.Own", None]}}
    (custom_code / "tokenizer_config.json").write_text(json.dumps(settings))
    maps = {"AutoImageProcessor": "own_code.Own"}
    (custom_code / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "Own", "auto_map": maps}))
    with one_line_error(ValueError, f"the tokenizer in {custom_code} must be readable (got ValueError: "):
        find_tokenizer(Source(str(custom_code)))
    with one_line_error(ValueError, f"the image processor in {custom_code} must be readable (got ValueError: "):
        find_image_processor(Source(str(custom_code)))
    assert not (custom_code / "was_run").exists()
