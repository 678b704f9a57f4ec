"""Every file that somebody else may have written: a whole one, and what reads it to the end."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from frame_samples import small_frame
from path_samples import with_path
from tiny_models import tiny_bert, word_tokenizer

from moco_rt import Cascade, EarlyExitTextClassificationModel
from moco_rt.analysis.frame import MLFrame
from moco_rt.cascades import cascade_files
from moco_rt.certification.certificate import Certificate, ExitCount
from moco_rt.certification.these_rows import RowsWish
from moco_rt.encoding.proof_files import load_proof, save_proof
from moco_rt.inputs.text_files import read_rows
from moco_rt.policies.findings import SearchReport
from moco_rt.ranking.estimates import ScoreEstimate
from moco_rt.ranking.policy import RankingPolicy
from moco_rt.ranking.reranker import EarlyExitReranker
from moco_rt.serving.certified_file import read_certificate
from moco_rt.serving.label_files import predict_file
from moco_rt.serving.ranked_files import read_queries
from moco_rt.serving.run_record import RunRecord

TEXTS = ["good film", "a bad film was not good", "the film", "but bad"]
#: The names of all doors.
NAMES = (
    *("policy.json", "policy.safetensors", "monitor.json", "findings.safetensors"),
    *("ranking.json", "ranking.safetensors", "ranking-monitor.json"),
    *("cascade.json", "cascade.safetensors", "cascade's monitor.json"),
    *("frame's index.json", "frame's tabular.parquet", "frame's x.npy"),
    *("frame's tokens.npy", "frame's tokens@cu_seqlens.npy"),
    *("rows.jsonl", "rows.jsonl.gz", "rows.csv", "rows.tsv", "rows.txt", "rows.parquet", "queries.jsonl"),
    *("labels.jsonl.run.jsonl", "labels.jsonl.certificate.json", "characters.npz"),
)


@dataclass(frozen=True)
class Door:
    """A file, which is whole at first.

    Attributes:
        file: the file.
        read: reads it, and uses what it has read.
    """

    file: Path
    read: Any


def doors(folder):
    """The doors by their names, with their files below a folder."""
    makers = (_model, _reranker, _cascade, _frame, _texts, _labels, _proof)
    found = {}
    for make in makers:
        place = folder / make.__name__[1:]
        place.mkdir()
        found |= make(place)
    assert {*found} == {*NAMES}
    return found


def _certificate(alpha):
    return Certificate(alpha, 0.05, 1000, 3, 2.0, 1.0, (ExitCount("encoder.0.attention", 1, 500, 2, 0.02),))


def _model(folder):
    fast = with_path(EarlyExitTextClassificationModel(tiny_bert(2, labels=3)))
    fast.tokenizer = word_tokenizer()
    fast.policy.certificate = _certificate(0.01)
    fast.monitor(rate=0.25, delta=0.01)
    rows = np.arange(4)
    fast.search_report = SearchReport(
        sites=["encoder.0.attention"],
        class_names=list("abc"),
        seconds_full=2.0,
        paths={"search": np.array([[2.0, 0.0], [1.0, 0.01]])},
        chosen=np.array([1.0, 0.01]),
        alpha=0.01,
        exits=rows // 3,
        lengths=rows + 1,
        labels=rows % 3,
        predicted=(rows % 3)[None],
        scores=(rows / 4).astype(np.float32)[None],
        sample=np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32),
        variants={"as given": [2.0, 0.0], "int8": [1.5, 0.01]},
    )
    fast.save_pretrained(folder)
    ids, mask = torch.tensor([[2, 7, 6, 3], [2, 8, 3, 0]]), torch.tensor([[1] * 4, [1, 1, 1, 0]])
    loaded = EarlyExitTextClassificationModel(fast.model)

    def read():
        loaded.load_policy(folder)
        loaded(input_ids=ids, attention_mask=mask)
        str(loaded.report())

    def read_report():
        SearchReport.load(folder / "findings.safetensors")

    found = {name: Door(folder / name, read) for name in ("policy.json", "policy.safetensors", "monitor.json")}
    return {**found, "findings.safetensors": Door(folder / "findings.safetensors", read_report)}


def _reranker(folder):
    model = EarlyExitReranker(tiny_bert(2, labels=1))
    model.tokenizer = word_tokenizer()
    sites = ("encoder.0.attention", "encoder.0.output")
    estimates = [ScoreEstimate(site, np.full(64, 0.1, np.float32)) for site in sites]
    model.ranking = RankingPolicy(2, estimates, np.full(2, 0.5, np.float32), _certificate(0.1))
    model.monitor(rate=0.5, delta=0.1)
    model.save_pretrained(folder)

    loaded = EarlyExitReranker(model.model)
    loaded.tokenizer = model.tokenizer

    def read():
        loaded.load_policy(folder)
        loaded.rank("good", TEXTS)
        str(loaded.report())

    return {name: Door(folder / name, read) for name in ("ranking.json", "ranking.safetensors", "ranking-monitor.json")}


def _cascade(folder):
    tokenizer = word_tokenizer()
    models = [EarlyExitTextClassificationModel(tiny_bert(2, seed=seed)) for seed in (0, 1)]
    for model in models:
        model.tokenizer = tokenizer
    cascade = Cascade([(model, tokenizer) for model in models], thresholds=[0.8])
    cascade.certificate = _certificate(0.02)
    cascade.monitor(rate=0.5, delta=0.1)
    cascade.save_pretrained(folder)

    def load(path, **_):
        return models[int(path.name[-1])]

    def read():
        with mock.patch.object(cascade_files.EarlyExitTextClassificationModel, "from_pretrained", load):
            loaded = Cascade.from_pretrained(folder)
        loaded.predict(TEXTS[:1])
        str(loaded.report())

    return {
        "cascade.json": Door(folder / "cascade.json", read),
        "cascade.safetensors": Door(folder / "cascade.safetensors", read),
        "cascade's monitor.json": Door(folder / "monitor.json", read),
    }


def _frame(folder):
    small_frame().to_frame(folder / "frame")

    def read():
        frame = MLFrame.load_frame(folder / "frame")
        for name in frame.columns:
            np.array(getattr(frame[name], "values", frame[name]))

    files = sorted((folder / "frame").iterdir())
    return {f"frame's {file.name}": Door(file, read) for file in files}


def _texts(folder):
    rows = [{"text": text, "label": place % 2, "more": {"id": place}} for place, text in enumerate(TEXTS)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    table = "text,text2,label\n" + "".join(f'"{text}","é, ""quoted""",{place}\n' for place, text in enumerate(TEXTS))
    contents = {
        "rows.jsonl": lines.encode(),
        "rows.jsonl.gz": gzip.compress(lines.encode(), mtime=0),
        "rows.csv": table.encode(),
        "rows.tsv": table.replace(",", "\t").encode(),
        "rows.txt": "\n".join(TEXTS).encode(),
    }
    found = {}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        found[name] = Door(folder / name, lambda file=folder / name: read_rows(file))
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": TEXTS, "label": [0, 1, 0, 1]}), folder / "rows.parquet")
    found["rows.parquet"] = Door(folder / "rows.parquet", lambda: read_rows(folder / "rows.parquet"))
    queries = json.dumps({"query": "good", "documents": TEXTS, "scores": [1, 2, 3, 4]}) + "\n"
    (folder / "queries.jsonl").write_text(queries * 2)
    found["queries.jsonl"] = Door(folder / "queries.jsonl", lambda: read_queries(folder / "queries.jsonl"))
    return found


def _labels(folder):
    fast = EarlyExitTextClassificationModel(tiny_bert(2))
    source, out = folder / "source.jsonl", folder / "labels.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    predict_file(fast, word_tokenizer(), source, out, wish=RowsWish(0.9, 0.9))
    record = folder / "labels.jsonl.run.jsonl"

    def read():
        with record.open("a+b") as file:
            RunRecord(file)

    (certificate,) = folder.glob("*certificate*")
    return {
        "labels.jsonl.run.jsonl": Door(record, read),
        "labels.jsonl.certificate.json": Door(certificate, lambda: str(read_certificate(out))),
    }


def _proof(folder):
    file = folder / "proof.npz"
    save_proof(file, np.arange(1 << 16, dtype=np.int64).astype(np.uint8), 255)
    return {"characters.npz": Door(file, lambda: load_proof(file))}
