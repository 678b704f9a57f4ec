from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from frame_samples import SITE, assert_same, packed, small_frame
from hypothesis import given, settings
from hypothesis import strategies as st

from moco_rt.analysis.columns import Column, PackedColumn
from moco_rt.analysis.frame import MLFrame
from moco_rt.analysis.frame_files import FrameWriter, read_columns


def is_mapped(array):
    return isinstance(array, np.memmap) or (isinstance(array, np.ndarray) and is_mapped(array.base))


def write(path, *chunks, then=None):
    with FrameWriter(path) as writer:
        for chunk in chunks:
            writer.append(chunk)
        assert [entry.name for entry in path.parent.iterdir()] == [f"{path.name}.partial"]
        if then is not None:
            raise then


def edit_index(path, **changes):
    file = path / "index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    "data",
    [
        {"x": np.arange(12, dtype=np.int8).reshape(2, 3, 2)},
        {"x": np.array([1.5, np.nan], np.float16), "b": [True, False], "n": np.array([1, 2], np.uint32)},
        {"text": ["a", None], "empty": ["", "é\n"]},
        {"x": np.array([["a", "bc"]])},
        {"tokens": packed([0, 4], dtype=np.float64)},
        {"x": np.zeros((0, 3), np.float32), "label": np.zeros(0, np.int64), "tokens": packed([])},
        {"a/b é": np.ones((2, 2)), "..": np.zeros((2, 2)), "a.b": [1, 2], "a": [3, 4]},
        {},
    ],
)
def test_frame_comes_back_as_it_was_written(tmp_path, data):
    frame = MLFrame(data)
    frame.to_frame(tmp_path / "frame")
    assert_same(MLFrame.load_frame(tmp_path / "frame"), frame)


def test_loaded_frame_keeps_order_and_provenance_and_maps_its_arrays(tmp_path):
    small_frame().to_frame(str(tmp_path / "new" / "frame"))
    frame = MLFrame.load_frame(str(tmp_path / "new" / "frame"))
    assert_same(frame, small_frame())
    assert is_mapped(frame["x"])
    assert is_mapped(frame.subset(slice(1, None))["x"])
    assert is_mapped(frame["tokens"].values)
    assert is_mapped(frame["tokens"].row(0))
    assert not is_mapped(frame["tokens"].cu_seqlens)
    assert frame["label"].flags.writeable


def test_read_columns_yields_a_written_frame_column_by_column(tmp_path):
    write(tmp_path / "frame", dict(small_frame().get_arrays()))
    columns = dict(read_columns(tmp_path / "frame"))
    assert list(columns) == ["x", "tokens"]
    assert not columns["x"].flags.writeable
    assert not columns["tokens"].values.flags.writeable


def test_loaded_frame_can_be_written_again(tmp_path):
    small_frame().to_frame(tmp_path / "a")
    MLFrame.load_frame(tmp_path / "a").to_frame(tmp_path / "b")
    assert_same(MLFrame.load_frame(tmp_path / "b"), small_frame())


def test_frame_is_a_directory_of_known_files(tmp_path):
    frame = small_frame()
    frame["a/b"] = np.zeros((3, 1))
    frame.to_frame(tmp_path / "frame")
    files = {file.name for file in (tmp_path / "frame").iterdir()}
    assert files == {
        "index.json", "tabular.parquet", "x.npy", "a%2Fb.npy", "tokens.npy", "tokens@cu_seqlens.npy",
    }  # fmt: skip
    assert json.loads((tmp_path / "frame" / "index.json").read_text()) == {
        "format": "moco_rt.frame",
        "version": 1,
        "rows": 3,
        "columns": [
            {"name": "text", "kind": "tabular", "site": None, "feature": None},
            {"name": "label", "kind": "tabular", "site": None, "feature": None},
            {"name": "x", "kind": "array", "site": SITE, "feature": "cls"},
            {"name": "tokens", "kind": "packed", "site": SITE, "feature": "tokens"},
            {"name": "a/b", "kind": "array", "site": None, "feature": None},
        ],
    }
    assert pd.read_parquet(tmp_path / "frame" / "tabular.parquet")["text"].tolist() == ["good", "bad", "ugly"]


def test_fortran_order_is_written_as_c(tmp_path):
    x = np.asfortranarray(np.arange(12).reshape(4, 3))
    MLFrame({"x": x}).to_frame(tmp_path / "frame")
    written = np.load(tmp_path / "frame" / "x.npy")
    assert written.flags.c_contiguous
    np.testing.assert_array_equal(written, x)


def test_to_frame_does_not_overwrite(tmp_path):
    with pytest.raises(FileExistsError, match="must not exist yet"):
        small_frame().to_frame(tmp_path)


def truncate(file):
    file.write_bytes(file.read_bytes()[:-1])


