"""Off-ramps distilled from the full model: they learn its answers, no labels; its weights stay unchanged."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import relu

from moco_rt.architectures import SINGLE_LABEL, Task
from moco_rt.policies.bag_of_tokens import BagOfTokens
from moco_rt.policies.conditions import Layers, OffRamp
from moco_rt.studies.objectives import Objective, objective_for
from moco_rt.studies.recording import Recordings

_BATCH_ROWS = 256
#: Epochs over many rows; with few rows there are more, until so many steps are taken.
_EPOCHS, _FEWEST_STEPS = 6, 600
#: Hidden units of an off-ramp with two layers.
HIDDEN = 64
#: Buckets of a bag of tokens at most, and bytes of its table at most.
_BUCKETS, _TABLE_BYTES = 2**18, 2**24
#: The same for bags of tokens, and how far the first step may move a row's logits.
_BAG_BATCH_ROWS, _BAG_EPOCHS, _BAG_FEWEST_STEPS, _BAG_STEP = 128, 6, 200, 2.0


@contextmanager
def _learning() -> Iterator[None]:
    """Take gradients in float32, wherever this is called from, and on one thread.

    Steps are too small to be shared, and threads that wait for each other are slow.
    """
    threads = torch.get_num_threads()
    # Optimisers make their state on the default device; to enter it where it is the CPU takes a fifth of the time.
    on_cpu = nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")
    torch.set_num_threads(1)
    try:
        with on_cpu, torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_num_threads(threads)


@_learning()
def distill(
    x: NDArray[np.float32], objective: Objective, *, hidden: int, seed: int, epochs: int | None = None
) -> Layers:
    """Fit the layers of an off-ramp that predicts a model's answers from a feature.

    Minimises the objective's loss, of one label the cross-entropy with the model's probabilities (Hinton et al. 2015,
    temperature 1), by AdamW with a one-cycle learning rate over mini-batches, on features scaled to mean 0 and variance
    1; the scaling is folded into the first layer. Deterministic for a seed.

    Args:
        x: (rows, size) float32 features.
        objective: what is fitted to the same rows.
        hidden: hidden units; 0: one layer.
        seed: of the initial weights and the order of rows.
        epochs: None: `epochs_of`.

    Returns:
        (weight, bias) of one layer, or of two with a ReLU between.
    """
    generator = torch.Generator().manual_seed(seed)
    mean, scale = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    # Constant features, such as the first token's embedding, carry no information: their weights become 0.
    scale[scale < 1e-5 * (1 + np.abs(mean))] = np.inf
    features = torch.from_numpy(((x - mean) / scale).astype(np.float32))
    targets = torch.from_numpy(objective.targets)
    sizes = [x.shape[1], *([hidden] if hidden else []), objective.outputs]
    layers = [_layer(inputs, outputs, generator) for inputs, outputs in pairwise(sizes)]
    objective.begin(*layers[-1])
    parameters = [tensor for layer in layers for tensor in layer]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.05, fused=True)
    batches = math.ceil(len(x) / _BATCH_ROWS)
    epochs = epochs_of(len(x)) if epochs is None else epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=objective.rate, total_steps=epochs * batches)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator, device="cpu").split(_BATCH_ROWS):
            loss = objective.loss(_apply(layers, features[rows]), targets[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    fitted = [(weight.detach().numpy(), bias.detach().numpy()) for weight, bias in layers]
    weight = fitted[0][0] / scale
    fitted[0] = (weight.astype(np.float32), (fitted[0][1] - weight @ mean).astype(np.float32))
    return tuple(fitted)


def epochs_of(rows: int) -> int:
    """Return how many times `distill` goes through so many rows: more often through few, to take enough steps."""
    return max(_EPOCHS, math.ceil(_FEWEST_STEPS / math.ceil(rows / _BATCH_ROWS)))


def forward(layers: Layers, x: Tensor) -> Tensor:
    """Return the outputs (rows, outputs) of fitted layers on a feature (rows, size)."""
    return _apply([(torch.from_numpy(weight), torch.from_numpy(bias)) for weight, bias in layers], x)


def _layer(inputs: int, outputs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    weight = torch.randn(outputs, inputs, generator=generator, dtype=torch.float32, device="cpu") / inputs**0.5
    return weight.requires_grad_(), torch.zeros(outputs, dtype=torch.float32, device="cpu").requires_grad_()


def _apply(layers: Sequence[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    for weight, bias in layers[:-1]:
        x = relu(torch.nn.functional.linear(x, weight, bias))
    return torch.nn.functional.linear(x, *layers[-1])


@_learning()
def fit_off_ramp(
    site: str, feature: str, rows: Recordings, validation: Recordings, seed: int, task: Task = SINGLE_LABEL
) -> tuple[OffRamp, OffRamp]:
    """Fit an off-ramp of one layer and one of two; return the better one, calibrated, and the plain one of one layer.

    Two layers are better where they give the answers to the validation rows a higher likelihood, by more than the
    standard error of the difference: with few rows to compare on, the simpler one wins. The temperature of the better
    one fits the full model's probabilities of the validation rows best. All thresholds are infinite: no row leaves yet.

    Args:
        site: where the off-ramp will stand.
        feature: `cls` or `cls+mean`.
        rows: recordings to learn from.
        validation: recordings to compare and to calibrate on.
        seed: of the initial weights and the order of rows.
        task: what the answers are.
    """
    objective = objective_for(task, rows.given)
    x, held_out = rows.feature(site, feature), torch.from_numpy(validation.feature(site, feature))
    one, two = (distill(x, objective, hidden=hidden, seed=seed) for hidden in (0, HIDDEN))
    outputs_of_one, outputs_of_two = forward(one, held_out), forward(two, held_out)
    loss_of_one, loss_of_two = (
        objective.losses(outputs, validation.given) for outputs in (outputs_of_one, outputs_of_two)
    )
    gain = loss_of_one - loss_of_two
    worth_it = gain.mean() > gain.std() / len(gain) ** 0.5
    layers, outputs = (two, outputs_of_two) if worth_it else (one, outputs_of_one)
    temperature = objective.temperature(outputs, validation.given)
    return (
        _closed(task, objective.finished(layers), feature, site, temperature),
        _closed(task, objective.finished(one), feature, site),
    )


def _closed(task: Task, layers: Layers, feature: str, site: str, temperature: float = 1.0) -> OffRamp:
    """Return an off-ramp of a task, by which no row leaves."""
    levels = task.levels(len(layers[-1][1]))
    return OffRamp.closed(
        layers, feature=feature, site=site, temperature=temperature, score=task.scores[0], levels=levels
    )


def unfitted_off_ramp(site: str, feature: str, hidden_size: int, classes: int, task: Task = SINGLE_LABEL) -> OffRamp:
    """Return an off-ramp of two layers that `fit_off_ramp` could return, all zeros: it costs what that would.

    Args:
        site: where the off-ramp will stand.
        feature: `cls` or `cls+mean`.
        hidden_size: D, of the model.
        classes: C.
        task: what the answers are.
    """
    sizes = [hidden_size * (2 if feature == "cls+mean" else 1), HIDDEN, task.outputs(classes)]
    layers = tuple((np.zeros((o, i), np.float32), np.zeros(o, np.float32)) for i, o in pairwise(sizes))
    return _closed(task, layers, feature, site)


@_learning()
def fit_bag(rows: Recordings, validation: Recordings, seed: int, task: Task = SINGLE_LABEL) -> BagOfTokens:
    """Fit a bag of tokens that predicts a model's answers from token ids; no row leaves by it yet.

    Minimises the loss that `distill` does, by Adagrad (Duchi et al., JMLR 2011)
    from a table of zeros: rare n-grams, which are most, learn at a rate of their own. Measured on SST-2 and IMDB with
    500 to 40,000 rows, it settles at least as many fresh rows as Adam, with weight decay or without, and going on costs
    it none of them. Deterministic for a seed.

    Args:
        rows: recordings with token ids, to learn from.
        validation: recordings with token ids; the temperature fits the full model's probabilities of these rows best.
        seed: of the order of rows.
        task: what the answers are.
    """
    objective = objective_for(task, rows.given)
    buckets = _most_buckets(objective.outputs)
    table = torch.zeros(buckets, objective.outputs, dtype=torch.float32, device="cpu", requires_grad=True)
    bias = torch.from_numpy(objective.start()).requires_grad_()
    targets = torch.from_numpy(objective.targets)
    # Adagrad's first step moves every number of the table by the rate, and so the logits of a row of n n-grams by the
    # rate * sqrt(n).
    rate = _BAG_STEP / float(np.mean(2 * rows.lengths - 1)) ** 0.5
    optimiser = torch.optim.Adagrad([table, bias], lr=rate)
    generator = torch.Generator().manual_seed(seed)
    epochs = max(_BAG_EPOCHS, math.ceil(_BAG_FEWEST_STEPS / math.ceil(len(targets) / _BAG_BATCH_ROWS)))
    # Steps touch few rows of the table; torch warns unless it is told whether it should check that their places fit.
    with torch.sparse.check_sparse_tensor_invariants(False):
        for _ in range(epochs):
            for places in torch.randperm(len(targets), generator=generator, device="cpu").split(_BAG_BATCH_ROWS):
                outputs = _bag_outputs(table, bias, *rows.ngrams(places.numpy(), buckets))
                loss = objective.loss(outputs, targets[places])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        with torch.no_grad():
            outputs = _bag_outputs(table, bias, *validation.ngrams(slice(None), buckets))
    temperature = objective.temperature(outputs, validation.given)
    # A table is a layer on one-hot buckets.
    ((weight, last),) = objective.finished(((table.detach().numpy().T, bias.detach().numpy()),))
    return BagOfTokens.closed(weight.T, last, temperature, task.scores[0], task.levels(rows.given.shape[1]))


def unfitted_bag(classes: int, task: Task = SINGLE_LABEL) -> BagOfTokens:
    """Return a bag of tokens as `fit_bag` could return it, all zeros: it costs what that would. classes: C."""
    outputs = task.outputs(classes)
    table, bias = np.zeros((_most_buckets(outputs), outputs), np.float32), np.zeros(outputs, np.float32)
    return BagOfTokens.closed(table, bias, 1.0, task.scores[0], task.levels(classes))


def _most_buckets(outputs: int) -> int:
    """Return how many buckets the table of a bag of tokens has: a power of two, fewer where there are many outputs."""
    fitting = _TABLE_BYTES // (4 * outputs)
    return min(_BUCKETS, 1 << (fitting.bit_length() - 1))


def _bag_outputs(table: Tensor, bias: Tensor, ngrams: Tensor, counts: Tensor) -> Tensor:
    """Return the outputs (rows, outputs) of rows with these buckets of n-grams, end to end, and so many each."""
    sums = torch.nn.functional.embedding_bag(ngrams, table, counts.cumsum(0) - counts, mode="sum", sparse=True)
    return bias + sums / counts.float().sqrt()[:, None]
