"""A cascade on disk: `cascade.json`, `cascade.safetensors` with the thresholds, and a folder for each tier."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from moco_rt.architectures import load_tokenizer
from moco_rt.cascades.tier import Tier
from moco_rt.certification.certificate import Certificate
from moco_rt.inputs.tokenizer_identity import save_tokenizer, tokenizer_settings
from moco_rt.runtime.checkpoints import CASCADE
from moco_rt.runtime.model import EarlyExitTextClassificationModel

VERSION = 1
TENSORS = "cascade.safetensors"


def is_cascade(directory: str | Path) -> bool:
    """Whether `save` has written there."""
    return (Path(directory) / CASCADE).exists()


def save(directory: str | Path, tiers: Sequence[Tier], certificate: Certificate | None) -> None:
    """Write tiers into a directory, which is made where it is missing.

    Raises:
        ValueError: a tier is a function, or a rule of one a plain callable: they have no form on disk.
    """
    directory = Path(directory)
    for number, tier in enumerate(tiers):
        if tier.tokenizer is None:
            raise ValueError(f"tier {number} must be a model to be saved (got a function)")
    (directory / CASCADE).unlink(missing_ok=True)  # or, should what follows fail, it would speak of other tiers
    for number, tier in enumerate(tiers):
        tier.model.save_pretrained(directory / f"tier-{number}")
        save_tokenizer(tier.tokenizer, directory / f"tier-{number}")
    about = {
        "format": "moco_rt cascade",
        "version": VERSION,
        "tiers": [
            {
                "temperature": tier.temperature,
                "max_length": tier.max_length,
                "batch_tokens": tier.batch_tokens,
                "tokenizer": tokenizer_settings(tier.tokenizer),
            }
            for tier in tiers
        ],
        "certificate": None if certificate is None else asdict(certificate),
    }
    thresholds = {
        f"tiers.{n}.thresholds": tier.thresholds for n, tier in enumerate(tiers) if tier.thresholds is not None
    }
    save_file(thresholds, directory / TENSORS)
    (directory / CASCADE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def load(directory: str | Path) -> tuple[list[Tier], Certificate | None]:
    """The tiers of a directory, and what is promised of them.

    Raises:
        ValueError: the directory holds none, one of another version, or not all of it.
    """
    directory = Path(directory)
    if not is_cascade(directory):
        raise ValueError(f"{directory} must hold a cascade ({CASCADE} is missing)")
    about = json.loads((directory / CASCADE).read_text(encoding="utf-8"))
    if about.get("format") != "moco_rt cascade" or about.get("version") != VERSION:
        raise ValueError(
            f"{directory / CASCADE} must be a moco_rt cascade of version {VERSION} "
            f"(got {about.get('format')!r}, version {about.get('version')})"
        )
    thresholds: dict[str, torch.Tensor] = load_file(directory / TENSORS)
    tiers = []
    for number, known in enumerate(about["tiers"]):
        model = EarlyExitTextClassificationModel.from_pretrained(directory / f"tier-{number}")
        tokenizer = load_tokenizer(model.model) if model.tokenizer is None else model.tokenizer
        for name, value in known["tokenizer"].items():  # which the files of earlier versions may have lost
            setattr(tokenizer, name, value)
        tier = Tier((model, tokenizer), known["max_length"])
        tier.temperature, tier.batch_tokens = known["temperature"], known["batch_tokens"]
        tier.thresholds = thresholds.get(f"tiers.{number}.thresholds")
        if tier.thresholds is None and number < len(about["tiers"]) - 1:
            raise ValueError(f"{directory / TENSORS} must hold thresholds of tier {number} (they are missing)")
        tiers.append(tier)
    return tiers, Certificate.of(about["certificate"])
