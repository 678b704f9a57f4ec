"""Search for one path of policies, from "nothing changes" to the fastest; a certificate is looked for along it.

The path is made once for all wishes. Sets of exits that are best at some share of differing answers take part with all
their policies, of every variant of the model; those policies stay that are faster than any with fewer errors. The path
is thin: behind a policy stands one with a few per cent more errors, for every policy on the way is a test, and one that
fails by chance ends the sequence (Laufer-Goldshtein et al., "Efficiently Controlling Multiple Risks with Pareto
Testing", arXiv:2210.07913).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moco_rt.certification.exit_scores import ExitScores
from moco_rt.certification.greedy_path import GreedyPath, expected_errors, find_path

#: Shares of differing answers at which sets of exits are compared: a path is to be fast at all of them.
_AIMS = np.array([0.003, 0.01, 0.02, 0.03, 0.05, 0.08])
#: About how many policies a set's own path has: on the path itself, and where sets are compared.
_POLICIES, _FEWER = 4000, 400
#: Errors of the path's policies: the fewest and the most, and how many times more a policy has than the one before.
_LEAST, _MOST, _RATIO = 2e-4, 0.3, 1.03


class Timing(Protocol):
    """Seconds that rows cost by the exit they leave at; see `Costs.seconds`."""

    def seconds(self, lengths: NDArray[np.int64], chosen: Sequence[int]) -> NDArray[np.float64]:
        """Return seconds (n, len(chosen) + 1) of rows that leave by one of the chosen exits, or run to the end."""
        ...


@dataclass(frozen=True)
class ExitsToSearch:
    """E exits of one variant of a model, scored on the n rows that order policies.

    Attributes:
        scores: on those rows.
        sites: name of each exit's site; of the exits at one site at most one is chosen.
        costs: cost of leaving by them.
        lengths: (n,) tokens of the rows, in whatever form `costs` takes them.
        num_groups: G, thresholds of an exit.
        groups: sets of exits; the best choice within any of them is where the search over their union starts. None:
            one set of all exits.
        weights: (n,) what a changed answer of each row weighs, 1 on average; None: all weigh 1.
    """

    scores: ExitScores
    sites: Sequence[str]
    costs: Timing
    lengths: NDArray[np.int64]
    num_groups: int
    groups: Sequence[Sequence[int]] | None = None
    weights: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class PathPolicy:
    """A policy of the path.

    Attributes:
        variant: index of the variant that it runs.
        places: k indices of the exits by which rows leave, ascending.
        thresholds: (k, G) float32.
        error: estimated share of rows that get another answer, weighted.
        seconds: estimated mean seconds of a row.
    """

    variant: int
    places: list[int]
    thresholds: NDArray[np.float32]
    error: float
    seconds: float


def search(variants: Sequence[ExitsToSearch]) -> list[PathPolicy]:
    """Make the path of policies over all variants of a model.

    Args:
        variants: those to choose from; the first is the model as it was given.

    Returns:
        Policies with ever more estimated errors, each faster than all before; the first changes nothing.
    """
    policies = [_unchanged(variants[0])]
    useful: dict[tuple[str, ...], list[list[int]]] = {}
    for number, exits in enumerate(variants):
        risk = expected_errors(exits.scores, exits.num_groups, exits.weights)
        sites = tuple(exits.sites)
        if sites not in useful:  # forms of one model have the same exits, and what is useful in one is in the other
            useful[sites] = _useful_sets(exits, risk)
        for chosen in useful[sites]:
            path = _path(exits, risk, chosen, _POLICIES)
            for place in _fastest_by_error(path.errors, path.seconds):
                policies.append(_policy(number, chosen, path, place))
    errors, seconds = (np.array(values) for values in zip(*((p.error, p.seconds) for p in policies), strict=True))
    places = _fastest_by_error(errors, seconds)
    return [policies[place] for place in (places if places[0] == 0 else [0, *places])]


def _useful_sets(exits: ExitsToSearch, risk: NDArray[np.float64]) -> list[list[int]]:
    """Choose the sets of exits that are fastest at some share of differing answers, no exits at all among them.

    A local search for each share: it starts with the best single exit; each step adds, swaps or removes one and keeps
    the change that cuts the expected time most. An exit that saves little is dropped because it costs every row that
    reaches it.
    """
    known: dict[tuple[int, ...], NDArray[np.float64]] = {(): np.full(len(_AIMS), np.inf)}

    def times(chosen: list[int]) -> NDArray[np.float64]:
        """Return mean seconds of a row where a set's path reaches each of the shares, (aims,)."""
        key = tuple(chosen)
        if key not in known:
            path = _path(exits, risk, chosen, _FEWER)
            known[key] = np.interp(_AIMS, np.maximum.accumulate(path.errors), path.seconds)
        return known[key]

    def climb(chosen: list[int], among: set[int], aim: int) -> list[int]:
        while True:
            neighbours = _neighbours(chosen, exits.sites, among)
            better = min(neighbours, key=lambda some: times(some)[aim], default=chosen)
            if times(better)[aim] >= times(chosen)[aim]:
                return chosen
            chosen = better

    within = [set(group) for group in exits.groups or [range(len(exits.sites))]]
    everything = set().union(*within)
    useful: list[list[int]] = [[]]
    starts: list[list[int]] = [[] for _ in within]
    for aim in range(len(_AIMS)):
        starts = [climb(start, group, aim) for start, group in zip(starts, within, strict=True)]
        best = climb(min(starts, key=lambda some: times(some)[aim]), everything, aim)
        if best not in useful:
            useful.append(best)
    return useful


