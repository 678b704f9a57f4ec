"""Files of texts: what is read of each format, and what is refused. The table of the documentation mirrors DOOR."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import sys
import tracemalloc
from pathlib import Path

import pandas
import pyarrow
import pyarrow.parquet
import pytest

from moco_rt.inputs.file_formats import Columns, FileFormat
from moco_rt.inputs.readers import delimited, json_array
from moco_rt.inputs.text_files import open_objects, open_rows, read_rows
from moco_rt.inputs.texts import list_texts

ROWS = [{"text": "a"}, {"text": "b", "text2": "c", "label": 1}, {"text": ""}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
TABLE = [["text", "text2", "label"], ["a film", "so, so", "1"], ["NA", "x\ty", ""], ["two\nlines", "", "POSITIVE"]]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def table(delimiter, ending="\n"):
    return "".join(
        delimiter.join(f'"{cell}"' if set(cell) & set('\t\n,"') else cell for cell in row) + ending for row in TABLE
    )


def parquet(**columns):
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


PAIRS = [("a film", "so, so"), ("NA", "x\ty"), "two\nlines"]
#: What a file is called and holds; the texts that are read of it, or how it is refused.
DOOR = {
    "JSON lines": ("rows.jsonl", LINES, ["a", ("b", "c"), ""]),
    "JSON lines, the other name": ("rows.ndjson", LINES, ["a", ("b", "c"), ""]),
    "an ending in capitals": ("rows.JSONL", LINES, ["a", ("b", "c"), ""]),
    "a byte order mark": ("rows.jsonl", codecs.BOM_UTF8 + LINES.encode(), ["a", ("b", "c"), ""]),
    "lines as on Windows": ("rows.jsonl", LINES.replace("\n", "\r\n"), ["a", ("b", "c"), ""]),
    "blank lines in JSON lines": ("rows.jsonl", f"\n{LINES}  \n\n", ["a", ("b", "c"), ""]),
    "a second text of null": ("rows.jsonl", '{"text": "a", "text2": null}\n', ["a"]),
    "a second text of the other name": ("rows.jsonl", '{"text": "a", "text_pair": "b"}', [("a", "b")]),
    "a JSON array": ("rows.json", json.dumps(ROWS), ["a", ("b", "c"), ""]),
    "a JSON array over many lines": ("rows.json", json.dumps(ROWS, indent=1), ["a", ("b", "c"), ""]),
    "an empty JSON array": ("rows.json", " [ ]\n", []),
    "objects a line called .json": ("rows.json", LINES, ["a", ("b", "c"), ""]),
    "CSV": ("rows.csv", table(","), PAIRS),
    "CSV as on Windows": ("rows.csv", table(",", "\r\n"), PAIRS),
    "CSV with a byte order mark": ("rows.csv", codecs.BOM_UTF8 + table(",").encode(), PAIRS),
    "CSV of a header alone": ("rows.csv", "text,label", []),
    "CSV with blank lines": ("rows.csv", 'text\na\n\n""\nb\n\n', ["a", "", "b"]),
    "CSV with quotes inside cells": ("rows.csv", 'text,id\na 3.5" disk,1\n"a ""b""",2\n', ['a 3.5" disk', 'a "b"']),
    "CSV that ends in a quoted cell": ("rows.csv", 'id,text\n1,"a\nb"', ["a\nb"]),
    "TSV": ("rows.tsv", table("\t"), PAIRS),
    "Parquet": ("rows.parquet", parquet(text=["a", "b"], text2=["c", None], label=[1, 0]), [("a", "c"), "b"]),
    "plain text": ("rows.txt", "a\n\nb", ["a", "", "b"]),
    "plain text as on Windows": ("rows.txt", "a\r\n\r\nb\r\n", ["a", "", "b"]),
    "a zero in front": ("rows.txt", "\0good film\nbad film\n", ["\0good film", "bad film"]),
    "a zero behind a letter": ("rows.csv", "a\0b,text\n1,good film\n", ["good film"]),
    "a carriage return inside a line": ("rows.txt", "a\rb\nc\x0bd\u2028e\n", ["a\rb", "c\x0bd\u2028e"]),
    "an empty file": ("rows.txt", "", []),
    "compressed JSON lines": ("rows.jsonl.gz", gzip.compress(LINES.encode()), ["a", ("b", "c"), ""]),
    "a compressed JSON array": ("rows.json.gz", gzip.compress(json.dumps(ROWS).encode()), ["a", ("b", "c"), ""]),
    "compressed CSV": ("rows.csv.gz", gzip.compress(table(",").encode()), PAIRS),
    "compressed TSV": ("rows.TSV.GZ", gzip.compress(table("\t").encode()), PAIRS),
    "compressed Parquet": ("rows.parquet.gz", gzip.compress(parquet(text=["a", "b"])), ["a", "b"]),
    "compressed plain text": ("rows.txt.gz", gzip.compress(b"a\nb\n"), ["a", "b"]),
    # Refused
    "an unknown ending": ("rows.jl", LINES, "{} must end in one of .jsonl, .ndjson, .json, .csv, .tsv, .parquet, .txt"),
    "no ending": ("rows", LINES, "{} must end in one of .jsonl"),
    "an unknown ending, compressed": ("rows.gz", gzip.compress(b"a"), "{} must end in one of .jsonl"),
    "JSON lines called .txt": ("rows.txt", LINES, "{} must hold a text a line (got a JSON object on the first)"),
    "UTF-16 without a mark, of texts": (
        "rows.txt",
        "a film\n".encode("utf-16-be"),
        "{} must be text in utf-8 (got utf-16-be)",
    ),
    "UTF-32 without a mark": ("rows.txt", "a film\n".encode("utf-32-be"), "{} must be text in utf-8 (got utf-32-be)"),
    "UTF-32": ("rows.txt", codecs.BOM_UTF32_BE + "中".encode("utf-32-be"), "{} must be text in utf-8 (got utf-32)"),
    "texts with carriage returns alone": (
        "rows.txt",
        "a film\rwas good\r",
        "{} must have a line feed behind each text (got carriage returns alone)",
    ),
    "UTF-16": ("rows.jsonl", LINES.encode("utf-16"), "{} must be text in utf-8 (got utf-16)"),
    "UTF-16 without a mark": ("rows.csv", table(",").encode("utf-16-le"), "{} must be text in utf-8 (got utf-16-le)"),
    "Latin-1": ("rows.txt", "a\nä\n".encode("latin-1"), "{}:2 must be text in utf-8 (got byte 0xe4)"),
    "Latin-1 in an array": ("rows.json", b'[{"text": "\xe4"}]', "{} must be text in utf-8 (got byte 0xe4)"),
    "Latin-1 in a table": ("rows.csv", "text\nä\n".encode("latin-1"), "{} must be a table in utf-8 (got: "),
    "half a surrogate pair": ("rows.jsonl", '{"text": "a"}\n{"text": "\\ud83d"}\n', "{}:2 must be text of whole"),
    "half a pair in text2": ("rows.json", '[{"text": "", "text2": "\\udc00"}]', "{}, row 1 must be text of whole"),
    "an array that breaks off": ("rows.json", '[{"text": "a"}, {"te', "{}, row 2 must be a JSON object (got '{\"te')"),
    "an array without an end": ("rows.json", '[{"text": "a"}', "{}, row 1 must be followed by a comma or ] (got '')"),
    "an array that goes on": ("rows.json", '[{"text": "a"}] {}', "{} must be one JSON array (got '{}' behind it)"),
    "an array with a hole": ("rows.json", '[{"text": "a"},]', "{}, row 2 must be a JSON object (got ']')"),
    "an array of texts": ("rows.json", '["a", "b"]', "{}, row 1 must be a JSON object (got '\"a\", \"b\"]')"),
    "an object of columns": ("rows.json", '{"text": ["a"]}', "{}:1 must be an object with strings text and text2"),
    "nesting without end": ("rows.jsonl", '{"text": ' + "[" * 99_999 + "\n", "{}:1 must be a JSON object (got "),
    "a table without texts": ("rows.csv", "a,b\n1,2\n", "{} must have a column text (got a, b)"),
    "a table with two": ("rows.csv", "text,text\n1,2\n", "{} must have columns of different names (got text, text)"),
    "a table without a header": ("rows.csv", "", "{} must have a column text (got none)"),
    "a row of another length": ("rows.csv", "text,label\na,1\nb\n", "{} must be a table in utf-8 (got: "),
    "a row of more than a block": ("rows.csv", "text\n" + "a" * 9_000_000, "{} must have rows of at most 4,194,304"),
    "a quote that stays open": (
        "rows.csv",
        'id,text\n1,a\n2,"b\n3,c\n',
        "{}, row 2 must close its quote (got the end of the file)",
    ),
    "a quote that stays open, of tabs": (
        "rows.tsv.gz",
        gzip.compress(b'text\tlabel\n"a\t1\nb\t0\n'),
        "{} must close its last quote (got the end of the file)",
    ),
    "a doubled quote at the end": ("rows.csv", 'text\n"a""', "{}, row 1 must close its quote (got the end of the "),
    "a quote open in a header": ("rows.csv", 'text,"id\na,1\n', "{} must close the quote in its header (got the end "),
    "numbers without end": (
        "rows.jsonl",
        '{"text": "a"}\n{"text": "b", "n": ' + "1" * 5000 + "}\n",
        "{}:2 must have numbers of at most 4,300 digits (got a longer one in '{\"text\": \"b\", \"n\": 11",
    ),
    "numbers without end in an array": (
        "rows.json",
        '[{"text": "a"}, {"n": ' + "1" * 5000 + "}]",
        "{}, row 2 must have numbers of at most 4,300 digits (got a longer one in '{\"n\": 11",
    ),
    "Parquet without texts": ("rows.parquet", parquet(a=[1]), "{} must have a column text (got a)"),
    "Parquet of numbers": ("rows.parquet", parquet(text=[1]), "{}, row 1 must be an object with strings text"),
    "Parquet of nothing": ("rows.parquet", parquet(text=["a", None]), "{}, row 2 must have a text (got "),
    "Parquet of no UTF-8": (
        "rows.parquet",
        parquet(text=["a bad film"]).replace(b"bad", b"b\xe5d"),
        "{} must be a whole Parquet file (got: ",
    ),
    "Parquet with a name of no UTF-8": (
        "rows.parquet",
        parquet(text=["a"]).replace(b"text", b"te\xe5t"),
        "{} must be a whole Parquet file (got: ",
    ),
    "what is no Parquet": ("rows.parquet", LINES, "{} must be a whole Parquet file (got: "),
    "what is not compressed": ("rows.jsonl.gz", LINES, "{} must be a whole gzip file (got: "),
    "gzip that breaks off": ("rows.jsonl.gz", gzip.compress(b"a\n")[:-9], "{} must be a whole gzip file (got: "),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "expected"), DOOR.values(), ids=DOOR)
