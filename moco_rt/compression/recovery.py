"""Recovery: a smaller model learns, from texts alone, to answer as the model which it was made from.

The loss is how far its answers are from the given model's (of one label, the KL divergence of probabilities) plus the
distances between the hidden states of both after every layer, over real tokens (self-distillation: arXiv:1909.10351,
2002.10957).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from moco_rt.compression.answers import divergence
from moco_rt.compression.pruning import masks_of
from moco_rt.encoding import EncodedTexts
from moco_rt.inputs.batching import by_lengths, pad
from moco_rt.storage import replacing_file
from moco_rt.storage.reasons import reason

#: Tokens of a batch with padding, at most.
_TOKENS = 4096
#: The largest step, reached after this share of all steps; from there it falls to 0 as a cosine does.
_RATE, _WARM_UP = 2e-4, 0.05
#: How far answers must be off for steps to be that large. Measured: by an epoch of 20,000 sentences with such steps
#: answers were 0.015 off, however little had been cut before, and in proportion to the steps.
_FAR = 0.04
#: How far lengths are jittered before rows are sorted by them: batches differ from epoch to epoch.
_JITTER = 0.1
#: Seconds between two checkpoints.
_INTERVAL = 120.0
#: How often weights become zero on the way, first before the first step, last after this share of all steps.
_PRUNINGS, _PRUNED_BY = 10, 0.5


@dataclass(frozen=True)
class Pruning:
    """The zeros that a smaller model gets while it learns.

    Attributes:
        sparsity: the share of the weights that is zero in the end.
        prune: makes so large a share of them zero.
    """

    sparsity: float
    prune: Callable[[float], None]

    def shares(self, steps: int) -> dict[int, float]:
        """Return before which of all steps which share of the weights becomes zero: many at first, then ever fewer.

        A cubic schedule, as in arXiv:1710.01878.
        """
        last = int(_PRUNED_BY * steps)
        numbers = range(1, _PRUNINGS + 1)
        return {
            last * (number - 1) // (_PRUNINGS - 1): self.sparsity * (1 - (1 - number / _PRUNINGS) ** 3)
            for number in numbers
        }


def learning_rate(apart: float) -> float:
    """Return the largest step for a model that has been cut: small where little was lost, or learning would lose more.

    Args:
        apart: how far its answers are from the given model's (`answers.distance`).
    """
    return _RATE * min(1.0, apart / _FAR)


@dataclass(frozen=True)
class Recovery:
    """The teaching of a smaller model.

    Attributes:
        epochs: how often it sees all texts.
        seed: of the order of texts.
        device: where both models are meanwhile.
        checkpoint: the file in which an interrupted recovery is kept, and a finished one; None: it begins anew.
        made_for: what a checkpoint must have been made for to be gone on with.
    """

    epochs: int
    seed: int
    device: torch.device
    checkpoint: Path | None
    made_for: dict[str, Any]

    def saved(self) -> dict[str, Any] | None:
        """Return what the checkpoint holds, or None where there is none yet.

        Raises:
            ValueError: it is no checkpoint, or was made for something else.
        """
        if self.checkpoint is None or not self.checkpoint.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            made_for, _ = state["made_for"], state["rate"]
        except Exception as error:
            raise ValueError(
                f"checkpoint must be a file that compress wrote (got {self.checkpoint}: {reason(error)})"
            ) from error
        for name, value in self.made_for.items():
            if made_for.get(name) != value:
                raise ValueError(
                    f"checkpoint {self.checkpoint} must be of the same {name}, {value} (got {made_for.get(name)}): "
                    "delete it to begin anew"
                )
        return state

    def run(
        self,
        student: Any,
        teacher: Any,
        rows: EncodedTexts,
        state: dict[str, Any] | None,
        rate: float,
        pruning: Pruning | None = None,
    ) -> None:
        """Teach a model, from where the checkpoint left it.

        Args:
            student: the smaller model, which is changed; it ends on the CPU, in evaluation mode.
            teacher: the model which it was made from.
            rows: N tokenised texts.
            state: what `saved` returned.
            rate: the largest step.
            pruning: the zeros that it gets meanwhile; None: none.
        """
        batches = [batch for epoch in range(self.epochs) for batch in _batches(rows.lengths, self.seed, epoch)]
        given, teacher = teacher.device, teacher.to(self.device)
        student.to(self.device)
        student.get_input_embeddings().requires_grad_(False)  # they are the given model's, and read as they are
        weights = [weight for weight in student.parameters() if weight.requires_grad]
        optimiser = torch.optim.AdamW(weights, lr=rate, weight_decay=0.01, fused=True)
        first = 0 if state is None else int(state["step"])
        if state is not None:
            student.load_state_dict(state["model"])
            optimiser.load_state_dict(state["optimiser"])
        shares = {} if pruning is None else pruning.shares(len(batches))
        masks = {} if pruning is None else masks_of(student)
        saved_at = monotonic()
        with tqdm(total=len(batches), initial=first, unit="step", desc="recover", delay=2, leave=False) as progress:
            for step in range(first, len(batches)):
                if pruning is not None and step in shares:
                    pruning.prune(shares[step])
                    masks = masks_of(student)
                for group in optimiser.param_groups:
                    group["lr"] = rate * _share_of_rate(step, len(batches))
                loss = _loss(student, teacher, pad(rows.take(batches[step]), self.device))
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(weights, 1.0)
                optimiser.step()
                for weight, mask in masks.items():
                    weight.data.mul_(mask)
                progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
                progress.update()
                if self.checkpoint is not None and monotonic() - saved_at > _INTERVAL:
                    self._save(student, optimiser, step + 1, rate)
                    saved_at = monotonic()
        if self.checkpoint is not None and first < len(batches):
            self._save(student, optimiser, len(batches), rate)
        teacher.to(given)
        student.get_input_embeddings().requires_grad_(True)
        student.to("cpu").eval()

    def _save(self, student: Any, optimiser: Any, step: int, rate: float) -> None:
        assert self.checkpoint is not None
        state = {
            "made_for": self.made_for,
            "step": step,
            "rate": rate,
            "heads": student.config.heads,
            "neurons": student.config.neurons,
            "lengths": student.config.lengths,
            "model": student.state_dict(),
            "optimiser": optimiser.state_dict(),
        }
        with replacing_file(self.checkpoint) as fresh:
            try:
                torch.save(state, fresh)
            except RuntimeError as error:  # what torch makes of a full disk
                raise OSError(f"checkpoint {self.checkpoint} must be written whole (got {reason(error)})") from error


def _batches(lengths: NDArray[np.int64], seed: int, epoch: int) -> Iterator[NDArray[np.int64]]:
    """Yield the places of all rows in batches of rows of about one length, in a random order."""
    generator = np.random.default_rng([seed, epoch])
    jittered = lengths * generator.uniform(1 - _JITTER, 1 + _JITTER, len(lengths))
    batches = list(by_lengths(np.ceil(jittered).astype(np.int64), _TOKENS))
    for batch in generator.permutation(len(batches)):
        yield np.array(batches[batch])


def _share_of_rate(step: int, steps: int) -> float:
    """Return the share of the largest step: a line up to the end of the warm-up, then a cosine down to 0."""
    warm_up = max(1, int(_WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _loss(student: Any, teacher: Any, batch: dict[str, Tensor]) -> Tensor:
    """Return what a batch says of how far a model is from its teacher."""
    with torch.no_grad():
        given = teacher(**batch, output_hidden_states=True, return_dict=True)
    found = student(**batch, output_hidden_states=True, return_dict=True)
    loss = divergence(given.logits, found.logits, teacher.config)
    real = batch["attention_mask"].bool()
    distances = []
    for ours, theirs in zip(found.hidden_states[1:], given.hidden_states[1:], strict=True):
        # Of rows that were shortened the first token alone is sure to be there, and stands where it stood.
        places = real if ours.shape == theirs.shape else (slice(None), 0)
        distances.append((ours[places] - theirs[places]).square().mean() / theirs[places].square().mean())
    return loss + torch.stack(distances).mean()
