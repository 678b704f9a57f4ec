"""The door for images: whatever callers hold them in becomes pictures that an image processor takes, or is refused."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from moco_rt.inputs.columns import column_names
from moco_rt.storage.reasons import named_reason, reason

if TYPE_CHECKING:
    from PIL.Image import Image

#: What the door takes: any iterable of images, or of rows with named columns; also a data set.
Images = Iterable[Any]

#: Columns that are read where none is named.
_COLUMNS = ("image", "img")
#: What files of images end in.
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
#: The form that a picture is given, by the channels of the images that a model takes.
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def find_images(folder: Path) -> list[Path]:
    """Return the paths of all images in a folder and in those within it, but for hidden ones, in the order of names.

    Raises:
        OSError: there is no such folder.
        ValueError: no image is in it.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} must be a folder of images (got none)")
    images = (path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS and path.is_file())
    # A dot hides what programs keep beside them, such as previews.
    found = sorted(path for path in images if not any(part[0] == "." for part in path.relative_to(folder).parts))
    if not found:
        raise ValueError(f"{folder} must hold images (got no file that ends in {', '.join(_ENDINGS)})")
    return found


def check_column(column: Any) -> str | None:
    """Return the name of the column that holds the image, or None.

    Raises:
        TypeError: it is something else, such as the two names of a pair of texts.
    """
    if column is None or isinstance(column, str):
        return column
    raise TypeError(f"column must be the name of the one that holds the image (got {column!r})")


def iter_images(images: Images, column: str | None = None) -> Iterator[Any]:
    """Read images one by one, unopened: what holds them is checked at once, each of them when its turn comes.

    Args:
        images: a list, tuple, iterator or `datasets` column of images: Pillow's, uint8 arrays (height, width) or
            (height, width, channels), paths, or the dicts with `bytes` or `path` that data sets hold; or rows with
            named columns: a `datasets.Dataset`, or any iterable of other dicts.
        column: names the column that holds the image; None: `image` or `img`.

    Raises:
        TypeError: images, or one of them, is of another kind.
        ValueError: a row lacks its image, or an array has another shape.
    """
    if isinstance(images, str | bytes | Path | Mapping) or _is_picture(images):
        raise TypeError(f"images must be a sequence of images (got one {type(images).__name__})")
    if isinstance(images, set | frozenset):
        raise TypeError(f"images must have an order (got {type(images).__name__})")
    known = None if isinstance(images, np.ndarray) else column_names(images)
    if known is not None:
        name = _column(known, column)
        if name is None:
            listed = ", ".join(map(str, known))
            raise ValueError(f"images must have a column {column or 'image'!r}: column= names another (got {listed})")
        images = images[name]  # type: ignore[index] # of a data set
    try:
        items = iter(images)
    except TypeError:
        raise TypeError(f"images must be a sequence of images (got {type(images).__name__})") from None
    return _checked(items, column)


def list_images(images: Images, column: str | None = None) -> list[Any]:
    """Read all images at once, unopened: N images, N at least 1; see `iter_images`.

    Raises:
        TypeError: as `iter_images`.
        ValueError: as `iter_images`; there are none.
    """
    found = list(iter_images(images, column))
    if not found:
        raise ValueError("images must hold at least one image (got none)")
    return found


def take_images(images: Images, column: str | None = None) -> Sequence[Any] | Iterator[Any]:
    """Read what is a list, tuple or array at once, so that it is refused before anything is computed.

    The rest is read one by one: a data set would hold all its pictures open.

    Raises:
        TypeError: as `iter_images`.
        ValueError: as `iter_images`; there are none.
    """
    return (list_images if isinstance(images, list | tuple | np.ndarray) else iter_images)(images, column)


