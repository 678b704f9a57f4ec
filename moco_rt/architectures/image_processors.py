"""Image processors from a directory or the Hugging Face hub."""

from __future__ import annotations

from typing import Any

from transformers import AutoImageProcessor

from moco_rt.architectures.hub import Source, find_file
from moco_rt.storage.reasons import named_reason

#: The file that holds an image processor's settings.
_SETTINGS = "preprocessor_config.json"


def load_image_processor(model: Any) -> Any:
    """Load the image processor that lies where a model came from.

    Raises:
        ValueError: the model does not say where that is, or nothing that can be read lies there.
    """
    if not model.name_or_path:
        raise ValueError("image_processor must be given: the model does not say where it came from (got None)")
    found = find_image_processor(Source(str(model.name_or_path)))
    if found is None:
        raise ValueError(f"image_processor must be given: {model.name_or_path} holds no {_SETTINGS} (got None)")
    return found


def find_image_processor(source: Source) -> Any:
    """Load the image processor that lies with a model; None: there is none.

    Raises:
        ValueError: its file cannot be read.
    """
    if find_file(source, _SETTINGS) is None:
        return None
    try:
        return AutoImageProcessor.from_pretrained(source.name, trust_remote_code=False, **source.options)
    except Exception as error:  # of whatever kind the libraries raise, in many lines
        raise ValueError(
            f"the image processor in {source.name} must be readable (got {named_reason(error)})"
        ) from error
