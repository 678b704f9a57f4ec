"""`pack`: models of other tasks, and encoders by themselves, on the packed kernels."""

from __future__ import annotations

import copy

import pytest
import torch
from parity import assert_within_twice_the_error, make_inputs
from torch.nn.modules.module import register_module_forward_hook
from transformers import (
    AlbertForTokenClassification,
    AlbertModel,
    BertForQuestionAnswering,
    BertForTokenClassification,
    BertModel,
    CamembertForTokenClassification,
    DebertaModel,
    DebertaV2ForTokenClassification,
    DistilBertForQuestionAnswering,
    DistilBertModel,
    ElectraForTokenClassification,
    EuroBertForTokenClassification,
    EuroBertModel,
    GteForTokenClassification,
    GteModel,
    LlamaModel,
    ModernBertForTokenClassification,
    ModernBertModel,
    MPNetForTokenClassification,
    MPNetModel,
    NomicBertForTokenClassification,
    NomicBertModel,
    RobertaForQuestionAnswering,
    RobertaModel,
    XLMRobertaForTokenClassification,
    pipeline,
)

import moco_rt
from moco_rt.architectures import pack as pack_module

LENGTHS = [17, 1, 33, 40, 2]
LONGEST = 3
SIZES = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 48}
DISTIL = {"dim": 32, "n_heads": 2, "n_layers": 3, "hidden_dim": 48}
ENDS = {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
MODELS = {
    BertModel: SIZES,
    BertForTokenClassification: SIZES,
    BertForQuestionAnswering: SIZES,
    RobertaModel: SIZES,
    RobertaForQuestionAnswering: SIZES,
    CamembertForTokenClassification: SIZES,
    XLMRobertaForTokenClassification: SIZES,
    DistilBertModel: DISTIL,
    DistilBertForQuestionAnswering: DISTIL,
    ElectraForTokenClassification: SIZES | {"embedding_size": 16},
    AlbertModel: SIZES | {"embedding_size": 16},
    AlbertForTokenClassification: SIZES | {"embedding_size": 16},
    MPNetModel: SIZES,
    MPNetForTokenClassification: SIZES,
    DebertaModel: SIZES | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    DebertaV2ForTokenClassification: SIZES | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    NomicBertModel: SIZES,
    NomicBertForTokenClassification: SIZES,
    GteModel: SIZES,
    GteForTokenClassification: SIZES,
    EuroBertModel: SIZES | ENDS,
    EuroBertForTokenClassification: SIZES | ENDS,
    ModernBertModel: SIZES | ENDS | {"local_attention": 16},
    ModernBertForTokenClassification: SIZES | ENDS | {"local_attention": 16},
}
every_model = pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.__name__)


@torch.no_grad()
def outputs_of(model, inputs):
    """The tensors that a model returns, those by token without the places of padding."""
    real = inputs["attention_mask"].bool()
    return [value[real] if value.shape[:2] == real.shape else value for value in model(**inputs).to_tuple()]


@every_model
def test_outputs_are_within_twice_the_error_of_hugging_faces(tiny_classifier, packed_dtype, kind):
    model = tiny_classifier(kind, dtype=packed_dtype, **MODELS[kind])
    packed = moco_rt.pack(model)
    assert type(packed) is kind
    inputs = make_inputs(LENGTHS)
    exact = outputs_of(copy.deepcopy(model).double(), inputs)
    found = outputs_of(packed, inputs)
    assert type(packed(**inputs)) is not tuple
    assert packed(**inputs).keys() == model(**inputs).keys()
    for ours, plain, reference in zip(found, outputs_of(model, inputs), exact, strict=True):
        assert_within_twice_the_error(ours, plain, reference)


