"""A policy on disk: `policy.json`, which a person can read, and `policy.safetensors` with the weights. No pickle."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from moco_rt.architectures.int8 import is_int8
from moco_rt.certificate import Certificate
from moco_rt.policy import Exit, Policy
from moco_rt.rules import LinearCondition, OffRamp

VERSION = 1
JSON, TENSORS = "policy.json", "policy.safetensors"

#: Numbers of each tensor that a model's fingerprint looks at: all would take longer than loading it.
_SAMPLE = 256


def made_for(model: torch.nn.Module) -> dict[str, Any]:
    """What of a model a policy depends on: `weights`, a fingerprint, and `dtype`."""
    dtype = "int8" if is_int8(model) else str(model.dtype).removeprefix("torch.")
    return {"dtype": dtype, "weights": fingerprint(model)}


def made_with(model: torch.nn.Module, tokenizer: Any, max_length: int) -> dict[str, Any]:
    """What a certificate rests on: `made_for`, and `tokenizer`, a fingerprint, and `max_length`."""
    return {**made_for(model), "tokenizer": tokenizer_fingerprint(tokenizer), "max_length": max_length}


def fingerprint(model: torch.nn.Module) -> str:
    """Of a model's weights: sha256 over every tensor's name, shape, dtype and some numbers spread over it."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.reshape(-1)
        digest.update(flat[:: max(1, flat.numel() // _SAMPLE)].to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()


@functools.lru_cache(maxsize=4)
def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Of a tokenizer: sha256 over its vocabulary and its special tokens."""
    said = json.dumps([tokenizer.convert_ids_to_tokens(range(len(tokenizer))), tokenizer.all_special_tokens])
    return hashlib.sha256(said.encode()).hexdigest()


def check_tokenizer(made_for: Mapping[str, Any], tokenizer: Any) -> None:
    """Refuse another tokenizer than that of a policy.

    Raises:
        ValueError: its fingerprint is another.
    """
    if made_for.get("tokenizer", "") not in ("", tokenizer_fingerprint(tokenizer)):
        raise ValueError("tokenizer must be the one that the policy was found with (its fingerprint is another)")


def save_policy(policy: Policy, directory: str | Path) -> None:
    """Write a policy into a directory, which is made where it is missing.

    Raises:
        ValueError: one of its conditions is a plain callable, which has no form on disk.
    """
    tensors: dict[str, NDArray[np.float32]] = {}
    exits = [_describe(exit, f"exits.{place}", tensors) for place, exit in enumerate(policy.exits)]
    text = {
        "format": "moco_rt policy",
        "version": VERSION,
        "sites": policy.sites,
        "num_classes": policy.num_classes,
        "hidden_size": policy.hidden_size,
        "made_for": policy.made_for,
        "exits": exits,
        "closed": sorted(policy.closed),
        "certificate": None if policy.certificate is None else asdict(policy.certificate),
    }
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / TENSORS)
    (directory / JSON).write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


def load_policy(json_file: str | Path, tensors_file: str | Path, expected: Policy) -> Policy:
    """Read a policy for a model.

    Args:
        json_file: `policy.json`.
        tensors_file: `policy.safetensors`.
        expected: the model's own policy, whatever its exits: says what must fit.

    Raises:
        ValueError: the file is of another format or version, or of another model.
    """
    text = json.loads(Path(json_file).read_text(encoding="utf-8"))
    if text.get("format") != "moco_rt policy" or text.get("version") != VERSION:
        raise ValueError(
            f"{json_file} must be a moco_rt policy of version {VERSION} "
            f"(got {text.get('format')!r}, version {text.get('version')})"
        )
    _check_model(text, expected, json_file)
    tensors = load_file(tensors_file)
    policy = Policy(expected.sites, expected.num_classes, expected.hidden_size)
    for place, about in enumerate(text["exits"]):
        policy.add(_exit(about, f"exits.{place}", tensors))
    policy.closed = set(text["closed"])
    policy.made_for = text["made_for"]
    policy.certificate = Certificate.of(text["certificate"])
    return policy


def check_made_for(made_for: Mapping[str, Any], own: Mapping[str, Any], name: str | Path) -> None:
    """Refuse what was made for another model.

    Raises:
        ValueError: something that both know differs.
    """
    for what, value in made_for.items():
        if own.get(what, value) != value:
            raise ValueError(f"{name} was made for a model with another {what}: {value} (got {own[what]})")


def _check_model(text: Mapping[str, Any], expected: Policy, name: str | Path) -> None:
    for what in ("sites", "num_classes", "hidden_size"):
        own = getattr(expected, what)
        found = tuple(text[what]) if what == "sites" else text[what]
        if found != own:
            raise ValueError(f"{name} must be of a model with {what} {own} (got {found})")
    check_made_for(text["made_for"], expected.made_for, name)


def _describe(exit: Exit, prefix: str, tensors: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
    condition = exit.condition
    if isinstance(condition, OffRamp):
        for i, (weight, bias) in enumerate(condition.layers):
            tensors[f"{prefix}.layers.{i}.weight"] = np.ascontiguousarray(weight)
            tensors[f"{prefix}.layers.{i}.bias"] = np.ascontiguousarray(bias)
        tensors[f"{prefix}.thresholds"] = np.ascontiguousarray(condition.thresholds)
        tensors[f"{prefix}.bounds"] = np.ascontiguousarray(condition.bounds)
        named = ("score", "temperature", "feature", "patience")
        return {"kind": "off_ramp", "site": exit.site, **{name: _plain(getattr(condition, name)) for name in named}}
    if isinstance(condition, LinearCondition):
        tensors[f"{prefix}.weight"] = condition.weight
        named = ("bias", "threshold", "bound", "feature")
        return {
            "kind": "linear",
            "site": exit.site,
            "predicted_class": exit.predicted_class,
            "exit_bound": float(exit.bound),
            **{name: _plain(getattr(condition, name)) for name in named},
        }
    raise ValueError(
        f"the condition at {exit.site} must be a LinearCondition or an OffRamp to be saved (got a callable)"
    )


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _exit(about: Mapping[str, Any], prefix: str, tensors: Mapping[str, NDArray[np.float32]]) -> Exit:
    options = {name: value for name, value in about.items() if name not in ("kind", "predicted_class", "exit_bound")}
    if about["kind"] == "off_ramp":
        count = sum(name.startswith(f"{prefix}.layers.") for name in tensors) // 2
        layers = tuple(
            (tensors[f"{prefix}.layers.{i}.weight"], tensors[f"{prefix}.layers.{i}.bias"]) for i in range(count)
        )
        thresholds, bounds = tensors[f"{prefix}.thresholds"], tensors[f"{prefix}.bounds"]
        return Exit.of(OffRamp(layers, thresholds, bounds, **options), about["site"])
    condition = LinearCondition(tensors[f"{prefix}.weight"], **options)
    return Exit(about["site"], about["predicted_class"], condition, condition.feature, about["exit_bound"])