def process_images(processor: Any, images: Sequence[Any], channels: int | None) -> torch.Tensor:
    """Open images and prepare them: (N, channels, height, width) float32.

    Args:
        processor: a Hugging Face image processor.
        images: N images as `iter_images` yields them.
        channels: of the images that the model takes; pictures are converted to as many. None: to three.

    Raises:
        ImportError: Pillow is not installed.
        ValueError: a file is no image, or the processor makes no such tensor of them.
    """
    pictures = [open_image(image, channels) for image in images]
    try:
        with torch.device("cpu"):  # whatever the caller's default is
            pixel_values = processor(images=pictures, return_tensors="pt")["pixel_values"]
    except Exception as error:  # of whatever kind the libraries raise, in many lines
        raise ValueError(f"image_processor must take the images (got {named_reason(error)})") from error
    if not isinstance(pixel_values, torch.Tensor) or pixel_values.ndim != 4 or len(pixel_values) != len(images):
        got = tuple(pixel_values.shape) if isinstance(pixel_values, torch.Tensor) else type(pixel_values).__name__
        raise ValueError(f"image_processor must make one tensor of shape (images, ...) of them (got {got})")
    return pixel_values.float()


def open_image(image: Any, channels: int | None = None) -> Image:
    """Open an image as `iter_images` yields it, turned as its camera was held, in the form for so many channels.

    Raises:
        ImportError: Pillow is not installed.
        ValueError: it is a file that is missing, or no image.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise ImportError("Pillow must be installed to open images (pip install pillow)") from None
    try:
        if isinstance(image, np.ndarray):
            picture = Image.fromarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image)
        elif isinstance(image, Mapping):
            picture = Image.open(image["path"] if image.get("bytes") is None else io.BytesIO(image["bytes"]))
        elif isinstance(image, str | Path):
            picture = Image.open(image)
        else:
            picture = image
        picture = ImageOps.exif_transpose(picture)
        return picture.convert(_MODES.get(channels or 3, "RGB"))
    except (OSError, SyntaxError, TypeError, ValueError) as error:
        name = image if isinstance(image, str | Path) else f"one {type(image).__name__}"
        raise ValueError(f"images must be readable (got {name}: {reason(error)})") from error


def first_of_equal_images(images: Sequence[Any], channels: int | None = None) -> NDArray[np.int64]:
    """Return for each image the index of the first one with the same pixels, once both are opened: (n,) int64.

    Raises:
        ImportError: Pillow is not installed.
        ValueError: one cannot be read.
    """
    seen: dict[bytes, int] = {}
    found = np.empty(len(images), np.int64)
    for place, image in enumerate(images):
        picture = open_image(image, channels)
        digest = hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).digest()
        found[place] = seen.setdefault(digest, place)
    return found


def _column(known: Iterable[Any], column: str | None) -> str | None:
    """Return the column that holds the image; None: it is not there."""
    wanted = _COLUMNS if column is None else (column,)
    return next((name for name in wanted if name in known), None)


def _checked(items: Iterator[Any], column: str | None) -> Iterator[Any]:
    for place, item in enumerate(items):
        image = item
        if isinstance(item, Mapping) and not {"bytes", "path"} & set(item):
            name = _column(item, column)
            if name is None:
                listed = ", ".join(map(str, item))
                raise ValueError(
                    f"images must have {column or 'image'!r} in every row: column= names another "
                    f"(got {listed} at place {place})"
                )
            image = item[name]
        if isinstance(image, np.ndarray):
            if (
                image.dtype != np.uint8
                or image.ndim not in (2, 3)
                or (image.ndim == 3 and image.shape[2] not in _MODES)
            ):
                raise ValueError(
                    "images must be uint8 arrays of shape (height, width) or (height, width, channels) "
                    f"(got {image.dtype} {image.shape} at place {place})"
                )
        elif not (isinstance(image, str | Path | Mapping) or _is_picture(image)):
            raise TypeError(
                f"images must hold Pillow images, uint8 arrays or paths (got {type(image).__name__} at place {place})"
            )
        yield image


def _is_picture(image: Any) -> bool:
    """Tell whether something is an image of Pillow's, which is not imported to ask."""
    return any(kind.__module__ == "PIL.Image" and kind.__name__ == "Image" for kind in type(image).__mro__)
