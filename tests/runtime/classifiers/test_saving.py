"""Models that are loaded as they were saved, and those that are refused because they would not be."""

from __future__ import annotations

import pytest
import torch
import transformers
from altered_models import ALTERED
from image_samples import make_image_classifier
from torch.nn.utils import prune
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    BertForSequenceClassification,
    ViTForImageClassification,
)

from moco_rt import EarlyExitTextClassificationModel, accelerate
from moco_rt.runtime.classifiers.saving import check_can_be_saved

#: What is altered without a change of answers, weights or configuration.
HARMLESS = ("a dropout that is none", "another chance of dropout", "an attribute of the caller's")
REFUSED = "what is saved must be loaded as the same model, but "


class Noted(BertForSequenceClassification):
    def note(self):
        return "mine"


class Negated(BertForSequenceClassification):
    def forward(self, *inputs, **options):
        output = super().forward(*inputs, **options)
        output.logits = -output.logits
        return output


@pytest.mark.parametrize("altered", ALTERED)
def test_what_files_would_not_hold_is_refused_before_anything_is_written(tiny_bert, tmp_path, altered):
    model = tiny_bert()
    ALTERED[altered][0](model)
    fast = EarlyExitTextClassificationModel(model)
    if altered in HARMLESS:
        fast.save_pretrained(tmp_path)
        assert EarlyExitTextClassificationModel.from_pretrained(tmp_path).backend == "packed"
        return
    with pytest.raises(ValueError, match=rf"^{REFUSED}[^\n]* must [^\n]*\(got [^\n]*\)$"):
        fast.save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_shape_than_the_configuration_says_are_refused(tiny_bert, one_line_error):
    model = tiny_bert(hidden=32)
    model.classifier = torch.nn.Linear(32, 3)
    with one_line_error(ValueError, f"{REFUSED}classifier.weight must be as the configuration says, shape (2, 32)"):
        check_can_be_saved(model)


def test_pruned_weights_are_saved_once_pruning_is_made_permanent(tiny_bert, one_line_error):
    model = tiny_bert()
    dense = model.bert.encoder.layer[0].output.dense
    prune.l1_unstructured(dense, "weight", amount=0.5)
    with one_line_error(ValueError, f"{REFUSED}bert.encoder.layer.0.output.dense "):
        check_can_be_saved(model)
    prune.remove(dense, "weight")
    check_can_be_saved(model)


def test_of_subclasses_those_are_refused_that_replace_a_method(tiny_bert, one_line_error):
    model = tiny_bert()
    model.__class__ = Noted
    check_can_be_saved(model)
    model.__class__ = Negated
    words = "model must be of the class that its configuration is loaded as, BertForSequenceClassification (got "
    with one_line_error(ValueError, REFUSED + words):
        check_can_be_saved(model)


def test_layers_that_share_weights_are_refused_unless_the_configuration_says_so(tiny_bert, one_line_error, tmp_path):
    model = tiny_bert(2)
    model.bert.encoder.layer[1] = model.bert.encoder.layer[0]
    fast = EarlyExitTextClassificationModel(model)
    query = [f"bert.encoder.layer.{number}.attention.self.query.weight" for number in range(2)]
    with one_line_error(ValueError, f"{REFUSED}{' and '.join(query)} must be two weights"):
        fast.save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []
    # Embeddings of these are one weight under three names.
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    check_can_be_saved(BartForSequenceClassification(BartConfig(vocab_size=50, d_model=16, **sizes)))


def test_resized_embeddings_are_as_the_configuration_says(tiny_bert):
    model = tiny_bert()
    model.resize_token_embeddings(137, mean_resizing=False)
    check_can_be_saved(model)


FAMILIES = ["Albert", "BigBird", "Canine", "DebertaV2", "Electra", "FNet", "GPT2", "ModernBert", "OPT", "T5", "XLNet"]


@pytest.mark.parametrize("family", FAMILIES)
def test_models_of_any_family_can_be_saved_after_they_were_called(tmp_path, family):
    """Of some a module changes when it is called; others share weights."""
    kind = getattr(transformers, f"{family}ForSequenceClassification")
    of_twos = ("num_hidden_layers", "n_layer", "num_layers", "num_attention_heads", "num_heads", "n_head")
    names = ("hidden_size", "intermediate_size", "d_model", "n_embd", "d_ff", "d_inner", "ffn_dim")
    sizes = {**dict.fromkeys(of_twos, 2), **dict.fromkeys(names, 32), "word_embed_proj_dim": 32, "embedding_size": 16}
    known = kind.config_class().to_dict()
    config = {name: size for name, size in sizes.items() if name in known}
    ids = {"vocab_size": 100, "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0}
    model = kind(kind.config_class(**config, **ids)).eval()
    model(input_ids=torch.tensor([[5, 6, 7, 2]]))
    check_can_be_saved(model)
    model.save_pretrained(tmp_path)
    check_can_be_saved(kind.from_pretrained(tmp_path, dtype=torch.bfloat16))


def test_models_of_images_can_be_saved(tiny_classifier):
    check_can_be_saved(make_image_classifier(tiny_classifier, ViTForImageClassification))


def test_accelerate_says_before_it_begins_that_a_model_cannot_be_saved(tiny_bert, word_tokenizer):
    model = tiny_bert()
    model.classifier.register_forward_hook(lambda _module, _inputs, output: output + 1)
    with (
        pytest.warns(UserWarning, match=rf"^the model can be used, not saved: {REFUSED}classifier must have no hooks"),
        pytest.raises(ValueError, match="distinct"),
    ):
        accelerate(model, ["a good film", "a bad film"], tokenizer=word_tokenizer)
