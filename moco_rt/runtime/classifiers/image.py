"""EarlyExitImageClassificationModel: an image classifier of Hugging Face's whose settled rows leave early."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from moco_rt._C import Results
from moco_rt.architectures import IMAGES, Source, find_image_processor
from moco_rt.architectures.pipelines import announce_to_pipelines, not_traced
from moco_rt.certification.these_rows import RowsWish
from moco_rt.inputs.images import Images, iter_images, list_images, process_images
from moco_rt.runtime.checks import check_images, check_no_labels
from moco_rt.runtime.classifiers.base import EarlyExitClassifier
from moco_rt.runtime.classifiers.certified import predict_certified
from moco_rt.runtime.classifiers.comparison import comparison_of
from moco_rt.runtime.classifiers.image_prediction import predict_image_parts
from moco_rt.runtime.exit_points import ExitPoint
from moco_rt.runtime.outputs import Answer, EarlyExitOutput, Prediction
from moco_rt.runtime.prediction import join_parts

announce_to_pipelines("moco_rt", "EarlyExitImageClassificationModel", images=True)


class EarlyExitImageClassificationModel(EarlyExitClassifier):
    """A fine-tuned image classifier with exits. Without rules it answers exactly as the model it was made from.

    Args:
        model: a Hugging Face `...ForImageClassification`; it is put in evaluation mode. ViT and DeiT run on the packed
            kernels, with exits; any other as a whole.
        backend: see `EarlyExitTextClassificationModel`.
        dtype: see `EarlyExitTextClassificationModel`.

    Attributes:
        image_processor: the model's, for `predict` and `save_pretrained`; `from_pretrained` sets it.

    Raises:
        TypeError: model is not an image classifier, or dtype is no dtype.
        ValueError: the backend that was asked for does not cover the model, or is unknown; its classes are not named
            from 0 on.

    Example:
        >>> model = EarlyExitImageClassificationModel(hf_model)
        >>> model(**image_processor(image, return_tensors="pt")).logits
    """

    takes = IMAGES
    #: `transformers.pipeline` says it when it is printed.
    input_modalities = "image"
    image_processor: Any = None

    @property
    def image_size(self) -> tuple[int, int, int] | None:
        """Channels, height and width of the images that it takes; None: the model's own forward says so."""
        architecture = self._backend.architecture
        return None if architecture is None else architecture.image_size

    @not_traced
    def forward(self, pixel_values: Tensor, labels: None = None) -> EarlyExitOutput:
        """Classify a batch of images, as an image processor prepares them.

        Args:
            pixel_values: (B, channels, height, width) in any floating dtype. Images of another size than the model's
                are refused: its positions are not interpolated.
            labels: None; the model answers, and is not trained.

        Raises:
            TypeError: wrong dtype.
            ValueError: there are labels, wrong shape or device, or no image.
        """
        check_no_labels(labels)
        check_images(pixel_values, self.image_size, self.device)
        return self._answer(
            lambda exits: self.run_images(exits, pixel_values),
            lambda rows: self.given.run_images({}, pixel_values[rows]),
        )

    def predict(
        self,
        images: Images,
        *,
        image_processor: Any = None,
        column: str | None = None,
        certify: float | None = None,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> Prediction:
        """Label images: opened in the background while others are computed, a progress bar for long work.

        Args:
            images: N images in whatever holds them: Pillow's, uint8 arrays (height, width) or (height, width,
                channels), paths, a `datasets` column or data set. A list is checked before anything is computed.
            image_processor: the model's, from Hugging Face; None: the one that it carries.
            column: names the column of the image in rows that have several; None: `image` or `img`.
            certify: the share of these very images whose answers are to be those of the model as it was given, see
                `EarlyExitTextClassificationModel.predict`.
            confidence: with which that must hold, over the draw; with `certify` alone.
            seed: of the draw.

        Raises:
            ImportError: Pillow is not installed.
            TypeError: images is a single one, or holds something else.
            ValueError: there are none, one cannot be read, there is no image processor, or not the policy's, or a share
                is not inside (0, 1).
            Exception: whatever reading the images raises. What was finished before an error is its `prediction`.
        """
        if certify is None:
            return join_parts(predict_image_parts(self, images, image_processor, column), "image")
        wish = RowsWish(certify, confidence, seed)
        # What has a length is opened twice instead of being held: a data set would hold all its pictures open.
        held: Any = images if hasattr(type(images), "__len__") else list_images(images, column)

        def label(images: Iterator[Any], answer: Answer) -> Iterator[Prediction]:
            return predict_image_parts(self, images, image_processor, answer=answer)

        return predict_certified(comparison_of(self, wish), len(held), lambda: iter_images(held, column), label, wish)

    def lengths_of(self, rows: Sequence[Any]) -> NDArray[np.int64]:
        """Return how many tokens each of N images has, which is the same of all: (N,) int64."""
        return np.full(len(rows), self.max_seqlen)

    def batch_of(self, rows: Sequence[Any]) -> Tensor:
        """Open images, as `iter_images` yields them, and prepare them with the image processor that it carries.

        Raises:
            ImportError: Pillow is not installed.
            ValueError: one cannot be read, or the image processor does not prepare it for the model.
        """
        pixel_values = process_images(self.image_processor, rows, getattr(self.config, "num_channels", None))
        pixel_values = pixel_values.to(self.device)
        check_images(pixel_values, self.image_size, self.device)
        return pixel_values

    def run_batch(self, exits: Mapping[str, ExitPoint], batch: Tensor) -> Results:
        """Classify prepared images, (B, channels, height, width), with these exits by site."""
        return self.run_images(exits, batch)

    def _save_preparation(self, directory: Path) -> None:
        if self.image_processor is not None:
            self.image_processor.save_pretrained(directory)

    def _find_preparation(self, source: Source) -> None:
        self.image_processor = find_image_processor(source)
