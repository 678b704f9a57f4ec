"""`moco-rt accelerate --keep-top` and `moco-rt rank`, one after the other."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from moco_rt import Cascade, EarlyExitReranker, Ranking, accelerate, cli
from moco_rt.serving.ranked_files import read_queries

WORDS = ["a", "the", "film", "good", "bad", "not", "was", "but"]

pytestmark = pytest.mark.usefixtures("quick_off_ramps")


def make_queries(count, seed=0, scores=False):
    rng = np.random.default_rng(seed)
    found = []
    for place in range(count):
        documents = [" ".join(rng.choice(WORDS, size=rng.integers(3, 12))) for _ in range(6)]
        query = f"{rng.choice(WORDS)} {rng.choice(WORDS)} {'film ' * (place % 7)}{'good ' * (place // 7)}"
        found.append({"query": query, "documents": documents})
        if scores:
            found[-1]["scores"] = rng.random(6).round(3).tolist()
    return found


def write(path, queries):
    path.write_text("".join(json.dumps(query) + "\n" for query in queries), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def saved(tiny_bert, word_tokenizer, tmp_path_factory):
    directory = tmp_path_factory.mktemp("reranker")
    tiny_bert(3, labels=1).save_pretrained(directory)
    word_tokenizer.save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("queries") / "queries.jsonl", make_queries(160))


@pytest.fixture(scope="module")
def fast(saved, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("fast")
    arguments = ["accelerate", "--model", saved, "--data", str(data), "--keep-top", "1", "--agreement", "0.6"]
    assert cli.main([*arguments, "--dtype", "float32", "--max-length", "40", "--out", str(out)]) == 0
    return out


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def expected(directory, queries, top_k=None):
    model = EarlyExitReranker.from_pretrained(directory)
    ranked = [model.rank(query["query"], query["documents"], top_k=top_k) for query in queries]
    return [{"ranked": [{**row, "score": round(row["score"], 6)} for row in one]} for one in ranked]


def test_accelerate_makes_the_reranker_that_python_makes(saved, data, fast, capsys, tmp_path):
    model = EarlyExitReranker.from_pretrained(fast)
    assert model.ranking.keep_top == 1
    assert model.ranking.certificate.alpha == pytest.approx(0.4)
    plain = EarlyExitReranker.from_pretrained(saved)
    again = accelerate(plain, read_queries(data), task=Ranking(1), agreement=0.6, dtype="float32", max_length=40)
    assert again.ranking.certificate.rows == model.ranking.certificate.rows
    arguments = ["accelerate", "--model", saved, "--data", str(data), "--keep-top", "1", "--agreement", "0.6"]
    assert cli.main([*arguments, "--dtype", "float32", "--out", str(tmp_path)]) == 0
    assert "same first candidate as" in capsys.readouterr().out


def test_rank_writes_what_rank_returns(fast, tmp_path, capsys):
    queries = make_queries(30, seed=1)
    data = write(tmp_path / "new.jsonl", queries)
    assert cli.main(["rank", str(fast), str(data)]) == 0
    out = tmp_path / "new.jsonl.ranked.jsonl"
    assert capsys.readouterr().out == f"{out}: 30 lines\n"
    assert lines_of(out) == expected(fast, queries)
    top = tmp_path / "top.jsonl"
    assert cli.main(["rank", str(fast), str(data), "--top-k", "2", "--out", str(top)]) == 0
    assert lines_of(top) == expected(fast, queries, top_k=2)


def test_an_interrupted_run_goes_on_to_the_same_bytes(fast, tmp_path, capsys):
    queries = make_queries(25, seed=2)
    data, out = write(tmp_path / "new.jsonl", queries), tmp_path / "out.jsonl"
    assert cli.main(["rank", str(fast), str(data), "--out", str(out)]) == 0
    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) // 2])
    capsys.readouterr()
    assert cli.main(["rank", str(fast), str(data), "--out", str(out)]) == 0
    assert out.read_bytes() == whole
    assert "of them from an earlier run" in capsys.readouterr().out
    write(data, [*queries, *make_queries(2, seed=3)])
    assert cli.main(["rank", str(fast), str(data), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(whole)
    assert len(lines_of(out)) == 27
    assert cli.main(["rank", str(fast), str(data), "--out", str(out), "--top-k", "1"]) == 2
    assert "was made with another top_k: None (got 1)" in capsys.readouterr().err


def test_compressed_files_and_arrays_are_read(fast, tmp_path, capsys):
    queries = make_queries(5, seed=4)
    packed = tmp_path / "new.jsonl.gz"
    packed.write_bytes(gzip.compress("".join(json.dumps(query) + "\n" for query in queries).encode()))
    array = tmp_path / "new.json"
    array.write_text(json.dumps(queries), encoding="utf-8")
    for source in (packed, array):
        out = tmp_path / f"{source.name}.out.jsonl"
        assert cli.main(["rank", str(fast), str(source), "--out", str(out)]) == 0
        assert lines_of(out) == expected(fast, queries)
    capsys.readouterr()
    packed.write_bytes(packed.read_bytes()[:-9])
    assert cli.main(["rank", str(fast), str(packed), "--out", str(tmp_path / "cut.jsonl")]) == 2
    assert "must be a whole gzip file" in capsys.readouterr().err


def refused(capsys, arguments):
    capsys.readouterr()
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = [line for line in captured.err.split("\n") if line and "Loading weights:" not in line]
    return line


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"query": "a film"}', ":1 must be an object with query and documents, and perhaps scores"),
        ('["a film"]', ":1 must be an object with query and documents, and perhaps scores"),
        ("a film", ":1 must be a JSON object (got 'a film')"),
        ('{"query": "a", "documents": []}', ":1: documents must hold at least one document (got none)"),
        ('{"query": 5, "documents": ["b"]}', ":1: query must be a text (got int)"),
        ('{"query": "a", "documents": ["b"], "scores": [1, 2]}', ":1: scores must be one finite number for each of"),
    ],
)
def test_bad_queries_are_refused_with_their_place(saved, tmp_path, capsys, line, words):
    data = tmp_path / "bad.jsonl"
    data.write_text(line + "\n", encoding="utf-8")
    assert words in refused(capsys, ["rank", saved, str(data)])
    out = str(tmp_path / "out")
    assert words in refused(
        capsys, ["accelerate", "--model", saved, "--data", str(data), "--keep-top", "1", "--out", out]
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--keep-top", "0"], "keep_top must be an integer of at least 1 (got 0)"),
        (["--keep-top", "1", "--tolerance", "0.1"], "keep-top must be without --threshold, --tolerance, --format"),
        (["--keep-top", "1", "--text-column", "query"], "keep-top must be without --threshold, --tolerance, --format"),
        (["--keep-top", "1", "--promise", "per class"], "promise must be 'confident' to rank"),
    ],
)
def test_options_that_do_not_go_with_queries_are_refused(saved, data, tmp_path, capsys, options, words):
    arguments = ["accelerate", "--model", saved, "--data", str(data), "--out", str(tmp_path / "out"), *options]
    assert words in refused(capsys, arguments)


def test_huge_scores_are_refused_with_their_place(saved, tmp_path, capsys):
    data = tmp_path / "bad.jsonl"
    data.write_text('{"query": "a", "documents": ["b"], "scores": [' + "9" * 400 + "]}\n", encoding="utf-8")
    words = f"{data}:1: scores must be one finite number for each of the 1 documents (got "
    assert words in refused(capsys, ["rank", saved, str(data)])


def test_what_does_not_rank_is_named(tiny_bert, word_tokenizer, data, tmp_path, capsys):
    cascade = Cascade([(tiny_bert(1), word_tokenizer), (tiny_bert(2), word_tokenizer)], thresholds=[0.7])
    cascade.save_pretrained(tmp_path / "cascade")
    words = f"model must be one model (got the cascade {tmp_path / 'cascade'})"
    assert words in refused(capsys, ["rank", str(tmp_path / "cascade"), str(data)])
    arguments = ["--model", str(tmp_path / "cascade"), "--data", str(data), "--out", str(tmp_path / "out")]
    assert words in refused(capsys, ["accelerate", *arguments, "--keep-top", "1"])


def test_a_reranker_has_no_page(fast, capsys):
    assert f"{fast} must give labels for a page (got a reranker: " in refused(capsys, ["report", str(fast)])


def test_files_of_another_ending_are_refused(saved, data, tmp_path, capsys):
    other = tmp_path / "queries.csv"
    other.write_text("query\n", encoding="utf-8")
    assert "must end in .jsonl, .ndjson or .json" in refused(capsys, ["rank", saved, str(other)])
    assert "out must end in .jsonl" in refused(capsys, ["rank", saved, str(data), "--out", str(tmp_path / "out.csv")])
    assert f"{tmp_path} must be a file (got a folder)" in refused(capsys, ["rank", saved, str(tmp_path)])
