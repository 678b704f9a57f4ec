"""Scripts that run on the kernels of each instruction set."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: What MOCO_MAX_ISA may be, and what cpu_isa answers: from the least to the most.
LEVELS = ["generic", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx"]


def run_python(script, *arguments, **environment):
    """Run a script in a Python of its own, with more in the environment; it may import what tests import."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@functools.cache
def best_isa():
    """Return the most that the processor has."""
    return run_python("from moco_rt._C import cpu_isa; print(cpu_isa())", MOCO_MAX_ISA=LEVELS[-1]).stdout.strip()


def has_isa(level):
    """Tell whether the processor has an instruction set."""
    return LEVELS.index(level) <= LEVELS.index(best_isa())


def check_same_everywhere(script, *arguments):
    """Check that a script prints the same with every instruction set that rounds a multiply-add once.

    Of the processor's: where it has one alone there is nothing to compare.
    """
    levels = [level for level in LEVELS[1:] if has_isa(level)]
    if len(levels) < 2:
        pytest.skip(f"the processor's instruction sets end at {best_isa()}")
    printed = {}
    for level in levels:
        done = run_python(script + "\nfrom moco_rt._C import cpu_isa\nprint(cpu_isa())", *arguments, MOCO_MAX_ISA=level)
        assert done.returncode == 0, done.stderr
        *printed[level], isa = done.stdout.split()
        assert isa == level
    assert len(set(map(tuple, printed.values()))) == 1, printed
