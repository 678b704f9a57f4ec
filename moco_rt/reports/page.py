"""`moco-rt report`: one self-contained HTML file about a policy, with pictures."""

from __future__ import annotations

import base64
import html
import io

import numpy as np
from matplotlib.figure import Figure

from moco_rt.analysis.knn_graph import draw_knn_graph
from moco_rt.certification.certificate import Certificate
from moco_rt.policies.findings import SearchReport
from moco_rt.reports.plots import draw_exits_by_length, draw_paths, draw_reliability

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; }
img { max-width: 100%; }
"""


def report_page(name: str, certificate: Certificate, findings: SearchReport) -> str:
    """The page.

    Args:
        name: of the model.
        certificate: of its policy.
        findings: how it was found.
    """
    pictures = [
        (
            draw_paths(findings),
            "Every point is a policy: how often it changes a label, and the time it takes. The circle is the one that "
            "was certified; the dashed line is what it promises, further left is safer.",
        )
    ]
    if findings.sites:
        pictures += [
            (draw_exits_by_length(findings), "Where rows leave, by their length in tokens."),
            (draw_reliability(findings), "How often an off-ramp is right, where it says it is this sure."),
            (
                draw_knn_graph(
                    findings.sample,
                    np.array(findings.class_names)[findings.labels[: len(findings.sample)]],
                    k=15,
                    title=f"{findings.sites[-1]}: 15 nearest neighbours",
                    target="label",
                ),
                "Rows as the last off-ramp sees them; neighbours are connected.",
            ),
        ]
    body = "\n".join(f"<p>{html.escape(text)}</p>\n{_image(figure)}" for figure, text in pictures)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{html.escape(name)}</title>\n'
        f"<style>{_STYLE}</style>\n<h1>{html.escape(name)}</h1>\n<pre>{html.escape(certificate.table())}</pre>\n"
        f"{body}\n</html>\n"
    )


def _image(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
