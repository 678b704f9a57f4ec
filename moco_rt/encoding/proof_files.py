"""Proofs about characters on disk: a file for each tokenizer and version of the libraries, in the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moco_rt.storage import replacing_file


def proof_file(name: str) -> Path:
    """Return the place of a proof: below `XDG_CACHE_HOME`, by default `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(home) / "moco_rt" / "characters" / f"{name}.npz"


def load_proof(file: Path) -> NDArray[np.uint8] | None:
    """Read the weights of all characters; None: there is no such file, or it cannot be read."""
    try:
        # Opened here: numpy would leave a file open that it cannot read.
        with file.open("rb") as opened, np.load(opened) as arrays:
            weights: NDArray[np.uint8] = arrays["weights"]
            return weights if weights.shape == (1 << 16,) and weights.dtype == np.uint8 else None
    except Exception:  # NumPy lets through whatever its parsers meet, and returns bytes where it finds no array
        return None


def save_proof(file: Path, weights: NDArray[np.uint8], untried: int) -> None:
    """Write the weights of all characters, with those that another process has written; where it cannot, it does not.

    Args:
        file: what is there is replaced at once.
        weights: of all characters.
        untried: the weight of characters that were not tried.
    """
    before = load_proof(file)
    merged = weights if before is None else np.where(weights == untried, before, weights)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(file) as fresh, fresh.open("wb") as opened:  # a path would get the ending .npz
            np.savez_compressed(opened, weights=merged)
    except OSError:
        return
