"""The command line: `moco-rt demo`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from moco_rt import demo


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="moco-rt", description="Early exits for fine-tuned transformer classifiers.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "demo",
        help="find rules for a classifier, run with and without them, compare",
        description="Without arguments: on a small BERT trained on the spot. With --model and --data: on your own.",
    )
    command.add_argument("--model", help="a directory, or a name on the Hugging Face hub")
    command.add_argument("--data", type=Path, help="a JSON object a line: text[, text2][, label]")
    command.add_argument(
        "--max-error",
        type=float,
        default=0.01,
        help="share of labels that may change, at 95%% confidence (%(default)s)",
    )
    command.add_argument("--max-length", type=int, help="in tokens (what the model allows)")
    command.add_argument(
        "--out",
        type=Path,
        default=Path("demo-output"),
        help="for the pictures, and the model trained on the spot (%(default)s)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status. Bad input is one line on standard error, and status 2."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.model is None) != (options.data is None):
        parser.error("--model and --data go together")
    try:
        if options.model:
            task = demo.load_task(options.model, options.data)
        else:
            task = demo.embedded_task(options.out / "model")
        comparison = demo.run(task, options.out, max_error=options.max_error, max_length=options.max_length)
    except (OSError, TypeError, ValueError) as error:
        print(f"moco-rt: {error}", file=sys.stderr)
        return 2
    print(comparison.table())
    print(f"pictures: {options.out / 'exits.png'}, {options.out / 'knn_graph.png'}")
    return 0