@every_model
def test_what_the_kernels_do_not_cover_goes_to_the_model_itself(tiny_classifier, kind):
    model = tiny_classifier(kind, **MODELS[kind])
    packed = moco_rt.pack(model)
    inputs = make_inputs(LENGTHS)
    left = {name: tensor.flip(1) for name, tensor in inputs.items()}
    with torch.no_grad():
        for special in (inputs | {"output_hidden_states": True}, left):
            for ours, plain in zip(packed(**special).to_tuple(), model(**special).to_tuple(), strict=True):
                pairs = zip(ours, plain, strict=True) if isinstance(ours, tuple) else [(ours, plain)]
                assert all(torch.equal(*pair) for pair in pairs)
        tuples = packed(**inputs, return_dict=False), model(**inputs, return_dict=False)
    assert all(type(output) is tuple for output in tuples)
    torch.testing.assert_close(tuples[0][0][LONGEST], tuples[1][0][LONGEST], atol=1e-4, rtol=0)
    model.train()
    assert packed(**inputs)[0].requires_grad


@every_model
def test_what_the_configuration_asks_for_is_answered(tiny_classifier, kind):
    model = tiny_classifier(kind, **MODELS[kind])
    packed = moco_rt.pack(model)
    inputs = make_inputs(LENGTHS)
    with torch.no_grad():
        model.config.output_hidden_states = True
        assert len(packed(**inputs).hidden_states) == len(model(**inputs).hidden_states)
        assert "hidden_states" not in packed(**inputs, output_hidden_states=False)


# The heads of EuroBERT and ModernBERT do not take tuples from their own encoder.
@pytest.mark.parametrize(
    "kind",
    [*(kind for kind in MODELS if kind.__name__.endswith("Model")), BertForTokenClassification],
    ids=lambda kind: kind.__name__,
)
def test_a_configuration_that_asks_for_tuples_gets_them(tiny_classifier, kind):
    model = tiny_classifier(kind, **MODELS[kind])
    packed = moco_rt.pack(model)
    inputs = make_inputs(LENGTHS)
    model.config.return_dict = False
    with torch.no_grad():
        assert type(packed(**inputs)) is type(model(**inputs)) is tuple
        assert packed(**inputs, return_dict=True).keys() == model(**inputs, return_dict=True).keys()


def test_attentions_that_the_configuration_asks_for_are_answered(tiny_classifier):
    model = tiny_classifier(BertModel, **SIZES, attn_implementation="eager")
    packed = moco_rt.pack(model)
    model.config.output_attentions = True
    inputs = make_inputs(LENGTHS)
    assert len(packed(**inputs).attentions) == len(model(**inputs).attentions) == SIZES["num_hidden_layers"]


def test_a_mask_of_floating_point_goes_to_the_model_itself(tiny_classifier):
    model = tiny_classifier(BertModel, **SIZES)
    inputs = make_inputs(LENGTHS)
    inputs["attention_mask"] = inputs["attention_mask"].float()
    assert torch.equal(moco_rt.pack(model)(**inputs)[0], model(**inputs)[0])


@torch.no_grad()
@pytest.mark.parametrize(
    "special",
    [
        {"attention_mask": torch.ones(1, 5, dtype=torch.long)},
        {"attention_mask": torch.full((3, 5), 2)},
        {"token_type_ids": torch.ones(1, 5, dtype=torch.long)},
    ],
    ids=["mask of one row", "mask of 2", "types of one row"],
)
def test_what_transformers_takes_of_masks_and_types_goes_to_the_model_itself(tiny_classifier, kernel_calls, special):
    model = tiny_classifier(BertModel, **SIZES)
    inputs = make_inputs([5, 5, 5]) | special
    assert torch.equal(moco_rt.pack(model)(**inputs)[0], model(**inputs)[0])
    assert not kernel_calls


@pytest.fixture
def kernel_calls(monkeypatch):
    """A list that gets an entry for every call that the kernels answer."""
    calls = []
    own = pack_module._PackedForward._hidden

    def counted(*arguments):
        calls.append(1)
        return own(*arguments)

    monkeypatch.setattr(pack_module._PackedForward, "_hidden", counted)
    return calls


