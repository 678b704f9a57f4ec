"""Ray Data and Spark around `Predictor`: workers that die lose nothing, and repeat nothing (`make test-wheel`)."""

from __future__ import annotations

import os
import sys
from collections import Counter

import pytest

from moco_rt import Predictor

ray = pytest.importorskip("ray", reason="`make test-wheel` installs it")
pyspark = pytest.importorskip("pyspark", reason="`make test-wheel` installs it")
pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries that we do not carry

TEXTS = [f"{'good' if i % 3 else 'bad'} film {'a ' * (i % 7)}{i}" for i in range(400)]


@pytest.fixture(scope="module")
def expected(tiny_folder):
    return Counter(zip(TEXTS, Predictor(tiny_folder)({"text": TEXTS})["label"], strict=True))


def dies_once(predictor, mark):
    """A predictor whose process is gone in the middle of the work, once."""

    def call(batch):
        found = predictor(batch)
        if "200" in " ".join(batch["text"]) and not os.path.exists(mark):  # noqa: PTH110
            open(mark, "w").close()  # noqa: PTH123
            os._exit(1)
        return found

    return call


class DiesOnce:
    def __init__(self, folder, mark):
        self._call = dies_once(Predictor(folder, threads=1), mark)

    def __call__(self, batch):
        return self._call(batch)


def test_an_actor_of_ray_that_dies_loses_and_repeats_nothing(tiny_folder, expected, tmp_path):
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        rows = ray.data.from_items([{"text": text} for text in TEXTS], override_num_blocks=8)
        mark = str(tmp_path / "died")
        labelled = rows.map_batches(
            DiesOnce,
            fn_constructor_args=(str(tiny_folder), mark),
            num_cpus=1,
            compute=ray.data.ActorPoolStrategy(size=2),
            batch_size=25,
        )
        found = Counter((row["text"], row["label"]) for row in labelled.take_all())
    finally:
        ray.shutdown()
    assert os.path.exists(mark)  # noqa: PTH110
    assert found == expected


def test_spark_gives_every_row_its_label(tiny_folder, expected, monkeypatch):
    import pandas
    from pyspark.sql import SparkSession

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        predictor = Predictor(tiny_folder, threads=1)

        def label(frames):
            for frame in frames:
                yield pandas.DataFrame({"text": frame["text"], "label": predictor({"text": frame["text"]})["label"]})

        table = spark.createDataFrame(pandas.DataFrame({"text": TEXTS})).repartition(4)
        rows = table.mapInPandas(label, "text string, label string").collect()
    finally:
        spark.stop()
    assert Counter((row["text"], row["label"]) for row in rows) == expected
