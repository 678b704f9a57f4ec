from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).parent / "emulated_tiles.cpp"
FLAGS = "-std=c++20 -O1 -w -mavx2 -mfma -fsanitize=address,undefined -fno-sanitize-recover -DMOCO_ISA=amx"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the tiles are those of x86 processors")
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler for the emulated tiles")
def test_products_on_emulated_tiles_are_those_of_plain_loops(tmp_path):
    """The kernels of AMX cannot run on most processors: their order of loads and sums can, with emulated tiles."""
    program = tmp_path / "emulated_tiles"
    command = ["g++", *FLAGS.split(), "-DMOCO_VECTOR_BYTES=64", f"-I{ROOT / 'csrc'}", SOURCE, "-o", program]
    subprocess.run(command, check=True, capture_output=True)
    done = subprocess.run([program], check=True, capture_output=True, text=True)
    assert re.fullmatch(r"0 of [1-9]\d+ sums differ\n", done.stdout), done.stdout + done.stderr
