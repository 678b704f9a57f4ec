"""All exits of a model."""

from __future__ import annotations

from dataclasses import dataclass

from moco_rt.rules import Condition, LinearCondition, check_feature


@dataclass(frozen=True, eq=False)
class Exit:
    """Rows at `site` whose `feature` meets `condition` leave with `predicted_class`.

    Attributes:
        site: canonical name, see `moco_rt.sites`.
        predicted_class: the class they leave with.
        condition: a `LinearCondition`, or any callable on features (rows, size) that returns a bool mask (rows,).
        feature: `cls`, `mean` or `flat`.
        bound: at most this share of the rows that meet the condition has another label; those that leave by it get
            probability 1 - bound for their class. It speaks of all rows: where other exits come first, those left to
            meet this one are the harder ones, and a bound measured on them is the honest one.
    """

    site: str
    predicted_class: int
    condition: Condition
    feature: str
    bound: float


class Policy:
    """The exits of one model, in the order they were added; `exit_rule` numbers are places in `exits`."""

    def __init__(self, sites: tuple[str, ...], num_classes: int, hidden_size: int):
        self.sites = sites
        self.num_classes = num_classes
        self.hidden_size = hidden_size
        self.exits: list[Exit] = []

    def add(self, exit: Exit) -> None:
        """Append an exit; raises ValueError where it does not fit the model, and changes nothing then."""
        if exit.site not in self.sites:
            raise ValueError(f"site must be one of {', '.join(self.sites)} (got {exit.site!r})")
        if exit.site == self.sites[-1]:
            raise ValueError(f"site must have a layer left to save (got {exit.site!r}, the last)")
        if not 0 <= exit.predicted_class < self.num_classes:
            raise ValueError(f"class must be from 0 to {self.num_classes - 1} (got {exit.predicted_class!r})")
        highest = 1 - 1 / self.num_classes
        if not 0 < exit.bound < highest:
            raise ValueError(
                f"bound must be inside (0, {highest:.3g}), or another class would be likelier (got {exit.bound})"
            )
        check_feature(exit.feature)
        if isinstance(exit.condition, LinearCondition):
            self._check_fit(exit.condition, exit)
        elif not callable(exit.condition):
            raise TypeError(f"condition must be callable (got {type(exit.condition).__name__})")
        elif exit.feature == "flat":
            raise ValueError(
                "feature must be cls or mean for a plain callable: the width of flat depends on the batch (got flat)"
            )
        self.exits.append(exit)

    def at(self, site: str) -> list[tuple[int, Exit]]:
        """The exits of a site with their places in `exits`, in the order they were added: the first that fires wins."""
        return [(place, exit) for place, exit in enumerate(self.exits) if exit.site == site]

    def _check_fit(self, condition: LinearCondition, exit: Exit) -> None:
        site = exit.site
        if condition.feature != exit.feature:
            raise ValueError(f"feature must be {condition.feature}, the condition's own (got {exit.feature})")
        if condition.site is not None and condition.site != site:
            raise ValueError(f"a rule fitted at {condition.site} must stay at that site (got {site})")
        size = condition.weight.size
        fits = size % self.hidden_size == 0 if condition.feature == "flat" else size == self.hidden_size
        if not fits:
            multiple = "a multiple of " if condition.feature == "flat" else ""
            raise ValueError(
                f"weight must have size {multiple}{self.hidden_size}, the hidden size at {site} (got {size})"
            )
