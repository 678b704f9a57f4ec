"""The commands that say what there is: `moco-rt report` and `moco-rt info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# What they run on is imported inside: help and completion must not wait for it.


def report(
    model: Annotated[Path, typer.Argument(help="directory that accelerate wrote")],
    *,
    out: Annotated[Path | None, typer.Option(help="the page to write (report.html in the directory)")] = None,
) -> None:
    """Write a page with pictures about what accelerate found."""
    from moco_rt.cascades.cascade import Cascade
    from moco_rt.cascades.cascade_files import is_cascade
    from moco_rt.policies.findings import SearchReport
    from moco_rt.policies.promised import describe_promise
    from moco_rt.ranking.policy import JSON as RANKING
    from moco_rt.reports.page import report_page
    from moco_rt.runtime.checkpoints import FINDINGS
    from moco_rt.runtime.classifiers.choice import class_of

    if not model.is_dir():
        raise OSError(f"model must be a directory that accelerate wrote (no folder {model})")
    if (model / RANKING).exists():
        raise ValueError(f"{model} must give labels for a page (got a reranker: its report() says what is promised)")
    file = model / FINDINGS
    if is_cascade(model):
        cascade = Cascade.from_pretrained(model)
        certificate, promised = cascade.certificate, cascade.promised()
    else:
        policy = class_of(model).from_pretrained(model).policy
        certificate, promised = policy.certificate, describe_promise(policy)
    if certificate is None or not file.exists():
        raise ValueError(
            f"{model} must be a directory that accelerate wrote (it has no {FINDINGS}, as cascades that were certified "
            "again have none)"
        )
    out = out or model / "report.html"
    out.write_text(report_page(model.resolve().name, promised, SearchReport.load(file)), encoding="utf-8")
    print(out)


def info() -> None:
    """Say which kernels run which numeric form on this machine, on how many threads, and why one cannot."""
    from moco_rt.runtime.machine import describe_machine

    print(describe_machine())
