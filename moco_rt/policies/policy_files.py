"""A policy on disk: `policy.json`, which a person can read, and `policy.safetensors` with the weights. No pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from moco_rt.certification.certificate import Certificate
from moco_rt.policies.conditions import LinearCondition, OffRamp
from moco_rt.policies.fingerprints import check_made_for
from moco_rt.policies.policy import Exit, Policy

VERSION = 1
JSON, TENSORS = "policy.json", "policy.safetensors"


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
    policy.close(text["closed"])
    policy.made_for = text["made_for"]
    policy.certificate = Certificate.of(text["certificate"])
    return policy


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
