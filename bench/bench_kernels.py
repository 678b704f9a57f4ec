"""Products against the peak of their instruction: `python bench/bench_kernels.py`, about a minute, on one core.

Builds `bench/kernels/gemm.cpp` with the kernels of each instruction set that this processor has, as CMakeLists.txt
does, and runs it. The last column is the share of what the same multiplication does on registers, measured in the same
run. A new version of a kernel is tried here before it moves in. `--sparse`: `bench/kernels/sparse.cpp` instead, what
products without zeros are over those with all weights, by the share of zeros and the blocks in which they come.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

from common import ROOT

from moco_rt._C import cpu_isa
from moco_rt.runtime.machine import describe_machine

AVX512 = "-mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mprefer-vector-width=512"
BFLOAT16 = f"{AVX512} -mavx512vnni -mavx512bf16"
TILES = "-mamx-tile -mamx-int8 -mamx-bf16"
#: Bytes of a vector, and flags, from the least instruction set to the most.
ISAS = {
    "generic": (16, ""),
    "avx2": (32, "-DMOCO_X86_VECTORS -mavx2 -mfma"),
    "avx512": (64, f"-DMOCO_X86_VECTORS {AVX512}"),
    "avx512_vnni": (64, f"-DMOCO_X86_VECTORS -DMOCO_VNNI {AVX512} -mavx512vnni"),
    "avx512_bf16": (64, f"-DMOCO_X86_VECTORS -DMOCO_VNNI -DMOCO_BFLOAT16 {BFLOAT16}"),
    "amx": (64, f"-DMOCO_X86_VECTORS -DMOCO_VNNI -DMOCO_BFLOAT16 -DMOCO_AMX {BFLOAT16} {TILES}"),
}
#: What a program is built of, besides the kernels.
PROGRAMS = {
    "gemm": ["bench/kernels/gemm.cpp"],
    "sparse": ["bench/kernels/sparse.cpp", "csrc/linear/sparse_steps.cpp"],
}
COLUMNS = {
    "gemm": "| instruction set | form | inputs x outputs | GFLOP/s | of its peak |\n|---|---|---|---:|---:|",
    "sparse": "| instruction set | tokens | inputs x outputs | zeros | float32 4x1 | 1x4 | 1x1 | int8 1x4 |\n"
    "|---|---:|---|---:|---:|---:|---:|---:|",
}
FLAGS = "-std=c++20 -O3 -fPIC -w"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--isas", nargs="+", choices=list(ISAS), help="those that the processor has by default, but for generic"
    )
    parser.add_argument("--sparse", action="store_true", help="products without zeros over those with all weights")
    options = parser.parse_args()
    name = "sparse" if options.sparse else "gemm"
    here = list(ISAS)[1 : list(ISAS).index(cpu_isa()) + 1]
    print(f"{describe_machine()}\n\n{COLUMNS[name]}")
    with tempfile.TemporaryDirectory() as folder:
        for isa in options.isas or here:
            bytes_of_vector, flags = ISAS[isa]
            program = Path(folder) / isa
            sources = [ROOT / path for path in ("csrc/kernels/table.cpp", *PROGRAMS[name])]
            names = [f"-DMOCO_ISA={isa}", f"-DMOCO_VECTOR_BYTES={bytes_of_vector}", f"-I{ROOT / 'csrc'}"]
            command = [os.environ.get("CXX", "g++"), *FLAGS.split(), *flags.split(), *names, *sources, "-o", program]
            subprocess.run(command, check=True)
            print(subprocess.run([program], check=True, capture_output=True, text=True).stdout, end="", flush=True)


if __name__ == "__main__":
    main()
