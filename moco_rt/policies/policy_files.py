"""A policy on disk: `policy.json`, which a person can read, and `policy.safetensors` with the tensors. No pickle.

Version 3 names what the policy is about (task, numeric form, variant, promise) and holds the whole certified path.
Version 2, which is still read, had another kind of path, which is left behind; version 1 had neither, and its
fingerprints were weaker: they are checked as they were made.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from moco_rt.architectures.tasks import TASKS, task_from
from moco_rt.certification.certificate import GIVEN, Certificate
from moco_rt.certification.policy_path import PolicyPath
from moco_rt.policies.bag_of_tokens import TOKENS, AnyOffRamp, BagOfTokens
from moco_rt.policies.conditions import LinearCondition, OffRamp
from moco_rt.policies.fingerprints import check_made_for
from moco_rt.policies.policy import CertifiedPath, Exit, Policy
from moco_rt.storage.fields import typed_fields
from moco_rt.storage.manifest import read_manifest, read_tensors, whole

FORMAT, VERSION = "moco_rt policy", 3
JSON, TENSORS = "policy.json", "policy.safetensors"
#: What a policy of this version of moco_rt can be about; later ones may know more.
_KNOWN = {"task": tuple(TASKS), "promise": ("confident", "per class", "accuracy")}
#: Tensors of a certified path.
_PATH_TENSORS = ("variant", "thresholds", "disagreements", "seconds")
#: Tensors of a certified path that earlier files lack.
_PATH_COUNTS = ("fired", "wrong")


def save_policy(policy: Policy, directory: str | Path) -> None:
    """Write a policy as it is at this moment into a directory, which is made where it is missing.

    Raises:
        ValueError: one of its conditions is a plain callable, which has no form on disk.
    """
    policy = copy.copy(policy)  # its state is replaced, never changed: what becomes of it meanwhile is not written
    tensors: dict[str, NDArray[Any]] = {}
    exits = [_describe(exit, f"exits.{place}", tensors) for place, exit in enumerate(policy.exits)]
    text = {
        "format": FORMAT,
        "version": VERSION,
        "task": policy.task.stored(),
        "variant": GIVEN if policy.certificate is None else policy.certificate.variant,
        "promise": "confident" if policy.certificate is None else policy.certificate.promise,
        "dtype": policy.made_for.get("dtype"),
        "sites": policy.sites,
        "num_classes": policy.num_classes,
        "hidden_size": policy.hidden_size,
        "made_for": {name: value for name, value in policy.made_for.items() if name != "dtype"},
        "exits": exits,
        "closed": sorted(policy.closed),
        "step": policy.step,
        "origin": policy.state.origin,
        "certificate": None if policy.certificate is None else asdict(policy.certificate),
        "certified": policy.is_certified,
        "path": None if policy.path is None else _describe_path(policy.path, tensors),
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
        expected: a policy of the model, whatever its exits; its shapes and its `made_for` must fit.

    Raises:
        ValueError: a file is broken, of another format or version, or of another model.
    """
    text = read_manifest(json_file, FORMAT, (1, 2, VERSION))
    tensors = read_tensors(tensors_file)
    with whole(json_file):
        _check_shapes(text, expected, json_file)
        made_for = _made_for(text, expected, json_file)
        descriptions = list(enumerate(text["exits"]))
        closed, certificate = set(text["closed"]), Certificate.of(text["certificate"])
        certified = text.get("certified", True)  # earlier files do not say
        if not isinstance(certified, bool):
            raise TypeError("certified that is no boolean")
        task = task_from(text.get("task", "single_label"))  # version 1 knew no other
    policy = Policy(expected.sites, expected.num_classes, expected.hidden_size, task)
    policy.certificate = certificate  # of other exits than follow, unless it is said again
    with whole(tensors_file):
        for place, about in descriptions:
            policy.add(_exit(about, f"exits.{place}", tensors))
        policy.path = _path(text["path"], tensors) if text["version"] == VERSION else None
    if certified:
        policy.certificate = certificate
    policy.close(closed)
    with whole(json_file):
        step = _step(text.get("step"), policy)
        origin = step if step is not None else _step(text.get("origin"), policy, first=True)
        policy.state = replace(policy.state, step=step, origin=origin)
    policy.made_for = made_for
    return policy


