"""Why a decision is what it is: integrated gradients through the policy, and the members' shares in it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from envs.policy import portfolio_of
from market.panel import Panel
from serve.schema import Portfolio

if TYPE_CHECKING:
    from serve.model import Model

STEPS = 64  # of the path from an average day to this one


def explain(model: Model, panel: Panel, portfolio: Portfolio) -> dict[str, Any]:
    """What moved each weight from what the ensemble would want on an average day, for the same portfolio.

    An average day is one on which every feature is what it was on average in training. `features` sum to
    the change but for `unexplained`, which is what happens where no feature has a slope; so do `members`.
    """
    market = model.bundle.market(panel)
    state = model.state(market, panel, portfolio)
    depth = max(member.network.lookback for member in model.members)
    features = market.features[-depth:]  # [L, A, F]
    along = torch.linspace(0.0, 1.0, STEPS + 1, dtype=market.dtype)
    path = along[:, None, None, None] * features  # [S+1, L, A, F]

    def repeated(column: torch.Tensor | None) -> torch.Tensor | None:  # [T, A+1] -> [(S+1) L, A+1]
        return None if column is None else column[-depth:].repeat(len(along), 1)

    laid_out = replace(
        market,
        table=market.table[:, -depth:].repeat(1, len(along), 1),
        open_now=repeated(market.open_now),
        extra=repeated(market.extra),
        lot=repeated(market.lot),
    )
    bars = torch.arange(1, len(along) + 1) * depth - 1
    seen = portfolio_of(market, state).expand(len(along), -1)
    slopes = []
    for feature in range(features.shape[-1]):
        direction = torch.zeros_like(path)
        direction[..., feature] = features[..., feature]
        with torch.no_grad(), forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
            moving = forward_ad.make_dual(path.flatten(0, 1), direction.flatten(0, 1))
            dual = model.policy.members(replace(laid_out, features=moving), bars, seen)
            votes, slope = forward_ad.unpack_dual(dual)  # [M, S+1, A+1]
        slopes.append(torch.zeros_like(votes[0]) if slope is None else model.policy.average(slope))
    wanted = model.policy.average(votes).double()  # [S+1, A+1]
    by_feature = _along_the_path(torch.stack(slopes).double(), wanted)  # [F, A+1]
    usual, now = wanted[0], wanted[-1]
    change = now - usual
    weights = model.policy.weights.double()
    by_member = weights[:, None] * (votes[:, -1] - votes[:, 0]).double()  # [M, A+1]
    names = [*model.symbols, "cash"]
    return {
        "version": model.version,
        "as_of": f"{np.datetime_as_string(panel.closes[-1], 's')}Z",
        "weights": dict(zip(names, now.tolist())),
        "on_an_average_day": dict(zip(names, usual.tolist())),
        "change": dict(zip(names, change.tolist())),
        "features": {name: dict(zip(model.lens.scaler.names, row.tolist())) for name, row in zip(names, by_feature.T)},
        "members": {
            name: dict(zip([member.name for member in model.members], by_member[:, k].tolist()))
            for k, name in enumerate(names)
        },
        "unexplained": dict(zip(names, (change - by_feature.sum(0)).tolist())),
    }


def _along_the_path(slopes: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """slopes [F, S+1, A+1] along each feature, and what they led to [S+1, A+1] -> [F, A+1].

    Each step's change is known; the mean of the slopes at its ends divides it among the features, and what
    that misses, at a kink or by curvature, is divided like it.
    """
    steps = (slopes[:, :-1] + slopes[:, 1:]) / 2 / STEPS  # [F, S, A+1]
    missed = wanted.diff(dim=0) - steps.sum(0)
    weight = steps.abs()
    total = weight.sum(0)
    share = weight / torch.where(total > 0, total, 1.0)
    return (steps + share * missed).sum(1)
