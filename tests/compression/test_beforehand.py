"""What `compress` makes sure of before any work: the device, the checkpoint, and the modes of torch."""

from __future__ import annotations

import pytest
import torch
from torch_defaults import float64_default

from moco_rt import compress
from moco_rt.compression import compress as compress_module
from moco_rt.compression.beforehand import check_device, check_writable

TEXTS = ["the good film was not bad", "a film", "bad bad but the film was good good good", "not the film"] * 5


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "meta", 99], ids=str)
def test_a_device_that_is_not_here_is_refused(device, one_line_error):
    with one_line_error(ValueError, f"device must be one that torch can use here, such as cpu (got {device}: "):
        check_device(device)


def test_a_device_that_is_here_is_taken(device):
    assert check_device(str(device)) == device


def test_the_folder_of_a_checkpoint_is_made_and_nothing_is_left_in_it(tmp_path):
    file = tmp_path / "new" / "folder" / "recovery.pt"
    check_writable(file)
    assert list(file.parent.iterdir()) == []
    file.write_bytes(b"kept")
    check_writable(file)
    assert file.read_bytes() == b"kept"


def test_a_checkpoint_that_cannot_be_written_is_refused(tmp_path, one_line_error):
    (tmp_path / "file").touch()
    for wrong, why in (
        (tmp_path, "a folder"),
        (tmp_path / "file" / "recovery.pt", "File exists"),
        (tmp_path / "file" / "folder" / "recovery.pt", "Not a directory"),
        (tmp_path / ("long" * 60), "File name too long"),
    ):
        with one_line_error(ValueError, f"checkpoint must be a file that can be written (got {wrong}: {why})"):
            check_writable(wrong)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"device": "cuda:99"}, "device must be one that torch can use here"),
        ({"checkpoint": "file/recovery.pt"}, "checkpoint must be a file that can be written"),
    ],
    ids=str,
)
def test_both_are_looked_at_before_any_work(
    tiny_bert, word_tokenizer, tmp_path, monkeypatch, given, words, one_line_error
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setattr(compress_module, "encode", None)
    with one_line_error(ValueError, words):
        compress(tiny_bert(), TEXTS, tokenizer=word_tokenizer, width=0.5, epochs=1, **given)


def test_what_was_learnt_is_kept_in_a_folder_that_was_not_there(tiny_bert, word_tokenizer, tmp_path):
    file = tmp_path / "new" / "recovery.pt"
    compress(tiny_bert(), TEXTS, tokenizer=word_tokenizer, width=0.5, epochs=1, checkpoint=file)
    assert file.is_file()


@pytest.mark.parametrize(
    "around",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", dtype=torch.bfloat16), float64_default],
    ids=["no_grad", "inference_mode", "autocast", "float64"],
)
@pytest.mark.parametrize("epochs", [0, 1])
def test_whatever_torch_is_set_to_the_model_is_the_same(tiny_bert, word_tokenizer, around, epochs):
    wanted = {"tokenizer": word_tokenizer, "width": 0.6, "sparsity": 0.5, "lengths": {0: 0.5}, "epochs": epochs}
    model = tiny_bert()
    expected = compress(model, TEXTS, **wanted)
    with around():
        found = compress(model, TEXTS, **wanted)
    assert found.dtype == torch.float32
    assert not any(weight.is_inference() or not weight.requires_grad for weight in found.parameters())
    for name, weight in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], weight, rtol=1e-4, atol=1e-5)


def test_a_model_that_was_made_in_inference_mode_is_made_smaller(tiny_bert, word_tokenizer):
    with torch.inference_mode():
        model = tiny_bert()
    small = compress(model, TEXTS, tokenizer=word_tokenizer, width=0.6, sparsity=0.5, epochs=1)
    assert not any(weight.is_inference() for weight in small.parameters())
