"""The door for texts: what is taken, what is refused and in which words. The documentation's table says the same."""

from __future__ import annotations

import subprocess
import sys

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from transformers import BatchEncoding

from moco_rt.inputs.texts import check_text, iter_texts, list_texts, lone_surrogate, take_texts

TEXTS = ["good", "", "bad film"]
PAIRS = [("good", "film"), ("bad", ""), ("", "the")]
LABELS = [0, 1, 0]
ROWS = [{"label": 0, "text": text} for text in TEXTS]
PAIR_ROWS = [{"text": one, "text2": two, "label": 1} for one, two in PAIRS]
NAMED = [{"premise": one, "hypothesis": two, "text": "not this"} for one, two in PAIRS]
FRAME = pd.DataFrame({"label": LABELS, "text": TEXTS})

#: name -> what is passed, the argument columns, and what comes out.
TAKEN = {
    "a list": (TEXTS, None, TEXTS),
    "a tuple": (tuple(TEXTS), None, TEXTS),
    "a generator": ((text for text in TEXTS), None, TEXTS),
    "an iterator": (iter(TEXTS), None, TEXTS),
    "values of a dict": (dict(enumerate(TEXTS)).values(), None, TEXTS),
    "a NumPy array of str": (np.array(TEXTS), None, TEXTS),
    "a NumPy array of object": (np.array(TEXTS, object), None, TEXTS),
    "a NumPy array of pairs": (np.array(PAIRS), None, PAIRS),
    "NumPy strings in a list": (list(np.array(TEXTS)), None, TEXTS),
    "a pandas Series": (pd.Series(TEXTS), None, TEXTS),
    "a pandas Series with another index": (pd.Series(TEXTS, index=[2, 0, 1]), None, TEXTS),
    "a pandas Series of strings": (pd.Series(TEXTS, dtype="string"), None, TEXTS),
    "a pandas Series of categories": (pd.Series(TEXTS, dtype="category"), None, TEXTS),
    "a filtered pandas Series": (pd.Series(["no", *TEXTS])[1:], None, TEXTS),
    "a pandas Index": (pd.Index(TEXTS), None, TEXTS),
    "a pyarrow array": (pa.array(TEXTS), None, TEXTS),
    "a pyarrow chunked array": (pa.chunked_array([TEXTS[:1], TEXTS[1:]]), None, TEXTS),
    "a column of a data set": (datasets.Dataset.from_list(ROWS)["text"], None, TEXTS),
    "pairs as tuples": (PAIRS, None, PAIRS),
    "pairs as lists": ([list(pair) for pair in PAIRS], None, PAIRS),
    "pairs and texts": ([PAIRS[0], "film"], None, [PAIRS[0], "film"]),
    "a data set": (datasets.Dataset.from_list(ROWS), None, TEXTS),
    "a data set of pairs": (datasets.Dataset.from_list(PAIR_ROWS), None, PAIRS),
    "a data set with named columns": (datasets.Dataset.from_list(NAMED), ("premise", "hypothesis"), PAIRS),
    "a data set that is read as it comes": (datasets.Dataset.from_list(ROWS).to_iterable_dataset(), None, TEXTS),
    "a frame": (FRAME, None, TEXTS),
    "a frame of one column": (FRAME[["text"]], None, TEXTS),
    "a frame with another index": (FRAME.set_index(np.array([5, 5, 1])), None, TEXTS),
    "a frame of pairs": (pd.DataFrame(PAIR_ROWS), None, PAIRS),
    "a frame with a named column": (pd.DataFrame(NAMED), "hypothesis", [two for _, two in PAIRS]),
    "a pyarrow table": (pa.Table.from_pylist(PAIR_ROWS), None, PAIRS),
    "rows": (ROWS, None, TEXTS),
    "rows from a generator": ((row for row in ROWS), None, TEXTS),
    "rows of pairs": (PAIR_ROWS, None, PAIRS),
    "rows of pairs by their other name": ([{"text": a, "text_pair": b} for a, b in PAIRS], None, PAIRS),
    "rows with and without a second text": ([{"text": "a", "text2": None}, PAIR_ROWS[0]], None, ["a", PAIRS[0]]),
    "rows of a frame": (
        pd.DataFrame({"text": ["a", "b"], "text2": [None, "x"]}).to_dict("records"),
        None,
        ["a", ("b", "x")],
    ),
    **{
        f"a frame with and without a second text, of {kind}": (
            pd.DataFrame({"text": pd.Series(["a", "b"]), "text2": pd.Series([missing, "x"], dtype=kind)}),
            None,
            ["a", ("b", "x")],
        )
        for kind, missing in {None: None, "object": float("nan"), "string": None, "category": None}.items()
    },
    "a frame whose second texts are all missing": (
        pd.DataFrame({"text": ["a"], "text2": np.array([np.nan], np.float32)}),
        None,
        ["a"],
    ),
    "rows with named columns": (NAMED, ("premise", "hypothesis"), PAIRS),
    "rows with a named column": (NAMED, ["premise"], [one for one, _ in PAIRS]),
    "characters of any kind": (["a\0b", "\ufeff", "é😀", "\u202e"], None, ["a\0b", "\ufeff", "é😀", "\u202e"]),
}

