"""Models by name: found in a folder, on a hub that is made up here, or refused at once in one line."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import errors
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from transformers import BertConfig, BertForSequenceClassification

from moco_rt import EarlyExitTextClassificationModel
from moco_rt.architectures import Source, find_file, find_source, hub
from moco_rt.architectures.hub import load_model


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
        (lambda: EntryNotFoundError("none"), "some/model must hold a model (it has no config.json)"),
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


def test_local_files_only_asks_nobody(answer, one_line_error):
    asked = answer()
    with one_line_error(OSError, "(no folder some/model, not downloaded before"):
        EarlyExitTextClassificationModel.from_pretrained("some/model", local_files_only=True)
    assert asked == []


@pytest.mark.parametrize("name", ["a/b/c", "../nowhere", "no such folder"])
def test_names_that_cannot_be_on_the_hub_are_refused(one_line_error, name):
    with one_line_error(OSError, f"(no folder {name}, and not on the hub)"):
        EarlyExitTextClassificationModel.from_pretrained(name)


def test_weights_that_sparseml_trained_for_int8_are_read_by_their_plain_names(tmp_path):
    """Its linear layers are wrapped; beside each weight lie the scales by which training imitated int8."""
    given = BertForSequenceClassification(
        BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=99)
    ).eval()
    given.config.save_pretrained(tmp_path)
    weights = {}
    for name, weight in given.state_dict().items():
        stem, _, leaf = name.rpartition(".")
        if ".encoder." in name and "LayerNorm" not in name:
            weights[f"{stem}.module.{leaf}"] = weight
            weights[f"{stem}.module.weight_fake_quant.scale"] = torch.ones(1)
            weights[f"{stem}.quant.activation_post_process.zero_point"] = torch.zeros(1, dtype=torch.int32)
        else:
            weights[name] = weight
    torch.save(weights, tmp_path / "pytorch_model.bin")
    loaded = load_model(str(tmp_path))
    assert loaded.name_or_path == str(tmp_path)
    for name, weight in given.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], weight, rtol=0, atol=0)
    loaded.save_pretrained(tmp_path / "again")
    zeros = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    torch.save(zeros, tmp_path / "again" / "pytorch_model.bin")  # which transformers would not read either
    again = load_model(str(tmp_path / "again"))
    for name, weight in given.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight, rtol=0, atol=0)


def test_pickled_weights_of_others_are_left_to_transformers(tmp_path):
    given = BertForSequenceClassification(
        BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=99)
    )
    given.config.save_pretrained(tmp_path)
    torch.save(given.state_dict(), tmp_path / "pytorch_model.bin")
    loaded = load_model(str(tmp_path))
    assert torch.equal(loaded.classifier.weight, given.classifier.weight)
