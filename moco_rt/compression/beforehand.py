"""Checks before hours of work: that a device computes and a checkpoint can be written; and the modes of torch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from moco_rt.storage.reasons import reason


def check_device(device: torch.device | str) -> torch.device:
    """Return a device that numbers come back from.

    Raises:
        ValueError: torch knows none of that name, or it is not here.
    """
    try:
        found = torch.device(device)
        torch.zeros(1, dtype=torch.float32, device=found).cpu()
    except Exception as error:  # each device fails in a way of its own
        raise ValueError(
            f"device must be one that torch can use here, such as cpu (got {device}: {reason(error)})"
        ) from error
    return found


def check_writable(checkpoint: Path) -> None:
    """Prove that a file can be written; the folder that it lies in is made where it is missing.

    Raises:
        ValueError: a folder or a file stands in its way, or the file system forbids it.
    """
    try:
        if checkpoint.is_dir():
            raise IsADirectoryError(0, "a folder")
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        # The name of a file that `replacing_file` writes, which is longer than the checkpoint's.
        with tempfile.NamedTemporaryFile(dir=checkpoint.parent, prefix=f".{checkpoint.name}.", suffix=".partial"):
            pass
    except OSError as error:
        raise ValueError(
            f"checkpoint must be a file that can be written (got {checkpoint}: {error.strerror})"
        ) from error


@contextmanager
def fit_to_learn(device: torch.device) -> Iterator[None]:
    """Compute in full precision and with gradients, whichever mode or default of torch the caller has set."""
    with ExitStack() as modes:
        modes.enter_context(torch.device("cpu"))  # where optimisers make their state
        modes.enter_context(torch.inference_mode(mode=False))
        modes.enter_context(torch.enable_grad())
        for kind in {"cpu", device.type}:
            modes.enter_context(torch.autocast(kind, enabled=False))
        yield
