"""Least squares in place of units that are left out: those that stay take over what the others gave.

Which units a linear layer can best do without, and the weights that those which stay should have, follow from the
second moments of its inputs alone (optimal brain surgeon on whole units: Hassibi and Stork 1993, in blocks as in
arXiv:2203.07259; weights of each projection solved anew: arXiv:2308.03449).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from moco_rt.compression.sub_layers import SubLayer

#: What is added to the diagonal of second moments, relative to its mean: weights stay where inputs say little.
_RIDGE = 1e-2


@dataclass(frozen=True)
class Removals:
    """An order in which units are best left out, and what that costs.

    Attributes:
        units: groups of units, those that go first first; the last group stays.
        errors: mean squared error of the sub-layer's output when the first 0, 1, 2 ... groups are gone, over its mean
            square.
    """

    units: list[Tensor]
    errors: list[float]

    def kept(self, removed: int) -> Tensor:
        """Return the units that stay when so many groups are gone, in their order."""
        return torch.cat(self.units[removed:]).sort().values


def order_removals(moments: Tensor, weight: Tensor, bias: Tensor, sub_layer: SubLayer) -> Removals:
    """Order the units of a sub-layer by what their absence costs when the others make up for it.

    Args:
        moments: (inputs + 1, inputs + 1) mean products of the inputs, with the input that is always 1 last.
        weight: (D, inputs) of the linear layer that reads them.
        bias: (D) of it.
        sub_layer: its units.
    """
    moments = moments.double()
    w = torch.cat([weight, bias[:, None]], dim=1).double()
    size = float((w @ moments * w).sum())
    inverse = torch.linalg.inv(moments + _ridge(moments).diag())
    alive = torch.ones(sub_layer.units, dtype=torch.bool, device=moments.device)
    groups: list[Tensor] = []
    errors, error = [0.0], 0.0
    while int(alive.sum()) > sub_layer.step:
        costs = _costs(w, inverse, sub_layer).masked_fill(~alive, torch.inf)
        units = costs.topk(sub_layer.step, largest=False).indices
        places = sub_layer.inputs_of(units)
        block = torch.linalg.inv(inverse[places][:, places])
        gone = w[:, places]
        error += float((gone @ block * gone).sum())
        rows = inverse[places]
        w -= gone @ block @ rows
        inverse -= rows.T @ block @ rows
        w[:, places] = 0
        inverse[places] = 0
        inverse[:, places] = 0
        inverse[places, places] = 1  # of inputs that are gone: never read again, and not 0 to divide by
        alive[units] = False
        groups.append(units)
        errors.append(error / size if size > 0 else 0.0)  # an output that is always 0 loses nothing
    return Removals([*groups, alive.nonzero().flatten()], errors)


def solve(moments: Tensor, products: Tensor, kept: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights and bias with which some inputs come nearest to a target, by ridge regression.

    Args:
        moments: (inputs + 1, inputs + 1) mean products of the inputs, with the input that is always 1 last.
        products: (D, inputs + 1) mean products of the target with them.
        kept: the inputs that may be used, (k) int64.
        weight: (D, inputs), near which weights stay where inputs say little.

    Returns:
        (D, k) and (D) float32.
    """
    places = torch.cat([kept, torch.tensor([len(moments) - 1], device=kept.device)])
    square = moments.double()[places][:, places]
    ridge = _ridge(square)
    target = products.double()[:, places]
    target[:, :-1] += ridge[:-1] * weight.double()[:, kept]
    solution = torch.linalg.solve(square + ridge.diag(), target.T).T.float()
    return solution[:, :-1], solution[:, -1]


def _ridge(moments: Tensor) -> Tensor:
    """Return what is added to the diagonal: nothing for the input that is always 1."""
    size = float(moments.diagonal()[:-1].mean()) or 1.0  # where all inputs are 0 any will do
    ridge = torch.full((len(moments),), _RIDGE * size, dtype=moments.dtype, device=moments.device)
    ridge[-1] = 0
    return ridge


def _costs(w: Tensor, inverse: Tensor, sub_layer: SubLayer) -> Tensor:
    """Return what it would cost to leave out each unit: (units)."""
    if sub_layer.unit == 1:
        return w[:, :-1].square().sum(dim=0) / inverse.diagonal()[:-1]
    costs = []
    for unit in range(sub_layer.units):
        places = slice(unit * sub_layer.unit, (unit + 1) * sub_layer.unit)
        of_unit = w[:, places]
        costs.append((of_unit @ torch.linalg.inv(inverse[places, places]) * of_unit).sum())
    return torch.stack(costs)
