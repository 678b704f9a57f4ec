"""Manifests and tensors that are not what they should be: one line, with the file."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors import torch as torch_file
from safetensors.numpy import save_file

from moco_rt.storage import manifest
from moco_rt.storage.manifest import read_manifest, read_tensors, whole


def test_an_object_of_a_known_format_and_version_is_read(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"format": "moco_rt thing", "version": 2, "x": 1}))
    assert read_manifest(file, "moco_rt thing", (1, 2))["x"] == 1


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("", "a file that is not JSON"),
        ('{"format": "moco_rt thing", "ver', "a file that is not JSON"),
        ("\xff\xfe", "a file that is not JSON"),
        ("[]", "None, version None"),
        ("{}", "None, version None"),
        ('{"format": "bert", "version": 1}', "'bert', version 1"),
        ('{"format": "moco_rt thing", "version": 3}', "'moco_rt thing', version 3"),
        ('{"format": "moco_rt thing", "version": "1"}', "'moco_rt thing', version '1'"),
        ('{"format": "moco_rt thing", "version": true}', "'moco_rt thing', version True"),
    ],
)
def test_anything_else_is_refused(tmp_path, one_line_error, text, got):
    file = tmp_path / "a.json"
    file.write_bytes(text.encode("latin-1"))
    with one_line_error(ValueError, f"{file} must be a moco_rt thing of version 1 or 2 (got {got})"):
        read_manifest(file, "moco_rt thing", (1, 2))


@pytest.mark.parametrize("kept", [0, 5, 40, -1])
def test_tensors_that_are_cut_off_are_refused(tmp_path, one_line_error, kept):
    file = tmp_path / "a.safetensors"
    save_file({"x": np.arange(10.0)}, file)
    file.write_bytes(file.read_bytes()[:kept])
    with one_line_error(ValueError, f"{file} must be a whole safetensors file (got "):
        read_tensors(file)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_tensors_of_dtypes_that_numpy_has_not_are_refused(tmp_path, one_line_error, dtype):
    file = tmp_path / "a.safetensors"
    torch_file.save_file({"a": torch.zeros(3), "x": torch.zeros(3).to(dtype)}, file)
    with one_line_error(ValueError, f"{file} must hold tensors of NumPy's dtypes (got "):
        read_tensors(file)


def test_tensors_of_dtypes_that_another_library_adds_are_refused(tmp_path, one_line_error, monkeypatch):
    added = np.zeros(3, np.dtype("V2"))
    monkeypatch.setattr(manifest, "load_file", lambda _: {"x": added})
    with one_line_error(ValueError, f"{tmp_path} must hold tensors of NumPy's dtypes (got |V2 of x)"):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    ("held", "words"),
    [({}, "(exits is missing)"), (None, "(got "), ([], "(got ")],
    ids=["key", "null", "list"],
)
def test_what_a_file_lacks_is_named(one_line_error, held, words):
    with one_line_error(ValueError, f"a.json must be whole {words}"), whole("a.json"):
        held["exits"]


def test_of_what_a_file_holds_an_error_quotes_a_line(tmp_path, one_line_error):
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"format": "long\n" * 2000, "version": 1}))
    with one_line_error(ValueError, f"{file} must be a moco_rt thing of version 1 (got 'long"):
        read_manifest(file, "moco_rt thing", (1,))
    for error in (ValueError, TypeError, KeyError):
        with pytest.raises(ValueError, match="long") as caught, whole(file):
            raise error("long\n" * 2000)
        assert len(str(caught.value)) <= 1000
        assert "\n" not in str(caught.value)
