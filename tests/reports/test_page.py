"""The page of a report."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from moco_rt.policies.findings import SearchReport
from moco_rt.reports.page import report_page
from moco_rt.reports.plots import draw_neighbours, draw_paths


def test_a_page_stands_alone_and_shows_names_as_they_are():
    path = np.array([[2e-3, 0.0], [1e-3, 0.005]])
    findings = SimpleNamespace(
        sites=[],
        alpha=0.01,
        paths={"search": path},
        chosen=path[1],
        seconds_full=2e-3,
        remarks="1 row < 2 rows",
        variants={"as given": (2e-3, 0.0), "int8": (1.2e-3, 0.002)},
    )
    page = report_page("<my model>", "1 < 2 & 'a'", findings)
    assert page.startswith("<!doctype html>")
    assert "<title>&lt;my model&gt;</title>" in page
    assert "<pre>1 &lt; 2 &amp; &#39;a&#39;</pre>" in page
    assert page.count("data:image/png;base64,") == page.count("<img") == 1
    assert "http" not in page


@pytest.mark.parametrize("read", [True, False], ids=["an off-ramp", "a bag alone"])
def test_there_is_no_picture_of_a_feature_that_nothing_reads(read):
    rng = np.random.default_rng(0)
    path = np.array([[2e-3, 0.0], [1e-3, 0.005]])
    findings = SearchReport(
        sites=["embeddings" if read else "tokens"],
        class_names=["no $>_$", "yes"],  # no formula
        seconds_full=2e-3,
        paths={"search": path},
        chosen=path[1],
        alpha=0.01,
        exits=rng.integers(0, 2, 200),
        lengths=rng.integers(1, 50, 200),
        labels=rng.integers(0, 2, 200),
        predicted=rng.integers(0, 2, (1, 200)),
        scores=rng.uniform(0.5, 1, (1, 200)).astype(np.float32),
        sample=rng.normal(size=(200, 8)).astype(np.float32) if read else np.empty((0, 1), np.float32),
    )
    page = report_page("model", "", findings)
    assert page.count("<img") == (4 if read else 3)


def test_the_forms_that_were_tried_stand_in_the_picture():
    findings = SimpleNamespace(
        alpha=0.01,
        paths={"search": np.array([[2e-3, 0.0], [1e-3, 0.005]])},
        chosen=np.array([1e-3, 0.005]),
        seconds_full=2e-3,
        variants={"as given": (2e-3, 0.0), "width 0.5 in int8": (1.2e-3, 0.02)},
    )
    shown = [text.get_text() for text in draw_paths(findings).axes[0].get_legend().get_texts()]
    assert shown == ["search", "as given, without exits", "width 0.5 in int8, without exits"]


@pytest.mark.parametrize(("names", "shown"), [(["no", "yes"], ["label: no", "label: yes"]), (["row"], None)])
def test_answers_that_are_no_labels_are_called_answers(names, shown):
    rng = np.random.default_rng(0)
    findings = SimpleNamespace(
        sites=["embeddings"],
        class_names=names,
        labels=np.arange(40) % len(names),
        sample=rng.normal(size=(40, 4)).astype(np.float32),
        alpha=0.01,
        paths={"search": np.array([[2e-3, 0.0], [1e-3, 0.005]])},
        chosen=np.array([1e-3, 0.005]),
        seconds_full=2e-3,
        variants={},
    )
    legend = draw_neighbours(findings).axes[0].get_legend()
    assert (None if legend is None else [text.get_text() for text in legend.get_texts()]) == shown
    assert draw_paths(findings).axes[0].get_xlabel() == "rows with another answer than the full model's (%)"
