"""The tables of docs/inputs.md, line by line: what is taken is taken as they say, what is refused is refused so."""

from __future__ import annotations

import ast
import contextlib
import copy
import gzip
import json
import re
import shlex
from pathlib import Path
from types import MethodType

import datasets
import numpy
import pandas
import pyarrow
import pyarrow.parquet
import pytest
import torch
from image_samples import make_image_classifier, make_lit_pictures
from transformers import ViTForImageClassification, ViTImageProcessorPil
from transformers.modeling_outputs import SequenceClassifierOutput

import moco_rt
from moco_rt import EarlyExitImageClassificationModel, EarlyExitTextClassificationModel, cli

PAGE = Path(__file__).resolve().parents[2] / "docs" / "inputs.md"
MODULES = {"datasets": datasets, "numpy": numpy, "pandas": pandas, "pyarrow": pyarrow, "torch": torch}


def lines(*header):
    """The cells of all lines of the tables with these heads, without their backticks."""
    head = "| " + " | ".join(header) + " |"
    found = []
    for table in PAGE.read_text(encoding="utf-8").split(head)[1:]:
        for line in table.lstrip("\n").splitlines()[1:]:
            if not line.startswith("|"):
                break
            found.append(tuple(cell.removeprefix("`").removesuffix("`") for cell in line[2:-2].split(" | ")))
    assert found, header
    assert {len(cells) for cells in found} == {len(header)}
    return found


@pytest.fixture(scope="module")
def model(tiny_bert, word_tokenizer):
    model = EarlyExitTextClassificationModel(tiny_bert())
    model.tokenizer = word_tokenizer
    return model


@contextlib.contextmanager
def refused(words):
    kind, _, message = words.partition(": ")
    with pytest.raises((TypeError, ValueError)) as caught:
        yield
    assert f"{caught.type.__name__}: {caught.value}" == f"{kind}: {message}"


def call(function, arguments, **names):
    """Evaluate `function(arguments)`, the arguments written as on the page."""
    return eval(f"function({arguments})", {"function": function, **MODULES, **names})


@pytest.mark.parametrize(("arguments", "texts"), lines("texts", "taken as"))
def test_texts_are_taken(model, arguments, texts):
    assert torch.equal(call(model.predict, arguments).probs, model.predict(ast.literal_eval(texts)).probs)


@pytest.mark.parametrize(("arguments", "words"), lines("texts", "refused with"))
def test_texts_are_refused_at_every_door(model, word_tokenizer, arguments, words):
    doors = [
        model.predict,
        moco_rt.Cascade([(model, word_tokenizer)], thresholds=[]).predict,
        lambda texts, **named: moco_rt.accelerate(model.model, texts, tokenizer=word_tokenizer, **named),
        lambda texts, **named: moco_rt.capture(model.model, word_tokenizer, texts, sites=[], **named),
    ]
    for door in doors:
        with refused(words):
            call(door, arguments, tokenizer=word_tokenizer)


@pytest.fixture
def image_names(tiny_classifier, tmp_path):
    """A model that takes images, and what the page calls `picture`, `path` and `pixels`."""
    model = EarlyExitImageClassificationModel(make_image_classifier(tiny_classifier, ViTForImageClassification))
    model.image_processor = ViTImageProcessorPil(size={"height": 24, "width": 24})
    (picture,), _ = make_lit_pictures(1)
    path = tmp_path / "picture.png"
    picture.save(path)
    return model, {"picture": picture, "path": path, "pixels": numpy.asarray(picture)}


@pytest.mark.parametrize(("arguments", "pictures"), lines("images", "taken as"))
def test_images_are_taken(image_names, arguments, pictures):
    model, names = image_names
    expected = model.predict([names["picture"]] * int(pictures.split()[0]))
    assert torch.equal(call(model.predict, arguments, **names).probs, expected.probs)


