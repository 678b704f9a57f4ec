"""The model as it was given, ready to be studied: the ways in which texts and images differ, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from moco_rt.architectures import Task, load_image_processor, load_tokenizer, takes_images, task_of, unwrap
from moco_rt.architectures.conversion import Dtype
from moco_rt.cascades.tier import backend_to_keep
from moco_rt.inputs.class_numbers import class_numbers
from moco_rt.inputs.images import check_column, first_of_equal_images, list_images
from moco_rt.inputs.texts import list_texts
from moco_rt.inputs.tokenization import encode, length_limit
from moco_rt.policies.fingerprints import image_run_identity, run_identity
from moco_rt.runtime.classifiers.base import EarlyExitClassifier
from moco_rt.runtime.classifiers.image import EarlyExitImageClassificationModel
from moco_rt.runtime.model import EarlyExitTextClassificationModel
from moco_rt.studies.splits import Split, split_texts
from moco_rt.tuning.quantize import quantize, quantize_variant


class Given(Protocol):
    """A classifier as it was given, and how its rows are made."""

    @property
    def model(self) -> EarlyExitClassifier:
        """The classifier in its own dtype, without exits, carrying what prepares its inputs."""
        ...

    def split(self, inputs: Any, calibration: Any, labels: Any, seed: int) -> Split:
        """Share inputs out between the three jobs of a search; for arguments and errors see `accelerate`."""
        ...

    def other(self, model: Any) -> EarlyExitClassifier:
        """Return another model that may answer in its place, as ready as `model` is; for errors see `accelerate`."""
        ...

    def form(self, model: EarlyExitClassifier, dtype: Dtype, split: Split) -> EarlyExitClassifier:
        """Return a model in another numeric form; int8 learns from the rows that train off-ramps."""
        ...

    def identity(self, model: EarlyExitClassifier) -> dict[str, Any]:
        """Describe all that a certificate about a variant rests on."""
        ...


def as_given(
    model: Any,
    tokenizer: Any,
    image_processor: Any,
    columns: str | Sequence[str] | None,
    max_length: int | None,
    task: Task | None = None,
) -> Given:
    """Return a classifier ready to be studied, its policy with the task; arguments as for `accelerate`.

    Raises:
        TypeError: it is no classifier of texts or images.
        ValueError: it is for another task, or an argument is one of the other kind of model.
    """
    if takes_images(unwrap(model)[0]):
        if tokenizer is not None or max_length is not None:
            raise ValueError("tokenizer and max_length must be None: the model takes images")
        return GivenForImages(model, image_processor, check_column(columns), task)
    if image_processor is not None:
        raise ValueError("image_processor must be None: the model takes texts")
    return GivenForTexts(model, tokenizer, columns, max_length, task)


class GivenForTexts:
    """A classifier of texts."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        columns: str | Sequence[str] | None,
        max_length: int | None,
        task: Task | None = None,
    ):
        self._backend = backend_to_keep(model) if isinstance(model, EarlyExitTextClassificationModel) else "auto"
        model, tokenizer = unwrap(model, tokenizer)
        self._model = EarlyExitTextClassificationModel(model, backend=self._backend)
        self._model.policy.task = task_of(model.config, task)
        self._model.check_takes_exits()
        self._model.tokenizer = load_tokenizer(model) if tokenizer is None else tokenizer
        self._columns = columns
        self._max_length = length_limit(self._model.tokenizer, self._model.max_seqlen, max_length)

    @property
    def model(self) -> EarlyExitClassifier:
        """The classifier in its own dtype, without exits, with its tokenizer."""
        return self._model

    def split(self, inputs: Any, calibration: Any, labels: Any, seed: int) -> Split:
        """Share texts out; those with equal tokens are one unit."""
        return split_texts(
            list_texts(inputs, self._columns),
            lambda texts: encode(self._model.tokenizer, texts, self._max_length),
            calibration=None if calibration is None else list_texts(calibration, self._columns),
            labels=_numbers(labels, self._model),
            seed=seed,
        )

    def other(self, model: Any) -> EarlyExitClassifier:
        """Return another model that reads the same tokens and has the same classes."""
        return self._ready(unwrap(model)[0], None)

    def form(self, model: EarlyExitClassifier, dtype: Dtype, split: Split) -> EarlyExitClassifier:
        """Return a model in another numeric form."""
        if dtype != "int8":
            return self._ready(model.model, dtype)
        rows, tokenizer = split.texts[split.fit], self._model.tokenizer
        if model is not self._model:
            return self._ready(quantize_variant(model.model, rows, tokenizer, self._max_length), None)
        return self._ready(quantize(model.model, rows, tokenizer=tokenizer, max_length=self._max_length), None)

    def _ready(self, model: Any, dtype: Dtype | None) -> EarlyExitTextClassificationModel:
        fast = EarlyExitTextClassificationModel(model, backend=self._backend, dtype=dtype)
        fast.policy.task = self._model.policy.task
        _check_alike(fast, self._model)
        if fast.max_seqlen < self._max_length:
            raise ValueError(f"variants must take {self._max_length} tokens (got a model for {fast.max_seqlen})")
        fast.tokenizer = self._model.tokenizer
        return fast

    def identity(self, model: EarlyExitClassifier) -> dict[str, Any]:
        """Describe model, tokenizer and the longest text."""
        return run_identity(model.model, self._model.tokenizer, self._max_length)


