"""Every model runs on a backend that computes what it computes, or is refused in one line."""

from __future__ import annotations

import contextlib
import copy
import gc
import logging
import pickle
import threading
import weakref
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from altered_models import ALTERED, REWEIGHTED, layer, plus_one, zeros
from parity import make_inputs
from transformers import (
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    MegatronBertConfig,
    MegatronBertForSequenceClassification,
    RemBertConfig,
    RemBertForSequenceClassification,
    RobertaForSequenceClassification,
    RobertaPreLayerNormConfig,
    RobertaPreLayerNormForSequenceClassification,
    XLNetConfig,
    XLNetForSequenceClassification,
)

from moco_rt import BagOfTokens, EarlyExitTextClassificationModel, LinearCondition, accelerate, capture, quantize
from moco_rt.architectures.conversion import int8_copy
from moco_rt.encoding import EncodedTexts

LENGTHS = [9, 1, 17, 33, 4, 60]
INPUTS = make_inputs(LENGTHS, pairs=True)
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
every_backend = pytest.mark.parametrize("backend", ["packed", "reference", "whole"])


def always(hidden=32):
    return LinearCondition(np.ones(hidden, np.float32), 0.0, -1e30, 0.01)


@torch.no_grad()
def logits_of(model, inputs=INPUTS):
    return model.eval()(**inputs).logits


# Models that are not what their class says


@pytest.mark.parametrize("altered", ALTERED)
def test_an_altered_model_gives_its_own_answers(tiny_bert, caplog, altered):
    alter, backend = ALTERED[altered]
    model = tiny_bert()
    alter(model)
    with caplog.at_level(logging.WARNING, logger="moco_rt"):
        fast = EarlyExitTextClassificationModel(model)
    assert fast.backend == backend
    assert len(caplog.messages) == (backend != "packed")
    assert all(message.startswith(f"backend: {backend}, ") and "\n" not in message for message in caplog.messages)
    torch.testing.assert_close(fast(**INPUTS).logits, logits_of(model), atol=1e-4, rtol=0)


@pytest.mark.parametrize("altered", ALTERED)
def test_a_backend_that_would_answer_otherwise_is_refused_by_name(tiny_bert, altered):
    alter, best = ALTERED[altered]
    model = tiny_bert()
    alter(model)
    order = ["packed", "reference", "whole"]
    for backend in order:
        if order.index(backend) >= order.index(best):
            fast = EarlyExitTextClassificationModel(model, backend=backend)
            torch.testing.assert_close(fast(**INPUTS).logits, logits_of(model), atol=1e-4, rtol=0)
        else:
            with pytest.raises(ValueError, match=r" must .*\(got .*\)$"):
                EarlyExitTextClassificationModel(model, backend=backend)


def test_a_subclass_is_run_by_its_own_forward(tiny_bert, caplog):
    class Mine(BertForSequenceClassification):
        def forward(self, **inputs):
            output = super().forward(**inputs)
            output.logits = -output.logits
            return output

    model = tiny_bert()
    model.__class__ = Mine
    fast = EarlyExitTextClassificationModel(model)
    assert fast.backend == "whole"
    assert "(got Mine)" in caplog.text
    torch.testing.assert_close(fast(**INPUTS).logits, logits_of(model))
    Mine.__name__ = Mine.__qualname__ = "BertForSequenceClassification"
    fast = EarlyExitTextClassificationModel(model)
    assert fast.backend == "whole"
    assert "transformers' own BertForSequenceClassification (got a class of that name from " in caplog.text


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (lambda m: setattr(m.bert, "pooler", None), "the model's own forward must answer (got "),
        (lambda m: setattr(m, "classifier", torch.nn.Bilinear(32, 32, 2)), "Bilinear.forward() missing"),
        (lambda m: setattr(m.bert, "pooler", torch.nn.Identity()), "logits must have shape [6, 2] (got [6, "),
        (lambda m: setattr(m, "classifier", torch.nn.Identity()), "logits must have shape [6, 2] (got [6, "),
    ],
    ids=["no pooler", "a head of two inputs", "a pooler that pools nothing", "no head"],
)
def test_a_model_that_cannot_answer_says_so_in_one_line(tiny_bert, alter, words):
    model = tiny_bert()
    alter(model)
    fast = EarlyExitTextClassificationModel(model)
    with pytest.raises((TypeError, ValueError)) as caught:
        fast(**INPUTS)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="the model's own forward must"):
        EarlyExitTextClassificationModel(model, backend="whole")(**INPUTS)


