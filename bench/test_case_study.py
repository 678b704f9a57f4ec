"""The case study on few rows: its results, never its time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import case_study
import docs_table
import pytest
import torch

from moco_rt.analysis.capture import capture
from moco_rt.analysis.frame import MLFrame
from moco_rt.analysis.rule_finder import AnalyticsEngine
from moco_rt.architectures import load_classifier
from moco_rt.runtime.model import EarlyExitTextClassificationModel


@pytest.mark.shared
@pytest.mark.usefixtures("shared_dir")
def test_rules_settle_most_reviews_and_keep_their_promise(tmp_path):
    script = Path(__file__).with_name("case_study.py")
    out = tmp_path / "case_study.json"
    command = [sys.executable, script, "--rule-rows", "6000", "--test-rows", "1000", "--out", out]
    subprocess.run(command, check=True, capture_output=True)
    result = json.loads(out.read_text())
    assert result["rows"] == 1000
    assert result["exited"] > 0.8
    assert result["agreement"] >= 0.99
    assert result["accuracy"] >= result["accuracy_baseline"] - 0.005
    assert result.keys() == json.loads(case_study.STORED.read_text(encoding="utf-8")).keys()
    for rule in result["rules"]:
        assert rule["held_out"]["wrong_of_other_classes"] <= 2 * rule["max_error"]


def test_the_page_of_benchmarks_shows_the_stored_results():
    result = json.loads(case_study.STORED.read_text(encoding="utf-8"))
    page = docs_table.PAGE.read_text(encoding="utf-8")
    assert docs_table.marked("case study", case_study.table(result)) in page


@pytest.mark.shared
def test_the_published_snippet_runs_with_only_the_package_renamed(shared_dir, tmp_path, monkeypatch):
    model, tokenizer = load_classifier(str(shared_dir / "models" / "tiny-imdb"))
    tiny_bert = SimpleNamespace(model=model)
    with (shared_dir / "data" / "imdb" / "unlabelled.jsonl").open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines][::5]
    site = "bert.encoder.layer.0.attention"
    monkeypatch.chdir(tmp_path)
    capture(model, tokenizer, texts, sites=[site], features=["tokens"], max_length=64, out="imdb/out.frame")

    eetcm = EarlyExitTextClassificationModel(tiny_bert.model)
    frame = MLFrame.load_frame("imdb/out.frame")
    embedding = frame["bert.encoder.layer.0.attention"]
    engine = AnalyticsEngine.from_2d_embedding(embedding, {"predictions": frame["predictions"]})
    rule = engine.compute_linear_sufficient_rule("predictions", 1)
    eetcm.add_rule(rule.condition, rule.metadata["class"], "encoder", 0, "attention")
    test = eetcm(**tokenizer("This is a test", return_tensors="pt"))
    assert test.logits.shape == (1, 2)

    easy = eetcm(**tokenizer("A wonderful, moving film: brilliant acting, superb music.", return_tensors="pt"))
    assert eetcm.sites[easy.exit_site.item()] == "encoder.0.attention"
    assert easy.logits.argmax().item() == 1
    torch.testing.assert_close(easy.logits.exp()[0, 1].item(), 1 - rule.metadata["bound"])
