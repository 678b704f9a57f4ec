"""Rules on a captured representation that settle a label, and a picture of the representation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moco_rt.analysis.columns import PackedColumn
from moco_rt.policies.conditions import LinearCondition, LinearRule, check_feature
from moco_rt.statistics.arguments import check_share
from moco_rt.statistics.bounds import allowed_errors, neyman_pearson_threshold, rows_needed, wrong_exit_bound
from moco_rt.statistics.guarantee import Guarantee

if TYPE_CHECKING:
    from matplotlib.figure import Figure


#: The features that can be taken of an embedding of all tokens.
_POOLED = ("cls", "mean", "flat")
# Of the sum of magnitudes behind a typical score: some thirty roundings of float32.
_GUARD = 2e-6


class NoSufficientRuleError(ValueError):
    """No rule on this representation settles the class within the error asked for."""


class AnalyticsEngine:
    """Finds sufficient rules on a representation.

    Args:
        array: (rows, size) features.
        targets: columns (rows,) of classes by name, usually `{"predictions": frame["predictions"]}`.
        site: where the features were taken; a column of an `MLFrame` brings it along.
        feature: which they are, `cls`, `mean`, `flat` or `cls+mean`; likewise. `cls` where nothing says.
        seed: of the split of the rows into a part to fit on and a part to choose thresholds on.
        row_ids: (rows,) what copies of a row share, `frame["row_id"]` of a capture; None: rows with equal features are
            copies, though those of copies may differ in their last bits.

    Raises:
        ValueError: array is not 2-D or not finite, or a target, or row_ids, has another number of rows.
    """

    def __init__(
        self,
        array: ArrayLike,
        targets: Mapping[str, ArrayLike],
        *,
        site: str | None = None,
        feature: str | None = None,
        seed: int = 0,
        row_ids: ArrayLike | None = None,
    ):
        if isinstance(array, PackedColumn):
            raise ValueError(
                "AnalyticsEngine: array must have shape (rows, size) (got a packed column); use from_2d_embedding"
            )
        self.site = _agreed("site", site, getattr(array, "site", None))
        self.feature = _agreed("feature", feature, getattr(array, "feature", None)) or "cls"
        check_feature(self.feature)
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused below, as infinite
            self.features = np.asarray(array, dtype=np.float32)
        if self.features.ndim != 2:
            raise ValueError(
                f"AnalyticsEngine: array must have shape (rows, size) (got {self.features.shape}); "
                "from_2d_embedding takes (rows, tokens, size) and packed columns"
            )
        unfit = int((~np.isfinite(self.features).all(axis=1)).sum())
        if unfit:
            raise ValueError(f"AnalyticsEngine: array must be finite (got NaN or infinity in {unfit} of its rows)")
        self.targets = {name: np.asarray(values) for name, values in targets.items()}
        for name, values in self.targets.items():
            if values.shape != (len(self.features),):
                raise ValueError(
                    f"AnalyticsEngine: target {name!r} must have shape ({len(self.features)},) like the array's rows "
                    f"(got {values.shape})"
                )
        self.seed = seed
        self.row_ids = None if row_ids is None else np.asarray(row_ids)
        if self.row_ids is not None and self.row_ids.shape != (rows := self.features.shape[:1]):
            raise ValueError(f"row_ids must have shape {rows} like the array's rows (got {self.row_ids.shape})")

    @classmethod
    def from_2d_embedding(
        cls,
        embedding: ArrayLike | PackedColumn,
        targets: Mapping[str, ArrayLike],
        *,
        feature: str | None = None,
        seed: int = 0,
        row_ids: ArrayLike | None = None,
    ) -> AnalyticsEngine:
        """An engine on one feature of an embedding.

        Args:
            embedding: a packed column of an `MLFrame`; (rows, S, D), where positions behind a row's tokens must be
                0 for `flat`; or (rows, D), which is taken as it is.
            targets: see `AnalyticsEngine`.
            feature: what to take of each row's tokens: `cls` (default), `mean` or `flat`.
            seed: see `AnalyticsEngine`.
            row_ids: see `AnalyticsEngine`.

        Raises:
            ValueError: another feature of a row's tokens, or `mean` of (rows, S, D), which does not say how many tokens
                are real.
        """
        site = getattr(embedding, "site", None)
        if isinstance(embedding, PackedColumn):
            feature = feature or "cls"
            pooled = _pool_packed(embedding, feature)
            return cls(pooled, targets, site=site, feature=feature, seed=seed, row_ids=row_ids)
        array = np.asarray(embedding)
        if array.ndim == 2:
            return cls(embedding, targets, site=site, feature=feature, seed=seed, row_ids=row_ids)
        if array.ndim != 3:
            raise ValueError(f"embedding must have shape (rows, S, D) or (rows, D) (got {array.shape})")
        feature = feature or "cls"
        _check_pooled(feature)
        if feature == "mean":
            raise ValueError("the feature mean must know which tokens are real: give a packed column (got an array)")
        pooled = array[:, 0] if feature == "cls" else array.reshape(len(array), -1)
        return cls(pooled, targets, site=site, feature=feature, seed=seed, row_ids=row_ids)

    def compute_linear_sufficient_rule(
        self, target: str, class_value: int, max_error: float = 0.005, confidence: float = 0.95
    ) -> LinearRule:
        """A linear rule that, where it fires, settles that the target is class_value.

        The direction is fitted by logistic regression on one half of the rows. The threshold is the Neyman-Pearson
        order statistic on those rows of the other half whose target is another class
        (`bounds.neyman_pearson_threshold`), and a little above it against rounding. Copies of a row count once.

        Args:
            target: name of the target.
            class_value: the class to settle.
            max_error: the rule fires on at most this share of the rows of other classes ...
            confidence: ... with this confidence.

        Raises:
            KeyError: unknown target.
            ValueError: no row, or every row, has this class; max_error or confidence is outside (0, 1); too few rows
                to promise max_error: the message says how many are needed.
            NoSufficientRuleError: at this max_error the rule would settle too few rows to be of use, or the rows
                fitted on are all of one class.
        """
        max_error, confidence = check_share("max_error", max_error), check_share("confidence", confidence)
        # Copies of a row on both sides of the split, or counted as new ones, would promise what nobody has seen.
        distinct = _first_of_equals(self.features if self.row_ids is None else self.row_ids)
        features, is_class = self.features[distinct], self._is_class(target, class_value)[distinct]
        order = np.random.default_rng(self.seed).permutation(len(is_class))
        fit_rows, held_out = order[: len(order) // 2], order[len(order) // 2 :]
        if not 0 < is_class[fit_rows].sum() < len(fit_rows):
            raise NoSufficientRuleError(
                f"{target} must hold {class_value} and other classes among the rows fitted on, half of all "
                f"(got {int(is_class[fit_rows].sum())} of {len(fit_rows)} with {class_value})"
            )
        guarantee = Guarantee(max_error, 1 - confidence)
        self._check_enough(is_class[held_out], target, class_value, guarantee)
        weight, bias = _fit_direction(features[fit_rows], is_class[fit_rows])

        scores = features[held_out] @ weight + bias
        of_class = is_class[held_out]
        threshold = neyman_pearson_threshold(scores[~of_class], guarantee)
        # Where the rule will run, sums are taken in another order: a row that lies on the threshold must not be
        # tipped over it by rounding.
        magnitudes = np.abs(features[fit_rows]) @ np.abs(weight)
        threshold += _GUARD * float(np.median(magnitudes) + abs(bias))
        fires = scores > threshold
        other_rows, class_rows = int((~of_class).sum()), int(of_class.sum())
        hits = int((fires & of_class).sum())
        allowed = allowed_errors(other_rows, guarantee)
        bound = wrong_exit_bound(allowed, other_rows, hits, class_rows, confidence)
        if bound >= 0.5:
            raise NoSufficientRuleError(
                f"{self._what()} does not settle {target}={class_value}: with max_error={max_error} a rule would fire "
                f"on {hits} of {class_rows} held-out rows of that class, too few to bound its errors below one half"
            )
        condition = LinearCondition(weight, bias, threshold, bound, self.feature, self.site)
        metadata = {
            "target": target,
            "class": class_value,
            "site": self.site,
            "feature": self.feature,
            "max_error": max_error,
            "confidence": confidence,
            "n": other_rows,
            "errors": int((fires & ~of_class).sum()),
            "fired": int(fires.sum()),
            "rows": len(fires),
            "coverage": float(fires.mean()),
            "bound": bound,
        }
        return LinearRule(condition, metadata)

    def plot_knn_graph(self, target: str = "predictions", *, k: int = 15, rows: int = 2500) -> Figure:
        """Draw the k-nearest-neighbour graph of the representation, coloured by a target.

        Args:
            target: name of the target.
            k: neighbours of each row (euclidean).
            rows: a random sample of so many rows is drawn.

        Raises:
            KeyError: unknown target.
            ValueError: there are not more than k rows to draw, or k is not positive.
        """
        from moco_rt.analysis.knn_graph import draw_knn_graph  # matplotlib and igraph are slow to import

        values = self._target(target)
        sample = np.random.default_rng(self.seed).permutation(len(values))[:rows]
        if not 0 < k < len(sample):
            raise ValueError(f"plot_knn_graph: k must be from 1 to fewer than the {len(sample)} rows drawn (got {k})")
        title = f"{self._what()}: {k} nearest neighbours"
        return draw_knn_graph(self.features[sample], values[sample], k=k, title=title, target=target)

    def _what(self) -> str:
        return f"{self.feature} at {self.site}" if self.site else self.feature

    def _target(self, target: str) -> NDArray[Any]:
        if target not in self.targets:
            raise KeyError(f"target must be one of {list(self.targets)} (got {target!r})")
        return self.targets[target]

    def _is_class(self, target: str, class_value: int) -> NDArray[np.bool_]:
        is_class: NDArray[np.bool_] = self._target(target) == class_value
        found = int(is_class.sum())
        if found in (0, len(is_class)):
            raise ValueError(
                f"{target} must hold {class_value} and other classes, or there is nothing to separate "
                f"(got {found} of {len(is_class)} rows with {class_value}; is the model fine-tuned?)"
            )
        return is_class

    def _check_enough(self, of_class: NDArray[np.bool_], target: str, class_value: int, guarantee: Guarantee) -> None:
        others = int((~of_class).sum())
        needed = rows_needed(guarantee)
        if others < needed:
            in_all = math.ceil(needed * 2 * len(of_class) / max(others, 1))
            raise ValueError(
                f"max_error={guarantee.max_disagreement} with confidence {guarantee.confidence} needs {needed} "
                f"held-out rows where {target} is "
                f"not {class_value} (got {others}); with this share of classes about {in_all} rows in all"
            )


def _agreed(what: str, passed: str | None, known: str | None) -> str | None:
    """The value that the caller or the array itself names; a contradiction raises ValueError."""
    if passed is not None and known is not None and passed != known:
        raise ValueError(f"{what} must be {known}, the array's own (got {passed})")
    return passed if passed is not None else known


def _first_of_equals(rows: NDArray[Any]) -> NDArray[np.int64]:
    """Return the places of the rows that equal no row before them."""
    seen: dict[bytes, int] = {}
    for place, row in enumerate(rows):
        seen.setdefault(row.tobytes(), place)
    return np.array(list(seen.values()))


def _check_pooled(feature: str) -> None:
    """Raise ValueError unless a feature can be taken of one site's tokens: the mean in `cls+mean` is of other ones."""
    if feature not in _POOLED:
        raise ValueError(f"feature must be one of {', '.join(_POOLED)} (got {feature!r})")


