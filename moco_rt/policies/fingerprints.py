"""Fingerprints of a model and its tokenizer: what a policy is bound to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from moco_rt.inputs.tokenizer_identity import legacy_tokenizer_fingerprint, tokenizer_fingerprint
from moco_rt.quantization.hf_quantizer import is_int8

#: Numbers of each tensor that a model's fingerprint looks at: all would take longer than loading it.
_SAMPLE = 256


def model_identity(model: torch.nn.Module) -> dict[str, Any]:
    """What of a model a policy depends on: `weights`, a fingerprint, and `dtype`."""
    dtype = "int8" if is_int8(model) else str(model.dtype).removeprefix("torch.")
    return {"dtype": dtype, "weights": fingerprint(model)}


def run_identity(model: torch.nn.Module, tokenizer: Any, max_length: int) -> dict[str, Any]:
    """What a certificate rests on: `made_for`, and `tokenizer`, a fingerprint, and `max_length`."""
    return {**model_identity(model), "tokenizer": tokenizer_fingerprint(tokenizer), "max_length": max_length}


def fingerprint(model: torch.nn.Module) -> str:
    """Of a model's weights: sha256 over every tensor's name, shape, dtype and some numbers spread over it."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.reshape(-1)
        digest.update(flat[:: max(1, flat.numel() // _SAMPLE)].to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()


def check_tokenizer(made_for: Mapping[str, Any], tokenizer: Any) -> None:
    """Refuse another tokenizer than that of a policy.

    Raises:
        ValueError: its fingerprint is another.
    """
    expected = made_for.get("tokenizer", "")
    if expected in ("", tokenizer_fingerprint(tokenizer)):
        return
    if expected != legacy_tokenizer_fingerprint(tokenizer):  # which policies of version 1 hold
        raise ValueError("tokenizer must be the one that the policy was found with (its fingerprint is another)")


def check_made_for(made_for: Mapping[str, Any], own: Mapping[str, Any], name: str | Path) -> None:
    """Refuse what was made for another model.

    Raises:
        ValueError: something that both know differs.
    """
    for what, value in made_for.items():
        if own.get(what, value) != value:
            raise ValueError(f"{name} was made for a model with another {what}: {value} (got {own[what]})")
