"""`moco-rt report`: one self-contained HTML file about a policy, with pictures."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from jinja2 import Template
from matplotlib.figure import Figure

from moco_rt.policies.findings import SearchReport
from moco_rt.reports.plots import draw_exits_by_length, draw_neighbours, draw_paths, draw_reliability

_TEMPLATE = Path(__file__).with_name("page.html.jinja")


def report_page(name: str, promised: str, findings: SearchReport) -> str:
    """Render the page.

    Args:
        name: the model's name.
        promised: what is promised of it, as text.
        findings: the search that found its policy.
    """
    pictures = [
        (
            draw_paths(findings),
            "Every point is a policy: how often it changes an answer, and the time it takes. The circle is the one "
            "that was certified; the dashed line is what it promises, further left is safer. Diamonds are the forms of "
            "the model that were tried, without exits.",
        )
    ]
    if findings.sites:
        pictures += [
            (draw_exits_by_length(findings), "Where rows leave, by their length in tokens."),
            (draw_reliability(findings), "How often an off-ramp is right, where it says it is this sure."),
        ]
        if len(findings.sample):  # there is none where rows leave by a bag of tokens alone
            text = "Rows as the last off-ramp sees them; neighbours are connected."
            pictures.append((draw_neighbours(findings), text))
    template = Template(_TEMPLATE.read_text(encoding="utf-8"), autoescape=True, trim_blocks=True)
    shown = [{"text": text, "png": _png(figure)} for figure, text in pictures]
    page: str = template.render(name=name, table=promised, remarks=findings.remarks, pictures=shown)
    return page


def _png(figure: Figure) -> str:
    """A picture in base64."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
