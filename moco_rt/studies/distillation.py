"""Off-ramps distilled from the full model: they learn its probabilities, no labels; its weights stay unchanged."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor
from torch.nn.functional import relu

from moco_rt.policies.conditions import Layers, OffRamp
from moco_rt.statistics.calibration import fit_temperature
from moco_rt.studies.recording import Recordings

_BATCH_ROWS = 256
#: Epochs over many rows; with few rows there are more, until so many steps are taken.
_EPOCHS, _FEWEST_STEPS = 6, 600
#: Hidden units of an off-ramp with two layers.
_HIDDEN = 64


def distill(x: NDArray[np.float32], probs: NDArray[np.float32], *, hidden: int, seed: int) -> Layers:
    """Fit the layers of an off-ramp that predicts a model's probabilities from a feature.

    Minimises the cross-entropy with the model's probabilities (Hinton et al. 2015, temperature 1) by AdamW with a
    one-cycle learning rate over mini-batches, on features scaled to mean 0 and variance 1; the scaling is folded into
    the first layer. Deterministic for a seed.

    Args:
        x: (rows, size) float32 features.
        probs: (rows, C) float32 probabilities of the full model.
        hidden: hidden units; 0: one layer.
        seed: of the initial weights and the order of rows.

    Returns:
        (weight, bias) of one layer, or of two with a ReLU between.
    """
    generator = torch.Generator().manual_seed(seed)
    mean, scale = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    # Constant features, such as the first token's embedding, carry no information: their weights become 0.
    scale[scale < 1e-5 * (1 + np.abs(mean))] = np.inf
    features = torch.from_numpy(((x - mean) / scale).astype(np.float32))
    targets = torch.from_numpy(probs)
    sizes = [x.shape[1], *([hidden] if hidden else []), probs.shape[1]]
    layers = [_layer(inputs, outputs, generator) for inputs, outputs in pairwise(sizes)]
    parameters = [tensor for layer in layers for tensor in layer]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.05)
    batches = math.ceil(len(x) / _BATCH_ROWS)
    epochs = max(_EPOCHS, math.ceil(_FEWEST_STEPS / batches))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=2e-3, total_steps=epochs * batches)
    with _one_thread():
        for _ in range(epochs):
            for rows in torch.randperm(len(x), generator=generator).split(_BATCH_ROWS):
                loss = torch.nn.functional.cross_entropy(_apply(layers, features[rows]), targets[rows])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
    fitted = [(weight.detach().numpy(), bias.detach().numpy()) for weight, bias in layers]
    weight = fitted[0][0] / scale
    fitted[0] = (weight.astype(np.float32), (fitted[0][1] - weight @ mean).astype(np.float32))
    return tuple(fitted)


def forward(layers: Layers, x: Tensor) -> Tensor:
    """Return the logits (rows, C) of fitted layers on a feature (rows, size)."""
    return _apply([(torch.from_numpy(weight), torch.from_numpy(bias)) for weight, bias in layers], x)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run on one thread: steps are too small to share, and threads that wait for each other are slow."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _layer(inputs: int, outputs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    weight = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
    return weight.requires_grad_(), torch.zeros(outputs).requires_grad_()


def _apply(layers: Sequence[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    for weight, bias in layers[:-1]:
        x = relu(torch.nn.functional.linear(x, weight, bias))
    return torch.nn.functional.linear(x, *layers[-1])


def fit_off_ramp(
    site: str, feature: str, rows: Recordings, validation: Recordings, seed: int
) -> tuple[OffRamp, OffRamp]:
    """Fit an off-ramp of one layer and one of two; return the better one, calibrated, and the plain one of one layer.

    Two layers are better where they give the labels of the validation rows a higher likelihood, by more than the
    standard error of the difference: with few rows to compare on, the simpler one wins. The temperature of the better
    one fits the full model's probabilities of the validation rows best. All thresholds are infinite: no row leaves yet.

    Args:
        site: where the off-ramp will stand.
        feature: `cls` or `cls+mean`.
        rows: recordings to learn from.
        validation: recordings to compare and to calibrate on.
        seed: of the initial weights and the order of rows.
    """
    probs = softmax(rows.given, axis=1)
    x, held_out = rows.feature(site, feature), torch.from_numpy(validation.feature(site, feature))
    labels = torch.from_numpy(validation.labels)
    one, two = (distill(x, probs, hidden=hidden, seed=seed) for hidden in (0, _HIDDEN))
    logits_of_one, logits_of_two = forward(one, held_out), forward(two, held_out)
    loss_of_one, loss_of_two = (
        torch.nn.functional.cross_entropy(logits, labels, reduction="none") for logits in (logits_of_one, logits_of_two)
    )
    gain = loss_of_one - loss_of_two
    worth_it = gain.mean() > gain.std() / len(gain) ** 0.5
    layers, logits = (two, logits_of_two) if worth_it else (one, logits_of_one)
    temperature = fit_temperature(logits.numpy(), softmax(validation.given, axis=1))
    better = OffRamp.closed(layers, feature=feature, site=site, temperature=temperature)
    return better, OffRamp.closed(one, feature=feature, site=site)


def unfitted_off_ramp(site: str, feature: str, hidden_size: int, classes: int) -> OffRamp:
    """Return an off-ramp of two layers that `fit_off_ramp` could return, all zeros: it costs what that would.

    Args:
        site: where the off-ramp will stand.
        feature: `cls` or `cls+mean`.
        hidden_size: D, of the model.
        classes: C.
    """
    sizes = [hidden_size * (2 if feature == "cls+mean" else 1), _HIDDEN, classes]
    layers = tuple((np.zeros((o, i), np.float32), np.zeros(o, np.float32)) for i, o in pairwise(sizes))
    return OffRamp.closed(layers, feature=feature, site=site)
