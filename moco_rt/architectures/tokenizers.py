"""Tokenizers from a directory or the Hugging Face hub."""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer

from moco_rt.architectures.hub import Source, find_file, find_source, load_model
from moco_rt.storage.reasons import named_reason

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


def load_classifier(name: str) -> tuple[Any, Any]:
    """Load a classifier and its tokenizer, from a directory or by their name on the hub.

    Raises:
        OSError: there is no such model, see `find_source`.
        ValueError: as `load_model` and `read_tokenizer`.
    """
    source = find_source(Source(name))
    return load_model(source), read_tokenizer(source)


def load_tokenizer(model: Any) -> Any:
    """Load the tokenizer that lies where a model came from.

    Raises:
        ValueError: the model does not say where that is; and as `read_tokenizer`.
    """
    if not model.name_or_path:
        raise ValueError("tokenizer must be given: the model does not say where it came from (got None)")
    return read_tokenizer(Source(str(model.name_or_path)))


def find_tokenizer(source: Source) -> Any:
    """Load the tokenizer that lies with a model; None: no file of a vocabulary lies there.

    Raises:
        ValueError: its files cannot be read.
    """
    return read_tokenizer(source) if _has_vocabulary(source) else None


def read_tokenizer(source: Source) -> Any:
    """Load a tokenizer from a directory or by its name on the hub.

    Raises:
        ValueError: its files are missing or cannot be read, or it needs code that lies with it. (transformers makes a
            tokenizer that knows no word of nothing at all, by which every text is unknown.)
    """
    there = _has_vocabulary(source)
    missing = f"{source.name} must hold the files of a tokenizer (got none of {', '.join(_VOCABULARIES)})"
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.name, trust_remote_code=False, **source.options)
    except OSError:
        raise
    except Exception as error:  # of whatever kind the libraries raise, in many lines
        raise ValueError(
            f"the tokenizer in {source.name} must be readable (got {named_reason(error)})" if there else missing
        ) from error
    if not there and type(tokenizer).vocab_files_names:  # those that work on bytes or characters need none
        raise ValueError(missing)
    return tokenizer


def _has_vocabulary(source: Source) -> bool:
    return any(find_file(source, file) is not None for file in _VOCABULARIES)
