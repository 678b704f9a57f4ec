"""Another default device or dtype of torch is the caller's own affair: it changes no answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from image_samples import make_image_classifier, make_pictures
from parity import make_inputs
from tier_samples import count_words, make_texts
from torch_defaults import float64_default
from transformers import (
    DebertaForSequenceClassification,
    DebertaV2ForSequenceClassification,
    Gemma2ForSequenceClassification,
    LlamaForSequenceClassification,
    ModernBertForSequenceClassification,
    MPNetForSequenceClassification,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from moco_rt import (
    Cascade,
    EarlyExitImageClassificationModel,
    EarlyExitReranker,
    EarlyExitTextClassificationModel,
    LinearCondition,
    accelerate,
    capture,
    compress,
    pack,
    quantize,
)
from moco_rt.demo.classifier import train_classifier

pytestmark = pytest.mark.usefixtures("one_thread", "quick_off_ramps")

TEXTS, INPUTS = make_texts(40), make_inputs([3, 9])
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, **SPECIAL}
#: Families whose kernels read tables that are computed, and what else their configurations say.
FAMILIES = {
    DebertaForSequenceClassification: {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    DebertaV2ForSequenceClassification: {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    Gemma2ForSequenceClassification: {"num_key_value_heads": 2, "head_dim": 8, "attn_logit_softcapping": None},
    LlamaForSequenceClassification: {"num_key_value_heads": 2},
    ModernBertForSequenceClassification: {},
    MPNetForSequenceClassification: {},
}


@pytest.fixture(params=["device", "dtype"])
def other_default(request):
    """`with other_default():` tensors of which nothing is said hold no numbers, or are float64."""
    return (lambda: torch.device("meta")) if request.param == "device" else float64_default


@pytest.mark.parametrize("dtype", [None, "int8"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_every_family_runs_on_the_same_kernels(tiny_classifier, other_default, kind, dtype):
    model, inputs = tiny_classifier(kind, **SIZES, **FAMILIES[kind]), make_inputs([17, 1, 40, 60])
    expected = EarlyExitTextClassificationModel(model, dtype=dtype, backend="packed")(**inputs).logits
    with other_default():
        found = EarlyExitTextClassificationModel(model, dtype=dtype, backend="packed")(**inputs).logits
    assert torch.equal(found, expected)


def with_exit(model, tokenizer, **options):
    fast = EarlyExitTextClassificationModel(model, **options)
    fast.add_rule(LinearCondition(np.ones(32, np.float32), 0.0, 3.0, 0.01), 1, "encoder.0.attention")
    fast.tokenizer = tokenizer
    return fast


#: Each makes something of a model and a tokenizer, and returns numbers that it answers.
WORK = {
    "packed": lambda *given: with_exit(*given).predict(TEXTS).probs,
    "reference": lambda *given: with_exit(*given, backend="reference").predict(TEXTS).probs,
    "whole": lambda model, tokenizer: (
        EarlyExitTextClassificationModel(model, backend="whole").predict(TEXTS, tokenizer=tokenizer).probs
    ),
    "certify": lambda *given: with_exit(*given).predict(TEXTS * 9, certify=0.5).probs,
    "cascade": lambda *given: Cascade([count_words, given, given], thresholds=[0.9, 0.8]).predict(TEXTS).probs,
    "padded cascade": lambda *given: Cascade([given, given], thresholds=[0.8])(**INPUTS).logits,
    "quantize": lambda model, tokenizer: quantize(model, TEXTS, tokenizer=tokenizer).classifier.weight,
    "capture": lambda model, tokenizer: torch.from_numpy(
        np.array(capture(model, tokenizer, TEXTS, sites="encoder.0.output")["encoder.0.output.cls"])
    ),
    "compress": lambda model, tokenizer: (
        compress(
            model, make_texts(200), tokenizer=tokenizer, width=0.5, sparsity=0.5, lengths=0.5, epochs=1
        ).model.classifier.weight
    ),
    "pack": lambda model, _: pack(model.bert)(**INPUTS).last_hidden_state[:, 0],
}


@pytest.mark.parametrize("name", WORK)
def test_texts_are_answered_as_before(tiny_bert, word_tokenizer, other_default, name):
    expected = WORK[name](tiny_bert(), word_tokenizer)
    model = tiny_bert()
    with other_default():
        found = WORK[name](model, word_tokenizer)
    assert torch.equal(found, expected)


def test_candidates_are_ranked_as_before(tiny_bert, word_tokenizer, other_default):
    reranker = EarlyExitReranker(tiny_bert(labels=1))
    reranker.tokenizer = word_tokenizer
    expected = reranker.rank("good film", TEXTS)
    with other_default():
        assert reranker.rank("good film", TEXTS) == expected


@pytest.mark.parametrize("backend", ["packed", "reference", "whole"])
def test_images_are_answered_as_before(tiny_classifier, other_default, backend):
    model, pictures = make_image_classifier(tiny_classifier, ViTForImageClassification), make_pictures(11)
    processor = ViTImageProcessorPil(size={"height": 24, "width": 24})
    fast = EarlyExitImageClassificationModel(model, backend=backend)
    expected = fast.predict(pictures, image_processor=processor).probs
    with other_default():
        again = EarlyExitImageClassificationModel(model, backend=backend)
        assert torch.equal(again.predict(pictures, image_processor=processor).probs, expected)


def test_what_is_saved_is_read_again(tiny_bert, word_tokenizer, other_default, tmp_path):
    fast = with_exit(tiny_bert(), word_tokenizer)
    expected = fast.predict(TEXTS).probs
    with other_default():
        fast.save_pretrained(tmp_path)
    assert torch.equal(EarlyExitTextClassificationModel.from_pretrained(tmp_path).predict(TEXTS).probs, expected)


def test_exits_are_found_and_a_demo_is_trained(other_default):
    texts = make_texts(600)
    with other_default():
        model, tokenizer = train_classifier(
            texts, [int(text.count("good") > text.count("bad")) for text in texts], seed=0
        )
        fast = accelerate(model, texts, tokenizer=tokenizer, agreement=0.5, dtype=None)
        assert fast.policy.certificate is not None
        assert fast.predict(texts).labels.shape == (600,)