# Changes since


#: Attributes of modules, which nobody looks at again.
UNNOTICED = ("an epsilon", "the heads", "a table that renormalises")


@pytest.mark.parametrize("altered", [name for name in ALTERED if name not in UNNOTICED])
def test_what_is_altered_later_is_honoured_at_the_next_call(tiny_bert, caplog, altered):
    alter, backend = ALTERED[altered]
    fast = EarlyExitTextClassificationModel(tiny_bert())
    before = fast(**INPUTS).logits
    alter(fast.model)
    torch.testing.assert_close(fast(**INPUTS).logits, logits_of(fast.model), atol=1e-4, rtol=0)
    assert fast.backend == backend
    said = [message.split(",")[0] for message in caplog.messages]
    assert said == ([] if backend == "packed" else [f"backend: {backend}"])
    if ("hook" in altered or "forward" in altered) and "encoder" not in altered:
        assert not torch.allclose(fast(**INPUTS).logits, before, atol=1e-3)


@pytest.mark.parametrize("backend", ["packed", "reference"])
@pytest.mark.parametrize("change", REWEIGHTED.values(), ids=REWEIGHTED.keys())
def test_weights_that_are_changed_later_answer_from_the_next_call_on(tiny_bert, backend, change):
    fast = EarlyExitTextClassificationModel(tiny_bert(), backend=backend)
    before = fast(**INPUTS).logits
    change(fast.model)
    found = fast(**INPUTS).logits
    torch.testing.assert_close(found, logits_of(fast.model), atol=1e-4, rtol=0)
    assert fast.backend == backend
    assert not torch.allclose(found, before, atol=1e-3)


def test_layers_that_are_cut_off_later_are_not_run(tiny_bert):
    fast = EarlyExitTextClassificationModel(tiny_bert(3))
    fast.model.bert.encoder.layer = fast.model.bert.encoder.layer[:1]
    torch.testing.assert_close(fast(**INPUTS).logits, logits_of(fast.model), atol=1e-4, rtol=0)


def test_a_part_below_those_that_reference_calls_is_replaced_in_evaluation_mode(tiny_bert):
    fast = EarlyExitTextClassificationModel(tiny_bert(), backend="reference")
    before = fast(**INPUTS).logits
    layer(fast.model).output.dropout = torch.nn.Dropout(0.5)
    assert torch.equal(fast(**INPUTS).logits, before)


def test_a_part_that_is_put_back_leaves_the_fast_way(tiny_bert):
    fast = EarlyExitTextClassificationModel(tiny_bert())
    before, part = fast(**INPUTS).logits, layer(fast.model).intermediate
    own, part.intermediate_act_fn = part.intermediate_act_fn, torch.nn.Tanh()
    fast(**INPUTS)
    assert fast.backend == "reference"
    part.intermediate_act_fn = own
    assert torch.equal(fast(**INPUTS).logits, before)
    assert fast.backend == "packed"


@pytest.mark.parametrize("backend", ["packed", "reference"])
def test_saving_the_model_changes_no_backend(tiny_bert, tmp_path, backend):
    fast = EarlyExitTextClassificationModel(tiny_bert(), backend=backend)
    chosen = fast._backend
    fast.model.save_pretrained(tmp_path)
    fast(**INPUTS)
    assert fast._backend is chosen