def test_files_are_read_or_refused_as_the_table_says(tmp_path, one_line_error, name, content, expected):
    source = write(tmp_path / name, content)
    if isinstance(expected, str):
        with one_line_error(ValueError, expected.replace("{}", str(source), 1)):
            read_rows(source)
    else:
        assert [row.text for row in read_rows(source)] == expected


@pytest.mark.parametrize("second", ["text2", "text_pair"])
def test_a_table_holds_the_same_texts_as_in_a_frame_of_pandas(second, tmp_path):
    source = write(tmp_path / "rows.csv", f'text,{second}\na film,was good\ngood,\nbad,""\n"so, so", \n')
    expected = [("a film", "was good"), "good", "bad", ("so, so", " ")]
    assert [row.text for row in read_rows(source)] == list_texts(pandas.read_csv(source)) == expected
    named = read_rows(source, columns=Columns(text2=second))
    assert [row.text for row in named] == [("a film", "was good"), ("good", ""), ("bad", ""), ("so, so", " ")]


def test_labels_and_places_are_read_as_they_stand(tmp_path):
    source = write(tmp_path / "rows.jsonl", f"\n{LINES}")
    assert [row.label for row in read_rows(source)] == [None, 1, None]
    assert [row.place for row in read_rows(source)] == [f"{source}:{number}" for number in (2, 3, 4)]
    source = write(tmp_path / "rows.csv", table(","))
    assert [row.label for row in read_rows(source)] == ["1", "", "POSITIVE"]
    assert [row.place for row in read_rows(source)] == [f"{source}, row {number}" for number in (1, 2, 3)]
    source = write(tmp_path / "rows.json", json.dumps(ROWS))
    assert [row.place for row in read_rows(source)] == [f"{source}, row {number}" for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("name", "content", "finished"),
    [
        ("rows.txt", "a\nb", [True, False]),
        ("rows.txt", "a\nb\n", [True, True]),
        ("rows.jsonl", '{"text": "a"}\n{"text": "b"}', [True, False]),
        ("rows.csv", "text\na\nb", [True, False]),
        ("rows.csv", "text\r\na\r\nb\r\n", [True, True]),
        ("rows.json", json.dumps(ROWS[:2]), [True, True]),
    ],
)
def test_a_last_line_without_its_end_is_not_finished(tmp_path, name, content, finished):
    assert [row.finished for row in read_rows(write(tmp_path / name, content))] == finished


