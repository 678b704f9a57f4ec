"""Fingerprints of a model: what a policy is bound to. Those of tokenizers are in `inputs.tokenizer_identity`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moco_rt.inputs.tokenizer_identity import legacy_tokenizer_fingerprint, tokenizer_fingerprint
from moco_rt.quantization.hf_quantizer import is_int8

#: Settings of a model's configuration that change its answers while its weights stay the same.
_CONFIG = (
    "model_type",
    "problem_type",
    "pad_token_id",
    "image_size",
    "is_decoder",
    "is_causal",
    "lengths",
    # Attention
    "num_attention_heads",
    "num_key_value_heads",
    "n_heads",
    "head_dim",
    "attn_logit_softcapping",
    "query_pre_attn_scalar",
    "use_bidirectional_attention",
    "layer_types",
    "sliding_window",
    "local_attention",
    # Positions
    "position_embedding_type",
    "rope_parameters",
    "pos_att_type",
    "max_relative_positions",
    "position_buckets",
    # Activations, norms and heads
    "hidden_act",
    "hidden_activation",
    "activation",
    "layer_norm_eps",
    "rms_norm_eps",
    "norm_eps",
    "classifier_pooling",
    "classifier_activation",
    "pooler_hidden_act",
)
#: Numbers of a row of bits, and rows of a block that stays in a processor's cache (2 MiB).
_COLUMNS, _ROWS = 256, 1024
#: Numbers of each tensor that the fingerprint of version 1 looks at.
_SAMPLE = 256


def model_identity(model: torch.nn.Module) -> dict[str, Any]:
    """Describe all of a model that a policy depends on.

    Returns:
        `dtype`; `weights`, see `fingerprint`; `config`, settings that change answers, and the names of the classes in
        their order.
    """
    return {"dtype": numeric_form(model), "weights": fingerprint(model), "config": _config_identity(model.config)}


def numeric_form(model: torch.nn.Module) -> str:
    """Return the dtype of a model, or for int8 weights `int8`; `int8+bfloat16` where hidden states are not float32."""
    dtype = str(model.dtype).removeprefix("torch.")
    if not is_int8(model):
        return dtype
    return "int8" if dtype == "float32" else f"int8+{dtype}"


def loading_identity(model: torch.nn.Module) -> dict[str, Any]:
    """Return `model_identity` with `sampled_weights`, by which policies of version 1 know their model."""
    return {**model_identity(model), "sampled_weights": sampled_fingerprint(model)}


def run_identity(model: torch.nn.Module, tokenizer: Any, max_length: int) -> dict[str, Any]:
    """Describe all that a certificate rests on: `model_identity`, `tokenizer`, a fingerprint, and `max_length`."""
    return {**model_identity(model), "tokenizer": tokenizer_fingerprint(tokenizer), "max_length": max_length}


def image_run_identity(model: torch.nn.Module, image_processor: Any) -> dict[str, Any]:
    """Describe all that a certificate about images rests on: `model_identity` and `image_processor`, a fingerprint."""
    return {**model_identity(model), "image_processor": image_processor_fingerprint(image_processor)}


def fingerprint(model: torch.nn.Module) -> str:
    """Return the fingerprint of a model's weights: sha256 over names, shapes, dtypes and sums of all bits.

    A tensor's bytes are taken as a table of 64-bit integers. The sums of its rows, in their order, and of its columns
    go into the hash: any changed number shows, and so do rows that have changed places. Summing runs at the speed of
    memory, tens of milliseconds for 90 MB; hashing all bytes would take longer than loading them.
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        _add_sums(digest, tensor)
    return digest.hexdigest()


def sampled_fingerprint(model: torch.nn.Module) -> str:
    """Return the fingerprint of version 1: sha256 over names, shapes, dtypes and 256 numbers of each tensor."""
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


def image_processor_fingerprint(image_processor: Any) -> str:
    """Return sha256 over the class and the settings of a Hugging Face image processor."""
    settings = image_processor.to_dict().items()
    # What is private does not prepare images, and what is None may be a setting of another version.
    known = {name: value for name, value in settings if not name.startswith("_") and value is not None}
    return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()


def check_image_processor(made_for: Mapping[str, Any], image_processor: Any) -> None:
    """Refuse another image processor than that of a policy.

    Raises:
        ValueError: its fingerprint is another.
    """
    if made_for.get("image_processor", "") not in ("", image_processor_fingerprint(image_processor)):
        raise ValueError("image_processor must be the one that the policy was found with (its fingerprint is another)")


def check_made_for(made_for: Mapping[str, Any], own: Mapping[str, Any], name: str | Path) -> None:
    """Refuse a policy that was made for another model.

    Args:
        made_for: description of the model that the policy was made for, see `model_identity`.
        own: the same of the model at hand.
        name: what the error speaks of.

    Raises:
        ValueError: something that both describe differs.
    """
    made_for, own = _with_problem_type(made_for), _with_problem_type(own)
    for field, value in made_for.items():
        found = own.get(field, value)
        if isinstance(value, Mapping) and isinstance(found, Mapping):
            check_made_for(value, found, name)
        elif found != value:
            raise ValueError(f"{name} was made for a model with another {field}: {value} (got {found})")


def is_made_for(made_for: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Tell whether a policy was made for a model; for the arguments see `check_made_for`."""
    try:
        check_made_for(made_for, own, "the policy")
    except ValueError:
        return False
    return True


def _with_problem_type(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return settings with the kind of problem that transformers infers, and sets, when it is first given labels."""
    if config.get("problem_type", "") is not None or "classes" not in config:
        return config
    return {**config, "problem_type": "regression" if len(config["classes"]) == 1 else "single_label_classification"}


def _config_identity(config: Any) -> dict[str, Any]:
    found = {name: getattr(config, name) for name in _CONFIG if hasattr(config, name)}
    settings = {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}  # as in JSON
    names = [str(name) for _, name in sorted((int(number), name) for number, name in config.id2label.items())]
    return {**settings, "classes": names}


def _add_sums(digest: Any, tensor: Tensor) -> None:
    """Add the sums of rows and columns of a tensor's bits to a hash, and the bytes that fill no row."""
    bits = tensor.detach().reshape(-1).contiguous().cpu().view(torch.uint8).numpy()
    size = len(bits) // (8 * _COLUMNS) * 8 * _COLUMNS
    table = bits[:size].view(np.int64).reshape(-1, _COLUMNS)
    columns = np.zeros(_COLUMNS, np.int64)
    for start in range(0, len(table), _ROWS):
        block = table[start : start + _ROWS]
        digest.update(block.sum(axis=1).tobytes())
        columns += block.sum(axis=0)
    digest.update(columns.tobytes())
    digest.update(bits[size:].tobytes())
