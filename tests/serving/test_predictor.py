"""Columns to columns, in this process and in others."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import threading

import numpy as np
import pandas
import pyarrow
import pytest
import torch

from moco_rt import Cascade, EarlyExitTextClassificationModel, LinearCondition, Predictor

TEXTS = ["a good film", "bad", "the film was not bad"]


@pytest.fixture(scope="module")
def folder(tiny_bert, word_tokenizer, tmp_path_factory):
    fast = EarlyExitTextClassificationModel(tiny_bert(3, labels=3))
    weight = torch.randn(32, generator=torch.Generator().manual_seed(0)).numpy()
    fast.add_rule(LinearCondition(weight, 0.0, 3.0, 0.01), 1, "encoder.0.attention")
    fast.tokenizer = word_tokenizer
    where = tmp_path_factory.mktemp("fast")
    fast.save_pretrained(where)
    return where


@pytest.fixture
def same_threads():
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def expected(folder, texts):
    return list(EarlyExitTextClassificationModel.from_pretrained(folder).predict(texts))


def test_columns_come_back_with_labels(folder):
    batch = {"id": np.arange(3), "text": np.array(TEXTS, dtype=object)}
    found = Predictor(folder)(batch)
    wanted = expected(folder, TEXTS)
    assert list(found) == ["id", "text", "label", "prob", "exit"]
    assert found["label"].tolist() == [row["label"] for row in wanted]
    assert found["exit"].tolist() == [row["exit"] for row in wanted]
    assert found["prob"].dtype == np.float32
    np.testing.assert_array_equal(found["prob"], np.float32([row["prob"] for row in wanted]))
    assert list(batch) == ["id", "text"]


def test_pairs_lists_and_empty_batches(folder):
    found = Predictor(folder)({"text": TEXTS, "text2": TEXTS[::-1]})
    assert found["label"].tolist() == [
        row["label"] for row in expected(folder, list(zip(TEXTS, TEXTS[::-1], strict=True)))
    ]
    empty = Predictor(folder)({"text": np.array([], dtype=object)})
    assert {name: len(column) for name, column in empty.items()} == {"text": 0, "label": 0, "prob": 0, "exit": 0}


@pytest.mark.parametrize("missing", [None, float("nan"), pandas.NA], ids=repr)
@pytest.mark.parametrize("make", [list, lambda texts: np.array(texts, dtype=object), pandas.Series])
def test_a_second_text_of_none_makes_a_single_text(folder, make, missing):
    found = Predictor(folder)({"text": TEXTS, "text2": make(["was good", missing, missing])})
    wanted = expected(folder, [(TEXTS[0], "was good"), *TEXTS[1:]])
    assert found["prob"].tolist() == np.float32([row["prob"] for row in wanted]).tolist()


@pytest.mark.parametrize("make", [pyarrow.array, pandas.Series, lambda texts: pyarrow.chunked_array([texts])])
def test_columns_of_other_libraries_are_read(folder, make):
    found = Predictor(folder)({"text": make(TEXTS)})
    assert found["label"].tolist() == [row["label"] for row in expected(folder, TEXTS)]


def test_it_is_pickled_before_and_after_it_has_loaded(folder):
    predictor = Predictor(folder)
    batch = {"text": TEXTS}
    first = pickle.loads(pickle.dumps(predictor))(batch)
    predictor(batch)
    data = pickle.dumps(predictor)
    assert len(data) < 2000
    assert pickle.loads(data)(batch)["label"].tolist() == first["label"].tolist()


def test_threads_are_set_where_it_is_called(folder, same_threads):
    predictor = Predictor(folder, threads=1)
    assert torch.get_num_threads() == same_threads
    predictor({"text": TEXTS})
    assert torch.get_num_threads() == 1


def test_several_threads_may_call_it(folder):
    predictor, found = Predictor(folder), []
    threads = [
        threading.Thread(target=lambda: found.append(predictor({"text": TEXTS})["label"].tolist())) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[row["label"] for row in expected(folder, TEXTS)]] * 4


def test_rows_of_cascades_say_their_tier_and_models_with_one_label_score(tiny_bert, word_tokenizer, tmp_path):
    small, large = tiny_bert(1), tiny_bert(2, seed=1)
    cascade = Cascade([(small, word_tokenizer), (large, word_tokenizer)], thresholds=[0.7])
    cascade.save_pretrained(tmp_path / "cascade")
    found = Predictor(tmp_path / "cascade")({"text": TEXTS})
    assert found["tier"].tolist() == [row["tier"] for row in cascade.predict(TEXTS)]
    np.testing.assert_array_equal(found["prob"], np.float32([row["prob"] for row in cascade.predict(TEXTS)]))
    tiny_bert(labels=1).save_pretrained(tmp_path / "one")
    word_tokenizer.save_pretrained(tmp_path / "one")
    for texts in (TEXTS, []):
        one = Predictor(tmp_path / "one")({"text": texts})
        assert list(one) == ["text", "score", "exit"]
        several = Predictor(tmp_path / "cascade")({"text": texts})
        assert list(several) == ["text", "label", "prob", "exit", "tier"]
        assert {len(column) for column in (*one.values(), *several.values())} == {len(texts)}


def test_models_of_several_labels_give_lists(tiny_bert, word_tokenizer, tmp_path):
    model = tiny_bert(labels=3, problem_type="multi_label_classification")
    model.save_pretrained(tmp_path)
    word_tokenizer.save_pretrained(tmp_path)
    for texts in (TEXTS, TEXTS[:1]):
        found = Predictor(tmp_path)({"text": texts})
        assert found["label"].tolist() == [row["label"] for row in expected(tmp_path, texts)]
        assert all(isinstance(each, list) for each in found["label"])


@pytest.mark.parametrize("name", ["label", "prob", "exit"])
@pytest.mark.parametrize("texts", [TEXTS, []], ids=["rows", "no rows"])
def test_columns_that_are_called_as_an_answers_are_refused(folder, one_line_error, name, texts):
    words = f"batch must have no column {name}, where the answer's goes (got one: rename it, such as to true_{name})"
    with one_line_error(ValueError, words):
        Predictor(folder)({"text": texts, name: np.arange(len(texts))})


def test_columns_that_only_other_models_add_stay(folder):
    found = Predictor(folder)({"text": TEXTS, "tier": [1, 2, 3], "score": [0.1, 0.2, 0.3]})
    assert (found["tier"], found["score"]) == ([1, 2, 3], [0.1, 0.2, 0.3])


def test_what_is_pickled_names_the_files_that_answer(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    shutil.copytree(folder, tmp_path / "copy" / "tier-0")  # as cascades have it
    before = pickle.dumps(Predictor(tmp_path / "copy"))
    (tmp_path / "copy" / ".#policy.json").symlink_to("nowhere")  # an editor's lock
    (tmp_path / "copy" / ".saving-lock").touch()
    assert pickle.dumps(Predictor(tmp_path / "copy")) == before
    for name in ("policy.json", "tier-0/policy.json"):
        with (tmp_path / "copy" / name).open("a") as file:
            file.write("\n")
        after = pickle.dumps(Predictor(tmp_path / "copy"))
        assert after != before
        before = after


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.usefixtures("same_threads")
def test_a_child_of_fork_answers_whatever_threads_it_was_promised(folder):
    predictor = Predictor(folder, threads=2)
    wanted = predictor({"text": TEXTS})["label"].tolist()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(predictor, ({"text": TEXTS},)).get(60)["label"].tolist() == wanted


def test_bad_input_is_one_line(folder, one_line_error, tmp_path):
    with one_line_error(ValueError, "threads must be at least 1 (got 0)"):
        Predictor(folder, threads=0)
    with one_line_error(OSError, f"directory must hold a model (got {tmp_path / 'nothing'}, which is no directory)"):
        Predictor(tmp_path / "nothing")
    with one_line_error(ValueError, "batch must have a column text (got id, body)"):
        Predictor(folder)({"id": [1], "body": ["a"]})
    for one in ("good", b"good", np.array("good"), 7, None):
        words = (
            f"batch must have columns of many rows, as batched=True hands them over (got one {type(one).__name__} as "
        )
        with one_line_error(TypeError, f"{words}text)"):
            Predictor(folder)({"text": one})
        with one_line_error(TypeError, f"{words}text2)"):
            Predictor(folder)({"text": TEXTS, "text2": one})
    with one_line_error(ValueError, "batch must have as many second texts as texts (got 1 and 3)"):
        Predictor(folder)({"text": TEXTS, "text2": ["a"]})
    with one_line_error(TypeError, "texts must hold texts or pairs of texts (got NoneType at place 1)"):
        Predictor(folder)({"id": [], "text": ["a", None]})  # whatever stands in the first column
