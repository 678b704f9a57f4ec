"""The tensors that a model is called with, and their checks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from moco_rt.encoding import EncodedTexts
from moco_rt.inputs.batching import pad


class ModelInputs(NamedTuple):
    """A padded batch of B rows.

    Attributes:
        input_ids: (B, S) int64 or int32.
        attention_mask: (B, S) integer or bool, 1 on real tokens, padded on the right, or of decoders and models that
            run whole on either side.
        token_type_ids: (B, S) int64 or int32, segments of text pairs; None: all 0.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor | None

    @classmethod
    def of(cls, rows: EncodedTexts, device: torch.device) -> ModelInputs:
        """Pad rows that lie end to end."""
        padded = pad(rows, device)
        return cls(padded["input_ids"], padded["attention_mask"], padded.get("token_type_ids"))

    def take(self, rows: Tensor) -> ModelInputs:
        """Return some of the rows, by their places."""
        types = None if self.token_type_ids is None else self.token_type_ids[rows]
        return ModelInputs(self.input_ids[rows], self.attention_mask[rows], types)


def check_inputs(
    input_ids: Tensor,
    attention_mask: Tensor | None,
    token_type_ids: Tensor | None,
    max_seqlen: int,
    device: torch.device,
) -> None:
    """Check dtype, shape and device of a batch. The content of the mask is checked when the batch is packed.

    Raises:
        TypeError: no tensor, or wrong dtype.
        ValueError: wrong shape or device, no row, or a sparse or nested tensor.
    """
    others = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
    tensors = {"input_ids": input_ids} | {name: tensor for name, tensor in others.items() if tensor is not None}
    for name, tensor in tensors.items():
        _check_dense(name, tensor)
        if name != "attention_mask" and tensor.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"{name} must be int64 or int32 (got {tensor.dtype})")
    if input_ids.dim() != 2 or input_ids.numel() == 0:
        raise ValueError(
            f"input_ids must have shape (rows, tokens) with at least one of each (got {tuple(input_ids.shape)})"
        )
    if input_ids.shape[1] > max_seqlen:
        raise ValueError(f"input_ids must have at most {max_seqlen} tokens (got {input_ids.shape[1]})")
    for name, tensor in tensors.items():
        if tensor.shape != input_ids.shape:
            raise ValueError(
                f"{name} must have shape {tuple(input_ids.shape)} like input_ids (got {tuple(tensor.shape)})"
            )
        if tensor.device != device:
            raise ValueError(f"{name} must be on {device}, where the model is (got {tensor.device})")


def check_images(pixel_values: Tensor, image_size: tuple[int, int, int] | None, device: torch.device) -> None:
    """Check dtype, shape and device of a batch of images.

    Args:
        pixel_values: (B, channels, height, width) in any floating dtype.
        image_size: channels, height and width that the model takes; None: its own forward says so.
        device: of the model.

    Raises:
        TypeError: it is no tensor, or of another dtype.
        ValueError: wrong shape or device, no image, or a sparse or nested tensor.
    """
    if not isinstance(pixel_values, Tensor) or not pixel_values.is_floating_point():
        got = pixel_values.dtype if isinstance(pixel_values, Tensor) else type(pixel_values).__name__
        raise TypeError(f"pixel_values must be a floating point tensor (got {got})")
    _check_dense("pixel_values", pixel_values)
    shape = tuple(pixel_values.shape)
    if len(shape) != 4 or pixel_values.numel() == 0 or image_size not in (None, shape[1:]):
        wanted = "channels, height, width" if image_size is None else ", ".join(map(str, image_size))
        raise ValueError(f"pixel_values must have shape (rows, {wanted}) with at least one row (got {shape})")
    if pixel_values.device != device:
        raise ValueError(f"pixel_values must be on {device}, where the model is (got {pixel_values.device})")


def check_no_labels(labels: object) -> None:
    """Refuse labels, such as a data set for `transformers.Trainer` has.

    Raises:
        ValueError: there are some.
    """
    if labels is not None:
        raise ValueError(
            f"labels must be left out: the model answers, and is not trained (got {type(labels).__name__})"
        )


def _check_dense(name: str, tensor: object) -> None:
    """Refuse what is no tensor, or is a sparse or nested one, by the name of the argument."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor (got {type(tensor).__name__})")
    if tensor.is_nested or tensor.layout != torch.strided:
        raise ValueError(f"{name} must be dense (got {'nested' if tensor.is_nested else tensor.layout})")