SPOILS = {
    "another format": (
        lambda p: edit_index(p, format="other"),
        r"must be a moco_rt.frame of version 1 \(got 'other', version 1\)$",
    ),
    "a newer version": (
        lambda p: edit_index(p, version=2),
        r"must be a moco_rt.frame of version 1 \(got 'moco_rt.frame', version 2\)$",
    ),
    "no JSON": (
        lambda p: (p / "index.json").write_text("{"),
        r"must be a moco_rt.frame of version 1 \(got a file that is not JSON\)$",
    ),
    "no version": (
        lambda p: (p / "index.json").write_text("[]"),
        r"must be a moco_rt.frame of version 1 \(got None, version None\)$",
    ),
    **{
        f"index with {what}": (
            lambda p, change=change: edit_index(p, **change),
            rf"index.json must be whole \({words}\)$",
        )
        for what, change, words in (
            ("no list of columns", {"columns": 5}, "got 'int' object is not iterable"),
            ("a column of no kind", {"columns": [{"name": "x", "site": None, "feature": None}]}, "kind is missing"),
            (
                "a column of a kind unknown",
                {"columns": [{"name": "x", "kind": "odd", "site": None, "feature": None}]},
                "got columns of an unknown kind, or no number of rows",
            ),
            ("a column of no site", {"columns": [{"name": "x", "kind": "array", "feature": None}]}, "site is missing"),
            ("a number for a name", {"columns": [{"name": 1}]}, "got 1 for name, which must be str"),
            ("rows that are no number", {"rows": "three"}, "got columns of an unknown kind, or no number of rows"),
        )
    },
    "no array": (lambda p: (p / "x.npy").unlink(), "x.npy must exist, "),
    **{
        f"{kind} named by {what}": (
            lambda p, name=name, kind=kind: edit_index(
                p, columns=[{"name": name, "kind": kind, "site": None, "feature": None}]
            ),
            "must ",
        )
        for what, name in (("a page", "x" * 5000), ("half a character", "\ud800"))
        for kind in ("array", "packed", "tabular")
    },
    "a table named in no UTF-8": (
        lambda p: (p / "tabular.parquet").write_bytes(
            (p / "tabular.parquet").read_bytes().replace(b"text", b"te\xe5t")
        ),
        "must be a whole Parquet file with a column 'text'$",
    ),
    "no boundaries": (lambda p: (p / "tokens@cu_seqlens.npy").unlink(), "tokens@cu_seqlens.npy must exist, "),
    "no table": (lambda p: (p / "tabular.parquet").unlink(), "tabular.parquet must exist, "),
    "truncated array": (lambda p: truncate(p / "x.npy"), r"x.npy must have 140 bytes \(got 139\)$"),
    "truncated tokens": (
        lambda p: truncate(p / "tokens.npy"),
        r"tokens.npy must have 168 bytes \(got 167\)$",
    ),
    "truncated boundaries": (
        lambda p: truncate(p / "tokens@cu_seqlens.npy"),
        r"tokens@cu_seqlens.npy must have 160 bytes \(got 159\)$",
    ),
    "truncated table": (
        lambda p: truncate(p / "tabular.parquet"),
        "must be a whole Parquet file with a column",
    ),
    "another table": (
        lambda p: pd.DataFrame({"y": [1]}).to_parquet(p / "tabular.parquet"),
        "must be a whole Parquet file with a column 'text'$",
    ),
    "no header": (
        lambda p: (p / "x.npy").write_bytes(b"x" * 140),
        "x.npy must start with a whole .npy 1.0 header$",
    ),
    "half a header": (
        lambda p: (p / "x.npy").write_bytes((p / "x.npy").read_bytes()[:50]),
        "x.npy must start with a whole .npy 1.0 header$",
    ),
    "no axis": (
        lambda p: np.save(p / "x.npy", np.float32(1)),
        r"x.npy must hold rows of numbers \(got float32 \(\)\)$",
    ),
    "fewer rows": (
        lambda p: np.save(p / "x.npy", np.zeros((2, 2))),
        r"x.npy must have 3 rows as index.json says \(got 2\)$",
    ),
    "fewer boundaries": (
        lambda p: np.save(p / "tokens@cu_seqlens.npy", [0, 5]),
        r"tokens@cu_seqlens.npy must have 3 rows as index.json says \(got 1\)$",
    ),
    "other boundaries": (
        lambda p: np.save(p / "tokens@cu_seqlens.npy", [0, 1, 2, 3]),
        r"tokens@cu_seqlens.npy does not fit its values: PackedColumn: cu_seqlens must ",
    ),
    "other rows": (
        lambda p: edit_index(p, rows=4),
        r"tabular.parquet must have 4 rows as index.json says \(got 3\)$",
    ),
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_load_refuses_in_one_line(tmp_path, spoil):
    small_frame().to_frame(tmp_path / "frame")
    act, message = SPOILS[spoil]
    act(tmp_path / "frame")
    with pytest.raises(ValueError, match=message) as raised:
        MLFrame.load_frame(tmp_path / "frame")
    assert raised.type is ValueError
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000
    assert str(tmp_path / "frame") in str(raised.value)


def test_directory_without_index_is_no_frame(tmp_path):
    message = r"^no frame at .*: index.json is missing \(an interrupted capture leaves none\)$"
    with pytest.raises(FileNotFoundError, match=message):
        MLFrame.load_frame(tmp_path)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 5), max_size=12),
    cuts=st.lists(st.integers(0, 12), max_size=4),
    dim=st.integers(0, 3),
    dtype=st.sampled_from([np.float32, np.float16, np.int64]),
)
def test_any_chunking_gives_the_concatenation(tmp_path_factory, lengths, cuts, dim, dtype):
    whole = MLFrame({"tokens": packed(lengths, dim, dtype), "n": np.array(lengths, np.int64)})
    path = tmp_path_factory.mktemp("frames") / "frame"
    bounds = [0, *sorted(min(cut, len(lengths)) for cut in cuts), len(lengths)]
    chunks = [whole.subset(slice(start, stop)) for start, stop in itertools.pairwise(bounds)]
    write(path, *({name: chunk[name] for name in chunk} for chunk in chunks))
    assert_same(MLFrame.load_frame(path), whole)