#: name -> what is passed, the argument columns, the error, and its words.
REFUSED = {
    "one text": ("a film", None, TypeError, "texts must be a sequence of texts (got one str)"),
    "bytes": (b"a film", None, TypeError, "texts must be a sequence of texts (got one bytes)"),
    "None": (None, None, TypeError, "texts must be a sequence of texts (got NoneType)"),
    "a number": (7, None, TypeError, "texts must be a sequence of texts (got int)"),
    "an array of no dimension": (np.array("a"), None, TypeError, "texts must be a sequence of texts (got one ndarray)"),
    "a set": ({"a"}, None, TypeError, "texts must have an order (got set)"),
    "nothing": ([], None, ValueError, "texts must hold at least one text (got none)"),
    "an empty iterator": (iter([]), None, ValueError, "texts must hold at least one text (got none)"),
    "an empty frame": (FRAME[:0], None, ValueError, "texts must hold at least one text (got none)"),
    "what a tokenizer made": (
        BatchEncoding({"input_ids": [[2, 3]]}),
        None,
        TypeError,
        "texts must be texts or rows, not what a tokenizer made of them (got BatchEncoding)",
    ),
    "a dict of columns": (
        {"text": TEXTS, "label": LABELS},
        None,
        TypeError,
        "texts must be texts or rows, not a dict of columns or of splits (got dict)",
    ),
    "splits of a data set": (
        datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}),
        None,
        TypeError,
        "texts must be texts or rows, not a dict of columns or of splits (got DatasetDict)",
    ),
    "None among texts": (
        ["a", None],
        None,
        TypeError,
        "texts must hold texts or pairs of texts (got NoneType at place 1)",
    ),
    "NaN among texts": (
        pd.Series(["a", float("nan")], dtype=object),
        None,
        TypeError,
        "texts must hold texts or pairs of texts (got float at place 1)",
    ),
    "NA among texts": (
        pd.Series(["a", pd.NA], dtype=object),
        None,
        TypeError,
        "texts must hold texts or pairs of texts (got NAType at place 1)",
    ),
    "a null in a pyarrow array": (
        pa.array(["a", None]),
        None,
        TypeError,
        "texts must hold texts or pairs of texts (got NoneType at place 1)",
    ),
    "bytes among texts": ([b"a"], None, TypeError, "texts must hold texts or pairs of texts (got bytes at place 0)"),
    "numbers": (np.arange(3), None, TypeError, "texts must hold texts or pairs of texts (got int at place 0)"),
    "tokens": (torch.ones(1, 3), None, TypeError, "texts must hold texts or pairs of texts (got list at place 0)"),
    "three texts in one": (
        ["a", ("a", "b", "c")],
        None,
        TypeError,
        "texts must hold texts or pairs of texts (got tuple at place 1)",
    ),
    "a set among texts": (
        ["a", {"b"}],
        None,
        TypeError,
        "texts must hold texts or pairs of texts (got set at place 1)",
    ),
    "a row without a text": (
        [ROWS[0], {"label": 1, "review": "a"}],
        None,
        ValueError,
        "texts must have 'text' in every row: columns= names others (got 'label', 'review' at place 1)",
    ),
    "an empty row": ([{}], None, ValueError, "columns= names others (got no column at place 0)"),
    "a row whose text is None": (
        [ROWS[0], {"text": None}],
        None,
        TypeError,
        "texts must hold texts or pairs of texts (got NoneType at place 1)",
    ),
    "a row whose named second text is None": (
        [{"text": "a", "text2": None}],
        ("text", "text2"),
        TypeError,
        "texts must hold texts or pairs of texts (got NoneType as the second text at place 0)",
    ),
    "a frame whose named second text is missing": (
        pd.DataFrame({"text": ["a", "b"], "text2": ["x", None]}),
        ("text", "text2"),
        TypeError,
        "texts must hold texts or pairs of texts (got NoneType as the second text at place 1)",
    ),
    "a frame whose text is missing": (
        pd.DataFrame({"text": ["a", None], "text2": ["x", "y"]}),
        None,
        TypeError,
        "texts must hold texts or pairs of texts (got NoneType as the first text at place 1)",
    ),
    "a number in a pair": (
        ["a", ("a", 1.5)],
        None,
        TypeError,
        "texts must hold texts or pairs of texts (got float as the second text at place 1)",
    ),
    "bytes in a pair": (
        [[b"a", "b"]],
        None,
        TypeError,
        "texts must hold texts or pairs of texts (got bytes as the first text at place 0)",
    ),
    "a data set without a text": (
        datasets.Dataset.from_dict({"sentence": TEXTS}),
        None,
        ValueError,
        "texts must have a column 'text': columns= names others (got 'sentence')",
    ),
    "a frame without a named column": (
        FRAME,
        ("text", "b"),
        ValueError,
        "texts must have a column 'b': columns= names others (got 'label', 'text')",
    ),
    "a frame with a column twice": (
        pd.concat([FRAME, FRAME], axis=1),
        None,
        ValueError,
        "texts must have one column 'text' (got several)",
    ),
    "columns of texts that have none": (
        ["a"],
        "text",
        TypeError,
        "texts must be rows with columns, for columns= (got str at place 0)",
    ),
    "three columns": (
        ROWS,
        ("a", "b", "c"),
        TypeError,
        "columns must be a name or a pair of names (got ('a', 'b', 'c'))",
    ),
    "columns that are no names": (ROWS, 3, TypeError, "columns must be a name or a pair of names (got 3)"),
    "half of a surrogate pair": (
        ["a", "b\ud83d"],
        None,
        ValueError,
        "texts must be valid Unicode (got a lone surrogate U+D83D as character 1 of the text at place 1)",
    ),
    "half of a surrogate pair in a pair": (
        [("a", "\udc00")],
        None,
        ValueError,
        "texts must be valid Unicode (got a lone surrogate U+DC00 as character 0 of the text at place 0)",
    ),
}


