"""A cascade on disk: `cascade.json`, `cascade.safetensors` with the thresholds, and a folder for each tier.

Version 2 holds a fingerprint of each tier, so that a tier that was replaced is refused, and one of its ways out: with
others than were saved the cascade is not certified. Version 1 is still read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from moco_rt.architectures import load_tokenizer
from moco_rt.cascades.monitor import CascadeMonitor
from moco_rt.cascades.promised import seems_certified
from moco_rt.cascades.tier import Tier, backend_to_keep
from moco_rt.certification.certificate import Certificate
from moco_rt.inputs.tokenizer_identity import save_tokenizer, set_tokenizer, tokenizer_fingerprint, tokenizer_settings
from moco_rt.policies.findings import SearchReport
from moco_rt.policies.fingerprints import check_made_for, model_identity
from moco_rt.policies.monitor import read_state
from moco_rt.policies.policy_files import JSON as POLICY
from moco_rt.policies.policy_files import TENSORS as POLICY_TENSORS
from moco_rt.runtime.checkpoints import CASCADE, FINDINGS, MONITOR, replacing
from moco_rt.runtime.model import EarlyExitTextClassificationModel
from moco_rt.storage import complete_replacing
from moco_rt.storage.manifest import read_manifest, read_tensors, whole

FORMAT, VERSION = "moco_rt cascade", 2
TENSORS = "cascade.safetensors"


def is_cascade(directory: str | Path) -> bool:
    """Return True if `save` has written into a directory."""
    complete_replacing(Path(directory))
    return (Path(directory) / CASCADE).exists()


def save(
    directory: str | Path,
    tiers: Sequence[Tier],
    certificate: Certificate | None,
    monitor: CascadeMonitor | None = None,
    report: SearchReport | None = None,
    is_certified: Callable[[], bool] = lambda: True,
) -> None:
    """Write tiers into a directory, which is made where it is missing, and what there is besides.

    The files take the place of those that are there when all are written. Whether the certificate is about the ways out
    that were written is asked at the end: a monitor may have closed some meanwhile.

    Raises:
        ValueError: a tier is a function, or a rule of one a plain callable: they have no form on disk.
    """
    for number, tier in enumerate(tiers):
        if tier.tokenizer is None:
            raise ValueError(f"tier {number} must be a model to be saved (got a function)")
    described = [_describe(tier) for tier in tiers]
    about = {
        "format": FORMAT,
        "version": VERSION,
        "tiers": described,
        "certificate": None if certificate is None else asdict(certificate),
    }
    thresholds = {_name(number): tier.thresholds for number, tier in enumerate(tiers) if tier.thresholds is not None}
    with replacing(directory) as fresh:
        for number, tier in enumerate(tiers):
            tier.model.save_pretrained(fresh / f"tier-{number}")
            save_tokenizer(tier.tokenizer, fresh / f"tier-{number}")
            described[number]["ways_out"] = _ways_out_fingerprint(tier, fresh / f"tier-{number}")
        save_file(thresholds, fresh / TENSORS)
        if monitor is not None and certificate is not None:
            (fresh / MONITOR).write_text(json.dumps(monitor.state()) + "\n", encoding="utf-8")
        if report is not None:
            report.save(fresh / FINDINGS)
        about["certified"] = is_certified()
        (fresh / CASCADE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def load(directory: str | Path) -> tuple[list[Tier], Certificate | None, bool]:
    """Read the tiers of a directory, the promise about all of them, and whether it is about their ways out.

    Raises:
        ValueError: the directory holds no cascade, one of another version, not all of it, or a tier of another model
            than the one that was saved.
    """
    directory = Path(directory)
    if not is_cascade(directory):
        raise ValueError(f"{directory} must hold a cascade ({CASCADE} is missing)")
    about = read_manifest(directory / CASCADE, FORMAT, (1, VERSION))
    thresholds = read_tensors(directory / TENSORS)
    with whole(directory / CASCADE):
        known, certificate = list(about["tiers"]), Certificate.of(about["certificate"])
    tiers, same_ways_out = [], []
    for number, described in enumerate(known):
        levels = thresholds.get(_name(number))
        if levels is None and number < len(known) - 1:
            raise ValueError(f"{directory / TENSORS} must hold thresholds of tier {number} (they are missing)")
        tiers.append(_tier(directory, number, described, None if levels is None else torch.from_numpy(levels)))
        now = _ways_out_fingerprint(tiers[-1], directory / f"tier-{number}")
        same_ways_out.append(described.get("ways_out", now) == now)  # earlier files do not say
    certified = about.get("certified", seems_certified(tiers, certificate))
    with whole(directory / CASCADE):
        if not isinstance(certified, bool):
            raise TypeError("certified that is no boolean")
    return tiers, certificate, certified and all(same_ways_out)


def load_report(directory: str | Path) -> SearchReport | None:
    """Read the report of the search for a cascade; None: there is none."""
    file = Path(directory) / FINDINGS
    return SearchReport.load(file) if file.exists() else None


def load_monitor(
    directory: str | Path, tiers: Sequence[Tier], certificate: Certificate | None, is_certified: bool
) -> CascadeMonitor | None:
    """Read what a monitor of a cascade has seen; None: there was none.

    Raises:
        ValueError: the file is of another cascade.
    """
    file = Path(directory) / MONITOR
    if not file.exists():
        return None
    seen = read_state(file)
    monitor = CascadeMonitor(tiers, certificate, seen["rate"], delta=seen["delta"], is_certified=is_certified)
    monitor.restore(seen)
    return monitor


def _name(number: int) -> str:
    return f"tiers.{number}.thresholds"


def _describe(tier: Tier) -> dict[str, Any]:
    return {
        "temperature": tier.temperature,
        "max_length": tier.max_length,
        "batch_tokens": tier.batch_tokens,
        "backend": backend_to_keep(tier.model),
        "tokenizer": tokenizer_settings(tier.tokenizer),
        "made_of": {**model_identity(tier.model.model), "tokenizer": tokenizer_fingerprint(tier.tokenizer)},
    }


def _tier(directory: Path, number: int, described: Mapping[str, Any], thresholds: torch.Tensor | None) -> Tier:
    folder = directory / f"tier-{number}"
    if not folder.is_dir():  # what is no folder would be asked for on the hub
        raise ValueError(f"{directory} must hold tier-{number} (it is missing)")
    with whole(directory / CASCADE):
        settings, max_length = dict(described["tokenizer"]), int(described["max_length"])
        temperature, batch_tokens = float(described["temperature"]), described["batch_tokens"]
    model = EarlyExitTextClassificationModel.from_pretrained(folder, backend=described.get("backend", "auto"))
    tokenizer = load_tokenizer(model.model) if model.tokenizer is None else model.tokenizer
    with whole(directory / CASCADE):
        set_tokenizer(tokenizer, settings)  # the files of earlier versions may have lost them
    now = {**model_identity(model.model), "tokenizer": tokenizer_fingerprint(tokenizer)}
    with whole(directory / CASCADE):
        check_made_for(described.get("made_of", {}), now, f"tier {number} of {directory}")
    tier = Tier.of((model, tokenizer), max_length)
    return replace(tier, temperature=temperature, thresholds=thresholds, batch_tokens=batch_tokens)


def _ways_out_fingerprint(tier: Tier, folder: Path) -> str:
    """Return sha256 over the exits of a tier as they lie in its folder, its thresholds and its temperature."""
    digest = hashlib.sha256(f"{tier.temperature!r}".encode())
    digest.update(b"" if tier.thresholds is None else tier.thresholds.numpy().tobytes())
    for file in (folder / POLICY, folder / POLICY_TENSORS):
        digest.update(file.read_bytes() if file.exists() else b"")
    return digest.hexdigest()
