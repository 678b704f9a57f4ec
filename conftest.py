"""Fixtures that the test files share; they cannot import one another."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from moco_rt import EarlyExitTextClassificationModel
from moco_rt._C import can_multiply
from moco_rt.studies import costs, distillation


@pytest.fixture(
    scope="session",
    params=[
        "cpu",
        pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
    ],
)
def device(request):
    return torch.device(request.param)


@pytest.fixture(scope="session")
def shared_dir():
    """The real models and texts; for tests that carry the marker `shared`."""
    path = Path(__file__).resolve().parents[1] / "shared"
    if not path.is_dir():
        # Where they must not be skipped, as in CI, a missing folder is a failure.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no folder {path}")
    return path


@pytest.fixture(scope="session")
def one_line_error():
    """`with one_line_error(ValueError, "some words"):` the block must raise just that, said in one line."""

    @contextlib.contextmanager
    def expect(kind, words):
        with pytest.raises(kind, match=re.escape(words)) as caught:
            yield
        assert caught.type is kind
        assert "\n" not in str(caught.value)

    return expect


@pytest.fixture(scope="session")
def tiny_bert():
    """`tiny_bert(layers=2, ...)`: a random classifier without a bias of 0 or a scale of 1: what is left out shows."""

    def make(layers=2, hidden=32, heads=2, labels=2, seed=0, dtype=torch.float32, **config):
        sizes = {"vocab_size": 100, "max_position_embeddings": 64, "intermediate_size": 4 * hidden}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = BertForSequenceClassification(
                BertConfig(
                    num_hidden_layers=layers,
                    hidden_size=hidden,
                    num_attention_heads=heads,
                    num_labels=labels,
                    # With Hugging Face's 0.02 every row would get nearly the same logits, hence one label.
                    **{**sizes, "initializer_range": 0.4, **config},
                )
            )
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if name.endswith("bias"):
                        parameter.normal_(std=0.2)
                    elif "LayerNorm" in name:
                        parameter.uniform_(0.5, 1.5)
        return model.to(dtype).eval()

    return make


@pytest.fixture(scope="session")
def tiny_classifier():
    """`tiny_classifier(model_class, **config)`: any family's, its weights as random as those of `tiny_bert`."""

    def make(model_class, seed=0, dtype=torch.float32, **config):
        sizes = {"vocab_size": 100, "max_position_embeddings": 64, "initializer_range": 0.2}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = model_class(model_class.config_class(**{**sizes, **config}))
            with torch.no_grad():
                for module in model.modules():
                    if isinstance(module, torch.nn.LayerNorm):
                        module.weight.uniform_(0.5, 1.5)
                    elif type(module).__name__.endswith("RMSNorm"):
                        module.weight.add_(torch.empty_like(module.weight).uniform_(-0.5, 0.5))
                    if getattr(module, "bias", None) is not None:
                        module.bias.normal_(std=0.2)
        return model.to(dtype).eval()

    return make


@pytest.fixture(scope="session", params=[torch.float32, torch.bfloat16], ids=str)
def packed_dtype(request):
    """What the packed encoder computes in; bfloat16 where the processor multiplies it."""
    if not can_multiply(request.param):
        pytest.skip(f"the processor does not multiply {request.param}")
    return request.param


@pytest.fixture(scope="session")
def word_tokenizer():
    """A tokenizer of a few words, with BERT's template for one text and for pairs."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *["a", "the", "film", "good", "bad", "not", "was", "but"]]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=64, pad_token="[PAD]", unk_token="[UNK]", padding_side="right"
    )


@pytest.fixture(scope="session")
def tiny_folder(tiny_bert, word_tokenizer, tmp_path_factory):
    """A model of three classes without a policy, with its tokenizer, as `save_pretrained` writes it."""
    model = EarlyExitTextClassificationModel(tiny_bert(2, labels=3))
    model.tokenizer = word_tokenizer
    where = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(where)
    return where


@pytest.fixture(scope="module")
def one_thread():
    """Several would wait for each other longer than they work on matrices this small, more so on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def quick_off_ramps(one_thread):  # noqa: ARG001
    """Off-ramps that learn a little and are timed a few times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distillation, "_FEWEST_STEPS", 60)
        patch.setattr(costs, "_MOST_RUNS", 3)
        yield
