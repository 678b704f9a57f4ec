"""Models that are what their class says, and those that are not."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from altered_models import ALTERED, layer
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    DistilBertForSequenceClassification,
)
from transformers.models.bert import modeling_bert
from transformers.models.bert.modeling_bert import BertPooler, BertSelfAttention

from moco_rt import EarlyExitTextClassificationModel, pack
from moco_rt.architectures import architecture_of
from moco_rt.architectures.genuine import Watch, check_genuine


class BertSelfOutput(torch.nn.Module):  # a family's name for another thing
    def __init__(self, original):
        super().__init__()
        self.dense, self.LayerNorm, self.dropout = original.dense, original.LayerNorm, original.dropout

    def forward(self, hidden, residual):
        return self.LayerNorm(self.dense(hidden)) + residual


FAMILIES = [
    getattr(transformers, f"{family}ForSequenceClassification")
    for family in ("Bert", "Camembert", "DistilBert", "Electra", "Roberta", "XLMRoberta")
]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
@pytest.mark.parametrize("activation", ["gelu", "relu", "gelu_new"])
def test_models_as_they_are_built_copied_and_loaded_are_genuine(tiny_classifier, tmp_path, family, activation):
    name = "activation" if family is DistilBertForSequenceClassification else "hidden_act"
    model = tiny_classifier(family, num_hidden_layers=2, **{name: activation})
    model.save_pretrained(tmp_path)
    for same in (model, copy.deepcopy(model), family.from_pretrained(tmp_path), model.bfloat16()):
        check_genuine(same)
        architecture_of(same)


@pytest.mark.parametrize("altered", ALTERED)
def test_what_a_model_computes_otherwise_is_named_in_one_line(tiny_bert, altered):
    alter, backend = ALTERED[altered]
    model = tiny_bert()
    alter(model)
    if backend == "packed":
        check_genuine(model)
        return
    with pytest.raises(ValueError, match=r" must .*\(got .*\)$") as caught:
        check_genuine(model)
    assert "\n" not in str(caught.value)
    if backend == "reference":
        architecture_of(model)
    else:
        with pytest.raises(ValueError, match=r" must .*\(got .*\)$"):
            architecture_of(model)


def test_a_module_of_the_same_name_is_told_by_where_it_comes_from(tiny_bert, one_line_error):
    model = tiny_bert()
    layer(model).attention.output = BertSelfOutput(layer(model).attention.output)
    words = (
        "bert.encoder.layer.0.attention.output must be transformers.models.bert.modeling_bert.BertSelfOutput "
        f"(got {BertSelfOutput.__module__}.BertSelfOutput)"
    )
    with one_line_error(ValueError, words):
        check_genuine(model)


@pytest.mark.parametrize("kind", [BertSelfAttention, BertPooler, torch.nn.Linear])
def test_a_class_whose_forward_was_replaced_is_noticed(tiny_bert, monkeypatch, kind):
    model = tiny_bert()
    original = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, *inputs, **options: original(self, *inputs, **options))
    with pytest.raises(ValueError, match=r"\.forward must be the class's own \(got another function in its place\)"):
        check_genuine(model)


def test_hooks_of_all_modules_are_noticed(tiny_bert, one_line_error):
    model = tiny_bert()
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        with one_line_error(ValueError, "modules must have no hooks (got hooks of all modules"):
            check_genuine(model)
    finally:
        handle.remove()
    check_genuine(model)


def test_an_attention_function_of_the_callers_is_noticed(tiny_bert, one_line_error):
    model = tiny_bert()
    AttentionInterface.register("mine", lambda _, query, *__, **___: (torch.zeros_like(query.mT), None))
    model.set_attn_implementation("mine")
    with one_line_error(ValueError, "one of transformers' own attention functions (got 'mine')"):
        check_genuine(model)


@pytest.mark.parametrize("interface", [AttentionInterface, AttentionMaskInterface])
def test_an_attention_function_under_the_name_of_transformers_own_is_noticed(tiny_bert, one_line_error, interface):
    model, own = tiny_bert(), interface()["sdpa"]
    interface.register("sdpa", lambda *arguments, **options: own(*arguments, **options))
    try:
        with one_line_error(ValueError, "the attention function 'sdpa' must be transformers' own (got another)"):
            check_genuine(model)
    finally:
        interface.register("sdpa", own)
    check_genuine(model)


def test_an_eager_attention_of_the_callers_is_noticed(tiny_bert, one_line_error, monkeypatch):
    model = tiny_bert()
    model.set_attn_implementation("eager")
    check_genuine(model)
    monkeypatch.setattr(modeling_bert, "eager_attention_forward", lambda *_, **__: None)
    with one_line_error(ValueError, "the attention function 'eager' must be transformers' own (got another)"):
        check_genuine(model)


def test_sparse_weights_run_on_the_models_own_modules(tiny_bert, one_line_error):
    model = tiny_bert()
    product = layer(model).output.dense
    product.weight = torch.nn.Parameter(product.weight.detach().to_sparse(), requires_grad=False)
    with one_line_error(ValueError, "layer.0.output.dense.weight must be dense and in memory (got torch.sparse_coo"):
        check_genuine(model)
    ids = torch.ones(1, 4, dtype=torch.long)
    with torch.no_grad():
        assert torch.equal(EarlyExitTextClassificationModel(model)(ids, ids).logits, model(ids, ids).logits)


def test_weights_that_are_not_in_memory_are_refused(tiny_bert, one_line_error):
    model = tiny_bert()
    layer(model).output.dense.to("meta")
    for refuses in (EarlyExitTextClassificationModel, architecture_of):
        with one_line_error(ValueError, "output.dense.weight must be in memory (got a weight on the device meta)"):
            refuses(model)
    with one_line_error(ValueError, "dense and in memory (got torch.strided on meta)"):
        pack(model)


def test_a_configuration_that_was_edited_since_is_noticed(tiny_bert):
    model = tiny_bert()
    model.config.num_attention_heads = 4
    with pytest.raises(ValueError, match=r"num_attention_heads must be 4, as its model's configuration says \(got 2\)"):
        check_genuine(model)


@pytest.mark.parametrize("altered", [name for name in ALTERED if "hook" in name or "forward" in name])
def test_a_watch_sees_hooks_and_replaced_methods(tiny_bert, altered):
    model = tiny_bert()
    watch = Watch(tuple(model.modules()), model.config)
    assert not watch.sees_change()
    ALTERED[altered][0](model)
    assert watch.sees_change()


def test_recorders_that_transformers_leaves_behind_change_nothing(tiny_bert):
    model = tiny_bert()
    watch = Watch(tuple(model.modules()), model.config)
    model(torch.ones(1, 4, dtype=torch.long), output_hidden_states=True, output_attentions=True)
    assert any(module._forward_hooks for module in model.modules())
    assert watch.sees_change()
    check_genuine(model)
    architecture_of(model)
    watch = Watch(tuple(model.modules()), model.config)
    assert not watch.sees_change()
    model.classifier.register_forward_hook(lambda *_: None)
    assert watch.sees_change()
