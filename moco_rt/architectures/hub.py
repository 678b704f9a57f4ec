"""Models, tokenizers and single files from a directory or the Hugging Face hub."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForSequenceClassification, AutoTokenizer

#: Files that hold the words of a tokenizer, by any of transformers' names.
_VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "spm.model",
    "tokenizer.model",
)


def load_model(name: str) -> Any:
    """The classifier in a directory, or of that name on the Hugging Face hub."""
    with _whole_weights(name):
        return AutoModelForSequenceClassification.from_pretrained(name)


def load_classifier(name: str) -> tuple[Any, Any]:
    """The classifier and its tokenizer, from a directory or by name on the Hugging Face hub; see `read_tokenizer`."""
    return load_model(name), read_tokenizer(name)


def load_tokenizer(model: Any) -> Any:
    """Load the tokenizer that lies where a model came from.

    Raises:
        ValueError: the model does not say where that is; and as `read_tokenizer`.
    """
    if not model.name_or_path:
        raise ValueError("tokenizer must be given: the model does not say where it came from (got None)")
    return read_tokenizer(model.name_or_path)


def find_tokenizer(name: str | Path) -> Any:
    """Load the tokenizer of a directory or of a name on the hub; None: no file of a vocabulary lies there.

    Raises:
        ValueError: its files cannot be read.
    """
    return read_tokenizer(name) if _has_vocabulary(name) else None


def read_tokenizer(name: str | Path) -> Any:
    """Load a tokenizer from a directory or by its name on the hub.

    Raises:
        ValueError: its files are missing or cannot be read. (transformers makes a tokenizer that knows no word of
            nothing at all, by which every text is unknown.)
    """
    there = _has_vocabulary(name)
    missing = f"{name} must hold the files of a tokenizer (got none of {', '.join(_VOCABULARIES)})"
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(name))
    except OSError:
        raise
    except Exception as error:  # of whatever kind the libraries raise, in many lines
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise ValueError(f"the tokenizer in {name} must be readable (got {reason})" if there else missing) from error
    if not there and type(tokenizer).vocab_files_names:  # those that work on bytes or characters need none
        raise ValueError(missing)
    return tokenizer


def _has_vocabulary(name: str | Path) -> bool:
    return any(find_file(name, file) is not None for file in _VOCABULARIES)


def find_file(name: str | Path, file: str) -> Path | None:
    """The path of a file that lies with a model, in a directory or on the hub; None where there is none."""
    directory = Path(name)
    if directory.is_dir():
        return directory / file if (directory / file).is_file() else None
    try:
        return Path(hf_hub_download(str(name), file))
    except (EntryNotFoundError, LocalEntryNotFoundError):
        return None


@contextlib.contextmanager
def _whole_weights(name: str) -> Iterator[None]:
    """Turn the error about broken weights, which names no file, into one that does.

    Raises:
        ValueError: a file of weights is cut off, or is something else.
    """
    try:
        yield
    except SafetensorError as error:
        raise ValueError(f"{_broken_file(name)} must be a whole safetensors file (got: {error})") from error


def _broken_file(name: str) -> str:
    for file in sorted(Path(name).glob("model*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except SafetensorError:
            return str(file)
    return f"every file of weights of {name}"
