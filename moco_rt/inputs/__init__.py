"""Texts, single or in files, to encoded rows and batches."""

from moco_rt.inputs.texts import TextInput, Texts, list_texts, take_texts
from moco_rt.inputs.tokenization import encode, length_limit

__all__ = [
    "TextInput",
    "Texts",
    "encode",
    "length_limit",
    "list_texts",
    "take_texts",
]
