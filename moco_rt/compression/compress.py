"""One call from a classifier to a smaller one that answers nearly as it does."""

from __future__ import annotations

import copy
import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moco_rt.architectures import TEXTS, architecture_of, check_classifier, load_tokenizer, unwrap
from moco_rt.architectures.compressed.layers import Widths
from moco_rt.architectures.compressed.model import CompressedForSequenceClassification
from moco_rt.architectures.genuine import check_genuine
from moco_rt.compression.answers import answers, distance, problem_type
from moco_rt.compression.beforehand import check_device, check_writable, fit_to_learn
from moco_rt.compression.dials import Dials, Lengths
from moco_rt.compression.narrowing import narrow, smaller
from moco_rt.compression.pruning import Block, heads_at_once, prune
from moco_rt.compression.recovery import Pruning, Recovery, learning_rate
from moco_rt.compression.schedule import find_schedule, lengths_after
from moco_rt.compression.sub_layers import Batch
from moco_rt.encoding import EncodedTexts
from moco_rt.inputs.batching import by_lengths, pad
from moco_rt.inputs.texts import Texts, list_texts
from moco_rt.inputs.tokenization import encode, length_limit
from moco_rt.policies.fingerprints import fingerprint
from moco_rt.quantization.hf_quantizer import is_int8

_log = logging.getLogger(__name__)

#: Texts by which heads and neurons are chosen, and their tokens, at most.
_ROWS, _TOKENS = 2048, 40_000
#: Tokens of a batch of them, and about how many batches serve for what is done often: to find a schedule of lengths,
#: and to choose weights that become zero while a model learns.
_BATCH_TOKENS, _FEW_BATCHES = 4096, 4


def compress(
    model: Any,
    texts: Texts,
    *,
    width: float = 1.0,
    sparsity: float = 0.0,
    block: Block = (1, 4),
    lengths: Lengths = None,
    epochs: int = 3,
    tokenizer: Any = None,
    max_length: int | None = None,
    columns: str | Sequence[str] | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    checkpoint: str | Path | None = None,
) -> CompressedForSequenceClassification:
    """Make a smaller model of a classifier, which learns from texts alone to answer as the classifier does.

    First heads and neurons are left out, those that cost the answers least for the work that they are (see
    `compression.narrowing`), weights (see `compression.pruning`), and tokens on the way through the layers, those that
    receive least attention (see `compression.schedule`); then what is left is taught the given model's probabilities
    and hidden states (see `compression.recovery`). Half of the work goes at nearly the given model's accuracy, but some
    labels change, in both directions: give it to `accelerate` as one of its `variants`, which takes it only where a
    certificate allows.

    Args:
        model: a Hugging Face `...ForSequenceClassification` of the families BERT, RoBERTa, XLM-RoBERTa, CamemBERT,
            ELECTRA or DistilBERT, or a pipeline or one of our models around it; it is not changed.
        texts: texts, pairs, or rows with named columns, in whatever holds them (see `list_texts`), like those it will
            meet: thousands. Those that the model was fine-tuned on will do; those that certify later must not be here.
        width: the share of the multiply-adds of the layers' products that is left, above 0 and at most 1. Layers become
            narrower by different shares, by whole heads and by 16 neurons.
        sparsity: the share of the weights in the layers' products that is zero, from 0 up to below 1, by different
            shares of each; it saves time where most of them are. Where the model learns, they become zero little by
            little meanwhile.
        block: outputs and inputs of the blocks in which weights are zero together. Kernels of int8 take (1, 4), those
            of float32 are fastest with (4, 1); (1, 1) costs the answers least. A model
            that has zeros already keeps them only where sparsity is asked for.
        lengths: the share of the tokens that all layers together see, above 0 and at most 1: after which attentions how
            many are left out is searched for. Or a dict from layers, from 0, to the share of a row's tokens that go on
            after their attention, such as `{1: 0.5, 2: 0.35}`, which never rises. The first token always stays. How
            many go on depends on a row's own tokens alone, never on its batch. None: all tokens go through all layers.
        epochs: how often the smaller model sees the texts while it learns; 0: it does not, nor where no answer of the
            cut model differs from the given one's.
        tokenizer: the model's; None: loaded from where the model came from.
        max_length: in tokens; None: what model and tokenizer allow.
        columns: names the column that holds the text, or the two that hold a pair; None: `text`, and where there is one
            `text2` or `text_pair`.
        device: where the smaller model learns.
        seed: of the order of texts.
        checkpoint: a file in which the state is kept every two minutes while it learns, and at the end: a call with the
            same arguments goes on from there. The folder that it lies in is made. Delete it when the model is saved.

    Returns:
        A Hugging Face model in float32 on the CPU, which `accelerate`, `quantize` and
        `EarlyExitTextClassificationModel` take like any other; it is saved by `save_pretrained`, and loaded by
        `AutoModelForSequenceClassification` once `moco_rt.compression` is imported.

    Raises:
        TypeError: model is not a classifier of texts, or texts is a single text or holds something else.
        ValueError: the model's family is not covered, it is in int8, a dial is out of range, the device is not here,
            or the checkpoint cannot be written or was made for something else.

    Example:
        >>> small = moco_rt.compress(model, texts, width=0.5)
        >>> fast = moco_rt.accelerate(
        ...     model, other_texts, variants=[small], promise="accuracy", max_drop=0.01, labels=labels_of_others
        ... )
    """
    model, tokenizer = unwrap(model, tokenizer)
    check_classifier(model, TEXTS)
    dials = Dials.of(model, width=width, sparsity=sparsity, block=block, lengths=lengths, epochs=epochs, seed=seed)
    if is_int8(model):
        raise ValueError("model must have no int8 weights (got some): compress first, then quantize")
    check_genuine(model)
    taken = list_texts(texts, columns)
    tokenizer = load_tokenizer(model) if tokenizer is None else tokenizer
    limit = length_limit(tokenizer, architecture_of(model).max_seqlen, max_length)
    learns_on, file = check_device(device), None if checkpoint is None else Path(checkpoint)
    if file is not None and dials.epochs > 0:
        check_writable(file)
    rows = encode(tokenizer, taken, limit)
    made_for = {
        **dials.made_for(),
        "problem_type": problem_type(model.config),
        "weights": fingerprint(model),
        "texts": hashlib.sha256(rows.ids.tobytes() + rows.lengths.tobytes()).hexdigest(),
    }
    recovery = Recovery(dials.epochs, dials.seed, learns_on, file, made_for)
    with fit_to_learn(learns_on):
        small = _cut_and_teach(copy.deepcopy(model).to("cpu", torch.float32).eval(), rows, dials, recovery)
    small.config.compression = dials.described()
    return small


