"""Files of texts to files of labels: line by line, and on from where an earlier run was interrupted."""

from __future__ import annotations

import csv
import fcntl
import gzip
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from moco_rt import EarlyExitTextClassificationModel, LinearCondition
from moco_rt.inputs import prefetch
from moco_rt.serving.label_files import predict_file
from moco_rt.serving.run_files import record_of

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

    def run(source, out, max_length=None, **options):
        return predict_file(fast, word_tokenizer, source, out, max_length, **options)

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


def test_any_format_of_texts_gives_the_same_labels(run, fast, word_tokenizer, tmp_path):
    pairs = [("a good film", "bad"), ("NA", "  the film ")]
    for name, text in {
        "rows.json": json.dumps([{"text": first, "text_pair": second} for first, second in pairs]),
        "rows.tsv": "text2\tid\ttext\n" + "".join(f"{second}\t1\t{first}\n" for first, second in pairs),
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert run(tmp_path / name, tmp_path / f"{name}.out.jsonl") == (0, 2)
        assert_labels(tmp_path / f"{name}.out.jsonl", fast, word_tokenizer, pairs)


def test_a_file_of_no_known_format_is_refused_and_makes_none(run, tmp_path, one_line_error):
    (tmp_path / "rows").write_text("a good film\n", encoding="utf-8")
    with one_line_error(ValueError, f"{tmp_path / 'rows'} must end in one of .jsonl"):
        run(tmp_path / "rows", tmp_path / "out")
    (tmp_path / "rows.csv").write_text("a good film\n", encoding="utf-8")
    with one_line_error(ValueError, f"{tmp_path / 'rows.csv'} must have a column text"):
        run(tmp_path / "rows.csv", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows", "rows.csv"]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".csv.gz", ".jsonl.gz"])
def test_labels_are_written_in_the_format_of_the_ending(run, source, tmp_path, ending):
    run(source, tmp_path / "labels.jsonl")
    out = tmp_path / f"labels{ending}"
    assert run(source, out) == (0, 50)
    text = gzip.decompress(out.read_bytes()).decode() if ending.endswith(".gz") else out.read_text(encoding="utf-8")
    if "jsonl" in ending:
        assert text == (tmp_path / "labels.jsonl").read_text(encoding="utf-8")
        return
    rows = list(csv.DictReader(io.StringIO(text), delimiter="\t" if "tsv" in ending else ","))
    expected = lines_of(tmp_path / "labels.jsonl")
    assert rows == [{name: "" if value is None else str(value) for name, value in row.items()} for row in expected]


def test_a_directory_is_no_file_of_labels(run, source, tmp_path, one_line_error):
    with one_line_error(ValueError, f"out must be a file (got the directory {tmp_path})"):
        run(source, tmp_path)


@pytest.mark.parametrize("name", ["labels.json", "labels.parquet", "labels.txt", "labels.xlsx", "labels.parquet.gz"])
def test_labels_are_written_in_no_other_format(run, source, tmp_path, one_line_error, name):
    with one_line_error(ValueError, "out must end in .jsonl, .ndjson, .csv or .tsv, each also .gz, or in none (got "):
        run(source, tmp_path / name)
    assert not (tmp_path / name).exists()


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
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", lines)
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
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 8)
    forward, calls = fast.forward_packed, []

    def break_down(*args, **options):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return forward(*args, **options)

    monkeypatch.setattr(fast, "forward_packed", break_down, raising=False)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out")
    assert len(lines_of(tmp_path / "out")) == 24
    assert run(source, tmp_path / "out") == (24, 50)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()


def test_what_is_done_is_left_alone(run, source, tmp_path, fast, monkeypatch):
    run(source, tmp_path / "out")
    before = (tmp_path / "out").read_bytes()
    monkeypatch.setattr(fast, "forward_packed", None, raising=False)  # nobody asks
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


@pytest.mark.parametrize("ending", [".csv", ".jsonl.gz", ".csv.gz"])
def test_a_file_that_is_cut_anywhere_ends_with_the_same_labels_in_every_format(
    run, source, tmp_path, monkeypatch, ending
):
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 8)
    out = tmp_path / f"out{ending}"
    run(source, out)
    whole, record = out.read_bytes(), record_of(out).read_bytes()
    for cut in (0, 1, 9, len(whole) // 3, len(whole) // 2, len(whole) - 1, len(whole)):
        out.write_bytes(whole[:cut])
        record_of(out).write_bytes(record)
        if 0 < cut < json.loads(record.splitlines()[1])["bytes"]:  # less than the header
            with pytest.raises(ValueError, match="must be what its record"):
                run(source, out)
            continue
        assert run(source, out)[1] == 50
        read = gzip.decompress if ending.endswith(".gz") else bytes
        assert read(out.read_bytes()) == read(whole)


def test_what_is_behind_the_last_checkpoint_is_labelled_anew(run, source, tmp_path, monkeypatch):
    """As after a run that was killed between labels and checkpoint, or while it wrote the checkpoint."""
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 8)
    out = tmp_path / "out"
    run(source, out)
    whole, lines = out.read_bytes(), record_of(out).read_bytes().splitlines(keepends=True)
    for end in (b"", lines[4][:20]):
        record_of(out).write_bytes(b"".join(lines[:4]) + end)
        assert run(source, out) == (16, 50)
        assert out.read_bytes() == whole
        assert record_of(out).read_bytes().splitlines(keepends=True) == lines


