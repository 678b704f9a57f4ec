from __future__ import annotations

import importlib
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    MegatronBertConfig,
    MegatronBertForSequenceClassification,
    PreTrainedTokenizerFast,
)

from moco_rt.analysis.capture import capture
from moco_rt.analysis.columns import Column, PackedColumn
from moco_rt.analysis.frame import MLFrame
from moco_rt.architectures.families.bert_like import BertLike
from moco_rt.architectures.sites import all_sites

pytestmark = pytest.mark.usefixtures("one_thread")

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [f"w{i}" for i in range(30)]
LAYERS, HIDDEN, LONGEST = 2, 16, 24
SITES = all_sites(LAYERS)
PATHS = {
    "embeddings": "bert.embeddings",
    "encoder.0.attention": "bert.encoder.layer.0.attention",
    "encoder.0.output": "bert.encoder.layer.0.output",
    "encoder.1.output": "bert.encoder.layer.1",
}


def config(**changes):
    return BertConfig(
        **{
            "vocab_size": len(SPECIAL) + len(WORDS),
            "hidden_size": HIDDEN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_position_embeddings": LONGEST,
            **changes,
        }
    )


def classifier(**changes):
    """A random classifier in evaluation mode; its biases are random too, so that its head does not look untrained."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(config(**changes)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture(scope="module")
def tokenizer():
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    words = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = WhitespaceSplit()
    words.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Rows enough for several chunks of several batches are few."""
    module = importlib.import_module(
        "moco_rt.analysis.capture"
    )  # the attribute `capture` of the package is the function
    monkeypatch.setattr(module, "_CHUNK_ROWS", 7)
    monkeypatch.setattr(module, "_BATCH_ROWS", 3)


def sentence(rng, longest=12):
    return " ".join(rng.choice(WORDS, rng.integers(0, longest + 1)))


def sentences(rows=17, seed=0):
    rng = np.random.default_rng(seed)
    return [sentence(rng) for _ in range(rows)]


def alone(model, tokenizer, text, **options):
    """What the plain model computes of one row: site -> (S, D) for every site, and `logits` -> (C,)."""
    texts = ([text],) if isinstance(text, str) else ([text[0]], [text[1]])
    inputs = tokenizer(*texts, return_tensors="pt", **options)
    taken = {}

    def take(site):
        return lambda _module, _inputs, output: taken.update({site: output[0]})

    with torch.no_grad(), ExitStack() as hooks:
        for i, layer in enumerate(model.bert.encoder.layer):
            hooks.callback(layer.attention.register_forward_hook(take(f"encoder.{i}.attention")).remove)
        output = model(**inputs, output_hidden_states=True)
    taken["embeddings"] = output.hidden_states[0]
    taken |= {f"encoder.{i}.output": hidden for i, hidden in enumerate(output.hidden_states[1:])}
    return {site: hidden[0].numpy() for site, hidden in taken.items()} | {"logits": output.logits[0].numpy()}


def by_hand(hidden, feature):
    return {"cls": hidden[0], "mean": hidden.mean(axis=0), "tokens": hidden}[feature]


def assert_rows_equal_the_plain_model(frame, model, tokenizer, texts, **options):
    """Every column of the frame: each row as the plain model computes it of the row alone."""
    assert len(frame) == len(texts)
    expected = [alone(model, tokenizer, text, **options) for text in texts]
    for name in frame.columns:
        if name in ("logits", "predictions", "row_id"):
            continue
        column = frame[name]
        for i, row in enumerate(expected):
            got = column.row(i) if isinstance(column, PackedColumn) else column[i]
            np.testing.assert_allclose(got, by_hand(row[column.site], column.feature), atol=1e-5)
    logits = np.stack([row["logits"] for row in expected])
    np.testing.assert_allclose(frame["logits"], logits, atol=1e-5)
    np.testing.assert_array_equal(frame["predictions"], logits.argmax(axis=1))


# Columns


