"""The commands of the command line where the data is a folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moco_rt.architectures import Source, find_source, holds_images_model, load_image_processor, load_model, task_of
from moco_rt.cli_options import DtypeName, say_lines, task_asked_for
from moco_rt.inputs.file_formats import Columns, FileFormat
from moco_rt.inputs.images import find_images
from moco_rt.runtime.classifiers.image import EarlyExitImageClassificationModel
from moco_rt.serving.label_files import predict_folder
from moco_rt.tuning.accelerate import accelerate as find_policy

if TYPE_CHECKING:
    from moco_rt.architectures.conversion import Dtype


def check_no_text_options(
    kind: FileFormat | None, columns: Columns, max_length: int | None, certify: float | None = None
) -> None:
    """Refuse options that say how texts are read, or what is promised of these.

    Raises:
        ValueError: one is given.
    """
    if kind is not None or columns != Columns() or max_length is not None or certify is not None:
        raise ValueError(
            "data must be a file for --format, --max-length, --certify and names of columns (got a folder of images)"
        )


def accelerate(
    models: Sequence[str],
    folder: Path,
    out: Path,
    calibration: Path | None,
    wish: dict[str, Any],
    threshold: str | None,
    tolerance: float | None,
) -> str:
    """Find a policy on the images of a folder, write the model and return what is promised.

    Args:
        models: the model's name, in a list.
        folder: the images.
        out: directory to write to.
        calibration: a folder of images for the certificate alone; None: some of `folder`.
        wish: what is asked for, as keyword arguments of `moco_rt.accelerate`.
        threshold: see `task_asked_for`.
        tolerance: likewise.

    Raises:
        ValueError: there are several models, and whatever `moco_rt.accelerate` refuses.
    """
    if len(models) != 1:
        raise ValueError(f"model must be one where data is a folder of images (got {len(models)})")
    images = find_images(folder)
    kept_apart = None if calibration is None else find_images(calibration)
    model = load_model(_find_images_model(models[0]), images=True)
    task = task_asked_for(model.config, threshold, tolerance)
    labelled = images if kept_apart is None else kept_apart
    fast = find_policy(
        model,
        images,
        image_processor=load_image_processor(model),
        task=task,
        **wish,
        calibration=kept_apart,
        labels=_true_classes(labelled, model.config) if task_of(model.config, task).has_labels else None,
    )
    fast.save_pretrained(out)
    return fast.report()


def predict(model: str, folder: Path, out: Path, dtype: DtypeName | None, *, overwrite: bool) -> str:
    """Label the images of a folder, and return a line about the file of labels.

    Raises:
        ValueError: whatever `predict_folder` refuses.
    """
    _find_images_model(model)
    fast = EarlyExitImageClassificationModel.from_pretrained(model, dtype=_dtype(dtype))
    processor = load_image_processor(fast.model) if fast.image_processor is None else fast.image_processor
    before, now = predict_folder(fast, processor, folder, out, overwrite=overwrite)
    return say_lines(out, before, now)


def _find_images_model(name: str) -> Source:
    """Return the place of a classifier of images, and refuse one of texts before transformers lists all it knows."""
    found = find_source(Source(name))
    if not holds_images_model(found):
        raise ValueError(f"model must classify images where data is a folder (got {name})")
    return found


def _dtype(name: DtypeName | None) -> Dtype | None:
    return None if name is None else name.dtype


def _true_classes(images: Sequence[Path], config: Any) -> list[str] | None:
    """Return the names of the folders that images stand in, where all of them are classes of the model."""
    names = [image.parent.name for image in images]
    return names if set(names) <= set(config.id2label.values()) else None
