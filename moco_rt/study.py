"""What has to be known of a model before a policy is chosen: off-ramps, what rows do there, what leaving costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from moco_rt.answers import Answers
from moco_rt.batches import Text, encode
from moco_rt.costs import Costs, measure_costs
from moco_rt.distill import distill, forward
from moco_rt.exits import compile_off_ramp
from moco_rt.record import Recording, record
from moco_rt.rules import OffRamp
from moco_rt.sites import EMBEDDINGS, attention_site
from moco_rt.torch_early_exit_models import EarlyExitTextClassificationModel

#: Of texts that are given for everything: the shares that off-ramps learn from and that order the path.
_FIT, _PATH = 0.5, 0.15
#: Of texts that the certificate does not rest on.
_FIT_OF_OTHERS = 0.8
#: Rows that each of the three jobs needs to make sense at all.
_FEWEST = 50
#: Units between two layers, where they are worth it.
_HIDDEN = 64
#: Rows that speak for the lengths when costs are measured.
_COST_ROWS = 2000


@dataclass(frozen=True)
class Split:
    """Texts for three jobs, one after the other.

    Attributes:
        texts: N texts: for off-ramps to learn from, then to order the path, then for the certificate.
        path: how many are before the path's.
        calibration: how many are before the certificate's.
        labels: true classes of the certificate's, or None.
    """

    texts: Sequence[Text]
    path: int
    calibration: int
    labels: NDArray[np.int64] | None


@dataclass(frozen=True)
class Study:
    """Rows apart for three jobs, and what was found on them.

    Attributes:
        off_ramps: those to choose from, in the order of their sites; nobody leaves by them yet.
        one_layer: of one layer on the first token, one after each attention: those of the published methods.
        path: rows that order policies.
        calibration: rows that nothing has looked at: the certificate's.
        labels: (n,) true classes of the calibration rows, or None.
        costs: of leaving by each of them, or of running to the end.
        logits: (N, C) the model's own, of the rows of all three jobs.
    """

    off_ramps: Sequence[OffRamp]
    one_layer: Sequence[OffRamp]
    path: Recording
    calibration: Recording
    labels: NDArray[np.int64] | None
    costs: Costs
    logits: NDArray[np.float32]

    @property
    def sites(self) -> list[str]:
        """Where each of the off-ramps stands."""
        return [str(off_ramp.site) for off_ramp in self.off_ramps]


def study(
    model: EarlyExitTextClassificationModel,
    tokenizer: Any,
    split: Split,
    *,
    max_length: int,
    seed: int,
    teacher: NDArray[np.float32] | None = None,
) -> Study:
    """Record texts, teach off-ramps on some of them, time what leaving costs.

    Args:
        model: with whatever exits: they take no part.
        tokenizer: the model's.
        split: the texts.
        max_length: in tokens.
        seed: of the off-ramps.
        teacher: (N, C) logits whose labels count, and that off-ramps learn; None: the model's own.
    """
    rows = encode(tokenizer, split.texts, max_length)
    sites = candidate_sites(model)
    recorded = record(model, rows, sites)
    taught = recorded if teacher is None else replace(recorded, logits=teacher)
    fit_rows, path_rows = taught.take(slice(0, split.path)), taught.take(slice(split.path, split.calibration))
    fitted = [
        _fit(site, feature, fit_rows, path_rows, seed)
        for site in tqdm(sites, desc="off-ramps", delay=2, leave=False)
        for feature in _features(site)
    ]
    off_ramps = [better for better, _ in fitted]
    return Study(
        off_ramps,
        one_layer=[one for _, one in fitted if one.feature == "cls"],
        path=path_rows,
        calibration=taught.take(slice(split.calibration, None)),
        labels=split.labels,
        costs=measure_costs(model, rows[: split.calibration][-_COST_ROWS:], off_ramps),
        logits=recorded.logits,
    )


def split_texts(
    texts: Sequence[Text], calibration: Sequence[Text] | None, labels: Sequence[int] | None, seed: int
) -> Split:
    """Texts in a random order, shared out; see `accelerate`.

    Raises:
        ValueError: the texts are too few, or labels are not as many as texts.
    """
    order = np.random.default_rng(seed).permutation(len(texts))
    fit = int((_FIT if calibration is None else _FIT_OF_OTHERS) * len(texts))
    path = int((_FIT + _PATH) * len(texts))
    ordered = [texts[i] for i in order]
    labelled = order[path:]
    if calibration is not None:
        path = len(texts)
        ordered += list(calibration)
        labelled = np.arange(len(calibration))
    if min(fit, path - fit, len(ordered) - path) < _FEWEST:
        raise ValueError(
            f"texts must leave at least {_FEWEST} rows to fit, to search and to certify on "
            f"(got {fit}, {path - fit} and {len(ordered) - path})"
        )
    expected = len(texts if calibration is None else calibration)
    if labels is not None and len(labels) != expected:
        raise ValueError(f"labels must be one for each of the {expected} texts (got {len(labels)})")
    return Split(ordered, fit, path, None if labels is None else np.asarray(labels)[labelled])


def candidate_sites(model: EarlyExitTextClassificationModel) -> list[str]:
    """Where off-ramps are tried: the embeddings, and a peek over the attention of every layer but the last.

    A peek over the whole layer would have to run its feed-forward network too, which is most of a layer's weights.
    """
    layers = len(model.sites) // 2
    return [EMBEDDINGS, *(attention_site(layer) for layer in range(layers - 1))]


def ask(off_ramps: Sequence[OffRamp], rows: Recording) -> Answers:
    """What off-ramps, each of a known site, say of recorded rows, scored by the code that will score them later."""
    cpu = torch.device("cpu")
    scores = np.empty((len(off_ramps), 2, len(rows.lengths)), np.float32)
    for both, off_ramp in zip(scores, off_ramps, strict=True):
        assert off_ramp.site is not None
        x = torch.from_numpy(rows.feature(off_ramp.site, off_ramp.feature))
        both[:] = compile_off_ramp(off_ramp, cpu).score(x).numpy()
    return Answers(scores[:, 1].astype(np.int64), scores[:, 0], rows.labels)


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """softmax: (n, C) -> (n, C)."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs: NDArray[np.float32] = shifted / shifted.sum(axis=1, keepdims=True)
    return probs


def _features(site: str) -> Sequence[str]:
    """What off-ramps look at. Before any attention the first token is the same in every row; the mean costs time."""
    return ("cls+mean",) if site == EMBEDDINGS else ("cls", "cls+mean")


def _fit(site: str, feature: str, rows: Recording, judges: Recording, seed: int) -> tuple[OffRamp, OffRamp]:
    """The better of two off-ramps that have learnt from rows, and that of one layer; nobody leaves by them yet.

    The better one has two layers where these give the labels of the judges a higher likelihood than one does, by more
    than the standard error of the difference: the fewer rows to judge by, the simpler.
    """
    probs = probabilities(rows.logits)
    x, judged = rows.feature(site, feature), torch.from_numpy(judges.feature(site, feature))
    labels = torch.from_numpy(judges.labels)
    one, two = (distill(x, probs, hidden=hidden, seed=seed) for hidden in (0, _HIDDEN))
    loss_of_one, loss_of_two = (
        torch.nn.functional.cross_entropy(forward(layers, judged), labels, reduction="none") for layers in (one, two)
    )
    gain = loss_of_one - loss_of_two
    worth_it = gain.mean() > gain.std() / len(gain) ** 0.5
    better, simple = (OffRamp.closed(layers, feature=feature, site=site) for layers in (two if worth_it else one, one))
    return better, simple