def _neighbours(chosen: list[int], sites: Sequence[str], among: set[int]) -> list[list[int]]:
    """List the choices of exits, at most one at each site, that differ from a choice at one site."""
    without = {site: [place for place in chosen if sites[place] != site] for site in sites}
    choices = [*without.values(), *(sorted([*without[sites[place]], place]) for place in sorted(among))]
    return [choice for choice in choices if choice and choice != chosen]


def _path(exits: ExitsToSearch, risk: NDArray[np.float64], chosen: list[int], policies: int) -> GreedyPath:
    seconds = exits.costs.seconds(exits.lengths, chosen)
    return find_path(exits.scores.at(chosen), risk[chosen], seconds, exits.num_groups, policies, exits.weights)


def _unchanged(given: ExitsToSearch) -> PathPolicy:
    """Return the policy by which every row runs to the end of the model as it was given."""
    seconds = float(given.costs.seconds(given.lengths, []).mean())
    return PathPolicy(0, [], np.empty((0, given.num_groups), np.float32), float(given.scores.wrong[-1].mean()), seconds)


def _policy(variant: int, chosen: list[int], path: GreedyPath, place: int) -> PathPolicy:
    thresholds = path.thresholds(place)
    used = np.flatnonzero(~np.isposinf(thresholds).all(axis=1))  # no row leaves by the others: they are not asked
    places = [chosen[exit] for exit in used]
    return PathPolicy(variant, places, thresholds[used], float(path.errors[place]), float(path.seconds[place]))


def _fastest_by_error(errors: NDArray[np.float64], seconds: NDArray[np.float64]) -> list[int]:
    """Return places of policies with ever more errors, each faster than all before it."""
    order = np.lexsort((seconds, errors))
    best = np.minimum.accumulate(seconds[order])
    # What is faster by less than rounding makes of it is not faster.
    front = order[np.flatnonzero(np.append(True, best[1:] < (1 - 1e-6) * best[:-1]))]
    levels = _LEAST * _RATIO ** np.arange(int(np.log(_MOST / _LEAST) / np.log(_RATIO)) + 1)
    last = np.searchsorted(errors[front], levels, side="right") - 1  # the fastest up to each level
    return [int(place) for place in front[np.unique(np.append(0, last[last >= 0]))]]