class GivenForImages:
    """A classifier of images."""

    def __init__(self, model: Any, image_processor: Any, column: str | None, task: Task | None = None):
        self._backend = backend_to_keep(model) if isinstance(model, EarlyExitImageClassificationModel) else "auto"
        model, processor = unwrap(model, image_processor, "image_processor")
        self._model = EarlyExitImageClassificationModel(model, backend=self._backend)
        self._model.policy.task = task_of(model.config, task)
        self._model.check_takes_exits()
        self._model.image_processor = load_image_processor(model) if processor is None else processor
        self._column = column

    @property
    def model(self) -> EarlyExitClassifier:
        """The classifier in its own dtype, without exits, with its image processor."""
        return self._model

    def split(self, inputs: Any, calibration: Any, labels: Any, seed: int) -> Split:
        """Share images out; those with equal pixels are one unit."""
        channels = self._model.config.num_channels
        return split_texts(
            list_images(inputs, self._column),
            list,
            calibration=None if calibration is None else list_images(calibration, self._column),
            labels=_numbers(labels, self._model),
            seed=seed,
            find_equals=lambda rows: first_of_equal_images(rows, channels),
            of="image",
        )

    def other(self, model: Any) -> EarlyExitClassifier:
        """Return another model that takes the same images and has the same classes."""
        return self._ready(unwrap(model)[0], None)

    def form(self, model: EarlyExitClassifier, dtype: Dtype, split: Split) -> EarlyExitClassifier:
        """Return a model in another numeric form."""
        if dtype != "int8":
            return self._ready(model.model, dtype)
        rows, processor = split.texts[split.fit], self._model.image_processor
        return self._ready(quantize(model.model, rows, image_processor=processor), None)

    def _ready(self, model: Any, dtype: Dtype | None) -> EarlyExitImageClassificationModel:
        fast = EarlyExitImageClassificationModel(model, backend=self._backend, dtype=dtype)
        fast.policy.task = self._model.policy.task
        _check_alike(fast, self._model)
        fast.image_processor = self._model.image_processor
        return fast

    def identity(self, model: EarlyExitClassifier) -> dict[str, Any]:
        """Describe model and image processor."""
        return image_run_identity(model.model, self._model.image_processor)


def _check_alike(model: EarlyExitClassifier, given: EarlyExitClassifier) -> None:
    """Refuse a model that answers with other classes than the one it may run in place of, or where no exits may be.

    Raises:
        ValueError: it does.
    """
    if model.class_names != given.class_names:
        names, expected = (", ".join(each.class_names[:5]) for each in (model, given))
        raise ValueError(f"variants must have the classes of the model, {expected} (got {names})")
    model.check_takes_exits()


def _numbers(labels: Any, model: EarlyExitClassifier) -> NDArray[np.int64] | None:
    """Return true classes as numbers; None stays None."""
    return None if labels is None else class_numbers(labels, model.class_names)