@pytest.mark.parametrize("backend", ["packed", "reference"])
def test_a_model_that_holds_itself_is_freed(tiny_bert, backend):
    model = tiny_bert()
    fast = EarlyExitTextClassificationModel(model, backend=backend)
    model.bert.owner = [fast]
    fast(**INPUTS)
    gone = weakref.ref(model)
    del model, fast
    gc.collect()
    gc.collect()
    assert gone() is None


def test_weights_that_were_made_in_inference_mode_are_taken(tiny_bert):
    with torch.inference_mode():
        model = copy.deepcopy(tiny_bert())
    fast = EarlyExitTextClassificationModel(model)
    torch.testing.assert_close(fast(**INPUTS).logits, logits_of(tiny_bert()), atol=1e-4, rtol=0)


def test_threads_that_call_while_the_model_moves_leave_it_as_it_is(tiny_bert):
    fast = EarlyExitTextClassificationModel(tiny_bert())
    going = threading.Event()
    going.set()

    def call():
        while going.is_set():
            with contextlib.suppress(ValueError, RuntimeError):  # weights of two dtypes
                fast(**INPUTS)

    callers = [threading.Thread(target=call) for _ in range(2)]
    for caller in callers:
        caller.start()
    for _ in range(20):
        fast.to(torch.bfloat16).to(torch.float32)
    going.clear()
    for caller in callers:
        caller.join()
    assert fast.backend == "packed"
    torch.testing.assert_close(fast(**INPUTS).logits, logits_of(fast.model), atol=1e-4, rtol=0)


def test_a_hook_that_is_gone_again_leaves_the_fast_way(tiny_bert):
    fast = EarlyExitTextClassificationModel(tiny_bert())
    before = fast(**INPUTS).logits
    handle = fast.model.register_forward_hook(lambda *_: None)
    fast(**INPUTS)
    handle.remove()
    fast.float()
    fast._choose_backend()
    assert fast.backend == "packed"
    assert torch.equal(fast(**INPUTS).logits, before)


@pytest.mark.parametrize(
    ("part", "meanwhile"), [("", "whole"), ("bert.encoder.layer.0", "whole"), ("classifier", "reference")]
)
def test_where_a_hook_is_gone_again_exits_and_kernels_come_back(tiny_bert, part, meanwhile):
    fast = EarlyExitTextClassificationModel(tiny_bert())
    fast.add_rule(lambda features: features[:, 0] < torch.inf, 1, "encoder.0.output")
    before = fast(**INPUTS)
    assert (before.exit_site >= 0).all()
    for _ in range(2):
        handle = fast.model.get_submodule(part).register_forward_hook(lambda *_: None)
        for _ in range(2):
            fast(**INPUTS)
            assert fast.backend == meanwhile
        handle.remove()
        after = fast(**INPUTS)
        assert fast.backend == "packed"
        assert torch.equal(after.logits, before.logits)
        assert torch.equal(after.exit_site, before.exit_site)


def test_a_model_that_began_whole_or_was_asked_to_run_so_stays_whole(tiny_bert):
    model = tiny_bert()
    handle = model.register_forward_hook(lambda *_: None)
    began, asked_for = EarlyExitTextClassificationModel(model), EarlyExitTextClassificationModel(model, backend="whole")
    reason = began._backend.reason
    handle.remove()
    for fast in (began, asked_for):
        fast(**INPUTS)
        assert fast.backend == "whole"
    assert began._backend.reason == reason


def test_a_setting_that_was_changed_is_honoured_from_the_next_call_on(tiny_bert):
    fast = EarlyExitTextClassificationModel(tiny_bert())
    fast(**INPUTS)
    fast.model.config.num_attention_heads = 4  # which its modules do not say
    fast(**INPUTS)
    assert fast.backend != "packed"


