"""A policy compiled for the extension: one call per exit point scores, writes results and compacts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from moco_rt._C import Exits, PackedBatch, Results
from moco_rt.policy import Exit, Policy
from moco_rt.rules import LinearCondition, exit_logits


class SiteExits:
    """The exits of one site."""

    def __init__(self, policy: Policy, site: str, device: torch.device):
        self._compiled = Exits(policy.sites.index(site), policy.num_classes)
        self._callables: list[Exit] = []
        #: Whether no rule here looks at more than a row's first token.
        self.reads_cls_only = all(exit.feature == "cls" for _, exit in policy.at(site))
        for rule_id, exit in policy.at(site):
            logits = torch.tensor(exit_logits(exit.predicted_class, exit.bound, policy.num_classes))
            condition = exit.condition
            if isinstance(condition, LinearCondition):
                self._compiled.add_linear(
                    rule_id,
                    logits,
                    feature=condition.feature,
                    weight=torch.from_numpy(condition.weight).to(device),
                    bias=condition.bias,
                    threshold=condition.threshold,
                )
            else:
                self._compiled.add_callable(rule_id, logits)
                self._callables.append(exit)

    def apply(self, batch: PackedBatch, results: Results) -> int:
        """Let the rows leave whose rule fires: written to results, taken from batch. Returns how many left."""
        features = {exit.feature: batch.pool(exit.feature) for exit in self._callables}
        fires = [_fires(exit, features[exit.feature]) for exit in self._callables]
        return self._compiled.apply(batch, results, fires)


def compile_exits(policy: Policy, device: torch.device) -> dict[str, SiteExits]:
    """The exits of every site that has any."""
    return {site: SiteExits(policy, site, device) for site in policy.sites if policy.at(site)}


def _fires(exit: Exit, feature: torch.Tensor) -> torch.Tensor:
    """Where a callable fires on features (rows, size): (rows,) bool."""
    answer: Any = exit.condition(feature)
    must = f"the condition at {exit.site} must return a bool mask of shape ({len(feature)},)"
    if not isinstance(answer, torch.Tensor | np.ndarray | list):
        raise TypeError(f"{must} (got {type(answer).__name__})")
    fires = torch.as_tensor(answer, device=feature.device)
    if fires.dtype != torch.bool or fires.shape != (len(feature),):
        raise ValueError(f"{must} (got {fires.dtype}, shape {tuple(fires.shape)})")
    return fires
