"""What a report says of the calibration rows besides the certificate."""

from __future__ import annotations

import re

import numpy as np
import pytest

from moco_rt import accelerate
from moco_rt.demo.classifier import train_classifier
from moco_rt.demo.corpus import make_corpus
from moco_rt.policies.findings import SearchReport
from moco_rt.reports.page import report_page
from moco_rt.tuning.search_report import _worst

pytestmark = pytest.mark.usefixtures("quick_off_ramps")


def test_the_worst_group_is_the_one_with_the_largest_share():
    group = np.array([0] * 100 + [2] * 10)
    differs = np.zeros(110, bool)
    differs[:5] = differs[100:101] = True
    said = _worst("class", ["a", "b", "c"], group, differs)
    assert said == "class with the most other answers: c, 1 of 10 (10.00%)"
    assert _worst("class", ["a", "b"], np.zeros(3, int), np.zeros(3, bool)).endswith(": a, 0 of 3 (0.00%)")
    assert _worst("class", ["a", "b"], np.ones(3, int), np.zeros(3, bool)).endswith(": b, 0 of 3 (0.00%)")


def test_a_report_names_worst_groups_and_what_becomes_of_probabilities(tmp_path):
    rows = make_corpus(900, seed=0, hard_share=0.0, median_words=10)
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    model, tokenizer = train_classifier(texts, labels, seed=0)
    fast = accelerate(model, texts, tokenizer=tokenizer, labels=labels, agreement=0.8, dtype=None)
    lengths, worst, *of_probabilities = fast.search_report.remarks.splitlines()
    rows = fast.policy.certificate.rows
    assert re.fullmatch(r"lengths with the most other answers: \d+ to \d+ tokens, \d+ of \d+ \(.*%\)", lengths)
    count = re.fullmatch(r"class with the most other answers: (NEGATIVE|POSITIVE), (\d+) of (\d+) \(.*%\)", worst)
    assert int(count[2]) <= fast.policy.certificate.disagreements
    assert int(count[3]) < rows
    assert len(of_probabilities) == 3
    assert of_probabilities[2].startswith("expected calibration error: ")
    assert fast.report().endswith(fast.search_report.remarks)
    fast.search_report.save(tmp_path / "report.safetensors")
    page = report_page("a model", fast.policy.certificate.table(), SearchReport.load(tmp_path / "report.safetensors"))
    assert lengths in page
    for exit in fast.policy.exits:
        assert exit.condition.log_odds.shape == (2, 2)