@pytest.mark.parametrize("own", [torch.ones(2), np.ones(2), np.float32(1), {1, 2}])
def test_what_the_caller_keeps_in_the_configuration_may_be_no_json(tiny_bert, tmp_path, one_line_error, own):
    model = tiny_bert()
    expected = EarlyExitTextClassificationModel(model)(**INPUTS).logits
    model.config.class_weights = own
    fast = EarlyExitTextClassificationModel(model)
    for value in (own, copy.deepcopy(own), None, own):
        model.config.class_weights = value
        for _ in range(2):
            assert torch.equal(fast(**INPUTS).logits, expected)
            assert fast.backend == "packed"
    with one_line_error(ValueError, "what is saved must be loaded as the same model, but model.config must hold what"):
        fast.save_pretrained(tmp_path)


@pytest.mark.parametrize("backend", ["packed", "reference"])
def test_a_hook_that_the_backend_asked_for_cannot_honour_is_refused(tiny_bert, one_line_error, backend):
    fast = EarlyExitTextClassificationModel(tiny_bert(), backend=backend)
    layer(fast.model).register_forward_hook(zeros)
    with one_line_error(ValueError, "bert.encoder.layer.0 must have no hooks (got some)"):
        fast(**INPUTS)


def test_hooks_on_parts_that_reference_calls_are_honoured_there(tiny_bert):
    fast = EarlyExitTextClassificationModel(tiny_bert(), backend="reference")
    fast.model.classifier.register_forward_hook(plus_one)
    assert torch.equal(fast(**INPUTS).logits, logits_of(fast.model))
    assert fast.backend == "reference"


def test_an_attribute_that_changes_nothing_keeps_the_backend(tiny_bert):
    fast = EarlyExitTextClassificationModel(tiny_bert())
    backend = fast._backend
    fast.model.note = "mine"
    fast(**INPUTS)
    assert fast._backend is backend


# Families that are not covered


