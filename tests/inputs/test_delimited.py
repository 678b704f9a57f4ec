"""Tables of delimited text: blocks end where rows do, whatever stands in quotes, and a bad row costs itself alone."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest

from moco_rt.inputs.readers import delimited
from moco_rt.inputs.text_files import open_rows, read_rows

#: Tables, and the texts in their first column.
TABLES = {
    "plain": ("a,1\nb c,2\nd,3\n", ["a", "b c", "d"]),
    "as on Windows": ("a,1\r\nb c,2\r\n", ["a", "b c"]),
    "as on old Macs": ("a,1\rb c,2\r", ["a", "b c"]),
    "blank lines": ("\na,1\n\r\n\nb,2\n\n", ["a", "b"]),
    "no end": ("a,1\nb,2", ["a", "b"]),
    "ends in quotes": ('"a\nb",1\n"c\r\n",2\n"\n\n",3\n', ["a\nb", "c\r\n", "\n\n"]),
    "delimiters in quotes": ('"a,b",","\n",",2\n', ["a,b", ","]),
    "doubled quotes": ('"a ""b""",""""\n"""",""\n"""\n""",1\n', ['a "b"', '"', '"\n"']),
    "empty cells in quotes": ('"",""\n"",1\n', ["", ""]),
    "quotes inside cells": ('a 3.5" disk,"1"\nb"c"",d"\n', ['a 3.5" disk', 'b"c""']),
    "more behind a quote": ('"a"b"c,1\n"d" ,"2\n"\n', ['ab"c', "d "]),
    "many cells": ('"a\n",1\n' * 9 + "b,2\n" * 9, ["a\n"] * 9 + ["b"] * 9),
}


@pytest.mark.parametrize("size", [20, 21, 22, 23, 24, 25, 26, 40, 1 << 22])
@pytest.mark.parametrize(("body", "texts"), TABLES.values(), ids=TABLES)
def test_rows_do_not_depend_on_blocks(tmp_path, monkeypatch, body, texts, size):
    monkeypatch.setattr(delimited, "_BLOCK_BYTES", size)
    monkeypatch.setattr(delimited, "_GAPS", 2)
    for delimiter, ending in ((",", "csv"), ("\t", "tsv")):
        source = tmp_path / f"rows.{ending}"
        source.write_bytes(f"text,id\n{body}".replace(",", delimiter).encode())
        rows = read_rows(source)
        assert [row.text for row in rows] == [text.replace(",", delimiter) for text in texts]
        assert [row.place for row in rows] == [f"{source}, row {number + 1}" for number in range(len(texts))]


def read_until_refused(source):
    """Return the texts that are read, and the error that ends them."""
    texts = []
    try:
        with open_rows(source) as rows:
            for row in rows:
                texts.append(row.text)
    except ValueError as error:
        return texts, str(error)
    raise AssertionError("nothing was refused")


GOOD = "a fine film,1\n"
#: A bad row, what follows it, and what is said of it in row 8.
BAD = {
    "too few cells": (
        "q\n",
        GOOD * 5,
        "{} must be a table in utf-8 (got: row 8: CSV parse error: Expected 2 columns, ",
    ),
    "too many cells": ("q,1,2\n", "", "{} must be a table in utf-8 (got: row 8: CSV parse error: Expected 2 columns, "),
    "several": ("q\n" * 5, GOOD, "{} must be a table in utf-8 (got: row 8: CSV parse error: Expected 2 columns, "),
    "no UTF-8": (
        "b\udce4d,1\n",
        GOOD * 5,
        "{} must be a table in utf-8 (got: row 8: In CSV column #0: CSV conversion ",
    ),
    "too long": (
        "a" * 3000 + ",1\n",
        GOOD * 5,
        "{} must have rows of at most 2,000 bytes (got a longer one, or a quote",
    ),
    "an open quote": ('"a,1\n', GOOD * 5, "{} must close its last quote (got the end of the file)"),
    "an open quote in the last cell": ('a,"1\n', GOOD * 5, "{}, row 8 must close its quote (got the end of the file)"),
}


@pytest.mark.parametrize("good", [GOOD, '"a fine film","1"\r\n', "a fine film,1\r"], ids=repr)
@pytest.mark.parametrize(("bad", "behind", "words"), BAD.values(), ids=BAD)
def test_rows_before_a_bad_one_are_read(tmp_path, monkeypatch, good, bad, behind, words):
    monkeypatch.setattr(delimited, "_BLOCK_BYTES", 2000)
    source = tmp_path / "rows.csv"
    for count in (7, 700):
        source.write_bytes(f"text,id\n{good * count}{bad}{behind}".encode("utf-8", "surrogateescape"))
        texts, error = read_until_refused(source)
        assert texts == ["a fine film"] * count
        assert error.startswith(words.replace("{}", str(source)).replace("row 8", f"row {count + 1}"))


def test_a_compressed_table_that_breaks_off_is_read_up_to_there(tmp_path):
    source = tmp_path / "rows.csv.gz"
    content = "".join(f"a film of {number},1\n" for number in range(50_000))
    source.write_bytes(gzip.compress(f"text,id\n{content}".encode())[:-2000])
    texts, error = read_until_refused(source)
    assert 40_000 < len(texts) < 50_000
    assert texts == [f"a film of {number}" for number in range(len(texts))]
    assert error.startswith(f"{source} must be a whole gzip file (got: ")


def test_rows_of_parquet_before_a_bad_one_are_read(tmp_path):
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": ["good", "a bad film", "fine"]}), file)
    source = tmp_path / "rows.parquet"
    source.write_bytes(file.getvalue().replace(b"bad", b"b\xe5d"))
    texts, error = read_until_refused(source)
    assert texts == ["good"]
    assert error.startswith(f"{source} must be a whole Parquet file (got: ")


def test_a_bad_row_of_a_long_table_lets_the_process_end(tmp_path):
    """A thread of pyarrow's that still reads a stream of Python's aborts the process, or hangs it."""
    source = tmp_path / "rows.csv"
    source.write_text("text,id\n" + "a,1\n" * 5 + "q\n" + 'hello "x" world,1\n' * 800_000, encoding="utf-8")
    code = (
        "import pathlib, sys; from moco_rt.inputs.text_files import open_rows\n"
        "try:\n"
        "    with open_rows(pathlib.Path(sys.argv[1])) as rows:\n"
        "        for row in rows: print(row.text)\n"
        "except ValueError as error: sys.exit(str(error))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(source)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stdout == "a\n" * 5
    assert ended.stderr == (
        f"{source} must be a table in utf-8 (got: row 6: CSV parse error: Expected 2 columns, got 1: q)\n"
    )
    assert ended.returncode == 1


def test_a_byte_order_mark_in_front_of_a_text_is_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "_BLOCK_BYTES", 20)
    texts = ["\ufeffgood", "\ufeffbad", "\ufeff", "a\ufeff", "\ufeffa\nb"]
    for name, mark in (("rows.csv", ""), ("rows.tsv", "\ufeff")):
        source = tmp_path / name
        source.write_text(f"{mark}text\n" + "".join(f'"{text}"\n' for text in texts), encoding="utf-8")
        assert [row.text for row in read_rows(source)] == texts
        source.write_text(f"{mark}text\n" + "".join(f"{text}\n" for text in texts[:-1]), encoding="utf-8")
        assert [row.text for row in read_rows(source)] == texts[:-1]
