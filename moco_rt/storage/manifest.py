"""Manifests: JSON files that name their format and version, and the safetensors files beside them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from moco_rt.storage.reasons import reason, shortened

#: Characters of a line that refuses what a file holds.
_MOST_OF_LINE = 1000


def read_manifest(file: str | Path, format: str, versions: Collection[int]) -> dict[str, Any]:
    """Read a JSON object whose `format` and `version` are these.

    Args:
        file: the file.
        format: name of the format, such as `moco_rt policy`.
        versions: versions that the caller reads, in ascending order.

    Raises:
        ValueError: the file is not JSON, or of another format or version.
    """
    readable = " or ".join(map(str, versions))
    try:
        about = json.loads(Path(file).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also what is not UTF-8
        raise ValueError(f"{file} must be a {format} of version {readable} (got a file that is not JSON)") from error
    known = about if isinstance(about, dict) else {}
    found, version = known.get("format"), known.get("version")
    if found != format or type(version) is not int or version not in versions:
        got = shortened(f"{found!r}, version {version!r}")
        raise ValueError(f"{file} must be a {format} of version {readable} (got {got})")
    return known


def read_json(file: str | Path) -> Any:
    """Read a JSON file that names no format.

    Raises:
        ValueError: it is not JSON.
    """
    return parse_json(Path(file).read_bytes(), file)


def parse_json(text: str | bytes, file: str | Path) -> Any:
    """Read JSON that stands in a file.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} must hold JSON (got something else)") from error


def read_tensors(file: str | Path) -> dict[str, NDArray[Any]]:
    """Read all tensors of a safetensors file.

    Raises:
        ValueError: the file is empty, cut off, or no safetensors file, or it holds numbers that NumPy has no dtype for,
            such as bfloat16.
    """
    try:
        tensors: dict[str, NDArray[Any]] = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} must be a whole safetensors file (got {reason(error)})") from error
    except (TypeError, AttributeError, KeyError) as error:  # in NumPy's words: it has no such dtype
        raise ValueError(f"{file} must hold tensors of NumPy's dtypes (got {reason(error)})") from error
    for name, tensor in tensors.items():
        if tensor.dtype.kind not in "biufc":  # where another library has taught NumPy bfloat16
            raise ValueError(f"{file} must hold tensors of NumPy's dtypes (got {tensor.dtype} of {shortened(name)})")
    return tensors


@contextmanager
def whole(file: str | Path) -> Iterator[None]:
    """Turn the failed lookup of a field or a tensor into an error that names the file.

    Raises:
        ValueError: the block looked for something that the file does not hold, took it for another type, or refused it
            itself, in one line however long what it quotes is.
    """
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{file} must be whole ({shortened(error.args[0])} is missing)") from error
    except ValueError as error:
        line = shortened(error, _MOST_OF_LINE)
        if line == str(error):
            raise
        raise ValueError(line) from error
    except (TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"{file} must be whole (got {reason(error)})") from error
