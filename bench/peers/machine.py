"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

#: Of a processor's flags, those that decide which kernels an engine can use.
FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16")


def machine() -> dict:
    fields = dict(
        tuple(part.strip() for part in line.split(":", 1))
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if ":" in line
    )
    flags = fields.get("flags", "").split()
    return {
        "cpu": fields.get("model name", platform.machine()),
        "family_model": f"{fields.get('cpu family')}/{fields.get('model')}",
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