@pytest.mark.parametrize(
    ("features", "endings"),
    [
        (("cls",), [".cls"]),
        ("mean", [".mean"]),
        (("cls", "mean", "tokens"), [".cls", ".mean", ".tokens"]),
        (("tokens",), [""]),
        ("tokens", [""]),
    ],
)
@pytest.mark.parametrize("names", [("embeddings", "encoder.0.attention"), (PATHS["embeddings"], PATHS[SITES[1]])])
def test_columns_are_named_as_the_sites_were_asked_for(model, tokenizer, names, features, endings):
    frame = capture(model, tokenizer, ["w1 w2", "w3"], sites=names, features=features)
    kinds = [features] if isinstance(features, str) else features
    assert frame.columns == [
        *(name + ending for name in names for ending in endings),
        "logits",
        "predictions",
        "row_id",
    ]
    for name, site in zip(names, SITES, strict=False):
        for ending, feature in zip(endings, kinds, strict=True):
            column = frame[name + ending]
            assert type(column) is (PackedColumn if feature == "tokens" else Column)
            assert (column.site, column.feature) == (site, feature)
            values = column.values if isinstance(column, PackedColumn) else column
            assert values.dtype == np.float32
            assert values.shape == ((7, HIDDEN) if feature == "tokens" else (2, HIDDEN))


@pytest.mark.parametrize(("site", "path"), PATHS.items())
def test_module_paths_are_names_of_sites(model, tokenizer, site, path):
    frame = capture(model, tokenizer, sentences(5), sites=[site, path])
    np.testing.assert_array_equal(frame[f"{site}.cls"], frame[f"{path}.cls"])
    assert frame[f"{path}.cls"].site == site


def test_one_site_needs_no_list(model, tokenizer):
    frame = capture(model, tokenizer, ["w1"], sites="encoder.0.output")
    assert frame.columns == ["encoder.0.output.cls", "logits", "predictions", "row_id"]


def test_captured_predictions_are_whole_numbers(model, tokenizer):
    frame = capture(model, tokenizer, ["w1", "w2"], sites="embeddings")
    assert frame["predictions"].dtype == np.int64
    assert frame["logits"].shape == (2, 2)


def test_rows_of_the_same_tokens_share_their_id_whatever_their_batch(model, tokenizer):
    texts = [*sentences(80), "w1 w2", ("w1", "w2"), *sentences(80)[::-1]]
    ids = capture(model, tokenizer, texts, sites="embeddings")["row_id"]
    assert ids.dtype == np.int64
    assert (
        ids[:80].tolist() == ids[:-81:-1].tolist() == capture(model, tokenizer, texts[:80], sites=[])["row_id"].tolist()
    )
    assert ids[80] != ids[81]
    assert len(np.unique(ids[:80])) > 70


# Values


@pytest.mark.parametrize("site", SITES)
def test_values_are_those_of_each_row_run_alone(model, tokenizer, site):
    texts = sentences()
    frame = capture(model, tokenizer, texts, sites=site, features=("cls", "mean", "tokens"))
    assert_rows_equal_the_plain_model(frame, model, tokenizer, texts)


def test_all_sites_at_once_are_the_same_as_each_alone(model, tokenizer):
    texts = sentences(9)
    together = capture(model, tokenizer, texts, sites=SITES)
    for site in SITES:
        each = capture(model, tokenizer, texts, sites=site)
        np.testing.assert_array_equal(together[f"{site}.cls"], each[f"{site}.cls"])


@pytest.mark.parametrize("rows", [1, 6, 7, 8, 14, 30])
def test_rows_come_in_the_order_of_the_texts_whatever_the_chunks(model, tokenizer, rows):
    texts = sentences(rows, seed=rows)
    frame = capture(model, tokenizer, texts, sites="encoder.0.output", features="tokens")
    assert frame["encoder.0.output"].lengths.tolist() == [len(text.split()) + 2 for text in texts]
    assert_rows_equal_the_plain_model(frame, model, tokenizer, texts)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_several_classes_have_their_logits(tokenizer, classes):
    model, texts = classifier(num_labels=classes), sentences()
    frame = capture(model, tokenizer, texts, sites="embeddings")
    assert frame["logits"].shape == (17, classes)
    assert_rows_equal_the_plain_model(frame, model, tokenizer, texts)


def test_half_precision_models_give_float32_columns(tokenizer):
    model, texts = classifier().bfloat16(), sentences(3)
    frame = capture(model, tokenizer, texts, sites="encoder.0.output", features=("cls", "mean", "tokens"))
    assert frame["logits"].dtype == np.float32
    assert frame["encoder.0.output.cls"].dtype == frame["encoder.0.output.mean"].dtype == np.float32
    assert frame["encoder.0.output.tokens"].values.dtype == np.float32