@pytest.mark.parametrize("kind", [BertModel, BertForTokenClassification], ids=lambda kind: kind.__name__)
def test_in_training_mode_the_encoder_is_trained_and_answers_afterwards_as_trained(tiny_classifier, kind, kernel_calls):
    model = tiny_classifier(kind, **SIZES)
    packed = moco_rt.pack(model)
    inputs = make_inputs(LENGTHS)
    before = packed.eval()(**inputs)[0].detach()
    assert len(kernel_calls) == 1
    weight = packed.base_model.encoder.layer[0].output.dense.weight
    untrained = weight.detach().clone()
    packed.train()
    optimiser = torch.optim.SGD(packed.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        packed(**inputs)[0].square().mean().backward()
        optimiser.step()
    assert len(kernel_calls) == 1
    assert not torch.equal(weight, untrained)
    real = inputs["attention_mask"].bool()
    after = packed.eval()(**inputs)[0][real]
    assert len(kernel_calls) == 2
    assert not torch.allclose(after, before[real], atol=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(after.detach(), model.eval()(**inputs)[0][real], atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", [BertModel, BertForTokenClassification], ids=lambda kind: kind.__name__)
def test_of_a_model_in_training_mode_the_kernels_answer_once_it_is_evaluated(tiny_classifier, kind, kernel_calls):
    model = tiny_classifier(kind, **SIZES).train()
    packed = moco_rt.pack(model)
    inputs = make_inputs(LENGTHS)
    packed(**inputs)
    assert not kernel_calls
    packed.eval()(**inputs)
    assert len(kernel_calls) == 1
    packed.base_model.encoder.layer[1].train()
    packed(**inputs)
    assert len(kernel_calls) == 1
    model.eval()
    packed(**inputs)
    assert len(kernel_calls) == 2


@pytest.mark.parametrize("kind", [BertModel, RobertaModel, AlbertModel, MPNetModel], ids=lambda kind: kind.__name__)
def test_an_encoder_without_a_pooler_is_covered(tiny_classifier, tmp_path, kind):
    tiny_classifier(kind, **MODELS[kind]).save_pretrained(tmp_path)
    model = kind.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    inputs = make_inputs(LENGTHS)
    with torch.no_grad():
        expected, found = model(**inputs), moco_rt.pack(model)(**inputs)
    assert found.keys() == expected.keys()
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(found[0][real], expected[0][real], atol=1e-4, rtol=0)


def test_an_encoder_that_does_more_than_its_class_says_is_refused(tiny_classifier, one_line_error):
    model = tiny_classifier(BertModel, **SIZES)
    model.encoder.layer[1].output.LayerNorm.eps = 0.1
    with one_line_error(ValueError, "encoder.layer.1.output.LayerNorm.eps must be 1e-12"):
        moco_rt.pack(model)


def test_the_model_stays_as_it_is_and_shares_its_modules(tiny_classifier):
    model = tiny_classifier(BertForTokenClassification, **SIZES)
    model.train()
    forward = type(model.bert).forward
    packed = moco_rt.pack(model)
    assert model.training
    assert model.bert.forward.__func__ is forward
    assert packed.classifier is model.classifier
    assert packed.bert.embeddings is model.bert.embeddings


def test_gradients_of_the_encoder_are_refused_in_evaluation_mode(tiny_classifier, one_line_error, kernel_calls):
    packed = moco_rt.pack(tiny_classifier(BertForTokenClassification, **SIZES)).eval()
    loss = packed(**make_inputs([5, 3])).logits.sum()
    with one_line_error(RuntimeError, "must be in training mode, or frozen by requires_grad_(False), where gradients"):
        loss.backward()
    packed.bert.requires_grad_(False)
    packed(**make_inputs([5, 3])).logits.sum().backward()
    assert packed.classifier.weight.grad is not None
    assert len(kernel_calls) == 2


@torch.no_grad()
def test_small_weights_that_are_written_count_from_the_next_call_on(tiny_classifier, kernel_calls):
    model = tiny_classifier(BertModel, **SIZES)
    packed, inputs = moco_rt.pack(model), make_inputs([5, 5])
    packed(**inputs)
    model.encoder.layer[2].output.LayerNorm.bias.add_(1.0)
    found = packed(**inputs).last_hidden_state
    torch.testing.assert_close(found, model(**inputs).last_hidden_state, atol=1e-4, rtol=0)
    assert len(kernel_calls) == 2


def test_after_a_hook_of_all_modules_the_kernels_run_again(tiny_classifier, kernel_calls):
    packed, inputs = moco_rt.pack(tiny_classifier(BertModel, **SIZES)), make_inputs([5, 3])
    hook = register_module_forward_hook(lambda *_: None)
    packed(**inputs)
    hook.remove()
    kernel_calls.clear()
    packed(**inputs)
    assert kernel_calls


def test_after_a_part_is_put_back_the_kernels_run_again_and_a_copy_can_be_made_meanwhile(tiny_classifier, kernel_calls):
    model = tiny_classifier(BertModel, **SIZES)
    packed, inputs = moco_rt.pack(model), make_inputs([5, 3])
    expected, part = packed(**inputs).last_hidden_state, model.encoder.layer[0].intermediate
    own, part.intermediate_act_fn = part.intermediate_act_fn, torch.nn.Tanh()  # in training mode
    found = packed(**inputs).last_hidden_state
    assert not torch.allclose(found, expected, atol=1e-3)
    copied = copy.deepcopy(packed)
    torch.testing.assert_close(copied(**inputs).last_hidden_state[0], found[0], atol=1e-5, rtol=0)
    part.intermediate_act_fn = own
    kernel_calls.clear()
    assert torch.equal(packed(**inputs).last_hidden_state, expected)
    assert kernel_calls


def test_it_can_be_copied_and_saved(tiny_classifier, tmp_path):
    model = tiny_classifier(BertForTokenClassification, **SIZES)
    packed = moco_rt.pack(model)
    inputs = make_inputs(LENGTHS)
    expected = packed(**inputs).logits
    assert torch.equal(copy.deepcopy(packed)(**inputs).logits, expected)
    packed.save_pretrained(tmp_path)
    again = moco_rt.pack(BertForTokenClassification.from_pretrained(tmp_path))
    assert torch.equal(again.eval()(**inputs).logits, expected)


def test_it_answers_in_a_pipeline(tiny_classifier, word_tokenizer):
    model = tiny_classifier(BertForTokenClassification, **SIZES, vocab_size=len(word_tokenizer), num_labels=3)
    texts = ["good film", "a bad film but good"]
    answers = [
        pipeline("token-classification", model=each, tokenizer=word_tokenizer)(texts, batch_size=2)
        for each in (model, moco_rt.pack(model))
    ]
    for plain, ours in zip(*answers, strict=True):
        assert [token["entity"] for token in ours] == [token["entity"] for token in plain]
        assert [token["score"] for token in ours] == pytest.approx([token["score"] for token in plain], abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "config", "words"),
    [
        (BertModel, SIZES | {"hidden_act": "mish"}, "activation must be one of gelu, gelu_new, relu, silu, tanh"),
        (LlamaModel, SIZES, "model must be an encoder (got LlamaModel)"),
        (BertModel, SIZES | {"is_decoder": True}, "model must be an encoder (got config.is_decoder=True)"),
    ],
)
def test_what_is_not_covered_is_refused(tiny_classifier, one_line_error, kind, config, words):
    with one_line_error(ValueError, words):
        moco_rt.pack(tiny_classifier(kind, **config))


def test_what_is_no_model_of_hugging_faces_is_refused(one_line_error):
    with one_line_error(TypeError, "model must be a Hugging Face model (got Linear)"):
        moco_rt.pack(torch.nn.Linear(2, 2))
