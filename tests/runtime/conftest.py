"""The model and the batch that tests of the loops share."""

from __future__ import annotations

import pytest
from parity import make_inputs


@pytest.fixture(scope="module")
def model(tiny_bert):
    return tiny_bert(3, labels=3)


@pytest.fixture(scope="module")
def inputs():
    return make_inputs([9, 1, 17, 33, 4, 64, 2, 15, 16, 40, *range(5, 19)], pairs=True)
