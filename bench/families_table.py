"""The table of covered classes in docs/quickstart.md, from the registry: `python bench/families_table.py`.

A small random model of every class is asked what runs it.
"""

from __future__ import annotations

import argparse
import warnings

import torch
import transformers
from common import ROOT
from docs_table import put_into_docs

import moco_rt
from moco_rt import EarlyExitImageClassificationModel, EarlyExitTextClassificationModel
from moco_rt.architectures import architecture_of, takes_images
from moco_rt.architectures.registry import covered_classes

PAGE = ROOT / "docs" / "quickstart.md"
_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
_TEXTS = {"vocab_size": 50, "max_position_embeddings": 16, "pad_token_id": 0, "num_key_value_heads": 2}
_TOKENS = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "mask_token_id")
_IMAGES = {"image_size": 8, "patch_size": 4}


def small_model(name: str):
    """A random model of a class."""
    kind = getattr(transformers, name)
    special = _IMAGES if "Image" in name else _TEXTS
    if name.startswith("Deberta"):
        special = {**special, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
    if name.startswith(("EuroBert", "ModernBert", "Phi3", "SmolLM3")):
        special = {**special, **dict.fromkeys(_TOKENS, 1)}
    if name.startswith("Gemma2"):
        special = {**special, "attn_logit_softcapping": None}
    return kind(kind.config_class(**_SIZES, **special)).eval()


def line(name: str) -> str:
    """A row of the table."""
    model = small_model(name)
    images = takes_images(model)
    fast = (EarlyExitImageClassificationModel if images else EarlyExitTextClassificationModel)(model)
    architecture = architecture_of(model)
    peeks = architecture.encoder(torch.float32).folds_keys(0)
    try:
        moco_rt.pack(type(model.base_model)(model.config).eval())
        packs = "yes"
    except ValueError:
        packs = "no"
    cells = (f"`{name}`", "images" if images else "texts", fast.backend, "yes" if fast.sites else "no")
    return f"| {' | '.join(cells)} | {architecture.pooled_token} | {'yes' if peeks else 'no'} | {packs} |"


def table() -> str:
    """The whole table."""
    warnings.filterwarnings("ignore", "the classifier's bias is exactly zero")
    head = "| class | takes | backend on a CPU | exits | `cls` is the token that is | peek | `pack` |"
    return "\n".join([head, "|---|---|---|---|---|---|---|", *map(line, covered_classes())])


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    put_into_docs("families", table(), PAGE)


if __name__ == "__main__":
    main()