def _made_for(text: Mapping[str, Any], expected: Policy, name: str | Path) -> dict[str, Any]:
    """Check what a policy was made for, and return it in the form of version 2."""
    made_for = dict(text["made_for"])
    if text["version"] == 1:
        if "weights" in made_for:
            made_for["sampled_weights"] = made_for.pop("weights")
        check_made_for(made_for, expected.made_for, name)
        if "sampled_weights" in expected.made_for:  # and they are equal: it is this model
            del made_for["sampled_weights"]
            made_for |= {key: value for key, value in expected.made_for.items() if key != "sampled_weights"}
        return made_for
    for field, known in _KNOWN.items():
        found = text[field]["name"] if isinstance(text[field], dict) else text[field]
        if found not in known:
            readable = " or ".join(map(repr, known))
            raise ValueError(f"{name} must have {field} {readable}, which this moco_rt knows (got {found!r})")
    if text["dtype"] is not None:  # first, for another dtype has other weights too
        made_for = {"dtype": text["dtype"], **made_for}
    check_made_for(made_for, expected.made_for, name)
    return made_for


def _check_shapes(text: Mapping[str, Any], expected: Policy, name: str | Path) -> None:
    for what in ("sites", "num_classes", "hidden_size"):
        own = getattr(expected, what)
        found = tuple(text[what]) if what == "sites" else text[what]
        if what == "sites" and TOKENS in own and TOKENS not in found:
            found = (*found, TOKENS)  # the file is older than that site
        if found != own:
            raise ValueError(f"{name} must be of a model with {what} {own} (got {found})")


def _describe_path(path: CertifiedPath, tensors: dict[str, NDArray[Any]]) -> dict[str, Any]:
    policies = path.policies
    for name in (*_PATH_TENSORS, *_PATH_COUNTS):
        if getattr(policies, name) is not None:
            tensors[f"path.{name}"] = np.ascontiguousarray(getattr(policies, name))
    exits = [Exit.of(ramp, str(ramp.site)) for ramp in path.off_ramps]
    return {
        "exits": [_describe(exit, f"path.exits.{place}", tensors) for place, exit in enumerate(exits)],
        "variants": policies.variants,
        "rows": policies.rows,
        "certified": policies.certified,
        "chosen": policies.chosen,
    }


def _step(step: Any, policy: Policy, first: bool = False) -> int | None:
    """Check a step against the exits, or the first of them, and the path; version 2 had one that is left behind."""
    if not (step is None or type(step) is int):
        raise TypeError("a step that is no integer")
    if policy.path is None or step is None:
        return step
    if step in policy.path.possible_steps():
        expected = policy.path.exits(step)
        if _same_exits(expected, policy.exits[: len(expected)] if first else policy.exits):
            return step
    raise TypeError("a step that the path does not have, or other exits than its")


