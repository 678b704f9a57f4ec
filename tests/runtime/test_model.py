"""What a user meets: construction, add_rule, forward's checks, pipeline, two threads, and the old client's bugs."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from path_samples import CLASSES, with_path
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, pipeline
from transformers.utils import logging as transformers_logging

from moco_rt import EarlyExitTextClassificationModel, LinearCondition
from moco_rt.policies.fingerprints import model_identity

IDS = torch.tensor([[2, 11, 12, 3], [2, 13, 3, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


def always(hidden=32, **changes):
    return LinearCondition(np.ones(hidden, np.float32), 0.0, -1e30, **{"bound": 0.01, **changes})


@pytest.fixture
def fast(tiny_bert):
    return EarlyExitTextClassificationModel(tiny_bert())


def test_refuses_what_is_no_sequence_classifier(one_line_error):
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    generative = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=50))
    for model in (generative, BertForMaskedLM(BertConfig(**small, vocab_size=50)), torch.nn.Linear(2, 2)):
        with one_line_error(TypeError, f"ForSequenceClassification (got {type(model).__name__})"):
            EarlyExitTextClassificationModel(model)


@pytest.mark.parametrize(
    "config", [{"labels": 1}, {"problem_type": "multi_label_classification"}, {"problem_type": "regression"}]
)
def test_models_without_one_label_to_settle_run_but_take_no_rules(tiny_bert, one_line_error, config):
    model = tiny_bert(**config)
    fast = EarlyExitTextClassificationModel(model)
    assert torch.allclose(fast(IDS, MASK).logits, model(IDS, MASK).logits, atol=1e-4)
    with one_line_error(ValueError, "model must choose one label of at least two"):
        fast.add_rule(lambda cls: cls[:, 0] > 0, 0, "encoder", 0, "output")


def test_refuses_unknown_backends(tiny_bert, one_line_error):
    with one_line_error(ValueError, "backend must be one of auto, packed, reference, whole (got 'fastest')"):
        EarlyExitTextClassificationModel(tiny_bert(), backend="fastest")


def test_loaded_weights_are_packed_anew(tiny_bert):
    fast, other = (EarlyExitTextClassificationModel(tiny_bert(seed=seed), backend="packed") for seed in (0, 1))
    fast.load_state_dict(other.state_dict())
    assert torch.equal(fast(IDS, MASK).logits, other(IDS, MASK).logits)


def test_layers_that_do_more_than_their_weights_say_are_left_to_the_reference(tiny_bert, caplog, one_line_error):
    class Doubled(torch.nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = tiny_bert()
    model.bert.encoder.layer[0].output.dense.__class__ = Doubled
    fast = EarlyExitTextClassificationModel(model)
    assert fast.backend == "reference"
    assert "Doubled" in caplog.text
    assert torch.equal(fast(IDS, MASK).logits, model(IDS, MASK).logits)
    with one_line_error(ValueError, "output.dense must be torch.nn.modules.linear.Linear (got "):
        EarlyExitTextClassificationModel(model, backend="packed")


def test_a_move_to_where_the_weights_are_keeps_the_backend(fast):
    backend = fast._backend
    assert fast.to("cpu")._backend is backend


@pytest.mark.parametrize(
    "move", [lambda model: model.double(), lambda model: model.to("meta"), lambda model: model.to("nowhere:7")]
)
def test_a_move_that_fails_leaves_the_model_as_it_was(tiny_bert, move):
    fast = EarlyExitTextClassificationModel(tiny_bert(), backend="packed")
    before = {name: tensor.clone() for name, tensor in fast.state_dict().items()}
    expected = fast(IDS, MASK).logits
    with pytest.raises((ValueError, RuntimeError, NotImplementedError)):
        move(fast)
    assert (fast.backend, fast.dtype, fast.device.type) == ("packed", torch.float32, "cpu")
    assert all(torch.equal(tensor, before[name]) for name, tensor in fast.state_dict().items())
    assert torch.equal(fast(IDS, MASK).logits, expected)
    assert torch.equal(fast.float()(IDS, MASK).logits, expected)


@pytest.fixture
def bound(tiny_bert, tmp_path):
    """A model with a rule that was made for its dtype."""
    fast = EarlyExitTextClassificationModel(tiny_bert())
    fast.add_rule(always(), 1, "encoder", 0, "attention")
    fast.save_pretrained(tmp_path)
    return EarlyExitTextClassificationModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_exits_that_were_made_for_a_dtype_refuse_another_and_go_on(bound, one_line_error, dtype):
    before = {name: tensor.clone() for name, tensor in bound.state_dict().items()}
    name = str(dtype).removeprefix("torch.")
    with one_line_error(ValueError, f"made for a model with another dtype: float32 (got {name})"):
        bound.to(dtype)
    assert all(torch.equal(tensor, before[name]) for name, tensor in bound.state_dict().items())
    assert (bound.dtype, bound.backend) == (torch.float32, "packed")
    assert bound(IDS, MASK).exit_rule.tolist() == [0, 0]


def test_a_certificate_without_exits_refuses_another_dtype(tiny_bert, one_line_error):
    fast = with_path(EarlyExitTextClassificationModel(tiny_bert(labels=CLASSES)))
    fast.policy.made_for = model_identity(fast.model)
    fast.policy.take_step(0)
    fast.policy.certificate = object()
    assert not fast.policy.exits
    with one_line_error(ValueError, "made for a model with another dtype: float32 (got bfloat16)"):
        fast.to(torch.bfloat16)


def test_a_model_whose_weights_were_cast_behind_its_back_does_not_answer(bound, one_line_error):
    bound.model.to(torch.bfloat16)
    for _ in range(2):
        with one_line_error(ValueError, "made for a model with another dtype: float32 (got bfloat16)"):
            bound(IDS, MASK)
    bound.model.to(torch.float32)
    assert bound(IDS, MASK).exit_rule.tolist() == [0, 0]


def test_exits_that_were_made_for_a_dtype_let_the_model_move_within_it(bound):
    copied = copy.deepcopy(bound)
    for weight in copied.model.parameters():
        weight.data = weight.data.clone()
    for same in (bound.float(), bound.to("cpu"), copied.to(torch.float32), pickle.loads(pickle.dumps(bound))):
        assert same(IDS, MASK).exit_rule.tolist() == [0, 0]


def test_without_exits_a_model_that_was_loaded_may_change_its_dtype(tiny_bert, tmp_path):
    EarlyExitTextClassificationModel(tiny_bert()).save_pretrained(tmp_path)
    fast = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    assert fast.to(torch.bfloat16)(IDS, MASK).logits.dtype == torch.bfloat16
    fast.save_pretrained(tmp_path)
    assert EarlyExitTextClassificationModel.from_pretrained(tmp_path).dtype == torch.bfloat16


def test_dtype_converts_a_copy(tiny_bert):
    model = tiny_bert()
    fast = EarlyExitTextClassificationModel(model, dtype=torch.bfloat16)
    assert (model.dtype, fast.dtype) == (torch.float32, torch.bfloat16)
    assert fast(IDS, MASK).logits.dtype == torch.bfloat16
    assert EarlyExitTextClassificationModel(model, dtype=torch.float32).model is model


def test_a_model_in_training_mode_is_put_in_evaluation_mode(tiny_bert):
    fast = EarlyExitTextClassificationModel(tiny_bert(hidden_dropout_prob=0.5).train())
    assert torch.equal(fast(IDS, MASK).logits, fast(IDS, MASK).logits)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"input_ids": torch.zeros(0, 4, dtype=torch.long)}, ValueError, "with at least one of each (got (0, 4))"),
        ({"input_ids": torch.zeros(4, dtype=torch.long)}, ValueError, "input_ids must have shape (rows, tokens)"),
        ({"input_ids": IDS.float()}, TypeError, "input_ids must be int64 or int32 (got torch.float32)"),
        ({"input_ids": torch.ones(2, 65, dtype=torch.long)}, ValueError, "at most 64 tokens (got 65)"),
        (
            {"attention_mask": MASK[:, :3]},
            ValueError,
            "attention_mask must have shape (2, 4) like input_ids (got (2, 3))",
        ),
        ({"attention_mask": MASK.float()}, TypeError, "attention_mask must be integer or bool"),
        ({"attention_mask": MASK * 2}, ValueError, "attention_mask must hold only 0 and 1 (got 2 in row 0)"),
        ({"attention_mask": MASK.flip(1)}, ValueError, "attention_mask must be right-padded"),
        ({"attention_mask": MASK * torch.tensor([[1], [0]])}, ValueError, "in every row (row 1 has none)"),
        ({"token_type_ids": MASK.bool()}, TypeError, "token_type_ids must be int64 or int32 (got torch.bool)"),
        ({"token_type_ids": MASK[:1]}, ValueError, "token_type_ids must have shape (2, 4)"),
        ({"input_ids": IDS.tolist()}, TypeError, "input_ids must be a tensor (got list)"),
        ({"input_ids": IDS.numpy()}, TypeError, "input_ids must be a tensor (got ndarray)"),
        ({"input_ids": "good"}, TypeError, "input_ids must be a tensor (got str)"),
        ({"input_ids": None}, TypeError, "input_ids must be a tensor (got NoneType)"),
        ({"input_ids": IDS.to_sparse()}, ValueError, "input_ids must be dense (got torch.sparse_coo)"),
        ({"attention_mask": MASK.tolist()}, TypeError, "attention_mask must be a tensor (got list)"),
        ({"attention_mask": MASK.to_sparse()}, ValueError, "attention_mask must be dense (got torch.sparse_coo)"),
        (
            {"attention_mask": torch.nested.as_nested_tensor(list(MASK), layout=torch.jagged)},
            ValueError,
            "attention_mask must be dense (got nested)",
        ),
        ({"token_type_ids": MASK.tolist()}, TypeError, "token_type_ids must be a tensor (got list)"),
        ({"attention_mask": MASK.to("meta")}, ValueError, "must be on cpu, where the model is (got meta)"),
    ],
)
def test_bad_inputs_are_refused_in_one_line(fast, one_line_error, change, kind, words):
    inputs = {"input_ids": IDS, "attention_mask": MASK} | change
    if getattr(inputs["input_ids"], "shape", None) != IDS.shape:
        inputs["attention_mask"] = None
    with one_line_error(kind, words):
        fast(**inputs)


def test_the_mask_may_be_bool_or_missing(fast):
    assert torch.equal(fast(IDS, MASK.bool()).logits, fast(IDS, MASK).logits)
    assert torch.equal(fast(IDS[:1]).logits, fast(IDS[:1], MASK[:1]).logits)


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ((always(), 1, "pooler"), ValueError, "site must be one of embeddings, encoder.0.attention"),
        ((always(), 1, "encoder", 0, "intermediate"), ValueError, "(got 'encoder.0.intermediate')"),
        ((always(), 1, "encoder", 2, "attention"), ValueError, "(got 'encoder.2.attention')"),
        ((always(), 1, "encoder", 1, "output"), ValueError, "site must have a layer left to save"),
        ((always(), 2, "embeddings"), ValueError, "class must be from 0 to 1 (got 2)"),
        ((always(), -1, "embeddings"), ValueError, "class must be from 0 to 1 (got -1)"),
        ((always(31), 1, "embeddings"), ValueError, "weight must have size 32, the hidden size at embeddings (got 31)"),
        ((always(33, feature="flat"), 1, "embeddings"), ValueError, "weight must have size a multiple of 32"),
        ((always(site="encoder.0.output"), 1, "embeddings"), ValueError, "fitted at encoder.0.output must stay"),
        ((always(bound=0.5), 1, "embeddings"), ValueError, "bound must be inside (0, 0.5)"),
        ((3.0, 1, "embeddings"), TypeError, "condition must be callable (got float)"),
    ],
)
def test_rules_that_do_not_fit_are_refused_and_the_model_keeps_its_own(fast, one_line_error, arguments, kind, words):
    fast.add_rule(always(), 1, "encoder", 0, "attention")
    with one_line_error(kind, words):
        fast.add_rule(*arguments)
    assert len(fast.policy.exits) == 1
    assert fast(IDS, MASK).exit_rule.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("answer", "kind", "got"),
    [
        (torch.ones(3, dtype=torch.bool), ValueError, "(got torch.bool, shape (3,))"),
        (torch.ones(2), ValueError, "(got torch.float32, shape (2,))"),
        (np.ones((2, 1), bool), ValueError, "(got torch.bool, shape (2, 1))"),
        (None, TypeError, "(got NoneType)"),
    ],
)
def test_a_callable_must_return_a_bool_mask(fast, one_line_error, answer, kind, got):
    fast.add_rule(lambda _: answer, 1, "embeddings")
    with one_line_error(kind, f"the condition at embeddings must return a bool mask of shape (2,) {got}"):
        fast(IDS, MASK)


def test_sites_are_understood_as_arguments_as_names_and_as_module_paths(tiny_bert):
    for arguments in (
        ("encoder", 0, "attention"),
        ("encoder.0.attention",),
        ("bert.encoder.layer.0.attention",),
    ):
        fast = EarlyExitTextClassificationModel(tiny_bert())
        fast.add_rule(always(), 1, *arguments)
        assert fast(IDS, MASK).exit_site.tolist() == [1, 1]


def test_works_inside_a_pipeline_without_a_word(fast, caplog, word_tokenizer):
    texts = ["good film", "bad bad film", "a film"]
    fast.add_rule(lambda x: torch.arange(len(x)) == 1, 1, "encoder", 0, "attention", bound=0.1)
    transformers_logging.get_logger("transformers").addHandler(caplog.handler)
    classify = pipeline("text-classification", model=fast, tokenizer=word_tokenizer)
    answers = classify(texts, batch_size=3)
    assert answers[1] == {"label": "LABEL_1", "score": pytest.approx(0.9)}
    assert "EarlyExitTextClassificationModel" in repr(classify)
    plain = pipeline("text-classification", model=fast.model, tokenizer=word_tokenizer)(texts, batch_size=3)
    for place in (0, 2):
        assert answers[place] == {**plain[place], "score": pytest.approx(plain[place]["score"], abs=1e-5)}
    assert "not supported" not in caplog.text
    assert "EarlyExitTextClassificationModel" in repr(classify)


def test_two_threads_get_the_answers_they_would_get_alone(tiny_bert):
    fast = EarlyExitTextClassificationModel(tiny_bert(layers=3))
    fast.add_rule(lambda x: x[:, 0] > 0, 1, "encoder", 0, "attention")
    fast.add_rule(always(), 0, "encoder", 1, "attention")
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randint(5, 100, (16, 20), generator=generator) for _ in range(8)]
    alone = [fast(ids) for ids in inputs]
    together = [None] * len(inputs)

    def work(first):
        for i in range(first, len(inputs), 2):
            together[i] = fast(inputs[i])

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(a.exit_site, b.exit_site)
        torch.testing.assert_close(a.logits, b.logits, atol=1e-6, rtol=0)


def test_an_untrained_classifier_is_warned_of(tiny_bert):
    model = tiny_bert()
    torch.nn.init.zeros_(model.classifier.bias)
    with pytest.warns(UserWarning, match="the classifier's bias is exactly zero") as warned:
        EarlyExitTextClassificationModel(model)
    assert warned[0].filename == __file__


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_model_with_rules_can_be_copied(fast, duplicate):
    fast.add_rule(always(), 1, "encoder", 0, "attention")
    fast(IDS, MASK)
    other = duplicate(fast)
    assert other(IDS, MASK).exit_rule.tolist() == [0, 0]
    other.add_rule(always(), 0, "embeddings")
    assert fast(IDS, MASK).exit_rule.tolist() == [0, 0]
    assert other(IDS, MASK).exit_rule.tolist() == [1, 1]


def test_training_mode_does_not_reach_it(tiny_bert):
    fast = EarlyExitTextClassificationModel(tiny_bert(hidden_dropout_prob=0.5)).train()
    assert torch.equal(fast(IDS, MASK).logits, fast(IDS, MASK).logits)
    fast.model.train()
    assert torch.equal(fast(IDS, MASK).logits, fast(IDS, MASK).logits)
    fast.model.bert.embeddings.train()
    assert torch.equal(fast(IDS, MASK).logits, fast(IDS, MASK).logits)


def test_exits_may_be_taken_from_the_policy_between_batches(fast):
    fast.add_rule(always(), 1, "embeddings")
    assert fast(IDS, MASK).exit_site.tolist() == [0, 0]
    fast.policy = fast.policy.without_exits()
    assert fast(IDS, MASK).exit_site.tolist() == [-1, -1]


def test_a_bound_that_the_user_measured_takes_the_place_of_the_conditions_own(fast):
    fast.add_rule(always(bound=0.01), 1, "embeddings", bound=0.25)
    torch.testing.assert_close(fast(IDS, MASK).logits.softmax(1), torch.tensor([[0.25, 0.75]] * 2))


def test_a_feature_that_is_not_the_conditions_own_is_refused(fast, one_line_error):
    with one_line_error(ValueError, "feature must be cls, the condition's own (got mean)"):
        fast.add_rule(always(), 1, "embeddings", feature="mean")


def test_flat_is_not_for_plain_callables(fast, one_line_error):
    with one_line_error(ValueError, "feature must be cls or mean for a plain callable"):
        fast.add_rule(lambda x: x[:, 0] > 0, 1, "embeddings", feature="flat")


def test_a_class_that_is_no_integer_is_refused(fast):
    with pytest.raises(TypeError, match="integer"):
        fast.add_rule(always(), 1.7, "embeddings")


def test_a_callable_does_not_let_a_row_with_nan_leave(tiny_bert):
    model = tiny_bert()
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[13] = float("nan")
    fast = EarlyExitTextClassificationModel(model)
    fast.add_rule(lambda x: torch.ones(len(x), dtype=torch.bool), 1, "encoder", 0, "attention")
    assert fast(IDS, MASK).exit_site.tolist() == [1, -1]


class TestBugsOfTheOriginalClient:
    """Each defect listed for the published client, as a test of its absence."""

    def test_no_rule_does_not_mean_zeros(self, fast):
        assert fast(IDS, MASK).logits.abs().min() > 0

    def test_rules_after_the_output_work_and_the_mask_is_compacted(self, fast):
        fast.add_rule(lambda x: torch.arange(len(x)) == 0, 1, "encoder", 0, "output")
        output = fast(IDS, MASK)
        assert output.exit_site.tolist() == [2, -1]
        torch.testing.assert_close(output.logits[1], fast.model(IDS, MASK).logits[1], atol=1e-5, rtol=0)

    def test_all_rows_may_exit(self, fast):
        fast.add_rule(always(), 1, "embeddings")
        assert fast(IDS, MASK).exit_site.tolist() == [0, 0]

    def test_token_type_ids_count(self, fast):
        segments = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 0]])
        with torch.no_grad():
            expected = fast.model(IDS, MASK, segments).logits
        torch.testing.assert_close(fast(IDS, MASK, segments).logits, expected, atol=1e-5, rtol=0)
        assert not torch.allclose(expected, fast(IDS, MASK).logits)

    def test_a_second_rule_does_not_overwrite_the_first(self, fast):
        fast.add_rule(lambda x: torch.arange(len(x)) == 0, 0, "encoder", 0, "attention")
        fast.add_rule(always(), 1, "encoder", 0, "attention")
        assert fast(IDS, MASK).exit_rule.tolist() == [0, 1]

    def test_an_embedding_rule_survives_an_encoder_rule(self, fast):
        fast.add_rule(lambda x: torch.arange(len(x)) == 0, 0, "embeddings")
        fast.add_rule(always(), 1, "encoder", 0, "attention")
        assert fast(IDS, MASK).exit_site.tolist() == [0, 1]

    def test_rows_that_left_are_not_one_hot(self, fast):
        fast.add_rule(always(bound=0.02), 1, "embeddings")
        torch.testing.assert_close(fast(IDS, MASK).logits.softmax(1), torch.tensor([[0.02, 0.98]] * 2))

    def test_labels_map_through_the_models_own_config(self, fast):
        assert fast.config.id2label == fast.model.config.id2label


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_model_may_move_to_another_device_after_its_rules_were_added(fast):
    fast.add_rule(always(), 1, "encoder", 0, "attention")
    fast.to("cuda")
    assert fast(IDS.cuda(), MASK.cuda()).exit_site.tolist() == [1, 1]
