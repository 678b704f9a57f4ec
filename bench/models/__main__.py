"""What exits save on every family: `cd bench && python -m models`.

Makes a small model of each family, lets `accelerate` look for exits on texts or images that it has not learnt from, and
reports on others: how many labels differ, and the time without exits over that with them. Ten minutes a model; those of
texts need `../shared`. `--models vit` needs the images of Debian's `dataset-fashion-mnist`, and `--models smollm2` does
the same with a decoder that others have trained.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch

from models.case import ACCELERATE_ROWS, Case
from models.distil import distil, families
from models.fashion import fashion
from models.measuring import measure
from models.smollm import smollm

#: Families that need nothing beyond ../shared.
DISTILLED = list(families())
#: Makes each model; takes how many rows it learns from, None: all that there are.
MAKERS: dict[str, Callable[[int | None], Case]] = {
    **{name: partial(distil, name) for name in DISTILLED},
    "vit": fashion,
    "smollm2": smollm,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MAKERS), default=DISTILLED)
    parser.add_argument("--agreement", type=float, default=0.99)
    parser.add_argument("--learn-rows", type=int, help="for the model to learn from; by default all that there are")
    parser.add_argument("--rows", type=int, default=ACCELERATE_ROWS, help="for accelerate")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.agreement:.0%} asked for, {options.threads} threads")
    print("| model | backend | accuracy | with exits | labels that differ | rows that leave | time without over with |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name in options.models:
        case = MAKERS[name](options.learn_rows)
        print(measure(name, case, options.agreement, options.rows), flush=True)


if __name__ == "__main__":
    main()
