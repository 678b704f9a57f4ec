"""The case study on few rows: its results, never its time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


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
    assert result["time_reduction"] < 1
    for rule in result["rules"]:
        assert rule["errors"] / rule["n"] <= rule["max_error"]
        assert rule["held_out"]["wrong_of_other_classes"] <= 2 * rule["max_error"]
