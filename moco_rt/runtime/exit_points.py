"""A policy compiled for the extension: one call per exit point scores, writes results and compacts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from moco_rt._C import BagOfTokens as CompiledBag
from moco_rt._C import Exits, Results
from moco_rt._C import OffRamp as CompiledOffRamp
from moco_rt.architectures import Task
from moco_rt.architectures.device_batch import AnyBatch, DeviceBatch, on_cpu
from moco_rt.architectures.sites import sites_that_read_mean
from moco_rt.certification.exit_scores import ExitScores
from moco_rt.policies.bag_of_tokens import AnyOffRamp, BagOfTokens
from moco_rt.policies.conditions import LinearCondition, OffRamp
from moco_rt.policies.policy import Exit, Policy


class ExitPoint(Protocol):
    """An exit point as the loops over layers see it.

    Attributes:
        can_peek: True if every exit here reads only the pooled token after this layer, and means taken before it: a
            peek suffices.
        needs_mean: True if an exit here reads the mean over tokens before the layer.
    """

    can_peek: bool
    needs_mean: bool

    def apply(self, batch: AnyBatch, results: Results) -> int:
        """Let rows leave: write them to results, take them from batch, and return how many left."""
        ...


def needs_mean_before(site: str, exits: Mapping[str, ExitPoint]) -> bool:
    """Tell whether the mean must be kept on the way to a site: an exit there, or later in its layer, looks at it."""
    return any(exits[name].needs_mean for name in sites_that_read_mean(site) if name in exits)


class CompiledExitPoint:
    """The exits of one site.

    Args:
        site: its place in `policy.sites`.
        num_classes: the model's.
        exits: those that are open, with their places in the policy.
        count_streaks: whether an off-ramp, of this site or another, waits for others to agree with it.
    """

    def __init__(
        self,
        site: int,
        num_classes: int,
        exits: Sequence[tuple[int, Exit]],
        count_streaks: bool,
    ):
        self._compiled = Exits(site, num_classes, count_streaks=count_streaks)
        self._callables: list[Exit] = []
        features = {exit.feature for _, exit in exits}
        self.can_peek = features <= {"cls", "cls+mean"}
        self.needs_mean = "cls+mean" in features
        self._reads = [(str(exit.feature), size) for _, exit in exits if (size := _size(exit)) is not None]
        for rule_id, exit in exits:
            condition = exit.condition
            if isinstance(condition, OffRamp):
                self._compiled.add_off_ramp(
                    rule_id,
                    feature=condition.feature,
                    off_ramp=compile_off_ramp(condition),
                    thresholds=condition.thresholds.tolist(),
                    patience=condition.patience,
                    log_odds=_flat(condition.log_odds),
                )
                continue
            if isinstance(condition, BagOfTokens):
                self._compiled.add_bag(
                    rule_id,
                    bag=compile_bag(condition),
                    thresholds=condition.thresholds.tolist(),
                    log_odds=_flat(condition.log_odds),
                )
                continue
            logits = torch.tensor(exit.logits(num_classes), dtype=torch.float32, device="cpu")
            if isinstance(condition, LinearCondition):
                self._compiled.add_linear(
                    rule_id,
                    logits,
                    feature=condition.feature,
                    weight=torch.from_numpy(condition.weight),
                    bias=condition.bias,
                    threshold=condition.threshold,
                )
            else:
                self._compiled.add_callable(rule_id, logits)
                self._callables.append(exit)

    def apply(self, batch: AnyBatch, results: Results) -> int:
        """Let the rows leave whose rule fires: written to results, taken from batch. Returns how many left."""
        features = {exit.feature: batch.pool(exit.feature) for exit in self._callables}
        fires = [_fires(exit, features[exit.feature]) for exit in self._callables]
        if isinstance(batch, DeviceBatch):
            return self._compiled.apply(batch.on_cpu, results, fires, features=batch.features(self._reads))
        return self._compiled.apply(batch, results, fires)


def _size(exit: Exit) -> int | None:
    """Return how many numbers of a row the extension reads for an exit; None: none of its hidden states."""
    if isinstance(exit.condition, LinearCondition):
        return len(exit.condition.weight)
    return exit.condition.layers[0][0].shape[1] if isinstance(exit.condition, OffRamp) else None


def _flat(lines: NDArray[np.float32] | None) -> list[float]:
    return [] if lines is None else lines.ravel().tolist()


def compile_off_ramp(off_ramp: OffRamp) -> CompiledOffRamp:
    """The off-ramp as the extension scores it: with the same bits for a row in any batch."""
    layers = [(torch.from_numpy(w), torch.from_numpy(b)) for w, b in off_ramp.layers]
    return CompiledOffRamp(layers, score=off_ramp.score, temperature=off_ramp.temperature, levels=list(off_ramp.levels))


def compile_bag(bag: BagOfTokens) -> CompiledBag:
    """The bag of tokens as the extension scores it: with the same bits for a row in any batch."""
    table, bias = torch.from_numpy(bag.table), torch.from_numpy(bag.bias)
    return CompiledBag(table, bias, temperature=bag.temperature, score=bag.score, levels=list(bag.levels))


def compile_scorer(off_ramp: AnyOffRamp) -> Callable[[AnyBatch], tuple[torch.Tensor, torch.Tensor]]:
    """Return what answers the rows of a batch at the off-ramp's site.

    It returns (2, rows), scores and predicted classes, and (rows, C), what they would leave with.
    """
    if isinstance(off_ramp, BagOfTokens):
        bag = compile_bag(off_ramp)
        return lambda batch: bag.answer(on_cpu(batch))
    compiled = compile_off_ramp(off_ramp)
    return lambda batch: compiled.answer(batch.pool(off_ramp.feature))


def compare_answers(
    task: Task,
    answers: Iterable[tuple[torch.Tensor, torch.Tensor]],
    given: NDArray[np.float32],
    full: NDArray[np.float32],
    dtype: torch.dtype,
) -> ExitScores:
    """Return what off-ramps say of n rows, and by which ways out their answers are not those of the given model.

    Args:
        task: what "the same answer" means.
        answers: of each off-ramp what `compile_scorer` returns; they are taken one at a time, for logits of many
            classes are large.
        given: (n, C) logits of the given model.
        full: (n, C) logits of the model that runs, to its end.
        dtype: of the latter, to which what rows leave with is rounded.
    """
    scores, wrong = [np.empty((0, 2, len(given)), np.float32)], []
    for scored, logits in answers:
        scores.append(scored.cpu().numpy()[None])
        if not task.has_labels:
            wrong.append(~task.same(given, logits.to(dtype).float().numpy()))
    both = np.concatenate(scores)
    if task.has_labels:
        predicted, nan = both[:, 1].astype(np.int64), np.array([np.isnan(each).any(axis=1) for each in (given, full)])
        return ExitScores.of_labels(predicted, both[:, 0], task.labels(given), task.labels(full), nan)
    return ExitScores.of_answers(both[:, 0], np.array([*wrong, ~task.same(given, full)]))


def compile_exits(policy: Policy) -> dict[str, CompiledExitPoint]:
    """The open exits of every site that has any."""
    state = policy.state  # others may close exits meanwhile
    # One off-ramp that waits for others to agree needs all of them to be counted, wherever they stand.
    patient = any(isinstance(exit.condition, OffRamp) and exit.condition.patience > 1 for exit in state.exits)
    return {
        site: CompiledExitPoint(place, policy.num_classes, exits, patient)
        for place, site in enumerate(policy.sites)
        if (exits := state.at(site))
    }


def _fires(exit: Exit, feature: torch.Tensor) -> torch.Tensor:
    """Call a user's condition on features (rows, size) and check its mask: (rows,) bool."""
    assert not isinstance(exit.condition, AnyOffRamp)
    answer: Any = exit.condition(feature)
    must = f"the condition at {exit.site} must return a bool mask of shape ({len(feature)},)"
    if not isinstance(answer, torch.Tensor | np.ndarray | list):
        raise TypeError(f"{must} (got {type(answer).__name__})")
    fires = torch.as_tensor(answer, device="cpu")
    if fires.dtype != torch.bool or fires.shape != (len(feature),):
        raise ValueError(f"{must} (got {fires.dtype}, shape {tuple(fires.shape)})")
    return fires
