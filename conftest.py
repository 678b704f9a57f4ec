"""Fixtures that the test files share; they cannot import one another."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import pytest
import tiny_models
import torch

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
    """`with one_line_error(ValueError, "some words"):` the block must raise just that, said in one short line."""

    @contextlib.contextmanager
    def expect(kind, words):
        with pytest.raises(kind, match=re.escape(words)) as caught:
            yield
        assert caught.type is kind
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 2000

    return expect


@pytest.fixture(scope="session")
def tiny_bert():
    """`tiny_bert(layers=2, ...)`: a random classifier, see `tiny_models`."""
    return tiny_models.tiny_bert


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
    """A tokenizer of a few words, see `tiny_models`."""
    return tiny_models.word_tokenizer()


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
    """Off-ramps that learn a little and are timed a few times, at few lengths."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distillation, "_FEWEST_STEPS", 60)
        patch.setattr(costs, "_MOST_RUNS", 3)
        patch.setattr(costs, "_SHARES", (0.1, 0.9))
        yield
