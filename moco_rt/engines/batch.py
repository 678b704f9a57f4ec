"""The input of every engine."""

from __future__ import annotations

import numpy as np

#: A padded batch as Hugging Face takes it, by the names of the model's arguments: int64 (B, S), for images float32
#: (B, 3, height, width).
Batch = dict[str, np.ndarray]
