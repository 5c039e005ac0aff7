"""Why a decision is what it is: integrated gradients through the policy, and the members' shares in it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from envs.policy import portfolio_of
from market.panel import Panel
from serve.schema import Portfolio

if TYPE_CHECKING:
    from serve.model import Model

STEPS = 256  # of the path: Gauss and Legendre's points; where cash begins there is a kink, which takes many


def explain(model: Model, panel: Panel, portfolio: Portfolio) -> dict[str, Any]:
    """What moved each weight from what the ensemble would want on an average day, for the same portfolio.

    An average day is one on which every feature is what it was on average in training. `features` sum to
    the change up to `unexplained`, which is what the integral of so many steps leaves; so do `members`.
    """
    market = model.bundle.market(panel)
    state = model.state(market, panel, portfolio)
    depth = max(member.network.lookback for member in model.members)
    features = market.features[-depth:]  # [L, A, F]
    points, shares = (torch.tensor(values, dtype=market.dtype) for values in np.polynomial.legendre.leggauss(STEPS))
    along = torch.cat([(points + 1) / 2, torch.tensor([0.0, 1.0], dtype=market.dtype)])  # [S+2], both ends last
    path = (along[:, None, None, None] * features).requires_grad_()  # [S+2, L, A, F]

    def repeated(column: torch.Tensor | None) -> torch.Tensor | None:  # [T, A+1] -> [(S+2) L, A+1]
        return None if column is None else column[-depth:].repeat(len(along), 1)

    laid_out = replace(
        market,
        features=path.flatten(0, 1),
        table=market.table[:, -depth:].repeat(1, len(along), 1),
        open_now=repeated(market.open_now),
        extra=repeated(market.extra),
        lot=repeated(market.lot),
    )
    bars = torch.arange(1, len(along) + 1) * depth - 1
    seen = portfolio_of(market, state).expand(len(along), -1)
    votes = model.policy.members(laid_out, bars, seen)  # [M, S+2, A+1]
    wanted = model.policy.average(votes)  # [S+2, A+1]
    inner = wanted[:-2]
    moved = []
    for asset in range(wanted.shape[1]):
        (slope,) = torch.autograd.grad(inner[:, asset].sum(), path, retain_graph=True)
        mean = (slope[:-2] * (shares / 2)[:, None, None, None]).sum(0)  # [L, A, F]
        moved.append((mean * features).sum((0, 1)))
    by_feature = torch.stack(moved).double()  # [A+1, F]
    usual, now = wanted[-2].detach().double(), wanted[-1].detach().double()
    change = now - usual
    weights = model.policy.weights.double()
    by_member = weights[:, None] * (votes[:, -1] - votes[:, -2]).detach().double()  # [M, A+1]
    names = [*model.symbols, "cash"]
    return {
        "version": model.version,
        "as_of": f"{np.datetime_as_string(panel.closes[-1], 's')}Z",
        "weights": dict(zip(names, now.tolist())),
        "on_an_average_day": dict(zip(names, usual.tolist())),
        "change": dict(zip(names, change.tolist())),
        "features": {name: dict(zip(model.lens.scaler.names, row.tolist())) for name, row in zip(names, by_feature)},
        "members": {
            name: dict(zip([member.name for member in model.members], by_member[:, k].tolist()))
            for k, name in enumerate(names)
        },
        "unexplained": dict(zip(names, (change - by_feature.sum(1)).tolist())),
    }
