"""A small ViT that learns Fashion-MNIST (MIT licence): pictures of clothes, 28 x 28 grey pixels, ten classes.

The pictures are those of Debian's package `dataset-fashion-mnist`; FASHION_MNIST names another folder with its files.
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from moco_rt.inputs.images import process_images
from models.case import ACCELERATE_ROWS, Case
from models.training import train

FOLDER = Path(os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))
EPOCHS = 3
#: 49 patches and a class token.
_SIZES = {"hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 256}
_IMAGES = {"image_size": 28, "patch_size": 4, "num_channels": 1, "num_labels": 10}


def fashion(learn_rows: int | None = None) -> Case:
    """A ViT that has learnt from so many of 40,000 images, by default all; the test images are to report on.

    Raises:
        SystemExit: the images are not there.
    """
    images, labels = _read("train-images-idx3-ubyte.gz"), _read("train-labels-idx1-ubyte.gz")
    processor = ViTImageProcessorPil(do_resize=False, image_mean=[0.5], image_std=[0.5])
    learnt = slice(ACCELERATE_ROWS, None if learn_rows is None else ACCELERATE_ROWS + learn_rows)
    pixel_values = process_images(processor, images[learnt], 1)
    classes = torch.from_numpy(labels[learnt].astype(np.int64))
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(**_SIZES, **_IMAGES))

    def loss_of(batch: list[int]) -> Tensor:
        logits = model(pixel_values=pixel_values[batch]).logits
        return torch.nn.functional.cross_entropy(logits, classes[batch])

    train(model, len(classes), EPOCHS, loss_of)
    return Case(
        model,
        {"image_processor": processor},
        images[:ACCELERATE_ROWS],
        _read("t10k-images-idx3-ubyte.gz"),
        _read("t10k-labels-idx1-ubyte.gz").tolist(),
    )


def _read(name: str) -> NDArray[np.uint8]:
    """Return what a file holds: images (N, 28, 28) or labels (N,).

    Its four first bytes say of what kind the values are and how many dimensions follow, each in four bytes.
    """
    if not (FOLDER / name).is_file():
        raise SystemExit(f"{FOLDER} must hold {name}: apt-get install dataset-fashion-mnist")
    data = gzip.decompress((FOLDER / name).read_bytes())
    dimensions = data[3]
    shape = np.frombuffer(data, ">i4", dimensions, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