def test_a_header_of_any_length_and_kind_is_refused_in_a_line(tmp_path, one_line_error):
    source = write(tmp_path / "rows.csv", '"two\nlines",' + "column," * 2000 + "end\n1,2\n")
    with one_line_error(ValueError, f"{source} must have a column text (got two lines, column, "):
        list(read_rows(source))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", '{"a": "x", "b": "y", "c": 1, "text": "no"}\n'),
        ("rows.csv", "text,c,b,a\nno,1,y,x\n"),
        ("rows.parquet", parquet(a=["x"], b=["y"], c=[1], text=["no"])),
    ],
)
def test_columns_can_be_named(tmp_path, one_line_error, name, content):
    source = write(tmp_path / name, content)
    (row,) = read_rows(source, columns=Columns("a", "b", "c"))
    assert row.text == ("x", "y")
    assert str(row.label) == "1"
    for columns in (Columns("d"), Columns("a", "d"), Columns("a", "b", "d")):
        with one_line_error(ValueError, " d (got "):
            read_rows(source, columns=columns)


def test_plain_text_has_no_columns_to_name(tmp_path, one_line_error):
    source = write(tmp_path / "rows.txt", "a\n")
    with one_line_error(ValueError, f"{source} must have columns for them to be named (got a text a line)"):
        read_rows(source, columns=Columns("a"))


