"""Loading of whatever answers texts: a cascade, a reranker or a classifier, each with its policy if it has one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from moco_rt.architectures import Source, find_file, find_source, holds_images_model, load_tokenizer
from moco_rt.architectures.conversion import Dtype
from moco_rt.cascades.cascade import Cascade
from moco_rt.cascades.cascade_files import is_cascade
from moco_rt.cascades.prediction import predict_together
from moco_rt.encoding import EncodedTexts
from moco_rt.inputs.texts import TextInput
from moco_rt.ranking.policy import JSON as RANKING
from moco_rt.ranking.reranker import EarlyExitReranker
from moco_rt.runtime.model import EarlyExitTextClassificationModel
from moco_rt.runtime.outputs import Prediction
from moco_rt.runtime.prediction import predict_rows, tokeniser_of

#: What answers texts.
Answering = EarlyExitTextClassificationModel | Cascade


def find_texts_model(name: str | Path) -> Source:
    """Return the place of a classifier of texts, and refuse one of images before transformers lists all it knows.

    Args:
        name: a directory, or a name on the hub.

    Raises:
        OSError: there is no such model.
        ValueError: it classifies images.
    """
    found = find_source(Source(str(name)))
    if holds_images_model(found):
        raise ValueError(f"model must classify texts (got {name}, which takes a folder of images)")
    return found


def load_answering(name: str | Path, dtype: Dtype | None = None) -> Answering:
    """Load what `accelerate` wrote, or any classifier, with its tokenizer.

    Args:
        name: a directory, or a name on the hub.
        dtype: of a model, see `EarlyExitTextClassificationModel`.

    Raises:
        OSError: there is no such model, or no tokenizer with it.
        ValueError: dtype is given for a cascade, or does not suit the policy; or the model classifies images.
    """
    if is_cascade(name):
        if dtype is not None:
            raise ValueError(f"dtype must be left to a cascade, whose tiers have their own (got {dtype})")
        return Cascade.from_pretrained(name)
    ranks = find_file(find_texts_model(name), RANKING) is not None
    model = (EarlyExitReranker if ranks else EarlyExitTextClassificationModel).from_pretrained(name, dtype=dtype)
    if model.tokenizer is None:
        model.tokenizer = load_tokenizer(model.model)
    return model


def answer_at_once(model: Answering, max_length: int | None = None) -> Callable[[Sequence[TextInput]], Prediction]:
    """Return what labels a few texts in the calling thread, without threads and progress bars of its own.

    Args:
        model: as `load_answering` returns it.
        max_length: in tokens; None: what policy, model and tokenizer allow. A cascade knows its own.

    Raises:
        ValueError: max_length leaves no room for a text, or is given for a cascade.
    """
    if isinstance(model, Cascade):
        if max_length is not None:
            raise ValueError(f"max_length must be left to a cascade, which knows its own (got {max_length})")
        return lambda texts: predict_together(model, texts)
    tokenise = tokeniser_of(model, None, max_length)
    return lambda texts: predict_rows(model, tokenise(texts), model.forward_packed)


def answer_in_full(model: Answering, max_length: int | None = None) -> Callable[[Sequence[TextInput]], Prediction]:
    """Return what labels a few texts as the given model does, of a cascade that of the last tier: nothing leaves early.

    Args:
        model: as `load_answering` returns it.
        max_length: see `answer_at_once`.
    """
    if isinstance(model, Cascade):
        last = model.tiers[-1]
        return lambda texts: predict_rows(
            last.model, EncodedTexts.of(last.encode(texts)), lambda batch: model.given.run_packed({}, batch)
        )
    tokenise = tokeniser_of(model, None, max_length)
    return lambda texts: predict_rows(model, tokenise(texts), lambda batch: model.given.run_packed({}, batch))
