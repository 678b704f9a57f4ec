"""Work that writes files: what stands there before, the work itself, and what a user finds afterwards."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import torch
from safetensors import SafetensorError
from tiny_models import tiny_bert, word_tokenizer

from moco_rt import Cascade, EarlyExitTextClassificationModel, LinearCondition
from moco_rt.analysis.capture import capture
from moco_rt.analysis.frame import MLFrame
from moco_rt.certification.these_rows import RowsWish
from moco_rt.compression import recovery
from moco_rt.serving.label_files import predict_file

TEXTS = ["good film", "a bad film was not good", "the film", "but bad", "not good not bad", "the good the bad"] * 4


def fast_model(seed, **config):
    """A model with two exits and a monitor."""
    fast = EarlyExitTextClassificationModel(tiny_bert(2, seed=seed, **config))
    fast.tokenizer = word_tokenizer()
    weight = torch.randn(32, generator=torch.Generator().manual_seed(seed)).numpy()
    fast.add_rule(LinearCondition(weight, 0.0, 3.0, 0.01), 1, "encoder.0.attention")
    fast.add_rule(LinearCondition(-weight, 0.0, 5.0, 0.01, "mean"), 0, "encoder.0.output")
    fast.monitor(rate=0.5)
    return fast


def as_tier(seed):
    """A model and its tokenizer, as cascades take them."""
    fast = fast_model(seed)
    return fast, fast.tokenizer


def digest(array):
    """A few characters that stand for all bits of an array."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:12]


class Work:
    """Work in a folder.

    Attributes:
        refusals: what may be raised where the disk fails, which a program can expect.
        unfinished: whether work that was ended half-way may leave a part, with which the next run goes on.
    """

    refusals = (OSError, ValueError, SafetensorError)
    unfinished = False

    def begin(self, folder):
        folder.mkdir()

    def run(self, folder):
        raise NotImplementedError

    def look(self, folder):
        """Words for what is there, equal for equal things."""
        raise NotImplementedError


class SaveModel(Work):
    """A model is saved where another one stands, with other exits."""

    def __init__(self):
        self.one, self.other = fast_model(0), fast_model(1, labels=3)

    def begin(self, folder):
        self.one.save_pretrained(folder)

    def run(self, folder):
        self.other.save_pretrained(folder)

    def look(self, folder):
        fast = EarlyExitTextClassificationModel.from_pretrained(folder)
        found = fast.predict(TEXTS)
        return f"{digest(found.probs)} {digest(found.exit_site)} {len(fast.policy.exits)} {fast._monitor is None}"


class SaveCascade(Work):
    """A cascade is saved where another one stands."""

    def __init__(self):
        self.one = Cascade([as_tier(0), as_tier(1), as_tier(2)], thresholds=[0.9, 0.8])
        self.other = Cascade([as_tier(3), as_tier(4)], thresholds=[0.7])

    def begin(self, folder):
        self.one.save_pretrained(folder)

    def run(self, folder):
        self.other.save_pretrained(folder)

    def look(self, folder):
        found = Cascade.from_pretrained(folder).predict(TEXTS)
        return f"{digest(found.probs)} {digest(found.tier)}"


class Label(Work):
    """Texts of a file are labelled, a few at a time; an interrupted run goes on."""

    unfinished = True
    name, wish = "labels.jsonl", None

    def __init__(self):
        self.fast = fast_model(0)

    def begin(self, folder):
        folder.mkdir()
        (folder / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))

    def run(self, folder):
        predict_file(self.fast, self.fast.tokenizer, folder / "rows.jsonl", folder / self.name, wish=self.wish)

    def look(self, folder):
        out = folder / self.name
        certified = [digest(path.read_bytes()) for path in folder.glob("*certificate*") if path.name[0] != "."]
        return f"{digest(out.read_bytes()) if out.exists() else 'nothing'} {certified}"


class LabelCompressed(Label):
    """The same, to a compressed CSV file."""

    name = "labels.csv.gz"


class LabelCertified(Label):
    """The same, with a certificate of these rows beside it."""

    wish = RowsWish(0.9, 0.9)


class Capture(Work):
    """Hidden states are captured into a frame on disk."""

    def __init__(self):
        self.model, self.tokenizer = tiny_bert(2), word_tokenizer()

    def run(self, folder):
        capture(self.model, self.tokenizer, TEXTS, sites=["encoder.0.output"], features=("cls",), out=folder / "frame")

    def look(self, folder):
        if not (folder / "frame").exists():
            return "nothing"
        frame = MLFrame.load_frame(folder / "frame")
        return " ".join(digest(np.asarray(frame[name])) for name in frame.columns)


class Compress(Work):
    """A smaller model is made, and saved; an interrupted run goes on from its checkpoint."""

    unfinished = True

    def __init__(self):
        recovery._INTERVAL = 0.0  # a checkpoint after every step
        fast = EarlyExitTextClassificationModel(tiny_bert(2, hidden=64))
        fast.tokenizer = word_tokenizer()
        self.fast = fast

    def begin(self, folder):
        self.fast.save_pretrained(folder / "given")
        (folder / "texts.txt").write_text("\n".join(TEXTS))

    def run(self, folder):
        from moco_rt.cli_compress import compress

        compress(str(folder / "given"), folder / "texts.txt", out=folder / "small", width=0.5, epochs=2)

    def look(self, folder):
        if not (folder / "small").exists():
            return "nothing"
        return digest(EarlyExitTextClassificationModel.from_pretrained(folder / "small").predict(TEXTS).probs)


WORKS = {
    work.__name__: work for work in (SaveModel, SaveCascade, Label, LabelCompressed, LabelCertified, Capture, Compress)
}