def test_a_last_line_that_has_grown_is_labelled_anew(run, fast, word_tokenizer, tmp_path):
    source, out = tmp_path / "rows.txt", tmp_path / "out"
    source.write_text("good\nthe fi", encoding="utf-8")
    assert run(source, out) == (0, 2)
    assert run(source, out) == (2, 2)
    source.write_text("good\nthe film was bad\nbut good\n", encoding="utf-8")
    assert run(source, out) == (1, 3)
    assert_labels(out, fast, word_tokenizer, ["good", "the film was bad", "but good"])
    source.write_text("good\nthe film was bad\nbut good\nbad", encoding="utf-8")
    assert run(source, out) == (3, 4)
    source.write_text("good\nthe film was bad\nbut good\nbad\nbad\n", encoding="utf-8")
    assert run(source, out) == (4, 5)


def test_a_row_that_is_open_in_quotes_is_labelled_when_it_is_closed(
    run, fast, word_tokenizer, tmp_path, one_line_error
):
    source, out = tmp_path / "rows.csv", tmp_path / "out"
    source.write_text('text\ngood\n"the film\n', encoding="utf-8")
    with one_line_error(ValueError, f"{source}, row 2 must close its quote (got the end of the file)"):
        run(source, out)
    assert len(lines_of(out)) == 1
    source.write_text('text\ngood\n"the film\nwas bad"\nbut good\n', encoding="utf-8")
    assert run(source, out) == (1, 3)
    assert_labels(out, fast, word_tokenizer, ["good", "the film\nwas bad", "but good"])


# Where labels go that no later run continues


def test_labels_go_to_standard_output(run, source, tmp_path, monkeypatch):
    run(source, tmp_path / "labels")
    for out in (Path("-"), Path("/dev/stdout")):
        stdout = io.TextIOWrapper(io.BytesIO())
        monkeypatch.setattr(sys, "stdout", stdout)
        assert run(source, out) == (0, 50)
        assert stdout.buffer.getvalue() == (tmp_path / "labels").read_bytes()
    assert not list(Path("/dev").glob("*.run.jsonl"))


def test_a_full_device_is_refused_in_one_line(run, source, one_line_error):
    with one_line_error(OSError, "No space left on device: '/dev/full'"):
        run(source, Path("/dev/full"))


def test_closed_standard_output_is_refused_in_one_line(run, source, monkeypatch, one_line_error):
    monkeypatch.setattr(sys, "stdout", None)
    with one_line_error(OSError, "standard output must be open (got none)"):
        run(source, Path("-"))


# What is refused


def change_policy(fast, monkeypatch):
    monkeypatch.setattr(fast, "policy", fast.policy.without_exits())


def change_labels(fast, monkeypatch):
    monkeypatch.setattr(fast.config, "id2label", {0: "negative", 1: "neutral", 2: "positive"})


def change_weights(fast, monkeypatch):
    bias = fast.model.classifier.bias
    monkeypatch.setattr(bias, "data", bias.data + 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_policy, "another policy"),
        (change_labels, "another labels"),
        (change_weights, "another weights"),
    ],
)
def test_labels_of_two_models_never_stand_in_one_file(run, fast, source, tmp_path, monkeypatch, change, words):
    out = tmp_path / "out"
    run(source, out)
    before = out.read_bytes(), record_of(out).read_bytes()
    change(fast, monkeypatch)
    with pytest.raises(ValueError, match=words) as caught:
        run(source, out)
    assert str(caught.value).startswith(f"{out} was made with ")
    assert str(caught.value).endswith(": --overwrite starts anew")
    assert (out.read_bytes(), record_of(out).read_bytes()) == before
    assert run(source, out, overwrite=True) == (0, 50)


