"""Imitation as a start: an actor that wants what a baseline wants."""

from __future__ import annotations

import torch

from agents.heads import ActorNet
from envs.allocation import target
from envs.market import MarketTensors
from envs.policy import Policy, portfolio_width
from kit.errors import UserError

UPDATES = 400
BATCH = 1024
LEARNING_RATE = 3e-3


def imitate(actor: ActorNet, market: MarketTensors, span: slice, teacher: Policy, seed: int) -> float:
    """Pull the actor's target weights to the teacher's on the bars of `span`; the mean distance |Δw| left.

    Portfolios are drawn at random, so that the actor does as the teacher does whatever it holds.
    """
    if market.lot is not None:
        raise UserError("start = 'imitate': whole shares have no gradient; expected allocation.kind softmax or tilt")
    generator = torch.Generator(device=market.device).manual_seed(seed)
    optimizer = torch.optim.Adam(actor.parameters(), LEARNING_RATE, fused=True)
    far = torch.zeros((), device=market.device)
    for update in range(UPDATES):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1.0 - update / UPDATES)
        shape = (BATCH, market.assets + 1)
        bar = torch.randint(span.start, span.stop, shape[:1], generator=generator, device=market.device)
        odds = torch.empty(shape, device=market.device, dtype=market.dtype).exponential_(generator=generator)
        portfolio = odds.new_zeros(BATCH, portfolio_width(market))
        portfolio[:, : market.assets + 1] = odds / odds.sum(1, keepdim=True)
        weights = portfolio[:, : market.assets + 1]
        with torch.no_grad():
            wanted = teacher(market, bar, portfolio)
        made = target(market, bar, weights, portfolio[:, -1], actor(market, bar, portfolio))
        distance = (made - wanted).square().sum(1)
        optimizer.zero_grad()
        distance.mean().backward()
        optimizer.step()
        far = (made - wanted).detach().abs().sum(1).mean()
    return float(far)
