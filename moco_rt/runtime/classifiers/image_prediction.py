"""Many images to labels, with one model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any

import torch
from tqdm import tqdm

from moco_rt.inputs.batching import BATCH_TOKENS
from moco_rt.inputs.images import Images, process_images, take_images
from moco_rt.inputs.prefetch import prefetch_encoded
from moco_rt.policies.fingerprints import check_image_processor
from moco_rt.runtime.checks import check_images
from moco_rt.runtime.outputs import Answer, Prediction
from moco_rt.runtime.prediction import prediction_of

#: Images of a batch at most, whatever they have of tokens: their pixels are held in memory.
_MOST_IMAGES = 256


def predict_image_parts(
    model: Any,
    images: Images,
    image_processor: Any = None,
    column: str | None = None,
    answer: Answer | None = None,
) -> Iterator[Prediction]:
    """Label images part by part, in their order: opened in one thread while others are computed, one progress bar.

    Args:
        model: an `EarlyExitImageClassificationModel`.
        images: as for `predict`; an iterator is read one part ahead.
        image_processor: the model's; None: the one that it carries.
        column: as for `predict`.
        answer: what classifies batches; None: the model with its policy.

    Raises:
        ImportError: Pillow is not installed.
        TypeError: images, or one of them, is of another kind.
        ValueError: there is no image processor, it is not the policy's, or does not take the images.
    """
    processor = model.image_processor if image_processor is None else image_processor
    if processor is None:
        raise ValueError("image_processor must be given where the model carries none (got None)")
    check_image_processor(model.policy.made_for, processor)
    return _parts(model, take_images(images, column), processor, answer or model)


def _parts(model: Any, images: Iterable[Any], processor: Any, answer: Answer) -> Iterator[Prediction]:
    channels = getattr(model.config, "num_channels", None)
    total = len(images) if isinstance(images, Sized) else None
    with tqdm(total=total, unit="image", delay=2, leave=False) as progress:
        for _, chunk, pixel_values in prefetch_encoded(
            images, lambda chunk: process_images(processor, chunk, channels), batch_images(model)
        ):
            pixel_values = pixel_values.to(model.device)
            check_images(pixel_values, model.image_size, model.device)
            output = answer(pixel_values)
            logits = output.logits.to("cpu", torch.float32)
            yield prediction_of(model, logits, output.exit_site.cpu(), output.exit_rule.cpu())
            progress.update(len(chunk))


def batch_images(model: Any) -> int:
    """Return how many images make a batch of a model's."""
    if model.image_size is None:  # whose forward is its own affair
        return _MOST_IMAGES // 4
    return max(1, min(_MOST_IMAGES, BATCH_TOKENS // int(model.max_seqlen)))