def _pool_packed(column: PackedColumn, feature: str) -> NDArray[np.float32]:
    _check_pooled(feature)
    if not column.lengths.all():
        raise ValueError(
            f"a packed column must have a token in every row (got none in {int((column.lengths == 0).sum())})"
        )
    starts = column.cu_seqlens[:-1]
    if feature == "cls":
        return np.asarray(column.values[starts], dtype=np.float32)
    if feature == "mean":
        sums = np.add.reduceat(column.values, starts, axis=0, dtype=np.float64)  # as where the rule will run
        return np.asarray(sums / column.lengths[:, None], dtype=np.float32)
    longest = int(column.lengths.max())
    flat = np.zeros((len(column), longest, column.values.shape[1]), dtype=np.float32)
    for i in range(len(column)):
        flat[i, : column.lengths[i]] = column.row(i)
    return flat.reshape(len(column), -1)


def _fit_direction(x: NDArray[np.float32], is_class: NDArray[np.bool_]) -> tuple[NDArray[np.float32], float]:
    """Weight (size,) and bias of a logistic regression on standardised features, in the features' own scale."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x, is_class)
    scaler, regression = model[0], model[1]
    weight = regression.coef_[0] / scaler.scale_
    bias = float(regression.intercept_[0] - weight @ scaler.mean_)
    return weight.astype(np.float32), bias