# Texts


@pytest.mark.parametrize("kind", [tuple, list])
def test_pairs_are_read_with_their_segments(model, tokenizer, kind):
    rng = np.random.default_rng(1)
    pairs = [kind((sentence(rng), sentence(rng, 8))) for _ in range(10)]
    frame = capture(model, tokenizer, pairs, sites=SITES, features=("cls", "tokens"))
    assert_rows_equal_the_plain_model(frame, model, tokenizer, pairs)
    # The segments do matter: without them this model answers otherwise.
    with torch.no_grad():
        inputs = tokenizer(*pairs[0], return_tensors="pt")
        inputs["token_type_ids"].zero_()
        assert not np.allclose(model(**inputs).logits[0].numpy(), frame["logits"][0], atol=1e-3)


def test_texts_and_pairs_may_be_mixed(model, tokenizer):
    texts = ["w1", ("w2 w3", "w4"), "", ["w5", "w6 w7 w8"]]
    frame = capture(model, tokenizer, texts, sites="encoder.0.output")
    assert_rows_equal_the_plain_model(frame, model, tokenizer, texts)


TEXTS = sentences(10, seed=2)


@pytest.mark.parametrize(
    "texts",
    [
        tuple(TEXTS),
        np.array(TEXTS),
        Dataset.from_dict({"text": TEXTS})["text"],
        MLFrame({"text": TEXTS})["text"],
        dict(enumerate(TEXTS)).values(),
    ],
    ids=["tuple", "array", "dataset", "frame", "view"],
)
def test_texts_of_any_collection_are_taken(model, tokenizer, texts):
    frame = capture(model, tokenizer, texts, sites="encoder.0.output")
    assert_rows_equal_the_plain_model(frame, model, tokenizer, TEXTS)


def test_texts_may_come_from_a_generator(model, tokenizer):
    frame = capture(model, tokenizer, (text for text in TEXTS), sites="encoder.0.output")
    assert_rows_equal_the_plain_model(frame, model, tokenizer, TEXTS)


def test_generators_are_read_chunk_by_chunk(model, tokenizer, monkeypatch):
    given, waiting = [], []
    embed = BertLike.embed

    def spy(*args, **kwargs):
        waiting.append(len(given))
        return embed(*args, **kwargs)

    monkeypatch.setattr(BertLike, "embed", spy)
    capture(model, tokenizer, (given.append(text) or text for text in TEXTS), sites="embeddings")
    assert sorted(set(waiting)) == [7, 10]


@pytest.mark.parametrize("max_length", [3, 6, LONGEST])
def test_texts_are_truncated_to_max_length(model, tokenizer, max_length):
    texts = [*sentences(8), ("w1 w2 w3 w4", "w5 w6 w7")]
    frame = capture(model, tokenizer, texts, sites="embeddings", features="tokens", max_length=max_length)
    lengths = frame["embeddings"].lengths
    assert lengths.max() <= max_length
    assert (max_length == LONGEST) or lengths.max() == max_length
    assert_rows_equal_the_plain_model(frame, model, tokenizer, texts, truncation=True, max_length=max_length)


@pytest.mark.parametrize("max_length", [None, 1000])
def test_texts_are_truncated_to_what_the_model_allows(model, tokenizer, max_length):
    texts = ["w1 " * 100, "w2"]
    frame = capture(model, tokenizer, texts, sites="embeddings", features="tokens", max_length=max_length)
    assert frame["embeddings"].lengths.tolist() == [LONGEST, 3]
    assert_rows_equal_the_plain_model(frame, model, tokenizer, texts, truncation=True, max_length=LONGEST)


def test_texts_are_truncated_to_what_the_tokenizer_allows(model, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "model_max_length", 5)
    frame = capture(model, tokenizer, ["w1 " * 100], sites="embeddings", features="tokens")
    assert frame["embeddings"].lengths.tolist() == [5]


def test_texts_are_truncated_at_the_side_of_the_tokenizer(model, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "truncation_side", "left")
    texts = ["w1 w2 w3 w4 w5", "w6 w7"]
    frame = capture(model, tokenizer, texts, sites="embeddings", features="tokens", max_length=5)
    assert_rows_equal_the_plain_model(frame, model, tokenizer, ["w3 w4 w5", "w6 w7"])


