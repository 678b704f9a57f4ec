"""A whole benchmark: a policy from some of the texts, an estimate, engines in turns on the others."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moco_rt.architectures import check_single_label, load_classifier
from moco_rt.benchmark.contestants import OUR_INT8, WITH_EXITS, contestants
from moco_rt.benchmark.measure import Task, baseline_seconds, measure
from moco_rt.benchmark.result import Result
from moco_rt.cascades.cascade_files import is_cascade
from moco_rt.engines import BASELINE, WorkerFailedError
from moco_rt.engines.batch import Batch
from moco_rt.inputs.texts import TextInput
from moco_rt.inputs.tokenization import length_limit
from moco_rt.runtime.model import EarlyExitTextClassificationModel
from moco_rt.tuning.accelerate import accelerate

#: The share of the texts on which a policy is found; the others are measured.
_FIND_SHARE = 0.7
#: Texts of a trial run, of int8's calibration and a batch of it, and of a turn at most.
_TRIAL_ROWS, _CALIBRATION_ROWS, _CALIBRATION_BATCH, _MOST_ROWS = 64, 256, 32, 20_000
#: How often each engine labels all texts, and what it takes beside that: conversion, loading, single texts.
TURNS, _OVERHEAD = 3, 20.0


def benchmark(
    name: str,
    texts: Sequence[TextInput],
    *,
    threads: int,
    agreement: float = 0.99,
    max_length: int | None = None,
    minutes: float = 5.0,
    price: float = 0.05,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Result:
    """Compare engines on a model and texts.

    Args:
        name: a classifier's folder, or its name on the hub; or what `accelerate` wrote, whose policy is then taken.
        texts: texts or pairs: thousands, not those that the model was fine-tuned on. Where the model has no policy, one
            is found on 70% of them, and the others are measured; none where the model runs as a whole, without exits.
        threads: of each engine.
        agreement: that the policy promises.
        max_length: in tokens; None: what model and tokenizer allow.
        minutes: that engines may label for, beside conversion and loading: fewer texts are taken where they would take
            longer.
        price: of a core for an hour.
        seed: of the split.
        say: is told what goes on, in lines.

    Raises:
        OSError: there is no such model.
        ValueError: there are less than two texts, or too few for a policy, see `accelerate`; minutes is not at least 0;
            or the model does not choose one label of several.
        WorkerFailedError: the baseline fails.
    """
    if is_cascade(name):
        raise ValueError(f"model must be one model (got the cascade {name})")
    if len(texts) < 2:
        raise ValueError(f"texts must hold at least two texts, to prepare and to measure with (got {len(texts)})")
    if not minutes >= 0:
        raise ValueError(f"minutes must be at least 0 (got {minutes})")
    order = np.random.default_rng(seed).permutation(len(texts))
    cut = max(1, int(_FIND_SHARE * len(texts)))
    find, rest = ([texts[place] for place in places] for places in (order[:cut], order[cut:]))
    with tempfile.TemporaryDirectory(prefix="moco_rt-bench-") as made:
        folder = Path(made)
        policy: Path | None = Path(name)
        if (Path(name) / "policy.json").exists():
            fast = EarlyExitTextClassificationModel.from_pretrained(name)
            check_single_label(fast.config)
        else:
            model, tokenizer = load_classifier(name)
            check_single_label(model.config)
            fast = EarlyExitTextClassificationModel(model)
            fast.tokenizer = tokenizer
            if fast.backend == "whole":
                policy = None
                say(f"no engine with exits, and none of ours in int8: {type(model).__name__} runs as a whole")
            else:
                say(f"accelerate: finds a policy on {len(find):,} texts")
                policy = folder / "fast"
                accelerate(
                    fast, find, tokenizer=tokenizer, agreement=agreement, max_length=max_length, seed=seed
                ).save_pretrained(policy)
                fast = EarlyExitTextClassificationModel.from_pretrained(policy)
        given = folder / "given"
        fast.given.model.save_pretrained(given)
        fast.tokenizer.save_pretrained(given)
        longest = length_limit(fast.tokenizer, fast.max_seqlen, max_length or fast.policy.made_for.get("max_length"))
        promise = None if fast.policy.certificate is None else fast.policy.certificate.sentence()
        calibration = _batches(fast.tokenizer, find[:_CALIBRATION_ROWS], longest)
        del fast
        engines, missing = contestants()
        if policy is not None:
            engines = [*engines, WITH_EXITS]
        elif OUR_INT8 in engines:
            engines.remove(OUR_INT8)
        task = Task(given, rest[:_MOST_ROWS], longest, threads, folder, calibration, policy)
        trial = baseline_seconds(task, _TRIAL_ROWS) / min(_TRIAL_ROWS, len(task.texts))
        rows = _rows_within(60 * minutes, trial, len(task.texts), len(engines))
        estimate = (rows * trial * TURNS + _OVERHEAD) * len(engines) / 60
        say(f"measures {len(engines)} engines on {rows:,} texts, {TURNS} turns: at most {estimate:.0f} minutes")
        task = Task(given, task.texts[:rows], longest, threads, folder, calibration, policy)
        figures = measure(task, engines, TURNS, say)
    if figures[BASELINE].failed is not None:
        raise WorkerFailedError(f"{BASELINE}: {figures[BASELINE].failed}")
    return Result(figures, rows, threads, price, missing, promise)


def _rows_within(seconds: float, each: float, rows: int, engines: int) -> int:
    """Return how many texts all engines can label in so many seconds, each as slow as the baseline; but some."""
    possible = seconds / engines / TURNS / max(each, 1e-9)
    return int(max(min(rows, possible), min(rows, _TRIAL_ROWS)))


def _batches(tokenizer: Any, texts: Sequence[TextInput], longest: int) -> list[Batch]:
    """Return padded batches with all inputs that the tokenizer gives, as engines are asked with later."""
    found = []
    for start in range(0, len(texts), _CALIBRATION_BATCH):
        some = list(texts[start : start + _CALIBRATION_BATCH])
        rows = tokenizer(some, padding=True, truncation=True, max_length=longest)
        found.append({name: np.array(values, np.int64) for name, values in rows.items()})
    return found