def test_a_format_that_is_given_counts_more_than_the_ending(tmp_path):
    source = write(tmp_path / "rows.txt", LINES)
    assert [row.text for row in read_rows(source, FileFormat.JSONL)] == ["a", ("b", "c"), ""]
    assert [row.text for row in read_rows(source, FileFormat.TXT)] == LINES.splitlines()


@pytest.mark.parametrize(("kind", "content"), [("jsonl", LINES.encode()), ("parquet", parquet(text=["a", "b", ""]))])
def test_standard_input_is_read_in_the_format_that_is_given(monkeypatch, one_line_error, kind, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    with one_line_error(ValueError, "standard input must end in one of "):
        read_rows(Path("-"))
    assert len(read_rows(Path("-"), FileFormat(kind))) == 3


def test_closed_standard_input_is_refused(monkeypatch, one_line_error):
    monkeypatch.setattr(sys, "stdin", None)
    with one_line_error(OSError, "standard input must be open (got none)"):
        read_rows(Path("-"), FileFormat.TXT)


def test_a_folder_is_refused_whatever_it_is_called(tmp_path, one_line_error):
    for folder in (tmp_path / "photos", tmp_path / "rows.jsonl"):
        folder.mkdir()
        for door in (open_rows, open_objects):
            with one_line_error(ValueError, f"{folder} must be a file (got a folder)"), door(folder):
                pass


def test_a_missing_file_is_refused_before_a_row_is_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError), open_rows(tmp_path / "rows.jsonl"):
        pass


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_pieces_of_an_array_do_not_show(tmp_path, monkeypatch, chunk):
    rows = [{"text": 'quo"te\\ \U0001f600 ä', "more": [1.5e3, None, {"x": True}]}, {"text": "]"}, {"text": ", {"}]
    for text in (json.dumps(rows), json.dumps(rows, indent=2, ensure_ascii=False)):
        monkeypatch.setattr(json_array, "_CHUNK", chunk)
        assert [row.text for row in read_rows(write(tmp_path / "rows.json", text))] == [row["text"] for row in rows]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.txt", "rows.jsonl.gz"])
def test_memory_stays_flat_on_a_large_file(tmp_path, monkeypatch, name):
    monkeypatch.setattr(delimited, "_BLOCK_BYTES", 1 << 16)  # some thirty of them are read ahead
    text, count = "x" * 1000, 8_000
    line = {"jsonl": f'{{"text": "{text}"}}\n', "json": f'{{"text": "{text}"}},\n'}.get(name.split(".")[1], f"{text}\n")
    content = (line * count).encode()
    content = {"json": b"[" + content[:-2] + b"]", "csv": b"text\n" + content}.get(name.split(".")[1], content)
    source = write(tmp_path / name, gzip.compress(content, 1) if name.endswith("gz") else content)
    del content
    tracemalloc.start()
    try:
        with open_rows(source) as rows:
            assert sum(1 for _ in rows) == count
        assert tracemalloc.get_traced_memory()[1] < 5e6  # of 8 MB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("not json", "must be a JSON object (got 'not json"),
        ('"a text"', "must be an object with strings text and text2, if any (got '\"a text\"')"),
        ('["a", "b"]', "must be an object with strings text and text2, if any (got "),
        ('{"text": 3}', "must be an object with strings text and text2, if any (got "),
        ('{"text": "a", "text2": 3}', "must be an object with strings text and text2, if any (got "),
        ('{"text": null}', "must have a text (got "),
        ('{"label": "a"}', 'must have a text (got \'{"label": "a"}\')'),
    ],
)
def test_a_broken_line_is_named(tmp_path, one_line_error, line, words):
    source = write(tmp_path / "rows.jsonl", f'{{"text": "fine"}}\n{line}\n')
    with one_line_error(ValueError, f"{source}:2 {words}"):
        read_rows(source)