@pytest.mark.parametrize(("arguments", "words"), lines("images", "refused with"))
def test_images_are_refused_at_every_door(image_names, arguments, words):
    model, names = image_names
    for door in (model.predict, lambda images: moco_rt.quantize(model, images)):
        with refused(words):
            call(door, arguments, **names)


def write(path, content):
    if isinstance(content, dict):
        pyarrow.parquet.write_table(pyarrow.table(content), path)
        return
    data = content if isinstance(content, bytes) else content.encode("utf-8")
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def predict_file(model, tmp_path, monkeypatch, capsys):
    """`predict_file("a.txt --format txt", "good")`: status, labels that were written, what was said."""
    model.save_pretrained(tmp_path / "my-model")
    monkeypatch.chdir(tmp_path)

    def run(arguments, content):
        name, *options = shlex.split(arguments)
        write(Path(name), ast.literal_eval(content))
        status = cli.main(["predict", "my-model", name, "--out", "out.jsonl", *options])
        out = Path("out.jsonl")
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []
        return status, rows, re.sub(r"^.*\r", "", capsys.readouterr().err, flags=re.MULTILINE).strip()

    return run


@pytest.mark.parametrize(("arguments", "content", "texts"), lines("file and options", "content", "read as"))
def test_files_are_read(model, predict_file, arguments, content, texts):
    expected = model.predict(ast.literal_eval(texts))
    status, rows, _ = predict_file(arguments, content)
    assert status == 0
    assert [row["label"] for row in rows] == [row["label"] for row in expected]
    assert [row["prob"] for row in rows] == pytest.approx([row["prob"] for row in expected], abs=1e-6)


@pytest.mark.parametrize(("arguments", "content", "words"), lines("file and options", "content", "refused with"))
def test_files_are_refused(predict_file, arguments, content, words):
    status, _, said = predict_file(arguments, content)
    assert status == 2
    # Where other libraries' words follow, the page has three dots.
    wanted, dots, _ = f"moco-rt: {words}".partition("…")
    line = said.splitlines()[-1]
    assert line.startswith(wanted) if dots else line == wanted


def double(module, inputs, output):  # noqa: ARG001
    """A hook that changes what comes out, whatever its form."""
    if isinstance(output, torch.Tensor):
        return 2 * output
    if isinstance(output, tuple):
        return (2 * output[0], *output[1:])
    output.logits = 2 * output.logits
    return output


def mean_forward(self, input_ids=None, attention_mask=None, token_type_ids=None, **_):
    """A classifier that reads the mean of all tokens."""
    hidden = self.bert(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)[0]
    weights = attention_mask[..., None].to(hidden.dtype)
    return SequenceClassifierOutput(logits=self.classifier((hidden * weights).sum(1) / weights.sum(1)))


def shifted_forward(self, *arguments, **named):
    """A base model whose answers are moved."""
    output = type(self).forward(self, *arguments, **named)
    output.pooler_output = output.pooler_output + 1
    return output


def changed(model, change):
    """The model after a line of the page was run on it."""
    hooks = {function.__name__: function for function in (double, mean_forward, shifted_forward)}
    names = {"model": model, "torch": torch, "MethodType": MethodType, **hooks}
    exec(change, names)
    return names["model"]


@pytest.mark.parametrize(("change", "backend"), lines("done to the model", "backend"))
def test_models_run_on_a_backend_that_computes_what_they_compute(tiny_bert, change, backend):
    model = changed(tiny_bert(), change)
    ids = torch.randint(5, 100, (8, 12), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(12) < torch.arange(5, 13)[:, None]).long()
    with torch.no_grad():
        expected = copy.deepcopy(model).eval().float()(input_ids=ids * mask, attention_mask=mask).logits
    fast = EarlyExitTextClassificationModel(model)
    assert fast.backend == backend
    torch.testing.assert_close(fast(ids * mask, mask).logits.float(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("change", "words"), lines("done to the model", "refused with"))
def test_models_are_refused(tiny_bert, change, words):
    model = changed(tiny_bert(), change)
    with refused(words):
        EarlyExitTextClassificationModel(model)
