"""The command line: `moco-rt demo`, `accelerate`, `predict`, `report`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from moco_rt.architectures import load_classifier, load_tokenizer
from moco_rt.architectures.conversion import Dtype
from moco_rt.cascades.cascade import Cascade
from moco_rt.cascades.cascade_files import is_cascade
from moco_rt.cascades.queues import TierError
from moco_rt.demo import run as demo
from moco_rt.inputs.text_files import read_rows, true_classes
from moco_rt.policies.findings import SearchReport
from moco_rt.reports.page import report_page
from moco_rt.runtime.checkpoints import FINDINGS
from moco_rt.runtime.model import EarlyExitTextClassificationModel
from moco_rt.serving.label_files import predict_file
from moco_rt.tuning.accelerate import accelerate

_ROWS = ".jsonl (text[, text2][, label] a line) or plain text"
_DTYPES: dict[str, Dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": "int8"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="moco-rt", description="Early exits for fine-tuned transformer classifiers.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "demo",
        help="find a policy for a classifier, run with and without it, compare",
        description="Without arguments: on a small BERT trained on the spot. With --model and --data: on your own.",
    )
    command.set_defaults(run=_demo)
    command.add_argument("--model", help="a directory, or a name on the Hugging Face hub")
    command.add_argument("--data", type=Path, help=_ROWS)
    command.add_argument("--agreement", type=float, default=0.99, help="share of labels to keep (%(default)s)")
    command.add_argument("--max-length", type=int, help="in tokens (what the model allows)")
    command.add_argument(
        "--out",
        type=Path,
        default=Path("demo-output"),
        help="for the pictures, and the model trained on the spot (%(default)s)",
    )

    command = commands.add_parser("accelerate", help="find the fastest policy of exits that can be certified")
    command.set_defaults(run=_accelerate)
    command.add_argument(
        "--model",
        required=True,
        nargs="+",
        help="a directory, or a name on the Hugging Face hub; several: a cascade, the one whose labels count last",
    )
    command.add_argument("--data", required=True, type=Path, help=_ROWS)
    command.add_argument("--calibration", type=Path, help="for the certificate alone (35%% of --data)")
    command.add_argument("--agreement", type=float, default=0.99, help="share of labels to keep (%(default)s)")
    command.add_argument("--confidence", type=float, default=0.95, help="(%(default)s)")
    command.add_argument("--dtype", choices=_DTYPES, help="(the model's)")
    command.add_argument("--max-length", type=int, help="in tokens (what the model allows)")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--out", required=True, type=Path, help="directory for model, tokenizer and policy")

    command = commands.add_parser(
        "predict", help="label a file, line by line; goes on where an earlier run was interrupted"
    )
    command.set_defaults(run=_predict)
    command.add_argument("model", help="what accelerate wrote, or any classifier")
    command.add_argument("data", type=Path, help=".jsonl (text[, text2] a line) or plain text")
    command.add_argument("--out", type=Path, help="(the data's name and .labels.jsonl)")
    command.add_argument("--max-length", type=int, help="in tokens (what policy and model allow)")

    command = commands.add_parser(
        "report", help="write a page with pictures about what accelerate found; of a cascade print the table"
    )
    command.set_defaults(run=_report)
    command.add_argument("model", type=Path, help="directory that accelerate wrote")
    command.add_argument("--out", type=Path, help="(report.html in the directory)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status. Bad input is one line on standard error, and status 2."""
    logging.basicConfig(format="moco-rt: %(message)s")
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "demo" and (options.model is None) != (options.data is None):
        parser.error("--model and --data go together")
    try:
        options.run(options)
    except (OSError, TierError, TypeError, ValueError) as error:
        print(f"moco-rt: {error}", file=sys.stderr)
        return 2
    return 0


def _demo(options: argparse.Namespace) -> None:
    task = demo.load_task(options.model, options.data) if options.model else demo.embedded_task(options.out / "model")
    comparison = demo.run(task, options.out, agreement=options.agreement, max_length=options.max_length)
    print(comparison.table())
    print(f"pictures: {options.out / 'exits.png'}, {options.out / 'report.html'}")


def _accelerate(options: argparse.Namespace) -> None:
    rows = read_rows(options.data)
    calibration = None if options.calibration is None else read_rows(options.calibration)
    loaded = [load_classifier(name) for name in options.model]
    model, tokenizer = loaded[-1]
    one = len(loaded) == 1
    given: Any = model if one else loaded
    fast = accelerate(
        given,
        [row.text for row in rows],
        tokenizer=tokenizer if one else None,
        agreement=options.agreement,
        confidence=options.confidence,
        dtype=_DTYPES.get(options.dtype),
        seed=options.seed,
        calibration=None if calibration is None else [row.text for row in calibration],
        labels=true_classes(rows if calibration is None else calibration, model.config),
        max_length=options.max_length,
    )
    fast.save_pretrained(options.out)
    if one:
        tokenizer.save_pretrained(options.out)
    fast.report()


def _predict(options: argparse.Namespace) -> None:
    out = options.out or options.data.with_name(f"{options.data.name}.labels.jsonl")
    model: EarlyExitTextClassificationModel | Cascade
    if is_cascade(options.model):
        model, tokenizer = Cascade.from_pretrained(options.model), None
    else:
        model = EarlyExitTextClassificationModel.from_pretrained(options.model)
        tokenizer = load_tokenizer(model.model)
    before, now = predict_file(model, tokenizer, options.data, out, options.max_length)
    kept = f", {before:,} of them from an earlier run" if before else ""
    print(f"{out}: {now:,} lines{kept}")


def _report(options: argparse.Namespace) -> None:
    if is_cascade(options.model):
        Cascade.from_pretrained(options.model).report()
        return
    file = options.model / FINDINGS
    certificate = EarlyExitTextClassificationModel.from_pretrained(options.model).policy.certificate
    if certificate is None or not file.exists():
        raise ValueError(f"{options.model} must be a directory that accelerate wrote (it has no {FINDINGS})")
    out = options.out or options.model / "report.html"
    out.write_text(report_page(options.model.name, certificate, SearchReport.load(file)), encoding="utf-8")
    print(out)
