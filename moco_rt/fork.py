"""Children of fork(): they have none of their parent's threads, but torch's OpenMP would wait for them without end."""

from __future__ import annotations

import os

import torch

from moco_rt._C import lost_threads


def _keep_torch_to_one_thread() -> None:
    if lost_threads():
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_keep_torch_to_one_thread)
