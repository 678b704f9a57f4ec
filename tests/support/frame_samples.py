"""Frames that several test files look at."""

from __future__ import annotations

import numpy as np

from moco_rt.analysis.columns import Column, PackedColumn
from moco_rt.analysis.frame import MLFrame

SITE = "encoder.0.output"


def packed(lengths, dim=2, dtype=np.float32):
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    values = np.arange(cu_seqlens[-1] * dim, dtype=dtype).reshape(cu_seqlens[-1], dim)
    return PackedColumn(values, cu_seqlens, SITE, "tokens")


def small_frame():
    return MLFrame(
        {
            "text": ["good", "bad", "ugly"],
            "label": [1, 0, 1],
            "x": Column.of(np.arange(6, dtype=np.float16).reshape(3, 2), SITE, "cls"),
            "tokens": packed([2, 0, 3]),
        }
    )


def assert_same(got, expected):
    assert got.columns == expected.columns
    for name in expected:
        a, b = got[name], expected[name]
        assert type(a) is type(b)
        if isinstance(b, PackedColumn):
            np.testing.assert_array_equal(a.cu_seqlens, b.cu_seqlens)
            assert (a.site, a.feature) == (b.site, b.feature)
            a, b = a.values, b.values
        elif isinstance(b, Column):
            assert (a.site, a.feature) == (b.site, b.feature)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
