"""Which class takes a model, and what lies in a folder."""

from __future__ import annotations

import pytest
from image_samples import make_image_classifier
from transformers import DeiTForImageClassificationWithTeacher, ViTForImageClassification

from moco_rt import EarlyExitImageClassificationModel, EarlyExitTextClassificationModel
from moco_rt.runtime.classifiers.choice import class_for, class_of


def test_models_of_texts_and_of_images_are_told_apart(tiny_bert, tiny_classifier, tmp_path):
    image_model = make_image_classifier(tiny_classifier, ViTForImageClassification)
    for model, kind in (
        (tiny_bert(), EarlyExitTextClassificationModel),
        (image_model, EarlyExitImageClassificationModel),
    ):
        assert class_for(model) is kind
        model.save_pretrained(tmp_path / kind.__name__)
        assert class_of(tmp_path / kind.__name__) is kind


@pytest.mark.parametrize("config", [None, "{", "[]", "{}"])
def test_what_is_no_model_counts_as_one_of_texts(tmp_path, config):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    assert class_of(tmp_path) is EarlyExitTextClassificationModel


def test_models_with_two_heads_run_as_a_whole(tiny_classifier):
    model = make_image_classifier(tiny_classifier, DeiTForImageClassificationWithTeacher)
    assert class_for(model)(model).backend == "whole"
