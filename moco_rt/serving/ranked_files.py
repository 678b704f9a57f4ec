"""A file of queries with their documents to a file of ranked ones, in pieces that survive an interruption."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from tqdm import tqdm

from moco_rt.inputs.file_formats import FileFormat, Record
from moco_rt.inputs.text_files import Row, open_objects
from moco_rt.ranking.candidates import make_candidates
from moco_rt.ranking.reranker import EarlyExitReranker
from moco_rt.serving.label_files import format_of, write_answers
from moco_rt.serving.label_rows import LabelRows, plain
from moco_rt.serving.run_files import check_out
from moco_rt.serving.run_record import describe_run

#: A query, its documents, and the scores of the search, or None: as `make_candidates` takes them.
Query = tuple[str, Sequence[str], Sequence[float] | None]


def read_queries(source: Path) -> list[Query]:
    """Read all queries of a file: JSON objects with `query`, `documents` and, where they are known, `scores`.

    Args:
        source: see `open_objects`.

    Raises:
        OSError: there is no such file.
        ValueError: an object is not what it must be; the message names file and line.
    """
    with open_objects(source) as objects:
        return [_query_of(record) for record in objects]


def _query_of(record: Record) -> Query:
    fields = record.fields
    if not isinstance(fields, dict) or not {"query", "documents"} <= set(fields):
        raise ValueError(f"{record.place} must be an object with query and documents, and perhaps scores")
    try:
        candidates = make_candidates(fields["query"], fields["documents"], fields.get("scores"))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{record.place}: {error}") from None
    return candidates.query, list(candidates.documents), fields.get("scores")


def _rows(objects: Iterator[Record]) -> Iterator[Row]:
    for record in objects:
        yield Row(cast(Any, _query_of(record)), None, record.place, record.finished)


class RankedRows(LabelRows):
    """Ranked candidates as lines of JSON: `ranked`, a list of objects with `corpus_id`, `score` and `exit`."""

    def __init__(self, model: EarlyExitReranker):
        super().__init__(model, FileFormat.JSONL)
        self.columns = ["ranked"]

    def lines_of(self, rows: Sequence[Row], prediction: Any) -> list[bytes]:  # noqa: ARG002
        """The lines of a file, one for each query; prediction: their ranked candidates."""
        plainly = ([{name: plain(value) for name, value in one.items()} for one in ranked] for ranked in prediction)
        return [self._line({"ranked": ranked}) for ranked in plainly]


def rank_file(
    model: EarlyExitReranker, source: Path, out: Path, top_k: int | None = None, *, overwrite: bool = False
) -> tuple[int, int]:
    """Rank the documents of every query of a file; a line of out for each, in their order.

    A later run goes on where one was interrupted, as of `predict_file`.

    Args:
        model: with or without a policy.
        source: see `read_queries`.
        out: JSON lines, also `.gz`; `-` is standard output.
        top_k: how many to write of each query, at most; None: all.
        overwrite: start anew, whatever out holds.

    Returns:
        How many queries out held before, and how many it does now.

    Raises:
        OSError: the source is not there, or out cannot be written.
        ValueError: a line is not what it must be; out is not JSON lines; out or its record is the source, or not an
            earlier run's, or that run was made with something else, or had other queries; or another run writes it.
    """
    check_out(source, out)
    if format_of(out) is not FileFormat.JSONL:
        raise ValueError(f"out must end in .jsonl or .ndjson, each also .gz, or in none (got {out})")

    def rank(queries: Iterator[Any], _: int) -> Iterator[Any]:
        for query, documents, scores in tqdm(queries, unit="query", delay=2, leave=False):
            yield [model.rank(query, documents, top_k=top_k, scores=scores)]

    def describe() -> dict[str, Any]:
        about = describe_run(model, model.tokenizer, None)
        return {**about, "ranking": _ranking_fingerprint(model), "top_k": top_k}

    with open_objects(source) as objects:
        return write_answers(_rows(objects), source, out, RankedRows(model), rank, describe, overwrite)


def _ranking_fingerprint(model: EarlyExitReranker) -> str | None:
    """Return the sha256 of what a reranker's policy is on disk; None: it has none."""
    if model.ranking is None:
        return None
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as directory:
        model.ranking.save(Path(directory))
        for file in sorted(Path(directory).iterdir()):
            digest.update(file.read_bytes())
    return digest.hexdigest()
