"""Every model family against Hugging Face's own forward, on small random models."""

from __future__ import annotations

import itertools
import logging

import pytest
import torch
from families import assert_packed_is_right, logits_of
from parity import make_inputs
from transformers import (
    AlbertForSequenceClassification,
    BertForSequenceClassification,
    CamembertForSequenceClassification,
    DebertaForSequenceClassification,
    DebertaV2ForSequenceClassification,
    DistilBertForSequenceClassification,
    ElectraForSequenceClassification,
    MPNetForSequenceClassification,
    RobertaForSequenceClassification,
    XLMRobertaForSequenceClassification,
)

from moco_rt import EarlyExitTextClassificationModel, capture
from moco_rt.architectures import architecture_of

LENGTHS = [17, 1, 33, 40, 2, 64, *range(3, 33)]
#: What is peculiar about a family's configuration, beside its class.
FAMILIES = {
    "bert": (BertForSequenceClassification, {}),
    "roberta": (RobertaForSequenceClassification, {}),
    "xlm-roberta": (XLMRobertaForSequenceClassification, {}),
    "camembert": (CamembertForSequenceClassification, {}),
    "electra": (ElectraForSequenceClassification, {"embedding_size": "hidden_size"}),
    "electra, narrow": (ElectraForSequenceClassification, {"embedding_size": 18}),
    "distilbert": (DistilBertForSequenceClassification, {}),
    "albert": (AlbertForSequenceClassification, {"embedding_size": 18}),
    "albert, two groups of two": (
        AlbertForSequenceClassification,
        {"embedding_size": 18, "num_hidden_groups": 2, "inner_group_num": 2},
    ),
    "mpnet": (MPNetForSequenceClassification, {}),
    "deberta": (DebertaForSequenceClassification, {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    "deberta-v2": (
        DebertaV2ForSequenceClassification,
        {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 16, "share_att_key": True},
    ),
}
ROBERTAS = ("roberta", "xlm-roberta", "camembert")
#: These have positions for their padding too.
WITH_POSITIONS_OF_PADDING = (*ROBERTAS, "mpnet")
WITHOUT_TOKEN_TYPES = ("distilbert", "mpnet")
#: DistilBERT's words for what the others call so.
DISTILBERT_WORDS = {
    "hidden_size": "dim",
    "num_attention_heads": "n_heads",
    "num_hidden_layers": "n_layers",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
}
every_family = pytest.mark.parametrize("family", FAMILIES)
every_config = pytest.mark.parametrize(
    ("labels", "heads", "head_size", "activation"),
    [(1, 3, 8, "gelu"), (2, 1, 36, "gelu_new"), (7, 5, 4, "relu"), (3, 2, 10, "silu")],
    ids=lambda value: str(value),
)


@pytest.fixture
def make_model(tiny_classifier):
    """`make_model(family, heads=2, head_size=16, labels=2, ...)`: a random model of two layers."""

    def make(family, heads=2, head_size=16, labels=2, activation="gelu", dtype=torch.float32, **config):
        model_class, special = FAMILIES[family]
        hidden = heads * head_size
        special = {name: hidden if value == "hidden_size" else value for name, value in special.items()}
        sizes = {
            "hidden_size": hidden,
            "num_attention_heads": heads,
            "num_hidden_layers": 2,
            "intermediate_size": 2 * hidden + 6,
            "hidden_act": activation,
        }
        if family == "distilbert":
            sizes = {DISTILBERT_WORDS[name]: value for name, value in sizes.items()}
        else:
            sizes |= {"layer_norm_eps": 1e-2, "type_vocab_size": 2}  # an eps that would be missed
        positions = 66 if family in WITH_POSITIONS_OF_PADDING else 64  # of 64 tokens
        settings = {**sizes, **special, "max_position_embeddings": positions, **config}
        return tiny_classifier(model_class, dtype=dtype, num_labels=labels, **settings)

    return make


def inputs_for(model, lengths=LENGTHS, **options):
    """Random rows, of pairs where the model has token types."""
    return make_inputs(lengths, pairs=model.config.model_type not in WITHOUT_TOKEN_TYPES, **options)


# The same answers


@every_family
@every_config
def test_packed_logits_are_within_twice_the_error_of_hugging_faces(
    make_model, packed_dtype, family, labels, heads, head_size, activation
):
    model = make_model(family, heads, head_size, labels, activation, packed_dtype)
    assert_packed_is_right(model, inputs_for(model))


@every_family
@every_config
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_reference_logits_are_hugging_faces_to_the_bit(make_model, dtype, family, labels, heads, head_size, activation):
    model = make_model(family, heads, head_size, labels, activation, dtype)
    inputs = inputs_for(model)
    fast = EarlyExitTextClassificationModel(model, backend="reference")
    assert torch.equal(fast(**inputs).logits, logits_of(model, inputs))


@every_family
def test_the_answers_do_not_depend_on_what_a_model_does_not_take(make_model, family):
    """Where there are no token types, what a tokenizer gives of them is ignored; the others notice them."""
    model = make_model(family)
    inputs = make_inputs(LENGTHS, pairs=True)
    single = {name: tensor for name, tensor in inputs.items() if name != "token_type_ids"}
    for backend in ("packed", "reference"):
        fast = EarlyExitTextClassificationModel(model, backend=backend)
        same = torch.equal(fast(**inputs).logits, fast(**single).logits)
        assert same == (family in WITHOUT_TOKEN_TYPES)


@pytest.mark.parametrize("activation", ["gelu_python", "gelu_pytorch_tanh", "gelu_fast"])
def test_activations_of_other_names_are_understood(make_model, activation):
    model = make_model("bert", activation=activation)
    assert_packed_is_right(model, inputs_for(model))


@pytest.mark.parametrize("family", ROBERTAS)
@pytest.mark.parametrize("padding", [1, 0, 7])
def test_positions_skip_a_padding_token_inside_a_row(make_model, family, padding):
    model = make_model(family, pad_token_id=padding, max_position_embeddings=80)
    inputs = inputs_for(model)
    inputs["input_ids"][0, 3:5] = padding
    inputs["input_ids"][3, 0] = padding
    inputs["input_ids"][3, 39] = padding
    assert_packed_is_right(model, inputs)
    fast = EarlyExitTextClassificationModel(model, backend="reference")
    assert torch.equal(fast(**inputs).logits, logits_of(model, inputs))


@every_family
@pytest.mark.parametrize("backend", ["packed", "reference"])
def test_rows_of_max_seqlen_fit_and_longer_ones_are_refused(make_model, one_line_error, family, backend):
    model = make_model(family)
    fast = EarlyExitTextClassificationModel(model, backend=backend)
    of_padding = model.config.pad_token_id + 1 if family in WITH_POSITIONS_OF_PADDING else 0
    assert fast.max_seqlen == model.config.max_position_embeddings - of_padding == 64
    inputs = inputs_for(model, [64, 3])
    torch.testing.assert_close(fast(**inputs).logits, logits_of(model, inputs), atol=1e-5, rtol=0)
    with one_line_error(ValueError, "input_ids must have at most 64 tokens (got 65)"):
        fast(**inputs_for(model, [65]))


# The names of sites


@every_family
def test_a_models_own_module_paths_name_sites(make_model, family):
    model = make_model(family)
    inputs = inputs_for(model)
    paths = architecture_of(model).module_paths
    assert set(paths) <= {name for name, _ in model.named_modules()}
    # Embeddings, and for each of two layers attention and output, and the layer itself, if it is not run twice.
    assert len(paths) == {"albert": 1, "albert, two groups of two": 5}.get(family, 7)
    last = architecture_of(model).num_layers - 1
    for path, site in paths.items():
        if site == f"encoder.{last}.output":
            continue
        for backend in ("packed", "reference"):
            fast = EarlyExitTextClassificationModel(model, backend=backend)
            fast.add_rule(lambda cls: torch.arange(len(cls)) == 2, 1, path)
            expected = [-1] * len(LENGTHS)
            expected[2] = fast.sites.index(site)
            assert fast(**inputs).exit_site.tolist() == expected


@every_family
def test_capture_takes_what_the_modules_return(make_model, word_tokenizer, family):
    model = make_model(family)
    texts = ["good film", ("a bad film", "but good"), "the film was not bad but not good", "a"]
    paths = architecture_of(model).module_paths
    if family == "electra, narrow":  # its embeddings are those that its layers get
        paths = {path: site for path, site in paths.items() if site != "embeddings"}
    frame = capture(model, word_tokenizer, texts, sites=list(paths), features="cls")
    for row, text in enumerate(texts):
        outputs = module_outputs(model, word_tokenizer, text, paths)
        for path in paths:
            captured = torch.tensor(frame[f"{path}.cls"][row])
            torch.testing.assert_close(captured, outputs[path][0, 0], atol=1e-5, rtol=0)
        torch.testing.assert_close(torch.tensor(frame["logits"][row]), outputs["logits"][0], atol=1e-5, rtol=0)


def module_outputs(model, tokenizer, text, paths):
    """What these modules return in Hugging Face's own forward of one text, and the logits."""
    outputs, handles = {}, []
    for path in paths:

        def keep(_module, _inputs, output, path=path):
            outputs[path] = output[0] if isinstance(output, tuple) else output

        handles.append(model.get_submodule(path).register_forward_hook(keep))
    pair = (text,) if isinstance(text, str) else text
    outputs["logits"] = logits_of(model, tokenizer(*pair, return_tensors="pt"))
    for handle in handles:
        handle.remove()
    return outputs


# What the packed encoder does not cover


@pytest.mark.parametrize(
    ("family", "config", "reason"),
    [
        ("bert", {"activation": "mish"}, "activation must be one of gelu, gelu_new, relu, silu, tanh (got mish)"),
        ("distilbert", {"activation": "mish"}, "activation must be one of gelu, gelu_new, relu, silu, tanh (got mish)"),
        *((family, {"dtype": torch.float64}, "(got torch.float64)") for family in ("bert", "roberta", "electra")),
    ],
    ids=itertools.count(),
)
def test_what_is_not_covered_runs_on_the_models_own_modules_and_one_line_says_why(
    make_model, one_line_error, caplog, family, config, reason
):
    model = make_model(family, **config)
    inputs = inputs_for(model)
    with caplog.at_level(logging.WARNING, logger="moco_rt"):
        fast = EarlyExitTextClassificationModel(model)
        output = fast(**inputs)
    assert fast.backend == "reference"
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("backend: reference, because ")
    assert caplog.messages[0].endswith(reason)
    assert "\n" not in caplog.messages[0]
    assert torch.equal(output.logits, logits_of(model, inputs))
    with one_line_error(ValueError, reason):
        EarlyExitTextClassificationModel(model, backend="packed")


@every_family
def test_what_is_covered_runs_packed_without_a_word(make_model, caplog, family):
    assert EarlyExitTextClassificationModel(make_model(family)).backend == "packed"
    assert EarlyExitTextClassificationModel(make_model(family), backend="reference").backend == "reference"
    assert caplog.messages == []
