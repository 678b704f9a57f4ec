"""Settings of torch that hold for a while."""

from __future__ import annotations

from contextlib import contextmanager

import torch


@contextmanager
def float64_default():
    """New tensors are float64 where nothing else is said."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
