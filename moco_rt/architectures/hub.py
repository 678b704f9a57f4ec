"""Models and single files from a directory or the Hugging Face hub."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME

from moco_rt.architectures.registry import takes_images
from moco_rt.storage import complete_replacing
from moco_rt.storage.reasons import named_reason

_CONFIG = "config.json"
#: Files of weights, or an index of them: of those that are there transformers reads the first.
_WEIGHTS = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
#: Parts of the names of what torch adds to a layer that is trained for int8.
_IMITATION, _OBSERVER = "fake_quant", "activation_post_process"
#: Seconds that the hub has for its first answer.
_PATIENCE = 10


@dataclass(frozen=True)
class Source:
    """The place where a model lies.

    Attributes:
        name: a directory, or a model's name on the Hugging Face hub.
        revision: branch, tag or commit on the hub; None: the main branch.
        token: for the hub; None: the one that `hf auth login` stored.
        local_files_only: take nothing but what was downloaded before.
        subfolder: folder inside the directory, or inside the model's repository.
    """

    name: str
    revision: str | None = None
    token: str | bool | None = None
    local_files_only: bool = False
    subfolder: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """The other fields as keyword arguments of transformers and huggingface_hub."""
        return {
            "revision": self.revision,
            "token": self.token,
            "local_files_only": self.local_files_only,
            "subfolder": self.subfolder,
        }


def find_source(source: Source, file: str = _CONFIG) -> Source:
    """Check that a source is there, and return it; without network one that takes only downloaded files.

    The path of a directory becomes an absolute one: what lies there may be read after the process has gone elsewhere.

    Args:
        source: a directory, or a name on the hub.
        file: what the hub must hold under that name.

    Raises:
        OSError: it is neither a directory nor on the hub, or the hub does not give it; or the process that saved it has
            ended half-way, and the directory cannot be written.
    """
    name = source.name
    if Path(name).is_dir():
        complete_replacing(Path(name))
        return source if Path(name).is_absolute() else replace(source, name=str(Path(name).absolute()))
    try:
        if not source.local_files_only:
            url = hf_hub_url(name, file, revision=source.revision)
            get_hf_file_metadata(url, token=source.token, timeout=_PATIENCE)
            return source
    except GatedRepoError:
        raise OSError(f"{name} is gated: ask for access on its page, then give token= or log in") from None
    except RevisionNotFoundError:
        raise OSError(f"revision must be one of {name} (got {source.revision!r})") from None
    except EntryNotFoundError:
        raise OSError(f"{name} must hold {file} (the hub has none)") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise OSError(f"model must be a folder or a name on the hub (no folder {name}, and not on the hub)") from None
    except Exception:  # no network, in the words of whatever library asks the hub: what was downloaded before will do
        source = replace(source, local_files_only=True)
    if not _is_downloaded(source, file):
        raise OSError(
            f"model must be a folder or a name on the hub (no folder {name}, not downloaded before, hub not reached)"
        )
    return source


def load_model(source: str | Source, device_map: Any = None, *, images: bool = False) -> Any:
    """The classifier in a directory, or of that name on the Hugging Face hub.

    Args:
        source: where it lies; one that `find_source` returned.
        device_map: see transformers; None: the CPU.
        images: it classifies images, not texts.

    Raises:
        OSError: it is not there, see `find_source`.
        ValueError: a file of weights is cut off, or is something else, or the model needs code that lies with it.
    """
    found = find_source(Source(source)) if isinstance(source, str) else source
    options = found.options if device_map is None else {**found.options, "device_map": device_map}
    loader = AutoModelForImageClassification if images else AutoModelForSequenceClassification
    with _whole_weights(found.name), _without_code_of_its_own(found.name):
        model, read = loader.from_pretrained(found.name, output_loading_info=True, trust_remote_code=False, **options)
        if not any(_IMITATION in name for name in read["unexpected_keys"]):
            return model
        return _unwrapped(model, found, device_map)


def built_as_loaded(model: Any) -> torch.nn.Module:
    """Return the model that `load_model` would build for the weights of one that was saved, without weights.

    Raises:
        ValueError: none can be built from the configuration.
    """
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]  # as saving writes it
    loader: Any = AutoModelForImageClassification if takes_images(model) else AutoModelForSequenceClassification
    try:
        with torch.device("meta"):
            built: torch.nn.Module = loader.from_config(config, trust_remote_code=False)
    except Exception as error:  # of whatever kind its class raises
        raise ValueError(f"model must be one that can be loaded again (got {named_reason(error)})") from error
    return built


def holds_images_model(source: Source) -> bool:
    """Tell whether a source that `find_source` returned holds a classifier of images, by its configuration."""
    file = find_file(source, _CONFIG)
    if file is None:
        return False
    try:
        classes = json.loads(file.read_text(encoding="utf-8")).get("architectures") or []
    except (ValueError, AttributeError):
        return False
    return any("ForImageClassification" in str(each) for each in classes)


def find_file(source: Source, file: str) -> Path | None:
    """Return the path of a file at a source that `find_source` returned; None where there is none."""
    if Path(source.name).is_dir():
        path = Path(source.name) / source.subfolder / file
        return path if path.is_file() else None
    try:
        return Path(hf_hub_download(source.name, file, **source.options))
    except (EntryNotFoundError, LocalEntryNotFoundError):
        return None


def _unwrapped(model: Any, source: Source, device_map: Any) -> Any:
    """Return a model that SparseML trained for int8 with its weights, of which transformers did not know the names.

    Its linear layers are wrapped (`query.module.weight`); what imitated int8 in training lies beside them, and goes.

    Args:
        model: as transformers read it.
        source: where it lies.
        device_map: see transformers.

    Raises:
        OSError: the weights are not in files of the usual names.
    """
    weights = {
        name.replace(".module.", "."): weight
        for file in _weight_files(source)
        for name, weight in _weights_in(file).items()
        if _IMITATION not in name and _OBSERVER not in name
    }
    plain = type(model).from_pretrained(
        None, config=model.config, state_dict=weights, device_map=device_map, trust_remote_code=False
    )
    plain.name_or_path = source.name
    return plain


def _weight_files(source: Source) -> list[Path]:
    """Return the files that hold the weights of a model, in one piece or in several.

    Raises:
        OSError: there are none of the usual names.
    """
    for name in _WEIGHTS:
        if (file := find_file(source, name)) is None:
            continue
        if name not in (SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_INDEX_NAME):
            return [file]
        parts = sorted(set(json.loads(file.read_text(encoding="utf-8"))["weight_map"].values()))
        found = [find_file(source, part) for part in parts]
        return [part for part in found if part is not None]  # all are there: transformers has read them
    raise OSError(f"{source.name} must hold its weights in one of {', '.join(_WEIGHTS)} (got none of them)")


def _weights_in(file: Path) -> dict[str, Tensor]:
    """Return the weights in a file by their names."""
    if file.suffix == ".safetensors":
        return load_file(file)
    weights: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    return weights


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


@contextlib.contextmanager
def _without_code_of_its_own(name: str) -> Iterator[None]:
    """Turn transformers' error about a model that needs code of its own into one of one line.

    Raises:
        ValueError: the model needs code that lies with it, which is never run.
    """
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ValueError(
            f"{name} must need no code but transformers' own (got custom code, which is never run: "
            "load the model with transformers yourself, and give it instead of its name)"
        ) from error


def _broken_file(name: str) -> str:
    for file in sorted(Path(name).glob("model*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except SafetensorError:
            return str(file)
    return f"every file of weights of {name}"


def _is_downloaded(source: Source, file: str) -> bool:
    try:
        return isinstance(try_to_load_from_cache(source.name, file, revision=source.revision), str)
    except HFValidationError:
        return False
