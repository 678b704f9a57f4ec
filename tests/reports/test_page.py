"""The page of a report."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from moco_rt.reports.page import report_page


def test_a_page_stands_alone_and_shows_names_as_they_are():
    path = np.array([[2e-3, 0.0], [1e-3, 0.005]])
    findings = SimpleNamespace(sites=[], alpha=0.01, paths={"search": path}, chosen=path[1], seconds_full=2e-3)
    certificate = SimpleNamespace(table=lambda: "1 < 2 & 'a'")
    page = report_page("<my model>", certificate, findings)
    assert page.startswith("<!doctype html>")
    assert "<title>&lt;my model&gt;</title>" in page
    assert "<pre>1 &lt; 2 &amp; &#39;a&#39;</pre>" in page
    assert page.count("data:image/png;base64,") == page.count("<img") == 1
    assert "http" not in page
