"""The record beside a file of labels: what it is made with, and checkpoints up to which it stands.

A line of JSON says what the labels are made with; each line after it is a checkpoint. A run adds lines, so that an
interruption can cost no more than the last. A run that goes on first cuts off the lines behind its checkpoint, one that
starts anew all of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import moco_rt
from moco_rt.cascades.cascade import Cascade
from moco_rt.policies.fingerprints import image_run_identity, run_identity
from moco_rt.policies.policy import Policy
from moco_rt.policies.policy_files import save_policy
from moco_rt.policies.promised import identity_of
from moco_rt.runtime.classifiers.base import EarlyExitClassifier
from moco_rt.runtime.model import EarlyExitTextClassificationModel
from moco_rt.runtime.prediction import longest_of
from moco_rt.serving.run_files import check_record, record_of
from moco_rt.storage.fields import rebuild

_FORMAT = {"format": "moco_rt run", "version": 1}
#: What a record is made with that is of certified rows: how many there were.
CERTIFIED_ROWS = "number of rows"


@dataclass(frozen=True)
class Checkpoint:
    """A point up to which a file of labels stands.

    Attributes:
        rows: texts that are labelled.
        bytes: the size of the file.
        texts: sha256 of these texts.
        labels: sha256 of the file.
        unfinished: True: the last of the texts was a line without an end, which may have grown since.
    """

    rows: int
    bytes: int
    texts: str
    labels: str
    unfinished: bool = False


class RunRecord:
    """An open record, which no other run can open meanwhile; see `open_record`.

    Attributes:
        made_with: what the labels are made with; None: nothing is known of them.
        checkpoints: in their order; the first is that of no rows.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self.made_with: Mapping[str, Any] | None = None
        self.checkpoints: list[Checkpoint] = []
        self._ends: list[int] = []
        self._read()

    def begin(self, made_with: Mapping[str, Any]) -> None:
        """Start anew."""
        self._file.truncate(0)
        self.made_with, self.checkpoints, self._ends = made_with, [], []
        self._write({**_FORMAT, "made_with": made_with})

    def add(self, checkpoint: Checkpoint) -> None:
        """Write down that the file of labels stands up to here."""
        self.checkpoints.append(checkpoint)
        self._ends.append(self._write(asdict(checkpoint)))

    def keep(self, count: int) -> None:
        """Forget all checkpoints but the first `count`, at least one."""
        del self.checkpoints[count:], self._ends[count:]
        self._file.truncate(self._ends[-1])

    def _write(self, line: Mapping[str, Any]) -> int:
        self._file.write(json.dumps(line).encode("utf-8") + b"\n")
        self._file.flush()
        return self._file.seek(0, 2)

    def _read(self) -> None:
        end = 0
        self._file.seek(0)
        for line in self._file:
            end += len(line)
            try:
                fields = json.loads(line)
                if self.made_with is None:
                    self.made_with = fields["made_with"] if _FORMAT.items() <= fields.items() else None
                    if self.made_with is None:
                        return
                else:
                    self.checkpoints.append(rebuild(Checkpoint, fields))
                    self._ends.append(end)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                return  # an interruption cut it off here


@contextlib.contextmanager
def open_record(out: Path) -> Iterator[RunRecord]:
    """Open the record of a file of labels, which is made where it is missing, for this run alone.

    Raises:
        OSError: it cannot be written.
        ValueError: another run writes this file, or a file that is no record stands in its place.
    """
    with record_of(out).open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{out} must be written by one run at a time (another one does)") from None
        check_record(out)
        yield RunRecord(file)


def describe_run(
    model: EarlyExitTextClassificationModel | Cascade, tokenizer: Any, max_length: int | None
) -> dict[str, Any]:
    """Describe all that labels depend on, but the texts.

    Args:
        model: a model or a cascade.
        tokenizer: the model's; a cascade's tiers have their own.
        max_length: in tokens; None: what policy, model and tokenizer allow.

    Raises:
        ValueError: a rule is a plain callable, of which nobody knows whether it is the same in the next run.
    """
    about = _describe_answers(model)
    if isinstance(model, EarlyExitTextClassificationModel):
        return {**about, **_describe_model(model, tokenizer, longest_of(model, tokenizer, max_length))}
    for number, tier in enumerate(model.tiers):
        if tier.tokenizer is None:
            raise ValueError(f"tier {number} must be a model, for a later run to know it (got a function)")
        thresholds = None if tier.thresholds is None else tier.thresholds.tolist()
        known = {
            **_describe_model(tier.model, tier.tokenizer, tier.max_length),
            "temperature": tier.temperature,
            "thresholds": thresholds,
        }
        about |= {f"tier {number} {name}": value for name, value in known.items()}
    certificate = identity_of(model.certificate) if model.is_certified else None  # by which rows are drawn
    return {**about, "certificate": certificate}


def describe_image_run(model: EarlyExitClassifier, image_processor: Any) -> dict[str, Any]:
    """Describe all that labels of images depend on, but the images; raises as `describe_run`."""
    return {**_describe_answers(model), **_by_part(model, image_run_identity(model.model, image_processor))}


def _describe_answers(model: EarlyExitClassifier | Cascade) -> dict[str, Any]:
    return {
        "moco_rt": moco_rt.__version__,
        "labels": {str(number): name for number, name in model.config.id2label.items()},
        "problem_type": model.config.problem_type,
    }


def _describe_model(model: EarlyExitTextClassificationModel, tokenizer: Any, max_length: int) -> dict[str, Any]:
    return _by_part(model, run_identity(model.model, tokenizer, max_length))


def _by_part(model: EarlyExitClassifier, identity: Mapping[str, Any]) -> dict[str, Any]:
    about = {**identity, "policy": _policy_fingerprint(model.policy)}
    # What has parts, as a configuration, part by part: a message names what differs.
    parts = {
        f"{name} {key}": part
        for name, value in about.items()
        if isinstance(value, Mapping)
        for key, part in value.items()
    }
    return {name: value for name, value in about.items() if not isinstance(value, Mapping)} | parts


def _policy_fingerprint(policy: Policy) -> str:
    """Sha256 of what a policy is on disk."""
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as directory:
        save_policy(policy, directory)
        for file in sorted(Path(directory).iterdir()):
            digest.update(file.read_bytes())
    return digest.hexdigest()