def _same_exits(some: Sequence[Exit], others: Sequence[Exit]) -> bool:
    """Return whether exits would be written as the same bits."""
    tensors: tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]] = ({}, {})
    one, other = (
        [_describe(exit, f"exits.{place}", into) for place, exit in enumerate(exits)]
        for exits, into in zip((some, others), tensors, strict=True)
    )
    same = one == other and tensors[0].keys() == tensors[1].keys()
    return same and all(np.array_equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


def _path(about: Mapping[str, Any] | None, tensors: Mapping[str, NDArray[Any]]) -> CertifiedPath | None:
    if about is None:
        return None
    stored: dict[str, Any] = {name: tensors[f"path.{name}"] for name in _PATH_TENSORS}
    stored |= {name: tensors.get(f"path.{name}") for name in _PATH_COUNTS}
    named = {name: about[name] for name in ("variants", "rows", "certified", "chosen")}
    policies = PolicyPath(**stored, **typed_fields(PolicyPath, named))
    ramps = [_exit(exit, f"path.exits.{place}", tensors).condition for place, exit in enumerate(about["exits"])]
    return CertifiedPath([ramp for ramp in ramps if isinstance(ramp, AnyOffRamp)], policies)


def _describe(exit: Exit, prefix: str, tensors: dict[str, NDArray[Any]]) -> dict[str, Any]:
    condition = exit.condition
    if isinstance(condition, OffRamp):
        for i, (weight, bias) in enumerate(condition.layers):
            tensors[f"{prefix}.layers.{i}.weight"] = np.ascontiguousarray(weight)
            tensors[f"{prefix}.layers.{i}.bias"] = np.ascontiguousarray(bias)
        tensors[f"{prefix}.thresholds"] = np.ascontiguousarray(condition.thresholds)
        tensors[f"{prefix}.bounds"] = np.ascontiguousarray(condition.bounds)
        tensors |= _log_odds(condition, prefix)
        named = ("score", "temperature", "feature", "patience")
        described = {name: _plain(getattr(condition, name)) for name in named}
        return {"kind": "off_ramp", "site": exit.site, **described, **_levels(condition)}
    if isinstance(condition, BagOfTokens):
        for name in ("bias", "thresholds", "bounds"):
            tensors[f"{prefix}.{name}"] = np.ascontiguousarray(getattr(condition, name))
        tensors |= _log_odds(condition, prefix)
        # The table is large, and the path's bag has the same as the exit's.
        table = next((name for name, stored in tensors.items() if stored is condition.table), f"{prefix}.table")
        tensors[table] = condition.table
        scored = {} if condition.score == "max_prob" else {"score": condition.score, **_levels(condition)}
        temperature = _plain(condition.temperature)
        return {"kind": "bag_of_tokens", "site": exit.site, "temperature": temperature, "table": table, **scored}
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


def _levels(ramp: AnyOffRamp) -> dict[str, Any]:
    """Describe levels, of which JSON has no infinite ones."""
    return {"levels": [level if math.isfinite(level) else None for level in ramp.levels]} if ramp.levels else {}


def _log_odds(ramp: AnyOffRamp, prefix: str) -> dict[str, NDArray[np.float32]]:
    return {} if ramp.log_odds is None else {f"{prefix}.log_odds": np.ascontiguousarray(ramp.log_odds)}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _exit(about: Mapping[str, Any], prefix: str, tensors: Mapping[str, NDArray[Any]]) -> Exit:
    options = {name: value for name, value in about.items() if name not in ("kind", "predicted_class", "exit_bound")}
    if "levels" in options:
        options["levels"] = [math.inf if level is None else level for level in options["levels"]]
    log_odds = tensors.get(f"{prefix}.log_odds")
    site = str(about["site"])
    if about["kind"] == "off_ramp":
        count = sum(name.startswith(f"{prefix}.layers.") for name in tensors) // 2
        layers = tuple(
            (tensors[f"{prefix}.layers.{i}.weight"], tensors[f"{prefix}.layers.{i}.bias"]) for i in range(count)
        )
        thresholds, bounds = tensors[f"{prefix}.thresholds"], tensors[f"{prefix}.bounds"]
        known = typed_fields(OffRamp, options)
        return Exit.of(OffRamp(layers, thresholds, bounds, log_odds=log_odds, **known), site)
    if about["kind"] == "bag_of_tokens":
        bias, thresholds, bounds = (tensors[f"{prefix}.{name}"] for name in ("bias", "thresholds", "bounds"))
        scored = {name: options[name] for name in ("temperature", "score", "levels") if name in about}
        known = typed_fields(BagOfTokens, scored)
        return Exit.of(BagOfTokens(tensors[about["table"]], bias, thresholds, bounds, log_odds=log_odds, **known), site)
    condition = LinearCondition(tensors[f"{prefix}.weight"], **typed_fields(LinearCondition, options))
    leaving = typed_fields(Exit, {"predicted_class": about["predicted_class"], "bound": about["exit_bound"]})
    return Exit(site, condition=condition, feature=condition.feature, **leaving)
