"""Files of texts to files of labels: line by line, and on from where an earlier run was interrupted."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from moco_rt import EarlyExitTextClassificationModel, LinearCondition
from moco_rt.serving import label_files
from moco_rt.serving.label_files import predict_file

WORDS = ["a", "the", "film", "good", "bad", "not", "was", "but"]


def make_texts(count, seed=0):
    """Random texts of 0 to 30 words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(0, 31))) for _ in range(count)]


def write_json(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def fast(tiny_bert):
    """Rows leave it at two sites."""
    names = {0: "negative", 1: "neutral", 2: "höchst erfreut"}
    fast = EarlyExitTextClassificationModel(tiny_bert(3, labels=3, id2label=names))
    weight = torch.randn(32, generator=torch.Generator().manual_seed(0)).numpy()
    fast.add_rule(LinearCondition(weight, 0.0, 3.0, 0.01), 1, "encoder.0.attention")
    fast.add_rule(LinearCondition(-weight, 0.0, 13.0, 0.01, "mean"), 2, "encoder.1.output")
    return fast


@pytest.fixture
def source(tmp_path):
    return write_json(tmp_path / "rows.jsonl", [{"text": text, "id": i} for i, text in enumerate(make_texts(50))])


@pytest.fixture
def run(fast, word_tokenizer):
    """`run(source, out)`: labels of one file into another."""

    def run(source, out, max_length=None):
        return predict_file(fast, word_tokenizer, source, out, max_length)

    return run


def lines_of(out):
    text = out.read_text(encoding="utf-8")
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.split("\n")[:-1]]


def assert_labels(out, fast, tokenizer, texts, **options):
    found = fast.predict(texts, tokenizer=tokenizer, **options)
    expected = [
        {
            "label": fast.config.id2label[label],
            "prob": pytest.approx(float(probs[label]), abs=1e-6),
            "exit": None if site < 0 else fast.sites[site],
        }
        for label, probs, site in zip(found.labels.tolist(), found.probs, found.exit_site.tolist(), strict=True)
    ]
    assert lines_of(out) == expected
    return {line["exit"] for line in lines_of(out)}


# What is written


def test_every_line_gets_a_line_with_its_label_its_probability_and_its_exit(
    run, fast, word_tokenizer, source, tmp_path
):
    out = tmp_path / "labels.jsonl"
    assert run(source, out) == (0, 50)
    exits = assert_labels(out, fast, word_tokenizer, make_texts(50))
    assert exits == {None, "encoder.0.attention", "encoder.1.output"}
    assert "höchst erfreut" in out.read_text(encoding="utf-8")


def test_pairs_are_labelled_as_pairs(run, fast, word_tokenizer, tmp_path):
    pairs = list(zip(make_texts(20, seed=1), make_texts(20, seed=2), strict=True))
    source = write_json(tmp_path / "pairs.jsonl", [{"text2": second, "text": first} for first, second in pairs])
    run(source, tmp_path / "out")
    assert_labels(tmp_path / "out", fast, word_tokenizer, pairs)


@pytest.mark.parametrize("name", ["rows.txt", "rows", "rows.json", "rows.csv"])
def test_anything_else_is_plain_text(run, fast, word_tokenizer, tmp_path, name):
    texts = ["a good film", '{"text": "bad"}', "  the film ", "bad"]
    (tmp_path / name).write_text("\n".join(texts) + "\n", encoding="utf-8")
    assert run(tmp_path / name, tmp_path / "out") == (0, 4)
    assert_labels(tmp_path / "out", fast, word_tokenizer, texts)


def test_blank_lines_of_plain_text_are_empty_texts(run, fast, word_tokenizer, tmp_path):
    (tmp_path / "rows.txt").write_text("good\n\n\nbad\n\n", encoding="utf-8")
    assert run(tmp_path / "rows.txt", tmp_path / "out") == (0, 5)
    assert_labels(tmp_path / "out", fast, word_tokenizer, ["good", "", "", "bad", ""])


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_the_last_line_may_end_without_a_line_feed_and_all_as_on_windows(run, fast, word_tokenizer, tmp_path, ending):
    (tmp_path / "rows.txt").write_bytes(ending.join(["good film", "bad film"]).encode())
    assert run(tmp_path / "rows.txt", tmp_path / "out") == (0, 2)
    assert_labels(tmp_path / "out", fast, word_tokenizer, ["good film", "bad film"])


def test_an_empty_file_gives_an_empty_file(run, tmp_path):
    (tmp_path / "rows.txt").touch()
    assert run(tmp_path / "rows.txt", tmp_path / "out") == (0, 0)
    assert lines_of(tmp_path / "out") == []


def test_texts_are_truncated_to_max_length(run, fast, word_tokenizer, source, tmp_path):
    run(source, tmp_path / "out", max_length=6)
    assert_labels(tmp_path / "out", fast, word_tokenizer, make_texts(50), max_length=6)


