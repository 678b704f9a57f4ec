"""Files of labels with a promise about their rows: the certificate beside them, and runs that were interrupted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from path_samples import CLASSES, with_path

from moco_rt import Cascade, EarlyExitTextClassificationModel
from moco_rt.certification.certificate import Certificate
from moco_rt.certification.these_rows import RowsWish
from moco_rt.inputs import prefetch
from moco_rt.serving.certified_file import read_certificate
from moco_rt.serving.label_files import predict_file
from moco_rt.serving.run_files import certificate_of, record_of

WORDS = ["a", "the", "film", "good", "bad", "not", "was", "but"]
ROWS = 400
WISH = RowsWish(0.8)


@pytest.fixture
def fast(tiny_bert, word_tokenizer):
    fast = EarlyExitTextClassificationModel(tiny_bert(2, labels=CLASSES))
    fast.tokenizer = word_tokenizer
    return with_path(fast)


@pytest.fixture
def texts():
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, size=rng.integers(1, 31))) for _ in range(ROWS)]


@pytest.fixture
def source(tmp_path, texts):
    return write(tmp_path / "rows.jsonl", texts)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.jsonl"


@pytest.fixture
def run(fast, word_tokenizer):
    def run(source, out, wish=WISH, **options):
        return predict_file(fast, word_tokenizer, source, out, wish=wish, **options)

    return run


@pytest.fixture
def runs(fast, monkeypatch):
    """The sizes of all batches that the model runs from now on."""
    batches, forward = [], fast.run_packed
    monkeypatch.setattr(fast, "run_packed", lambda exits, rows: batches.append(len(rows)) or forward(exits, rows))
    return batches


def write(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def labels_of(out):
    return [json.loads(line)["label"] for line in out.read_text(encoding="utf-8").splitlines()]


def everything(out):
    """What stands in the three files of a run."""
    return [path.read_bytes() for path in (out, certificate_of(out), record_of(out))]


# What is written


def test_labels_and_certificate_are_those_of_predict(run, fast, source, out, texts):
    assert run(source, out) == (0, ROWS)
    expected = fast.predict(texts, certify=0.8)
    assert 0 < expected.certificate.drawn < ROWS
    assert not expected.certificate.in_full
    assert labels_of(out) == [row["label"] for row in expected]
    exits = [json.loads(line)["exit"] for line in out.read_text(encoding="utf-8").splitlines()]
    assert exits == [row["exit"] for row in expected]
    assert certificate_of(out).name == "out.jsonl.certificate.json"
    assert read_certificate(out) == expected.certificate


def test_the_certificate_names_what_it_is_about(run, source, out):
    run(source, out)
    about = json.loads(certificate_of(out).read_text(encoding="utf-8"))
    assert (about["format"], about["version"]) == ("moco_rt rows certificate", 1)
    assert about["says"] == str(read_certificate(out))
    made_with = about["made_with"]
    assert made_with["source"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (made_with["certify"], made_with["confidence"], made_with["number of rows"]) == (0.8, 0.95, ROWS)
    assert {"moco_rt", "weights", "policy", "tokenizer", "max_length"} <= set(made_with)
    assert made_with == json.loads(record_of(out).read_text(encoding="utf-8").splitlines()[0])["made_with"]


@pytest.mark.parametrize("ending", [".csv", ".jsonl.gz"])
def test_every_format_of_labels_gets_the_same_certificate(run, source, out, tmp_path, ending):
    run(source, out)
    run(source, tmp_path / f"other{ending}")
    assert certificate_of(tmp_path / f"other{ending}").read_bytes() == certificate_of(out).read_bytes()


def test_rows_that_are_all_run_in_full_get_a_certificate_too(run, fast, source, out, texts):
    run(source, out, RowsWish(0.9999, 0.999))
    assert read_certificate(out).in_full
    plain = EarlyExitTextClassificationModel(fast.model).predict(texts, tokenizer=fast.tokenizer)
    assert labels_of(out) == [row["label"] for row in plain]


# Interruptions


@pytest.mark.parametrize("wish", [WISH, RowsWish(0.9999, 0.999)], ids=["drawn", "in full"])
def test_what_was_interrupted_anywhere_ends_in_the_same_bytes(run, source, out, wish, monkeypatch):
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 64)
    run(source, out, wish)
    labels, certificate, record = everything(out)
    lines = record.splitlines(keepends=True)
    for cut in (0, 1, len(labels) // 3, len(labels) // 2, len(labels) - 1, len(labels)):
        out.write_bytes(labels[:cut])
        certificate_of(out).unlink()
        record_of(out).write_bytes(b"".join(lines[: 2 + cut * (len(lines) - 2) // len(labels)]))
        before, now = run(source, out, wish)
        assert now == ROWS
        assert before <= labels[:cut].count(b"\n")
        assert [out.read_bytes(), certificate_of(out).read_bytes()] == [labels, certificate]


@pytest.mark.parametrize("batches", [1, 3, 6, 9])
def test_a_run_that_breaks_down_goes_on_and_runs_no_finished_row_anew(
    run, fast, source, out, tmp_path, monkeypatch, batches
):
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 40)
    whole = tmp_path / "whole.jsonl"
    run(source, whole)
    forward, sizes = fast.run_packed, []

    def break_down(exits, rows):
        if len(sizes) == batches:
            raise KeyboardInterrupt
        sizes.append(len(rows))
        return forward(exits, rows)

    monkeypatch.setattr(fast, "run_packed", break_down)
    with pytest.raises(KeyboardInterrupt):
        run(source, out)
    assert not certificate_of(out).exists()
    batches = -1
    sizes.clear()
    before, now = run(source, out)
    assert now == ROWS
    drawn = read_certificate(out).drawn
    assert sum(sizes) <= drawn + ROWS - before
    for path in (out, certificate_of(out)):
        assert path.read_bytes() == Path(str(path).replace("out.jsonl", "whole.jsonl")).read_bytes()


def test_what_is_done_is_left_alone(run, source, out, runs):
    run(source, out)
    before = everything(out)
    runs.clear()
    assert run(source, out) == (ROWS, ROWS)
    assert runs == []
    assert everything(out) == before


def test_a_certificate_that_is_missing_is_made_again(run, source, out, runs):
    run(source, out)
    before = everything(out)
    certificate_of(out).unlink()
    runs.clear()
    assert run(source, out) == (ROWS, ROWS)
    assert sum(runs) == read_certificate(out).drawn
    assert everything(out) == before


# Rows that were not there


def test_texts_that_come_later_are_not_certified(run, source, out, texts, one_line_error):
    run(source, out)
    before = everything(out)
    write(source, [*texts, "good"])
    words = (
        f"{out} was made with another number of rows: {ROWS} (got {ROWS + 1}): a certificate is about the rows that "
        "were there, --overwrite starts anew"
    )
    with one_line_error(ValueError, words):
        run(source, out)
    assert everything(out) == before
    assert run(source, out, overwrite=True) == (0, ROWS + 1)
    assert read_certificate(out).rows == ROWS + 1


def test_a_text_that_has_changed_is_refused(run, source, out, texts, one_line_error):
    run(source, out)
    write(source, [*texts[:-1], "bad bad bad"])
    with one_line_error(ValueError, f"{out} was made with another source: "):
        run(source, out)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (WISH, None, "another certify: 0.8 (got None)"),
        (None, WISH, "another certify: None (got 0.8)"),
        (WISH, RowsWish(0.7), "another certify: 0.8 (got 0.7)"),
        (WISH, RowsWish(0.8, 0.9), "another confidence: 0.95 (got 0.9)"),
    ],
    ids=str,
)
def test_another_promise_starts_anew(run, source, out, one_line_error, first, second, words):
    run(source, out, first)
    with one_line_error(ValueError, f"{out} was made with {words}: --overwrite starts anew"):
        run(source, out, second)
    run(source, out, second, overwrite=True)
    assert certificate_of(out).exists() == (second is not None)


def test_a_source_that_changes_meanwhile_gets_no_certificate(run, fast, source, out, texts, monkeypatch):
    forward = fast.run_packed

    def change(exits, rows):
        with source.open("a", encoding="utf-8") as lines:
            lines.write('{"text": "good"}\n')
        return forward(exits, rows)

    monkeypatch.setattr(fast, "run_packed", change)
    with pytest.raises(ValueError, match="must stay as it is while it is labelled"):
        run(source, out)
    assert not certificate_of(out).exists()
    assert len(labels_of(out)) == len(texts)


# What is refused


def test_what_cannot_be_read_again_is_refused(run, source, out, one_line_error):
    for stream in ("-", "/dev/stdin", "/dev/null"):
        with one_line_error(ValueError, f"which is read more than once, to be certified (got {stream})"):
            run(Path(stream), out, kind="txt")
    for stream in ("-", "/dev/stdout", "/dev/null"):
        with one_line_error(ValueError, f"beside which a certificate lies, to be certified (got {stream})"):
            run(source, Path(stream))
    assert not out.exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_of_somebody_else_in_the_certificate_s_place_is_refused_and_stays(
    run, source, out, one_line_error, overwrite
):
    certificate_of(out).write_text('{"my": "only copy"}', encoding="utf-8")
    with one_line_error(ValueError, f"{certificate_of(out)} must be a certificate of predict or rank (got another"):
        run(source, out, overwrite=overwrite)
    assert certificate_of(out).read_text(encoding="utf-8") == '{"my": "only copy"}'
    assert not out.exists()


def test_a_missing_file_and_one_without_texts_are_refused(run, tmp_path, out, one_line_error):
    with pytest.raises(FileNotFoundError):
        run(tmp_path / "nothing.jsonl", out)
    with one_line_error(ValueError, f"{tmp_path / 'empty.txt'} must hold at least one text to be certified (got none)"):
        (tmp_path / "empty.txt").touch()
        run(tmp_path / "empty.txt", out)
    assert not out.exists()


def test_a_broken_line_is_refused_before_anything_is_labelled(run, source, out, one_line_error):
    source.write_text(source.read_text(encoding="utf-8") + "no json\n", encoding="utf-8")
    with one_line_error(ValueError, f"{source}:{ROWS + 1} must be a JSON object"):
        run(source, out)
    assert not out.exists()


def test_a_cascade_with_another_certificate_goes_on_with_no_earlier_run(
    tiny_bert, word_tokenizer, source, out, one_line_error
):
    """It would draw other rows, and might come to other answers for those that are left."""
    tiers = [(tiny_bert(1, labels=CLASSES), word_tokenizer), (tiny_bert(2, labels=CLASSES), word_tokenizer)]
    cascade = Cascade(tiers, thresholds=[0.34])
    known = Certificate(0.5, 0.05, 2000, 100, seconds_full=1.0, seconds=0.5, exits=())
    cascade.certificate = known
    predict_file(cascade, None, source, out, wish=RowsWish(0.2))
    before = everything(out)
    for certificate in (replace(known, disagreements=300), None):
        cascade.certificate = certificate
        with one_line_error(ValueError, "made with another certificate"):
            predict_file(cascade, None, source, out, wish=RowsWish(0.2))
    cascade.certificate = known
    assert predict_file(cascade, None, source, out, wish=RowsWish(0.2)) == (ROWS, ROWS)
    assert everything(out) == before
    cascade.tiers[0].thresholds.fill_(0.5)
    with one_line_error(ValueError, "made with another tier 0 thresholds"):
        predict_file(cascade, None, source, out, wish=RowsWish(0.2))


def test_a_cascade_s_files_are_certified_too(tiny_bert, fast, word_tokenizer, source, out, texts, monkeypatch):
    small = (tiny_bert(1, labels=CLASSES, seed=7), word_tokenizer)
    cascade = Cascade([small, (fast.model, word_tokenizer)], thresholds=[0.34])
    wish = RowsWish(0.2)
    predict_file(cascade, None, source, out, wish=wish)
    expected = cascade.predict(texts, certify=0.2)
    assert read_certificate(out) == expected.certificate
    assert not expected.certificate.in_full
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["tier"] for line in lines] == expected.tier.tolist()
    assert [line["label"] for line in lines] == [row["label"] for row in expected]
    whole = everything(out)
    out.write_bytes(b"".join(whole[0].splitlines(keepends=True)[:150]))  # as if it had been interrupted
    certificate_of(out).unlink()
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 50)
    predict_file(cascade, None, source, out, wish=wish, overwrite=True)
    assert everything(out)[:2] == whole[:2]