def test_another_max_length_is_refused_unless_it_comes_to_the_same(run, source, tmp_path, one_line_error):
    out = tmp_path / "out"
    run(source, out)
    assert run(source, out, max_length=64) == (50, 50)
    with one_line_error(ValueError, f"{out} was made with another max_length: 64 (got 6): --overwrite starts anew"):
        run(source, out, max_length=6)


@pytest.mark.parametrize("place", [0, 7, 30, 49])
@pytest.mark.parametrize("cut", [False, True])
def test_texts_that_have_changed_are_refused(run, source, tmp_path, monkeypatch, one_line_error, place, cut):
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 8)
    out = tmp_path / "out"
    run(source, out)
    if cut and place < 30:
        out.write_bytes(b"".join(out.read_bytes().splitlines(keepends=True)[:30]))
    before = out.read_bytes(), record_of(out).read_bytes()
    rows = source.read_text(encoding="utf-8").splitlines(keepends=True)
    for changed in ([*rows[:place], '{"text": "bad"}\n', *rows[place:]], [*rows[:place], *rows[place + 1 :], rows[0]]):
        source.write_text("".join(changed), encoding="utf-8")
        with one_line_error(ValueError, f"{source} must begin with the "):
            run(source, out)
    assert (out.read_bytes(), record_of(out).read_bytes()) == before


@pytest.mark.parametrize("content", ['{"my": "only copy"}', "a,b\n1,2\n"])
@pytest.mark.parametrize("is_recorded", [False, True])
def test_a_file_that_no_run_has_written_is_refused_and_stays(
    run, source, tmp_path, one_line_error, content, is_recorded
):
    out = tmp_path / "out"
    if is_recorded:
        run(source, out)
    out.write_text(content, encoding="utf-8")
    with one_line_error(ValueError, f"{out} must be "):
        run(source, out)
    assert out.read_text(encoding="utf-8") == content
    assert record_of(out).exists() == is_recorded
    assert run(source, out, overwrite=True) == (0, 50)


def test_an_edited_file_of_labels_is_refused(run, source, tmp_path, one_line_error):
    out = tmp_path / "out"
    run(source, out)
    out.write_bytes(out.read_bytes().replace(b"neutral", b"NEUTRAL"))
    with one_line_error(ValueError, f"{out} must be what its record out.run.jsonl speaks of (got another file)"):
        run(source, out)


def test_lines_of_a_stranger_behind_the_labels_are_refused_and_stay(run, source, tmp_path, one_line_error):
    out = tmp_path / "out"
    run(source, out)
    with out.open("a", encoding="utf-8") as lines:
        lines.write("my notes\n")
    before = out.read_bytes()
    with one_line_error(ValueError, f"{out} must be what its record"):
        run(source, out)
    assert out.read_bytes() == before


def test_one_run_at_a_time_writes_a_file(run, source, tmp_path, one_line_error):
    out = tmp_path / "out"
    with record_of(out).open("a") as record:
        fcntl.flock(record, fcntl.LOCK_EX)
        with one_line_error(ValueError, f"{out} must be written by one run at a time (another one does)"):
            run(source, out)
    assert not out.exists()
    assert run(source, out) == (0, 50)


def test_a_rule_that_no_later_run_can_know_is_refused(fast, run, source, tmp_path, monkeypatch, one_line_error):
    monkeypatch.setattr(fast, "policy", fast.policy.without_exits())
    fast.add_rule(lambda x: x[:, 0] > 0, 1, "encoder.0.attention")
    with one_line_error(ValueError, "must be a LinearCondition or an OffRamp to be saved"):
        run(source, tmp_path / "out")
    assert run(source, Path("/dev/null")) == (0, 50)


def test_a_broken_line_is_named_and_what_was_written_stays(run, source, tmp_path, monkeypatch, one_line_error):
    out = tmp_path / "out"
    run(source, tmp_path / "whole")
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 10)
    rows = source.read_text(encoding="utf-8").split("\n")
    fixed = rows[34]
    rows[34] = "not json"
    source.write_text("\n".join(rows), encoding="utf-8")
    for _ in range(2):  # the number is that of the file, wherever the run began
        with one_line_error(ValueError, f"{source}:35 must be a JSON object (got 'not json"):
            run(source, out)
        assert len(lines_of(out)) == 34  # all before it
    rows[34] = fixed
    source.write_text("\n".join(rows), encoding="utf-8")
    assert run(source, out) == (34, 50)
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
