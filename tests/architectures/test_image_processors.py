"""Image processors from folders: whole ones, missing ones and broken ones."""

from __future__ import annotations

import pytest
from transformers import ViTImageProcessorPil

from moco_rt.architectures import Source, find_image_processor, load_image_processor

SETTINGS = "preprocessor_config.json"


@pytest.fixture
def model(tiny_bert, tmp_path):
    """A model that says that it came from the test's folder."""
    model = tiny_bert()
    model.config.name_or_path = model.name_or_path = str(tmp_path)
    return model


def test_an_image_processor_is_found_where_its_file_lies(tmp_path, model):
    ViTImageProcessorPil(size={"height": 7, "width": 9}).save_pretrained(tmp_path)
    for found in (find_image_processor(Source(str(tmp_path))), load_image_processor(model)):
        assert (found.size["height"], found.size["width"]) == (7, 9)


def test_where_there_is_none_it_must_be_given(tmp_path, model, tiny_bert, one_line_error):
    assert find_image_processor(Source(str(tmp_path))) is None
    with one_line_error(ValueError, f"image_processor must be given: {tmp_path} holds no {SETTINGS} (got None)"):
        load_image_processor(model)
    with one_line_error(ValueError, "image_processor must be given: the model does not say where it came from"):
        load_image_processor(tiny_bert())


def test_a_broken_file_is_named(tmp_path, one_line_error):
    (tmp_path / SETTINGS).write_text("{")
    with one_line_error(ValueError, f"the image processor in {tmp_path} must be readable (got "):
        find_image_processor(Source(str(tmp_path)))