def test_chunks_may_reuse_their_buffers(tmp_path):
    x, label, values = np.zeros((2, 3)), np.zeros(2), np.zeros((4, 1))
    with FrameWriter(tmp_path / "frame") as writer:
        for i in range(3):
            x[:], label[:], values[:] = i, i, i
            writer.append({"x": x, "label": label, "tokens": PackedColumn(values, np.array([0, 1, 4]))})
    frame = MLFrame.load_frame(tmp_path / "frame")
    assert frame["label"].tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(frame["x"][:, 0], frame["label"])
    np.testing.assert_array_equal(frame["tokens"].values[:, 0], np.repeat([0, 1, 2], 4))


CHUNK = {"label": [1, 2], "x": np.zeros((2, 3), np.float32), "tokens": packed([1, 2])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": None}, r"columns must be \['label', 'x', 'tokens'\] \(got \['label', 'tokens'\]\)"),
        ({"y": [1, 2]}, r"\(got \['label', 'x', 'tokens', 'y'\]\)"),
        ({"x": [1, 2]}, r"column 'x' must be array float32 \(\*, 3\) \(got tabular int64 \(\*\)\)"),
        ({"x": np.zeros((2, 3))}, r"\(got array float64 \(\*, 3\)\)"),
        ({"x": np.zeros((2, 4), np.float32)}, r"\(got array float32 \(\*, 4\)\)"),
        ({"x": Column.of(np.zeros((2, 3), np.float32), SITE)}, rf"\(got array float32 \(\*, 3\) {SITE}\)"),
        (
            {"label": [1.0, 2.0]},
            r"column 'label' must be tabular int64 \(\*\) \(got tabular float64 \(\*\)\)",
        ),
        ({"label": ["a", "b"]}, r"\(got tabular object \(\*\)\)"),
        ({"tokens": packed([1, 2], dim=3)}, r"column 'tokens' must be packed float32 \(\*, 2\)"),
        ({"tokens": packed([1])}, r"MLFrame: column 'tokens' must have 2 rows like the others \(got 1\)"),
    ],
)
def test_chunks_must_be_alike(tmp_path, change, message):
    chunk = {name: values for name, values in {**CHUNK, **change}.items() if values is not None}
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "frame", CHUNK, chunk)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_interruption_leaves_nothing(tmp_path, error):
    with pytest.raises(error):
        write(tmp_path / "frame", CHUNK, then=error)
    assert list(tmp_path.iterdir()) == []


def test_a_stale_partial_is_removed(tmp_path):
    (tmp_path / "frame.partial").mkdir()
    (tmp_path / "frame.partial" / "x.npy").write_bytes(b"stale")
    write(tmp_path / "frame", {"y": [1]})
    assert [entry.name for entry in tmp_path.iterdir()] == ["frame"]
    assert not (tmp_path / "frame" / "x.npy").exists()


def test_writer_without_chunks_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^FrameWriter: no rows were appended$"):
        write(tmp_path / "frame")
    assert list(tmp_path.iterdir()) == []


def test_writer_refuses_an_existing_path_at_construction(tmp_path):
    with pytest.raises(FileExistsError, match=r"^FrameWriter: .* must not exist yet$"):
        FrameWriter(tmp_path)


@pytest.mark.parametrize("name", ["a.cu_seqlens", "a@cu_seqlens", "a%40cu_seqlens"])
def test_no_name_of_a_column_meets_the_boundaries_of_another(tmp_path, name):
    frame = MLFrame({"a": packed([1]), name: np.zeros((1, 2))})
    frame.to_frame(tmp_path / "frame")
    assert_same(MLFrame.load_frame(tmp_path / "frame"), frame)