@pytest.mark.parametrize("name", TAKEN)
def test_texts_are_taken_as(name):
    texts, columns, expected = TAKEN[name]
    found = list_texts(texts, columns)
    assert found == expected
    assert all(type(part) in (str, np.str_) for text in found for part in ([text] if isinstance(text, str) else text))


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_in_one_line_is(name, one_line_error):
    texts, columns, kind, words = REFUSED[name]
    with one_line_error(kind, words):
        list_texts(texts, columns)


def test_an_iterator_is_read_no_further_than_is_asked(one_line_error):
    read = []
    texts = iter_texts(read.append(text) or text for text in ["a", "b", None])
    assert read == []
    assert (next(texts), read) == ("a", ["a"])
    assert next(texts) == "b"
    with one_line_error(TypeError, "texts must hold texts or pairs of texts (got NoneType at place 2)"):
        next(texts)


def test_what_holds_the_texts_is_refused_before_one_is_read(one_line_error):
    with one_line_error(TypeError, "texts must be a sequence of texts (got one str)"):
        iter_texts("a film")


def test_what_has_a_length_is_read_at_once_and_the_rest_as_it_comes():
    assert take_texts(pd.Series(TEXTS)) == TEXTS
    with pytest.raises(TypeError):
        take_texts(["a", None])
    assert next(take_texts(iter(["a", None]))) == "a"


def test_what_is_not_unicode_passes_where_that_is_asked_for():
    assert list_texts(["a\ud83d"], allow_surrogates=True) == ["a\ud83d"]
    assert lone_surrogate("a\ud83d") == "lone surrogate U+D83D as character 1"
    assert lone_surrogate(("é", "a")) is None


@pytest.mark.parametrize("text", ["", "a film", ("a", "b"), ["a", "b"]], ids=repr)
def test_texts_and_pairs_are_texts(text):
    check_text(text, 0)


@pytest.mark.parametrize(
    "text", [None, 1, b"a", ("a",), ["a", "b", "c"], pytest.param({"a", "b"}, id="a set")], ids=repr
)
def test_what_is_no_text_is_refused_by_its_place(text, one_line_error):
    words = f"texts must hold texts or pairs of texts (got {type(text).__name__} at place 7)"
    with one_line_error(TypeError, words):
        check_text(text, 7)


def test_libraries_of_frames_are_not_imported_to_ask_what_something_is():
    code = (
        "import sys, importlib.util as u, moco_rt\n"
        "before = set(sys.modules)\n"
        "from moco_rt.inputs.texts import list_texts\n"
        "list_texts(['a', ('a', 'b'), {'text': 'a'}])\n"
        "print(sorted({'pandas', 'pyarrow', 'datasets', 'polars'} & (set(sys.modules) - before)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
