"""What a study will take, said before it starts."""

from __future__ import annotations

import numpy as np
import pytest

from moco_rt import EarlyExitTextClassificationModel
from moco_rt.architectures import SINGLE_LABEL
from moco_rt.inputs.tokenization import encode
from moco_rt.studies import study
from moco_rt.studies.costs import Costs
from moco_rt.studies.distillation import epochs_of, unfitted_bag, unfitted_off_ramp
from moco_rt.studies.duration import in_words, seconds_to_fit, seconds_to_record
from moco_rt.studies.splits import split_texts

RAMPS = [
    unfitted_bag(2),
    unfitted_off_ramp("embeddings", "cls+mean", 8, 2),
    unfitted_off_ramp("encoder.0.attention", "cls", 8, 2),
    unfitted_off_ramp("encoder.0.attention", "cls+mean", 8, 2),
]


def test_rows_are_recorded_by_all_forms_each_with_all_that_is_read():
    lengths = np.array([10.0, 20.0])
    compute = np.outer(lengths, [0.0, 0.1, 0.5, 0.5, 1.0])
    costs = Costs(lengths, compute, np.full((2, 4), 0.25), np.zeros(5))
    rows = np.array([10, 15, 20])
    assert seconds_to_record([costs], rows, RAMPS) == pytest.approx(45 + 3 * 3 * 0.25)
    assert seconds_to_record([costs, costs], rows, RAMPS) == pytest.approx(2 * (45 + 3 * 3 * 0.25))


def test_off_ramps_of_one_size_take_the_same_and_a_bag_nothing():
    one, both = seconds_to_fit(RAMPS[1:2], 20_000, 2, SINGLE_LABEL), seconds_to_fit(RAMPS, 20_000, 2, SINGLE_LABEL)
    assert one > 0
    assert both > one
    assert seconds_to_fit(RAMPS[:1], 20_000, 2, SINGLE_LABEL) == 0


def test_few_rows_are_gone_through_more_often():
    assert (epochs_of(256), epochs_of(25_600), epochs_of(1_000_000)) == (600, 6, 6)


@pytest.mark.parametrize(("seconds", "words"), [(12.3, "about 12 s"), (89, "about 89 s"), (91, "about 2 min")])
def test_durations_are_said_in_words(seconds, words):
    assert in_words(seconds) == words


def test_a_long_study_says_what_it_will_take(tiny_bert, word_tokenizer, monkeypatch, capfd):
    fast = EarlyExitTextClassificationModel(tiny_bert(3))
    texts = [f"film {'good ' * (place % 9)}{'bad ' * (place // 9)}" for place in range(400)]
    split = split_texts(texts, lambda some: encode(word_tokenizer, some, 64), seed=0)
    study.study_model(fast, split, seed=0)
    assert "record" not in capfd.readouterr().err
    monkeypatch.setattr(study, "_BRIEF", 0.0)
    study.study_model(fast, split, seed=0)
    line = next(line for line in capfd.readouterr().err.splitlines() if "to record" in line)
    assert line.endswith("to fit off-ramps")
    assert "to record 400 rows in 1 numeric form, about " in line