def _cut_and_teach(
    teacher: Any, rows: EncodedTexts, dials: Dials, recovery: Recovery
) -> CompressedForSequenceClassification:
    """Return a smaller model, cut anew or as the checkpoint has it, which has learnt where it is to learn."""
    sparsity, block, seed = dials.sparsity, dials.block, dials.seed
    saved = recovery.saved()
    sample = _sample(rows, seed)
    few = sample[:: max(1, len(sample) // _FEW_BATCHES)]
    if saved is not None:
        small = smaller(teacher, Widths(tuple(saved["heads"]), tuple(saved["neurons"])), saved["lengths"])
    else:
        small = narrow(teacher, sample, dials.width, heads_at_once(teacher, block) if sparsity > 0 else 1)
        small.config.lengths = _schedule(small, teacher, few, dials.lengths)
    if dials.epochs > 0:
        pruning = Pruning(sparsity, lambda share: prune(small, few, share, block, seed)) if sparsity > 0 else None
        if saved is not None:
            rate = saved["rate"]
        elif pruning is not None:  # what zeros cost shows when they come: it is taken for much
            rate = learning_rate(math.inf)
        else:
            rate = learning_rate(distance(answers(teacher, sample), answers(small, sample), teacher.config))
        if saved is None and rate == 0:
            _log.info("the smaller model answers as the given one does: there is nothing to learn")
        else:
            recovery.run(small, teacher, rows, saved, rate, pruning)
    elif sparsity > 0:
        prune(small, sample, sparsity, block, seed)
    return small


def _schedule(
    small: CompressedForSequenceClassification, teacher: Any, few: Sequence[Batch], lengths: Lengths
) -> list[float]:
    """Return the lengths of a smaller model, which has none yet, as they are or found by what they cost its answers."""
    layers = len(small.config.heads)
    if lengths is None:
        return []
    if isinstance(lengths, Mapping):
        return lengths_after(lengths, layers)
    expected = answers(teacher, few)

    def loss(tried: Sequence[float]) -> float:
        small.config.lengths = list(tried)
        return distance(expected, answers(small, few), teacher.config)

    return find_schedule(layers, lengths, loss)


def _sample(rows: EncodedTexts, seed: int) -> list[Batch]:
    """Return padded batches of some texts at random."""
    order = np.random.default_rng(seed).permutation(len(rows))[:_ROWS]
    order = order[np.cumsum(rows.lengths[order]) <= max(_TOKENS, int(rows.lengths[order[0]]))]
    some = rows.take(order)
    return [pad(some.take(np.array(batch))) for batch in by_lengths(some.lengths, _BATCH_TOKENS)]