def test_padding_side_of_the_tokenizer_does_not_matter(model, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "padding_side", "left")
    frame = capture(model, tokenizer, TEXTS, sites="encoder.0.output")
    assert_rows_equal_the_plain_model(frame, model, tokenizer, TEXTS)


# Where the frame is


def test_out_is_a_frame_that_loads(model, tokenizer, tmp_path):
    out = tmp_path / "new" / "frame"
    frame = capture(model, tokenizer, TEXTS, sites=SITES[:2], features=("cls", "tokens"), out=out)
    loaded = MLFrame.load_frame(out)
    assert loaded.columns == frame.columns
    assert_rows_equal_the_plain_model(loaded, model, tokenizer, TEXTS)
    assert [entry.name for entry in out.parent.iterdir()] == ["frame"]


def test_out_may_be_a_string(model, tokenizer, tmp_path):
    capture(model, tokenizer, ["w1"], sites="embeddings", out=str(tmp_path / "frame"))
    assert len(MLFrame.load_frame(tmp_path / "frame")) == 1


def test_out_that_exists_is_refused_before_a_text_is_read(model, tokenizer, tmp_path):
    texts = iter(TEXTS)
    with pytest.raises(FileExistsError, match="must not exist yet"):
        capture(model, tokenizer, texts, sites="embeddings", out=tmp_path)
    assert len(list(texts)) == len(TEXTS)
    assert list(tmp_path.iterdir()) == []


def test_frame_without_out_leaves_no_file_and_stays_readable(model, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    frame = capture(model, tokenizer, TEXTS, sites="encoder.0.output", features=("cls", "tokens"))
    assert list(tmp_path.iterdir()) == []
    assert_rows_equal_the_plain_model(frame, model, tokenizer, TEXTS)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_interrupted_capture_leaves_no_frame(model, tokenizer, tmp_path, error):
    def texts():
        yield from TEXTS
        raise error

    with pytest.raises(error):
        capture(model, tokenizer, texts(), sites="embeddings", features=("cls", "tokens"), out=tmp_path / "frame")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="an interrupted capture leaves none"):
        MLFrame.load_frame(tmp_path / "frame")


# What is refused


def test_one_string_is_refused(model, tokenizer):
    message = r"^texts must be a sequence of texts \(got one str\)$"
    with pytest.raises(TypeError, match=message):
        capture(model, tokenizer, "w1 w2", sites="embeddings")


@pytest.mark.parametrize("kind", [list, iter])
def test_no_texts_are_refused(model, tokenizer, tmp_path, kind):
    with pytest.raises(ValueError, match=r"^texts must hold at least one text \(got none\)$"):
        capture(model, tokenizer, kind([]), sites="embeddings", out=tmp_path / "frame")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (None, "NoneType"),
        (3, "int"),
        (b"w1", "bytes"),
        (("a", "b", "c"), "tuple"),
        (("a", None), "NoneType as the second text"),
        (set(), "set"),
    ],
)
@pytest.mark.parametrize("place", [0, 5, 9])
def test_what_is_not_a_text_is_refused_with_its_place(model, tokenizer, tmp_path, text, kind, place):
    texts = [*TEXTS[:place], text, *TEXTS[place:]]
    with pytest.raises(TypeError, match=rf"^texts must .* \(got {kind} at place {place}\)$"):
        capture(model, tokenizer, texts, sites="embeddings", out=tmp_path / "frame")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("site", ["encoder.2.output", "encoder.0", "bert.pooler", "embedding", ""])
def test_unknown_sites_are_refused_with_the_known(model, tokenizer, site):
    with pytest.raises(ValueError, match=r"^capture: sites must be of embeddings, encoder\.0\.attention, ") as raised:
        capture(model, tokenizer, TEXTS, sites=["embeddings", site])
    assert str(raised.value) == f"capture: sites must be of {', '.join(SITES)} (got {site!r})"


@pytest.mark.parametrize("feature", ["flat", "max", ""])
def test_unknown_features_are_refused_with_the_known(model, tokenizer, feature):
    with pytest.raises(ValueError, match=rf"^capture: features must be of cls, mean, tokens \(got '{feature}'\)$"):
        capture(model, tokenizer, TEXTS, sites="embeddings", features=["cls", feature])


