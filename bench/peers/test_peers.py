"""What the benchmark against rival engines computes, without the rivals."""

from __future__ import annotations

import json
import os

import docs_table
import numpy as np
import pytest
import readme_table
import torch

from moco_rt.engines import BASELINE, ENGINES, OURS, Crew, precision
from moco_rt.engines.registry import adapter
from peers import docs, report, roofline, rows
from peers.__main__ import store
from peers.cells import Cell
from peers.models import dense_flops, input_names

CONFIG = {
    "model_type": "bert",
    "hidden_size": 8,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
TEXTS = ("input_ids", "attention_mask", "token_type_ids")


def result(seconds, logits=((2.0, 1.0), (0.0, 1.0))):
    return {
        "logits": [np.array([row]) for row in logits],
        "seconds": [[total / 4, 3 * total / 4] for total in seconds],
        "versions": {"rival": "1.2"},
        "mib_loaded": 100,
        "mib_peak": 1200,
    }


def summary():
    cell = {"model": "tiny", "law": "sst2", "batch_rows": 1, "gflop": 12.0, "gemm_gflops": {"fp32": 40.04}}
    results = {
        BASELINE: result([2.0, 4.0, 2.0]),
        "onnxruntime.fp32": result([1.0, 1.0, 1.0], ((2.0, 1.5), (1.0, 0.0))),
        "compile.bf16": result([0.1, 0.1, 0.1]),
        "openvino.fp32": {"failed": "ImportError: no"},
        f"{OURS}.fp32": result([0.5, 1.0, 0.25]),
    }
    return report.summarise(cell, results)


def test_dense_flops_of_the_usual_ffn():
    lengths = [3, 5]
    assert dense_flops(lengths, CONFIG) == sum(3 * (24 * 8**2 + 4 * s * 8) * s for s in lengths)


def test_dense_flops_of_a_gate_and_of_shared_keys():
    config = CONFIG | {"model_type": "qwen3", "head_dim": 16, "num_key_value_heads": 1}
    products = 2 * 8 * 32 + 2 * 8 * 16 + 3 * 8 * 32
    assert dense_flops([5], config) == 3 * 2 * 5 * (products + 2 * 5 * 32)


def test_only_the_inputs_that_a_model_takes_are_made():
    assert input_names({"type_vocab_size": 2}) == TEXTS
    assert input_names({"type_vocab_size": 0}) == TEXTS[:2]
    assert set(rows.pad([[5]], TEXTS[:2])) == set(TEXTS[:2])
    assert input_names({"image_size": 224}) == ("pixel_values",)
    assert rows.pad(rows.rows("vit-base", rows.IMAGES)[:2], ["pixel_values"])["pixel_values"].shape == (2, 3, 224, 224)


def test_batches_are_full_sorted_and_spread():
    lengths = np.random.default_rng(0).permutation(50)
    batches = rows.cut([[1] * (length + 1) for length in lengths], 16)
    sizes = [[len(row) for row in batch] for batch in batches]
    assert [len(batch) for batch in batches] == [16] * 3
    assert all(batch == sorted(batch) for batch in sizes)
    assert sizes[1][-1] <= sizes[0][0]
    assert sizes[0][-1] <= sizes[2][0]


@pytest.mark.parametrize("number", [0, 1, 2, 7, 64])
def test_spread_takes_every_place_once_middle_first(number):
    places = list(rows.spread(number))
    assert sorted(places) == list(range(number))
    assert places[:1] == [number // 2][:number]


def test_padding():
    batch = rows.pad([[5, 6], [7, 8, 9]], TEXTS)
    assert batch["input_ids"].tolist() == [[5, 6, 0], [7, 8, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert {values.dtype for values in batch.values()} == {np.dtype(np.int64)}


def test_ratio_is_the_median_of_ratios_within_repetitions():
    assert report.ratio([2.0, 4.0, 2.0], [0.5, 1.0, 0.25]) == 4.0


def test_figures():
    cell = summary()
    rival, ours = cell["engines"]["onnxruntime.fp32"], cell["engines"][f"{OURS}.fp32"]
    assert rival["rows_per_second"] == 2.0
    assert rival["speedup"] == 2.0
    assert (rival["p50_ms"], rival["gflops"], rival["of_gemm_peak"]) == (500.0, 12.0, 0.3)
    assert (rival["max_difference"], rival["same_label"]) == (1.0, 0.5)
    assert rival["versions"] == {"rival": "1.2"}
    assert (ours["best_rival"], ours["times_best_rival"]) == ("onnxruntime.fp32", 2.0)
    assert cell["engines"]["compile.bf16"]["of_gemm_peak"] is None


def test_table_has_a_line_for_every_engine_and_says_why_one_failed():
    lines = report.table({str(Cell("tiny", "sst2", 1)): summary()}).splitlines()
    assert len(lines) == 2 + 5
    assert lines[-1].startswith(f"| tiny | sst2 | 1 | {OURS}.fp32 | 4 | 4.00 | 2.00 (onnxruntime.fp32) |")
    assert "failed: ImportError: no" in lines[-2]
    assert {line.count("|") for line in lines[:-2]} == {len(report.HEAD) + 1}


def test_engines_that_a_run_leaves_out_keep_their_figures(tmp_path):
    cell, result, out = Cell("tiny", "sst2", 1), summary(), tmp_path / "cells.json"
    store(cell, result, out)
    store(cell, result | {"engines": {BASELINE: result["engines"][BASELINE] | {"p50_ms": 7.0}}}, out)
    engines = json.loads(out.read_text())[str(cell)]["engines"]
    assert engines[BASELINE]["p50_ms"] == 7.0
    assert list(engines) == list(result["engines"])
    assert len(out.with_suffix(".md").read_text().splitlines()) == 2 + len(engines)


def test_every_engine_has_an_adapter_that_imports_without_its_rival():
    assert {precision(name) for name in ENGINES} == {"fp32", "bf16", "int8"}
    for name in ENGINES:
        module, _ = adapter(name)
        assert module.PACKAGES
        assert module.Engine


def test_a_worker_that_fails_leaves_the_others_at_work():
    with Crew({"good": (list, "abc"), "bad": (int, "three"), "gone": (os._exit, 3)}) as crew:
        assert crew.names() == ["good"]
        assert crew.failed["gone"] == "its process ended with exit code 3"
        assert crew.failed["bad"].startswith("ValueError: invalid literal")
        assert crew.ask("good", "count", "b") == 1
        assert crew.ask("good", "index", "x") is None
        assert crew.failed["good"].startswith("ValueError")
        assert crew.names() == []


def test_a_worker_whose_interpreter_is_not_there_or_ends_at_once_fails_alone():
    makers = dict.fromkeys(("good", "nowhere", "ends"), (list, "abc"))
    with Crew(makers, {"nowhere": "/nowhere/python", "ends": "/bin/true"}) as crew:
        assert crew.names() == ["good"]
        assert crew.failed["nowhere"] == "/nowhere/python cannot be started: No such file or directory"
        assert crew.failed["ends"] == "its process ended with exit code 0"
        assert crew.ask("good", "count", "b") == 1


def test_the_page_of_benchmarks_shows_the_stored_cells():
    shown = docs_table.PAGE.read_text(encoding="utf-8")
    for name, text in docs.tables().items():
        assert docs_table.marked(name, text) in shown
    assert set(docs.SHOWN) <= set(json.loads(docs.STORED.read_text(encoding="utf-8")))


def test_readme_shows_the_stored_results():
    shown = docs_table.README.read_text(encoding="utf-8")
    assert docs_table.marked("summary", readme_table.stored_table()) in shown
    assert len(readme_table.ROWS) <= 8


@pytest.mark.parametrize("lacking", [set(), {torch.bfloat16}, {torch.bfloat16, torch.int8}])
def test_the_roofline_has_float32_everywhere_and_other_dtypes_where_the_processor_multiplies_them(monkeypatch, lacking):
    can = roofline.can_multiply
    monkeypatch.setattr(roofline, "can_multiply", lambda dtype: dtype not in lacking and can(dtype))
    monkeypatch.setattr(roofline, "SHAPES", ((64, 64),))
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}
    peaks = roofline.Roofline(torch.get_num_threads()).gflops()
    assert set(peaks) == {name for name, dtype in dtypes.items() if roofline.can_multiply(dtype)}
    assert all(gflops > 0 for gflops in peaks.values())
