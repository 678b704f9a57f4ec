"""Models, tokenizers and single files from a directory or the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from transformers import AutoModelForSequenceClassification, AutoTokenizer


def load_model(name: str) -> Any:
    """The classifier in a directory, or of that name on the Hugging Face hub."""
    return AutoModelForSequenceClassification.from_pretrained(name)


def load_classifier(name: str) -> tuple[Any, Any]:
    """A classifier and its tokenizer, from a directory or by their name on the Hugging Face hub."""
    return load_model(name), AutoTokenizer.from_pretrained(name)


def load_tokenizer(model: Any) -> Any:
    """The tokenizer that lies where a model came from.

    Raises:
        ValueError: the model does not say where that is.
    """
    if not model.name_or_path:
        raise ValueError("tokenizer must be given: the model does not say where it came from (got None)")
    return AutoTokenizer.from_pretrained(model.name_or_path)


def find_file(name: str | Path, file: str) -> Path | None:
    """The path of a file that lies with a model, in a directory or on the hub; None where there is none."""
    directory = Path(name)
    if directory.is_dir():
        return directory / file if (directory / file).is_file() else None
    try:
        return Path(hf_hub_download(str(name), file))
    except (EntryNotFoundError, LocalEntryNotFoundError):
        return None