@pytest.mark.parametrize(
    "other",
    [
        lambda: BertForMaskedLM(config()),
        lambda: BertModel(config()),
        lambda: GPT2LMHeadModel(GPT2Config(vocab_size=34, n_embd=16, n_layer=1, n_head=2, n_positions=LONGEST)),
        lambda: torch.nn.Linear(2, 2),
    ],
    ids=["BertForMaskedLM", "BertModel", "GPT2LMHeadModel", "Linear"],
)
def test_models_that_do_not_classify_are_refused(tokenizer, other, request):
    name = request.node.callspec.id
    message = rf"^model must be a Hugging Face \.\.\.ForSequenceClassification \(got {name}\)$"
    with pytest.raises(TypeError, match=message):
        capture(other(), tokenizer, TEXTS, sites="embeddings")


def test_classifiers_of_a_family_that_is_not_covered_are_refused(tokenizer):
    other = MegatronBertForSequenceClassification(
        MegatronBertConfig(
            vocab_size=34, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
        )
    )
    message = r"^model must be one of .* \(got MegatronBertForSequenceClassification\)$"
    with pytest.raises(ValueError, match=message):
        capture(other, tokenizer, TEXTS, sites="embeddings")


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        ({"num_labels": 1}, "num_labels=1, problem_type=None"),
        ({"num_labels": 1, "problem_type": "regression"}, "num_labels=1, problem_type=regression"),
        ({"num_labels": 3, "problem_type": "regression"}, "num_labels=3, problem_type=regression"),
        (
            {"num_labels": 3, "problem_type": "multi_label_classification"},
            "num_labels=3, problem_type=multi_label_classification",
        ),
    ],
)
def test_models_that_do_not_choose_one_label_are_refused(tokenizer, changes, got):
    with pytest.raises(ValueError, match=rf"^model must choose one label of at least two: .*\(got {got}\)$"):
        capture(classifier(**changes), tokenizer, TEXTS, sites="embeddings")


# The model


def test_untrained_head_is_warned_of_where_capture_was_called(tokenizer):
    torch.manual_seed(0)
    fresh = BertForSequenceClassification(config())
    torch.nn.init.normal_(fresh.bert.pooler.dense.bias)  # what a published body brings along
    with pytest.warns(UserWarning, match="the classifier's bias is exactly zero") as warned:
        frame = capture(fresh, tokenizer, ["w1"], sites="embeddings")
    assert Path(warned[0].filename) == Path(__file__)
    assert len(frame) == 1


@pytest.mark.parametrize("training", [True, False])
def test_model_runs_in_evaluation_mode_and_gets_its_own_back(tokenizer, training):
    model = classifier(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    model.train(training)
    frame = capture(model, tokenizer, TEXTS, sites="encoder.0.output", features=("cls", "tokens"))
    assert {module.training for module in model.modules()} == {training}
    assert_rows_equal_the_plain_model(frame, model.eval(), tokenizer, TEXTS)


@pytest.mark.parametrize("texts", [[], [None], [*TEXTS, None]])
def test_training_mode_comes_back_after_a_failure(tokenizer, texts):
    model = classifier().train()
    with pytest.raises((TypeError, ValueError), match=r"^texts must hold"):
        capture(model, tokenizer, texts, sites="embeddings")
    assert {module.training for module in model.modules()} == {True}


def test_texts_may_stand_in_named_columns(model, tokenizer):
    rows = [{"review": text, "label": 1} for text in TEXTS]
    frame = capture(model, tokenizer, iter(rows), sites="encoder.0.output", columns="review")
    assert_rows_equal_the_plain_model(frame, model, tokenizer, TEXTS)


def test_capture_keeps_no_gradients(model, tokenizer):
    capture(model, tokenizer, TEXTS, sites="embeddings")
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("max_length", [-1, 0, 1, 2])
def test_max_length_without_room_for_a_text_is_refused(model, tokenizer, max_length):
    with pytest.raises(ValueError, match=rf"max_length must be more than the 2 special tokens \(got {max_length}\)"):
        capture(model, tokenizer, ["good film"], sites="embeddings", max_length=max_length)


def test_a_mixed_training_mode_is_restored(tokenizer):
    mixed = classifier().train()
    mixed.bert.eval()
    capture(mixed, tokenizer, ["good film"], sites="embeddings")
    assert mixed.training
    assert not mixed.bert.training