FAMILIES = {
    "megatron": lambda: MegatronBertForSequenceClassification(MegatronBertConfig(**SMALL, vocab_size=100)),
    "roberta-prelayernorm": lambda: RobertaPreLayerNormForSequenceClassification(
        RobertaPreLayerNormConfig(**SMALL, vocab_size=100, max_position_embeddings=66)
    ),
    "rembert": lambda: RemBertForSequenceClassification(
        RemBertConfig(**SMALL, vocab_size=100, input_embedding_size=16)
    ),
    "gpt2": lambda: GPT2ForSequenceClassification(
        GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=100, n_positions=64, pad_token_id=99)
    ),
    "gpt2 without padding": lambda: GPT2ForSequenceClassification(
        GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=100, n_positions=64, pad_token_id=None)
    ),
    "xlnet": lambda: XLNetForSequenceClassification(
        XLNetConfig(d_model=32, n_layer=2, n_head=2, d_inner=64, vocab_size=100, pad_token_id=5)
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_that_is_not_covered_answers_each_row_as_it_would_alone(family, caplog):
    torch.manual_seed(0)
    model = FAMILIES[family]().eval()
    fast = EarlyExitTextClassificationModel(model)
    assert (fast.backend, fast.sites) == ("whole", ())
    (said,) = [record.getMessage() for record in caplog.records if record.name.startswith("moco_rt")]
    assert said.startswith("backend: whole, without exits, because model must be one of Albert")
    inputs = make_inputs(LENGTHS)
    together = fast(**inputs)
    assert together.exit_site.tolist() == [-1] * len(LENGTHS)
    for row, length in enumerate(LENGTHS):
        alone = logits_of(model, {name: tensor[row : row + 1, :length] for name, tensor in inputs.items()})
        torch.testing.assert_close(together.logits[row : row + 1], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("family", "longest"), [("megatron", 512), ("roberta-prelayernorm", 64), ("gpt2", 64)])
def test_rows_that_are_too_long_are_refused_whatever_the_family(one_line_error, family, longest):
    fast = EarlyExitTextClassificationModel(FAMILIES[family]())
    assert fast.max_seqlen == longest
    fast(**make_inputs([longest]))
    with one_line_error(ValueError, f"input_ids must have at most {longest} tokens (got {longest + 1})"):
        fast(**make_inputs([longest + 1]))


def test_a_decoder_of_a_covered_family_runs_whole(tiny_bert, caplog):
    model = tiny_bert(is_decoder=True)
    fast = EarlyExitTextClassificationModel(model)
    assert fast.backend == "whole"
    assert "model must be an encoder (got config.is_decoder=True)" in caplog.text
    torch.testing.assert_close(fast(**INPUTS).logits, logits_of(model))


def test_exits_on_a_model_that_runs_whole_are_refused_in_one_line(tiny_bert, word_tokenizer, one_line_error, tmp_path):
    texts = ["a good film", "a bad film"] * 200
    saved = EarlyExitTextClassificationModel(tiny_bert())
    saved.add_rule(always(), 1, "embeddings")
    saved.save_pretrained(tmp_path)
    model = tiny_bert()
    model.register_forward_hook(lambda *_: None)
    fast = EarlyExitTextClassificationModel(model)
    words = "exits need the backend packed or reference (got whole, because model must have no hooks (got some))"
    for attempt in (
        lambda: fast.add_rule(always(), 1, "embeddings"),
        lambda: fast.load_policy(tmp_path),
        lambda: accelerate(model, texts, tokenizer=word_tokenizer),
    ):
        with one_line_error(ValueError, words):
            attempt()
    with one_line_error(ValueError, "model must have no hooks (got some)"):
        capture(model, word_tokenizer, texts, sites="embeddings")
    megatron = FAMILIES["megatron"]()
    for attempt in (
        lambda: accelerate(megatron, texts, tokenizer=word_tokenizer),
        lambda: quantize(megatron, texts, tokenizer=word_tokenizer),
        lambda: capture(megatron, word_tokenizer, texts, sites="embeddings"),
    ):
        with one_line_error(ValueError, "MegatronBertForSequenceClassification)"):
            attempt()


def test_a_model_that_runs_whole_can_be_saved_copied_and_used(tmp_path, word_tokenizer):
    model = FAMILIES["megatron"]()
    fast = EarlyExitTextClassificationModel(model)
    expected = fast.predict(["a good film", "bad"], tokenizer=word_tokenizer)
    fast.save_pretrained(tmp_path)
    for same in (
        copy.deepcopy(fast),
        pickle.loads(pickle.dumps(fast)),
        EarlyExitTextClassificationModel.from_pretrained(tmp_path),
        fast.float(),
    ):
        assert same.backend == "whole"
        assert torch.equal(same.predict(["a good film", "bad"], tokenizer=word_tokenizer).probs, expected.probs)


def test_a_roberta_needs_the_id_of_padding(tiny_classifier, one_line_error):
    model = tiny_classifier(RobertaForSequenceClassification, **SMALL)
    model.config.pad_token_id = None
    with one_line_error(ValueError, "config.pad_token_id must be a number: positions are counted from it (got None)"):
        EarlyExitTextClassificationModel(model, backend="packed")


@every_backend
def test_a_bert_needs_no_id_of_padding(tiny_bert, backend):
    model = tiny_bert(pad_token_id=None)
    fast = EarlyExitTextClassificationModel(model, backend=backend)
    torch.testing.assert_close(fast(**INPUTS).logits, logits_of(model), atol=1e-4, rtol=0)


# What the caller has set


@every_backend
def test_what_the_caller_has_set_does_not_change_the_answers(tiny_bert, backend):
    fast = EarlyExitTextClassificationModel(tiny_bert(hidden_dropout_prob=0.5), backend=backend)
    if backend != "whole":
        fast.add_off_ramp(BagOfTokens(np.eye(4, 2), np.zeros(2), [0.6, 1.0], [0.1, 0.1]), "tokens")
        fast.add_rule(always(), 1, "encoder", 1, "attention")
    expected = fast(**INPUTS).logits

    def same():
        fresh = copy.deepcopy(fast)
        return torch.equal(fast(**INPUTS).logits, expected) and torch.equal(fresh(**INPUTS).logits, expected)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert same()
    with torch.inference_mode():
        assert same()
    with torch.enable_grad():
        assert same()
        assert not fast(**INPUTS).logits.requires_grad
    for dtype in (torch.float64, torch.bfloat16):
        torch.set_default_dtype(dtype)
        try:
            assert same()
        finally:
            torch.set_default_dtype(torch.float32)
    fast.model.train()
    assert same()


def test_threads_go_on_while_a_monitor_closes_exits(tiny_bert):
    for seed in range(5):
        fast = EarlyExitTextClassificationModel(tiny_bert(layers=3, seed=seed))
        for place, site in enumerate(fast.sites[:4]):
            fast.add_rule(lambda x, place=place: x[:, place] > 0.2, place % 2, site, bound=0.01)
        fast.monitor(rate=1.0, delta=1e-12)  # which closes nothing
        failed = []

        def work(fast=fast, failed=failed):
            try:
                for _ in range(6):
                    fast(**INPUTS)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert (fast(**INPUTS).exit_rule[:, None] != torch.tensor([*fast.policy.closed, -2])).all()


@pytest.mark.parametrize("which", ["the wrapper", "the model"])
def test_int8_weights_that_move_to_shared_memory_are_found_again(tiny_bert, which):
    """Pickling for another process moves the weights of the sender; the kernels keep pointers to them."""
    fast = EarlyExitTextClassificationModel(int8_copy(tiny_bert(2, 64, 4)))
    expected = fast(**INPUTS).logits
    before = [buffer.data_ptr() for buffer in fast.buffers()]
    ForkingPickler.dumps(fast if which == "the wrapper" else fast.model)
    assert [buffer.data_ptr() for buffer in fast.buffers()] != before
    backend = fast._backend
    assert torch.equal(fast(**INPUTS).logits, expected)
    assert fast._backend is not backend
    fast.share_memory()
    assert torch.equal(fast(**INPUTS).logits, expected)


# Rows end to end


@every_backend
@pytest.mark.parametrize("pairs", [False, True])
def test_rows_end_to_end_are_answered_as_padded_ones(tiny_bert, backend, pairs):
    inputs = make_inputs(LENGTHS, pairs=pairs)
    names = [name for name in ("input_ids", "token_type_ids") if name in inputs]
    rows = EncodedTexts.of(
        [{name: inputs[name][row, :length].tolist() for name in names} for row, length in enumerate(LENGTHS)]
    )
    fast = EarlyExitTextClassificationModel(tiny_bert(), backend=backend)
    if backend != "whole":
        fast.add_rule(LinearCondition(np.ones(32, np.float32), 0.0, 0.0, 0.01), 0, "encoder.0.output")
        fast.monitor(rate=1.0, delta=1e-12)  # which closes nothing
    expected, found = fast(**inputs), fast.forward_packed(rows)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=0 if backend == "packed" else 1e-6)
    assert torch.equal(found.exit_site, expected.exit_site)
    assert torch.equal(found.exit_rule, expected.exit_rule)
    if backend != "whole":
        left = int((found.exit_rule >= 0).sum())
        assert 0 < left < len(LENGTHS)
        assert fast._monitor.processes[0].rows == 2 * left


@pytest.mark.parametrize(("backend", "words"), [("packed", "at least 1 in every row"), ("reference", "a real token")])
def test_a_row_without_a_token_is_refused(tiny_bert, one_line_error, backend, words):
    fast = EarlyExitTextClassificationModel(tiny_bert(), backend=backend)
    with one_line_error(ValueError, words):
        fast.forward_packed(EncodedTexts.of([{"input_ids": [5]}, {"input_ids": []}]))
