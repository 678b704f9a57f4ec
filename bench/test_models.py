"""Small models are made, measured and saved; images that are not there are named."""

import gzip

import numpy as np
import pytest
from models import fashion, measuring


def write(path, values):
    """Write bytes as Fashion-MNIST's files hold them."""
    head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(head + values.astype(np.uint8).tobytes()))


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A folder of images whose lower half is the lighter, the higher their class."""
    random = np.random.default_rng(0)
    for name, count in (("train", 1_200), ("t10k", 100)):
        labels = random.integers(0, 10, count)
        pixels = random.integers(0, 20, (count, 28, 28))
        pixels[:, 14:] += 25 * labels[:, None, None]
        write(tmp_path / f"{name}-images-idx3-ubyte.gz", pixels)
        write(tmp_path / f"{name}-labels-idx1-ubyte.gz", labels)
    monkeypatch.setattr(fashion, "FOLDER", tmp_path)
    monkeypatch.setattr(fashion, "ACCELERATE_ROWS", 1_000)


@pytest.mark.usefixtures("images")
def test_a_small_vit_is_made_and_measured(monkeypatch):
    monkeypatch.setattr(measuring, "TIMINGS", 1)
    monkeypatch.setitem(fashion._SIZES, "num_hidden_layers", 2)
    case = fashion.fashion(150)
    assert case.search_rows.shape == (1_000, 28, 28)
    assert case.report_rows.shape == (100, 28, 28)
    assert len(case.report_labels) == 100
    row = measuring.measure("vit", case, 0.9, 1_000)
    assert row.startswith("| vit | packed |")
    assert "of 100 (" in row


def test_missing_images_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion, "FOLDER", tmp_path / "nowhere")
    with pytest.raises(SystemExit, match="apt-get install dataset-fashion-mnist"):
        fashion.fashion()
