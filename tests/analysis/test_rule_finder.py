from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from scipy.stats import norm

from moco_rt._C import Exits, PackedBatch, Results
from moco_rt.analysis.columns import Column, PackedColumn
from moco_rt.analysis.frame import MLFrame
from moco_rt.analysis.rule_finder import AnalyticsEngine, NoSufficientRuleError
from moco_rt.statistics.bounds import allowed_errors, wrong_exit_bound
from moco_rt.statistics.guarantee import Guarantee

SITE = "encoder.0.output"


def gaussians(rows=1000, size=4, distance=4.0, classes=2, seed=0):
    """Features (rows, size), the mean of class c at `distance` along axis c, and their classes (rows,)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    features = rng.normal(size=(rows, size))
    features[np.arange(rows), labels] += distance
    return features.astype(np.float32), labels


def engine(**options):
    features, labels = gaussians(**options)
    return AnalyticsEngine(features, {"predictions": labels})


# Rules


@pytest.mark.parametrize("rows", [1000, 1001])
@pytest.mark.parametrize("class_value", [0, 1])
def test_metadata_of_a_rule_is_complete_and_consistent(class_value, rows):
    features, labels = gaussians(rows)
    made = AnalyticsEngine(features, {"labels": labels}, site=SITE, feature="mean")
    rule = made.compute_linear_sufficient_rule("labels", class_value, 0.02, 0.9)
    about, condition = rule.metadata, rule.condition
    assert set(about) == {
        "target", "class", "site", "feature", "max_error", "confidence", "n", "errors", "fired", "rows", "coverage",
        "bound",
    }  # fmt: skip
    assert (about["target"], about["class"]) == ("labels", class_value)
    assert (about["site"], about["feature"]) == (condition.site, condition.feature) == (SITE, "mean")
    assert (about["max_error"], about["confidence"]) == (0.02, 0.9)
    assert about["rows"] == math.ceil(rows / 2)
    assert 0 < about["n"] < about["rows"]
    assert about["errors"] == allowed_errors(about["n"], Guarantee(0.02, 1 - 0.9))
    assert about["coverage"] == about["fired"] / about["rows"]
    hits, class_rows = about["fired"] - about["errors"], about["rows"] - about["n"]
    assert 0 < hits <= class_rows
    assert about["bound"] == condition.bound
    assert about["bound"] == wrong_exit_bound(about["errors"], about["n"], hits, class_rows, 0.9)
    assert condition.weight.shape == (4,)


def test_rule_fires_on_most_of_its_class_and_little_else():
    features, labels = gaussians(rows=4000, distance=5.0)
    rule = AnalyticsEngine(features, {"predictions": labels}).compute_linear_sufficient_rule("predictions", 1, 0.01)
    fires = rule.condition(features)
    assert fires[labels == 1].mean() > 0.9
    assert fires[labels == 0].mean() < 0.02


def test_rules_keep_their_promises_on_fresh_data_as_often_as_they_say():
    repeats, max_error, delta, distance = 200, 0.05, 0.1, 2.0
    broken = {"max_error": 0, "bound": 0}
    for seed in range(repeats):
        made = engine(rows=500, size=3, distance=distance, seed=seed)
        condition = made.compute_linear_sufficient_rule("predictions", 1, max_error, 1 - delta).condition
        # The score of a gaussian is a gaussian: how often it exceeds the threshold needs no sample.
        centres = distance * np.eye(3)[:2] @ condition.weight + condition.bias
        wrong, right = norm.sf(condition.threshold, centres, np.linalg.norm(condition.weight))
        broken["max_error"] += wrong > max_error
        broken["bound"] += wrong / (wrong + right) > condition.bound
    highest = delta + 3 * math.sqrt(delta * (1 - delta) / repeats)
    assert broken["max_error"] / repeats <= highest
    assert broken["bound"] / repeats <= highest


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_of_rows_count_once(copies):
    features, labels = gaussians()
    many = AnalyticsEngine(np.tile(features, (copies, 1)), {"predictions": np.tile(labels, copies)})
    found = many.compute_linear_sufficient_rule("predictions", 1, 0.02)
    alone = engine().compute_linear_sufficient_rule("predictions", 1, 0.02)
    assert found.metadata == alone.metadata
    np.testing.assert_array_equal(found.condition.weight, alone.condition.weight)


def test_copies_whose_features_differ_in_their_last_bits_count_once_by_their_ids(one_line_error):
    features, labels = gaussians()
    twice, targets = (
        np.concatenate([features, np.nextafter(features, np.float32(9))]),
        {"predictions": np.tile(labels, 2)},
    )
    ids = np.tile(np.arange(len(features)), 2)
    found = AnalyticsEngine(twice, targets, row_ids=ids).compute_linear_sufficient_rule("predictions", 1, 0.02)
    alone = engine().compute_linear_sufficient_rule("predictions", 1, 0.02)
    assert found.metadata == alone.metadata
    with one_line_error(ValueError, f"row_ids must have shape ({len(twice)},) like the array's rows (got (3,))"):
        AnalyticsEngine(twice, targets, row_ids=ids[:3])


@pytest.mark.parametrize("names", [[0, 1, 2], [7, -3, 100], ["negative", "neutral", "positive"]])
def test_each_of_several_classes_has_its_rule(names):
    features, labels = gaussians(rows=1500, classes=3, distance=5.0)
    made = AnalyticsEngine(features, {"predictions": np.array(names)[labels]})
    for i, name in enumerate(names):
        rule = made.compute_linear_sufficient_rule("predictions", name, 0.02)
        assert rule.metadata["class"] == name
        fires = rule.condition(features)
        assert fires[labels == i].mean() > 0.9
        assert fires[labels != i].mean() < 0.05


def test_each_target_has_its_own_rules():
    features, labels = gaussians()
    made = AnalyticsEngine(features, {"predictions": labels, "flipped": 1 - labels})
    rules = (
        made.compute_linear_sufficient_rule("predictions", 1, 0.05),
        made.compute_linear_sufficient_rule("flipped", 0, 0.05),
    )
    np.testing.assert_array_equal(rules[0].condition.weight, rules[1].condition.weight)
    assert [rule.metadata["target"] for rule in rules] == ["predictions", "flipped"]


def test_same_seed_finds_the_same_rule_and_another_seed_another():
    features, labels = gaussians()
    conditions = [
        AnalyticsEngine(features, {"p": labels}, seed=seed).compute_linear_sufficient_rule("p", 1, 0.05).condition
        for seed in (3, 3, 4)
    ]
    np.testing.assert_array_equal(conditions[0].weight, conditions[1].weight)
    assert (conditions[0].bias, conditions[0].threshold) == (conditions[1].bias, conditions[1].threshold)
    assert conditions[0].threshold != conditions[2].threshold


def test_a_lower_error_costs_coverage():
    made = engine(rows=4000, distance=2.0)
    coverages = [
        made.compute_linear_sufficient_rule("predictions", 1, max_error).metadata["coverage"]
        for max_error in (0.005, 0.02, 0.1)
    ]
    assert coverages == sorted(coverages)
    assert coverages[0] < coverages[-1]


def test_features_of_any_scale_have_rules():
    features, labels = gaussians()
    features = features * np.array([1e-6, 1.0, 1e6, 0.0], np.float32) + np.array([0, 0, 0, 5], np.float32)
    rule = AnalyticsEngine(features, {"p": labels}).compute_linear_sufficient_rule("p", 1, 0.05)
    assert rule.condition(features)[labels == 1].mean() > 0.8


# What an engine reads


def by_hand(rows, feature):
    longest = max(map(len, rows))
    if feature == "cls":
        return [row[0] for row in rows]
    if feature == "mean":
        return [sum(row) / len(row) for row in rows]
    padded = [np.concatenate([row, np.zeros((longest - len(row), row.shape[1]))]) for row in rows]
    return [row.reshape(-1) for row in padded]


@pytest.mark.parametrize("feature", ["cls", "mean", "flat"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_packed_columns_are_pooled_row_by_row(feature, dtype):
    rng = np.random.default_rng(0)
    lengths = [3, 1, 7, 2, 7]
    column = PackedColumn(rng.normal(size=(20, 3)).astype(dtype), np.cumsum([0, *lengths]), SITE, "tokens")
    made = AnalyticsEngine.from_2d_embedding(column, {}, feature=feature)
    expected = by_hand([np.array(column.row(i), np.float64) for i in range(5)], feature)
    assert made.features.dtype == np.float32
    np.testing.assert_allclose(made.features, expected, rtol=1e-6, atol=1e-6)
    assert (made.site, made.feature) == (SITE, feature)


@pytest.mark.parametrize("feature", ["cls", "flat"])
def test_arrays_of_rows_and_tokens_are_pooled_row_by_row(feature):
    array = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    made = AnalyticsEngine.from_2d_embedding(array, {}, feature=feature)
    np.testing.assert_array_equal(made.features, by_hand(list(array), feature))
    assert (made.site, made.feature) == (None, feature)


def test_arrays_of_rows_are_taken_as_they_are():
    array = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_array_equal(AnalyticsEngine.from_2d_embedding(array, {}).features, array)


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3)])
def test_cls_is_read_where_nothing_says(shape):
    assert AnalyticsEngine.from_2d_embedding(np.zeros(shape), {}).feature == "cls"


@pytest.mark.parametrize("make", [AnalyticsEngine, AnalyticsEngine.from_2d_embedding])
@pytest.mark.parametrize("feature", ["cls", "mean", "flat"])
def test_columns_bring_site_and_feature_along(make, feature):
    features, labels = gaussians()
    frame = MLFrame({"x": Column.of(features, SITE, feature), "predictions": labels})
    made = make(frame["x"], {"predictions": frame["predictions"]})
    condition = made.compute_linear_sufficient_rule("predictions", 1, 0.05).condition
    assert (condition.site, condition.feature) == (SITE, feature)


def test_site_of_an_array_of_tokens_comes_along():
    column = Column.of(np.zeros((2, 3, 4)), SITE, "tokens")
    made = AnalyticsEngine.from_2d_embedding(column, {}, feature="flat")
    assert (made.site, made.feature) == (SITE, "flat")


# What is refused


def refuses(error, message):
    return pytest.raises(error, match=f"^{message}$")


NOTHING_TO_SEPARATE = "and other classes, or there is nothing to separate"


@pytest.mark.parametrize(
    ("rows", "max_error", "message"),
    [
        (
            400,
            0.01,
            r"max_error=0.01 with confidence 0.95 needs 299 held-out rows where predictions is not 1 \(got 100\); "
            r"with this share of classes about 1196 rows in all",
        ),
        (
            400,
            0.005,
            r"max_error=0.005 with confidence 0.95 needs 598 held-out rows where predictions is not 1 \(got 100\); "
            r"with this share of classes about 2392 rows in all",
        ),
    ],
)
def test_too_few_rows_are_refused_with_how_many_are_needed(rows, max_error, message):
    features = np.random.default_rng(0).normal(size=(rows, 2))
    # A seed whose held-out half has as many rows of either class.
    labels = np.arange(rows) % 2
    seed = next(s for s in range(100) if labels[np.random.default_rng(s).permutation(rows)[rows // 2 :]].mean() == 0.5)
    made = AnalyticsEngine(features, {"predictions": labels}, seed=seed)
    with refuses(ValueError, message):
        made.compute_linear_sufficient_rule("predictions", 1, max_error)


def test_as_many_rows_as_the_refusal_asks_for_are_enough():
    rows, labels = 1300, np.arange(1300) % 2
    features = np.random.default_rng(0).normal(size=(rows, 2)) + 6 * labels[:, None]
    rule = AnalyticsEngine(features, {"p": labels}).compute_linear_sufficient_rule("p", 1, 0.01)
    assert rule.metadata["n"] >= 299


@pytest.mark.parametrize(
    ("labels", "class_value", "got"), [([0, 0, 0], 0, "3 of 3 rows with 0"), ([0, 0, 0], 1, "0 of 3 rows with 1")]
)
def test_predictions_of_a_single_class_are_refused(labels, class_value, got):
    made = AnalyticsEngine(np.zeros((3, 2)), {"p": labels})
    message = rf"p must hold {class_value} {NOTHING_TO_SEPARATE} \(got {got}; is the model fine-tuned\?\)"
    with refuses(ValueError, message):
        made.compute_linear_sufficient_rule("p", class_value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused(value):
    features = np.zeros((5, 3))
    features[[1, 3], 2] = features[1, 0] = value
    with refuses(ValueError, r"AnalyticsEngine: array must be finite \(got NaN or infinity in 2 of its rows\)"):
        AnalyticsEngine(features, {})


@pytest.mark.parametrize(("values", "got"), [([1, 0], r"\(2,\)"), ([[1], [0], [1]], r"\(3, 1\)"), (1, r"\(\)")])
def test_targets_of_another_length_are_refused(values, got):
    message = rf"AnalyticsEngine: target 'p' must have shape \(3,\) like the array's rows \(got {got}\)"
    with refuses(ValueError, message):
        AnalyticsEngine(np.zeros((3, 2)), {"good": [0, 1, 2], "p": values})


@pytest.mark.parametrize(("shape", "got"), [((3,), r"\(3,\)"), ((3, 4, 2), r"\(3, 4, 2\)")])
def test_arrays_that_are_not_2d_are_refused_with_who_takes_them(shape, got):
    message = (
        rf"AnalyticsEngine: array must have shape \(rows, size\) \(got {got}\); "
        r"from_2d_embedding takes \(rows, tokens, size\) and packed columns"
    )
    with refuses(ValueError, message):
        AnalyticsEngine(np.zeros(shape), {})


@pytest.mark.parametrize(("shape", "got"), [((3,), r"\(3,\)"), ((3, 4, 2, 1), r"\(3, 4, 2, 1\)")])
def test_embeddings_of_another_shape_are_refused(shape, got):
    with refuses(ValueError, rf"embedding must have shape \(rows, S, D\) or \(rows, D\) \(got {got}\)"):
        AnalyticsEngine.from_2d_embedding(np.zeros(shape), {})


def test_mean_of_padded_tokens_is_refused():
    message = r"the feature mean must know which tokens are real: give a packed column \(got an array\)"
    with refuses(ValueError, message):
        AnalyticsEngine.from_2d_embedding(np.zeros((2, 3, 4)), {}, feature="mean")


def test_unknown_features_are_refused():
    with refuses(ValueError, r"feature must be one of cls, mean, flat, cls\+mean \(got 'max'\)"):
        AnalyticsEngine.from_2d_embedding(np.zeros((2, 4)), {}, feature="max")


@pytest.mark.parametrize("feature", ["max", "cls+mean"])
@pytest.mark.parametrize(
    "embedding", [np.zeros((2, 2, 4)), PackedColumn(np.zeros((4, 4)), np.array([0, 2, 4]), SITE, "tokens")]
)
def test_features_that_no_embedding_of_tokens_has_are_refused(embedding, feature):
    """`cls+mean` of two tokens a row has the size of `flat`, and another mean than of these tokens."""
    with refuses(ValueError, rf"feature must be one of cls, mean, flat \(got '{re.escape(feature)}'\)"):
        AnalyticsEngine.from_2d_embedding(embedding, {}, feature=feature)


def test_cls_beside_the_mean_is_taken_as_it_is():
    made = AnalyticsEngine.from_2d_embedding(np.zeros((2, 8)), {}, feature="cls+mean")
    assert (made.features.shape, made.feature) == ((2, 8), "cls+mean")


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1.5, math.nan])
@pytest.mark.parametrize("name", ["max_error", "confidence"])
def test_promises_outside_0_and_1_are_refused(name, value):
    with refuses(ValueError, rf"{name} must be inside \(0, 1\) \(got {value}\)"):
        engine().compute_linear_sufficient_rule("predictions", 1, **{name: value})


@pytest.mark.parametrize("ask", [lambda e: e.compute_linear_sufficient_rule("z", 1), lambda e: e.plot_knn_graph("z")])
def test_unknown_targets_are_refused_with_the_known(ask):
    made = AnalyticsEngine(np.zeros((3, 2)), {"predictions": [0, 1, 0], "label": [0, 1, 0]})
    with pytest.raises(KeyError, match=r"target must be one of \['predictions', 'label'\] \(got 'z'\)"):
        ask(made)


@pytest.mark.parametrize("distance", [0.0, 0.5])
def test_noise_settles_nothing(distance):
    features, labels = gaussians(rows=1500, distance=distance)
    made = AnalyticsEngine(features, {"predictions": labels}, site=SITE)
    message = (
        rf"cls at {SITE} does not settle predictions=1: with max_error=0.01 a rule would fire on "
        r"\d+ of \d+ held-out rows of that class, too few to bound its errors below one half"
    )
    with refuses(NoSufficientRuleError, message):
        made.compute_linear_sufficient_rule("predictions", 1, 0.01)


# The picture


def points(figure):
    return sum(len(dots.get_offsets()) for axes in figure.axes for dots in axes.collections if is_dots(dots))


def is_dots(artist):
    return isinstance(artist, PathCollection)


@pytest.mark.parametrize(("rows", "drawn"), [(2500, 120), (120, 120), (50, 50)])
def test_knn_graph_has_a_point_for_each_row_it_may_draw(rows, drawn):
    figure = engine(rows=120).plot_knn_graph(k=5, rows=rows)
    assert isinstance(figure, Figure)
    assert points(figure) == drawn


def test_knn_graph_says_what_it_shows():
    features, labels = gaussians(rows=60, classes=3)
    figure = AnalyticsEngine(features, {"p": labels}, site=SITE, feature="mean").plot_knn_graph("p", k=4)
    axes = figure.axes[0]
    assert axes.get_title() == f"mean at {SITE}: 4 nearest neighbours"
    assert len(axes.get_legend().get_texts()) == 3
    assert len({tuple(dots.get_facecolor()[0]) for dots in axes.collections if is_dots(dots)}) == 3


def test_knn_graph_of_the_same_rows_is_the_same_picture():
    first, second = (engine(rows=60).plot_knn_graph(k=5).axes[0].collections[-1].get_offsets() for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("rows", "k"), [(15, 15), (3, 15), (5, 5), (20, 0)])
def test_knn_graph_of_too_few_rows_is_refused(rows, k):
    with refuses(ValueError, rf"plot_knn_graph: k must be from 1 to fewer than the {rows} rows drawn \(got {k}\)"):
        engine(rows=rows).plot_knn_graph(k=k)


def test_knn_graph_of_a_sample_no_larger_than_k_is_refused():
    with refuses(ValueError, r"plot_knn_graph: k must be from 1 to fewer than the 10 rows drawn \(got 15\)"):
        engine(rows=60).plot_knn_graph(rows=10)


def test_a_packed_column_is_sent_to_from_2d_embedding():
    packed = PackedColumn(np.ones((4, 2), np.float32), [0, 2, 4], SITE, "tokens")
    with refuses(ValueError, r"AnalyticsEngine: array must have .* \(got a packed column\); use from_2d_embedding"):
        AnalyticsEngine(packed, {"p": [0, 1]})


@pytest.mark.parametrize("feature", ["cls", "mean", "flat"])
def test_rows_without_tokens_are_refused(feature):
    packed = PackedColumn(np.ones((4, 2), np.float32), [0, 2, 2, 4], SITE, "tokens")
    with refuses(ValueError, r"a packed column must have a token in every row \(got none in 1\)"):
        AnalyticsEngine.from_2d_embedding(packed, {"p": [0, 1, 1]}, feature=feature)


@pytest.mark.parametrize(
    ("said", "words"), [({"feature": "cls"}, "feature must be mean"), ({"site": "x"}, "site must be")]
)
def test_what_a_column_knows_of_itself_is_not_contradicted(said, words):
    column = Column.of(np.ones((4, 2), np.float32), SITE, "mean")
    with refuses(ValueError, rf"{words}.*, the array's own \(got .*\)"):
        AnalyticsEngine(column, {"p": [0, 1, 1, 0]}, **said)


def test_a_class_missing_among_the_rows_fitted_on_is_refused():
    features = np.random.default_rng(0).normal(size=(1000, 2))
    labels = np.zeros(1000, int)
    labels[[3, 4]] = 1
    with refuses(
        ValueError, r"p must hold 1 and other classes among the rows fitted on, half of all \(got 0 of 500 with 1\)"
    ):
        AnalyticsEngine(features, {"p": labels}).compute_linear_sufficient_rule("p", 1, 0.05)


def test_a_row_on_the_threshold_is_not_tipped_over_it_by_the_order_of_a_sum():
    """The order statistic is the score of a row, which the extension sums in another order."""
    rng = np.random.default_rng(0)
    texts, labels = rng.normal(size=(600, 128)).astype(np.float32), rng.integers(2, size=600)
    texts[:, 0] += 3 * labels
    for seed in range(30):
        rule = AnalyticsEngine(texts, {"p": labels}, seed=seed).compute_linear_sufficient_rule("p", 1, 0.1)
        condition = rule.condition
        exits = Exits(1, 2)
        weight = torch.from_numpy(condition.weight)
        exits.add_linear(
            0, torch.zeros(2), feature="cls", weight=weight, bias=condition.bias, threshold=condition.threshold
        )
        batch = PackedBatch(torch.ones(600, 1, dtype=torch.bool))
        batch.unpad(torch.from_numpy(texts)[:, None])
        results = Results(600, 2, dtype=torch.float32)
        exits.apply(batch, results)
        np.testing.assert_array_equal(results.exit_site >= 0, condition(texts))


@pytest.mark.parametrize("size", [1, 2000])
def test_knn_graph_of_one_feature_and_of_many(size):
    features = np.random.default_rng(0).normal(size=(40, size))
    figure = AnalyticsEngine(features, {"p": np.arange(40) % 2}, feature="flat").plot_knn_graph("p", k=3)
    assert sum(len(dots.get_offsets()) for dots in figure.axes[0].collections if is_dots(dots)) == 40