@pytest.mark.parametrize("lines", [1, 7, 49, 50, 51])
def test_pieces_do_not_show(run, source, tmp_path, monkeypatch, lines):
    run(source, tmp_path / "whole")
    monkeypatch.setattr(label_files, "_LINES", lines)
    run(source, tmp_path / "pieces")
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()


# Interruptions


@pytest.mark.parametrize("kind", ["jsonl", "txt"])
def test_what_was_interrupted_anywhere_ends_in_the_same_bytes(run, source, tmp_path, kind):
    if kind == "txt":
        source = source.with_suffix(".txt")
        source.write_text("\n".join(make_texts(50)) + "\n", encoding="utf-8")
    whole, out = tmp_path / "whole", tmp_path / "out"
    run(source, whole)
    expected = whole.read_bytes()
    ends = [match.end() for match in re.finditer(b"\n", expected)]
    # In the middle of a line, of a character, just before and after a line's end, at the start and at the end.
    umlaut = expected.index("ö".encode()) + 1
    for cut in {0, 1, 5, umlaut, ends[0] - 1, ends[0], ends[20] + 7, ends[-1] - 1, ends[-1]}:
        out.write_bytes(expected[:cut])
        assert run(source, out) == (expected[:cut].count(b"\n"), 50)
        assert out.read_bytes() == expected


def test_a_run_that_breaks_down_is_continued_without_a_row_lost_or_repeated(run, fast, source, tmp_path, monkeypatch):
    run(source, tmp_path / "whole")
    monkeypatch.setattr(label_files, "_LINES", 8)
    predict, calls = fast.predict, []

    def break_down(*args, **options):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return predict(*args, **options)

    monkeypatch.setattr(fast, "predict", break_down, raising=False)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out")
    assert len(lines_of(tmp_path / "out")) == 24
    assert run(source, tmp_path / "out") == (24, 50)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()


def test_what_is_done_is_left_alone(run, source, tmp_path, fast, monkeypatch):
    run(source, tmp_path / "out")
    before = (tmp_path / "out").read_bytes()
    monkeypatch.setattr(fast, "predict", None, raising=False)  # nobody asks
    assert run(source, tmp_path / "out") == (50, 50)
    assert (tmp_path / "out").read_bytes() == before


def test_lines_that_come_later_are_labelled_later(run, fast, word_tokenizer, tmp_path):
    source, out = tmp_path / "rows.txt", tmp_path / "out"
    source.write_text("good\nbad\n", encoding="utf-8")
    run(source, out)
    with source.open("a", encoding="utf-8") as lines:
        lines.write("the film\n")
    assert run(source, out) == (2, 3)
    assert_labels(out, fast, word_tokenizer, ["good", "bad", "the film"])


# What is refused


def test_a_broken_line_is_named_and_what_was_written_stays(run, source, tmp_path, monkeypatch, one_line_error):
    out = tmp_path / "out"
    run(source, tmp_path / "whole")
    monkeypatch.setattr(label_files, "_LINES", 10)
    rows = source.read_text(encoding="utf-8").split("\n")
    fixed = rows[34]
    rows[34] = "not json"
    source.write_text("\n".join(rows), encoding="utf-8")
    for _ in range(2):  # the number is that of the file, wherever the run began
        with one_line_error(ValueError, f"{source}:35 must be a JSON object (got 'not json"):
            run(source, out)
        assert len(lines_of(out)) == 30
    rows[34] = fixed
    source.write_text("\n".join(rows), encoding="utf-8")
    assert run(source, out) == (30, 50)
    assert out.read_bytes() == (tmp_path / "whole").read_bytes()


def test_more_labels_than_texts_are_refused_and_stay(run, source, tmp_path, one_line_error):
    out = tmp_path / "out"
    run(source, out)
    with source.open("r+", encoding="utf-8") as lines:
        lines.truncate(len("".join(lines.readline() for _ in range(3))))
    before = out.read_bytes()
    with one_line_error(ValueError, f"{out} must not hold more lines than {source} (got 50 and 3)"):
        run(source, out)
    assert out.read_bytes() == before


def test_a_missing_source_makes_no_file(run, tmp_path):
    with pytest.raises(FileNotFoundError):
        run(tmp_path / "nothing.jsonl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_not_utf_8_is_refused(run, tmp_path):
    (tmp_path / "rows.txt").write_bytes(b"good\n\xff\xfe bad\n")
    with pytest.raises(ValueError, match="utf-8"):
        run(tmp_path / "rows.txt", tmp_path / "out")


def test_texts_that_are_named_as_their_own_labels_are_refused_and_stay(run, tmp_path, one_line_error):
    source = tmp_path / "rows.txt"
    source.write_text("good\nbad\nthe last line", encoding="utf-8")
    for out in (source, tmp_path / ".." / tmp_path.name / "rows.txt"):
        with one_line_error(ValueError, f"out must be another file than {source} (got the same)"):
            run(source, out)
    assert source.read_text(encoding="utf-8") == "good\nbad\nthe last line"
