from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from instruction_sets import LEVELS, ROOT, best_isa, has_isa, run_python

from moco_rt import _C

#: What torch's own kernels are kept to beside it.
CAPABILITIES = {"generic": "default", "avx2": "avx2"}


@pytest.mark.parametrize("isa", LEVELS)
def test_the_kernels_of_each_instruction_set_are_chosen_and_exact(isa):
    """The tests that bound rounding errors or look at bits, once per instruction set."""
    if isa == _C.cpu_isa():
        pytest.skip("this process runs on it anyway")
    if not has_isa(isa):
        pytest.skip(f"the processor ends at {best_isa()}")
    wanted = "(twice_the_error or same_bits or sums_of_int8 or int16) and not float64 and not every_instruction_set"
    if isa == "avx512_vnni":  # the kernels of avx512_bf16 again, less those of bfloat16
        wanted = "same_bits and not every_instruction_set"
    script = (
        "import sys, pytest\n"
        "quiet = ['-q', '-p', 'no:cacheprovider', '-W', 'ignore::DeprecationWarning']\n"
        f"code = pytest.main(['tests/extension', *quiet, '-k', {wanted!r}])\n"
        "from moco_rt._C import cpu_isa\n"  # not sooner: pytest warns of modules that it can no longer rewrite
        "print(cpu_isa())\n"
        "sys.exit(code)\n"
    )
    done = run_python(script, MOCO_MAX_ISA=isa, ATEN_CPU_CAPABILITY=CAPABILITIES.get(isa, "avx512"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == isa


def test_the_instruction_set_is_no_more_than_torch_chose():
    capability = torch.backends.cpu.get_cpu_capability().lower()
    most = {"avx512": "avx512_bf16", "avx2": "avx2"}.get(capability, "generic")
    assert LEVELS.index(_C.cpu_isa()) <= LEVELS.index(most)
    assert LEVELS.index(_C.cpu_isa()) <= LEVELS.index(os.environ.get("MOCO_MAX_ISA", LEVELS[-1]))


@pytest.mark.skipif(torch.get_num_threads() == 1, reason="torch runs on one thread")
def test_parallel_loops_run_on_more_than_one_thread():
    assert _C.parallel_threads() > 1


def test_kernel_objects_have_no_weak_symbols():
    """The linker keeps one copy of a weak symbol for the whole library: it could be one that needs AVX-512."""
    objects = sorted(ROOT.glob("build/*/CMakeFiles/kernels_*.dir/**/*.o"))
    if not objects:
        pytest.skip("no build directory")
    if shutil.which("nm") is None:
        pytest.skip("no nm")
    listed = subprocess.run(["nm", "-C", "-A", *objects], capture_output=True, text=True, check=True).stdout
    symbols = [line.split(":", 1)[1][17:] for line in listed.splitlines()]  # "D name", behind file and address
    assert any(symbol.startswith("D moco::") and symbol.endswith("::table") for symbol in symbols)
    assert [symbol for symbol in symbols if symbol[0] in "WwVvu"] == []


def test_the_extension_needs_no_symbol_of_torch():
    """So a build serves every version of torch."""
    if shutil.which("nm") is None:
        pytest.skip("no nm")
    command = ["nm", "--dynamic", "--undefined-only", "-C", _C.__file__]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "GLIBC" in listed
    assert not re.search(r"\b(at|c10|torch)::|aoti_|THP", listed)


def test_torch_still_has_the_products_of_tiles():
    """A processor with AMX multiplies by them; torch keeps their names to itself, and may change them one day."""
    assert _C.has_brgemm()


# What MOCO_MAX_ISA does

ASK = """
import torch
from moco_rt._C import can_multiply, cpu_isa
print(cpu_isa(), *(can_multiply(dtype) for dtype in (torch.float32, torch.bfloat16, torch.int8)))
"""


@functools.cache
def answers_of(level):
    """Return what a process answers that may use no more than a level."""
    return run_python(ASK, MOCO_MAX_ISA=level).stdout


@pytest.mark.parametrize("level", LEVELS)
def test_no_more_is_used_than_the_environment_allows(level):
    isa, *multiplies = answers_of(level).split()
    everything, *all_multiply = answers_of(LEVELS[-1]).split()
    assert isa == LEVELS[min(LEVELS.index(level), LEVELS.index(everything))]
    assert multiplies == (all_multiply if level in ("avx512_bf16", "amx") else ["True", "False", "True"])


def test_without_the_variable_everything_is_used_that_tests_have_run_on():
    environment = {name: value for name, value in os.environ.items() if name != "MOCO_MAX_ISA"}
    command = [sys.executable, "-c", ASK]
    unset = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert unset == answers_of("avx512_bf16")


def test_the_lower_of_the_two_variables_counts():
    assert run_python(ASK, MOCO_MAX_ISA="generic", ATEN_CPU_CAPABILITY="avx2").stdout.startswith("generic ")
    assert run_python(ASK, MOCO_MAX_ISA="avx512", ATEN_CPU_CAPABILITY="default").stdout.startswith("generic ")


@pytest.mark.parametrize("value", ["", "sse", "AVX2", "avx512 "])
def test_a_level_that_is_not_there_is_refused_at_import(value):
    done = run_python("import moco_rt", MOCO_MAX_ISA=value)
    assert done.returncode == 1
    words = f"MOCO_MAX_ISA must be one of {', '.join(LEVELS)} (got {value})"
    assert done.stderr.splitlines()[-1] == f"ValueError: {words}"
