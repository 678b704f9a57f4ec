"""The files beside labels: whose they are, and that a run writes over nobody else's."""

from __future__ import annotations

import json

import pytest

from moco_rt import EarlyExitReranker, EarlyExitTextClassificationModel
from moco_rt.serving.label_files import predict_file
from moco_rt.serving.ranked_files import rank_file
from moco_rt.serving.run_files import certificate_of, check_out, record_of

TEXTS = '{"text": "good film"}\n{"text": "bad"}\n'
QUERIES = '{"query": "good", "documents": ["a film", "bad"]}\n'
MINE = '{"my": "only copy"}\n'


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.jsonl"


@pytest.fixture
def predict(tiny_bert, word_tokenizer):
    model = EarlyExitTextClassificationModel(tiny_bert())

    def predict(source, out, **options):
        return predict_file(model, word_tokenizer, source, out, **options)

    return predict


@pytest.fixture
def rank(tiny_bert, word_tokenizer):
    model = EarlyExitReranker(tiny_bert(labels=1))
    model.tokenizer = word_tokenizer

    def rank(source, out, **options):
        return rank_file(model, source, out, **options)

    return rank


def write(path, content):
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(("door", "content"), [("predict", TEXTS), ("rank", QUERIES)])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_of_somebody_else_is_no_record_and_stays(
    request, tmp_path, out, one_line_error, door, content, overwrite
):
    run, source = request.getfixturevalue(door), write(tmp_path / "rows.jsonl", content)
    mine = write(record_of(out), MINE)
    with one_line_error(ValueError, f"{mine} must be a record of predict or rank (got another file): move it, or "):
        run(source, out, overwrite=overwrite)
    assert mine.read_text(encoding="utf-8") == MINE
    assert not out.exists()


@pytest.mark.parametrize("size", [0, 1, 20, 23, 60, -1])
def test_a_record_that_was_cut_off_in_its_first_line_is_a_runs(predict, tmp_path, out, size):
    source = write(tmp_path / "rows.jsonl", TEXTS)
    predict(source, out)
    whole = record_of(out).read_bytes()
    out.write_bytes(b"")
    record_of(out).write_bytes(whole.splitlines(keepends=True)[0][:size])
    assert predict(source, out, overwrite=True) == (0, 2)
    assert record_of(out).read_bytes() == whole


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_of_somebody_else_is_no_certificate_and_stays(predict, tmp_path, out, overwrite):
    mine = write(certificate_of(out), MINE)
    assert predict(write(tmp_path / "rows.jsonl", TEXTS), out, overwrite=overwrite) == (0, 2)
    assert mine.read_text(encoding="utf-8") == MINE


@pytest.mark.parametrize(("door", "content"), [("predict", TEXTS), ("rank", QUERIES)])
@pytest.mark.parametrize("beside", [record_of, certificate_of])
def test_a_source_that_stands_beside_out_is_refused_and_stays(request, out, one_line_error, door, content, beside):
    source = beside(out).with_suffix(".json") if door == "rank" else beside(out)
    content = content if source.suffix == ".jsonl" else json.dumps([json.loads(line) for line in content.splitlines()])
    write(source, content)
    if source != beside(out):
        beside(out).hardlink_to(source)
    words = f"out must write no file over {source} (got {out}, which writes {beside(out).name} too)"
    for overwrite in (False, True):
        with one_line_error(ValueError, words):
            request.getfixturevalue(door)(source, out, overwrite=overwrite)
    assert source.read_text(encoding="utf-8") == content
    assert not out.exists()


def test_queries_that_are_named_as_their_own_ranks_are_refused_and_stay(rank, tmp_path, one_line_error):
    source = write(tmp_path / "queries.jsonl", QUERIES)
    with one_line_error(ValueError, f"out must be another file than {source} (got the same)"):
        rank(source, source, overwrite=True)
    assert source.read_text(encoding="utf-8") == QUERIES


def test_a_folder_is_no_destination_however_it_is_called(tmp_path, monkeypatch, one_line_error):
    monkeypatch.chdir(tmp_path)
    for name in (".", "..", tmp_path):
        with one_line_error(ValueError, f"out must be a file (got the directory {name})"):
            check_out(tmp_path / "rows.jsonl", type(tmp_path)(name))
