"""The ensemble: many policies that act as one, by the average of what they want.

An average of target weights is itself a portfolio. Every member sees the ensemble's portfolio, not
one of its own; rate and band apply once, to the average.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from agents.heads import ActorNet
from envs.market import MarketTensors
from envs.policy import Allocated, Policy


class Ensemble:
    """A policy whose target is the weighted average of its members' targets.

    Trained members of one network shape vote in one batched pass, on copies of their weights: make
    an ensemble of networks that are done with training.
    """

    def __init__(self, policies: Sequence[Policy], weights: Sequence[float]) -> None:
        assert len(policies) == len(weights) > 0, f"{len(policies)} policies, {len(weights)} weights"
        assert min(weights) > 0.0 and math.isclose(sum(weights), 1.0, abs_tol=1e-6), "weights: positive, sum 1"
        self.policies = tuple(policies)
        self.weights = torch.tensor(weights, dtype=torch.float64)  # [M]
        groups = _groups(self.policies)
        self._passes = [(len(places), _side_by_side([self.policies[k] for k in places])) for places in groups]
        order = torch.tensor([place for places in groups for place in places])
        self._order = None if len(groups) == 1 else order.argsort()

    def __call__(self, market: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
        return self.average(self.members(market, bar, portfolio))

    def members(self, market: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
        """What each member wants: bar [B], portfolio [B, P] -> [M, B, A+1], in the order of the policies."""
        votes = [
            policy(market, bar.repeat(count), portfolio.repeat(count, 1)).unflatten(0, (count, len(bar)))
            for count, policy in self._passes
        ]
        if self._order is None:
            return votes[0]
        return torch.cat(votes).index_select(0, self._order.to(market.device))

    def average(self, votes: torch.Tensor) -> torch.Tensor:  # [M, B, A+1] -> [B, A+1]
        weights = self.weights.to(device=votes.device, dtype=votes.dtype)
        return torch.tensordot(weights, votes, dims=1)

    def spread(self, votes: torch.Tensor) -> torch.Tensor:  # [M, B, A+1] -> [B]
        """How far members are from their average: 0 when all agree, 1 when they have nothing in common with it."""
        apart = (votes - self.average(votes)).abs().sum(2) / 2.0
        return self.average(apart)


class StackedLinear(nn.Module):
    """M linear layers side by side: member m's are the m-th of M equal blocks of rows."""

    weight: torch.Tensor  # [M, I, O]
    bias: torch.Tensor  # [M, 1, O]

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.out_features = layers[0].out_features
        no_bias = torch.zeros_like(layers[0].weight[:, 0])
        weights = [layer.weight.detach().T for layer in layers]
        biases = [no_bias if layer.bias is None else layer.bias.detach() for layer in layers]
        self.register_buffer("weight", torch.stack(weights).contiguous())
        self.register_buffer("bias", torch.stack(biases).unsqueeze(1))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:  # [M * B, ..., I] -> [M * B, ..., O]
        blocks = rows.reshape(len(self.weight), -1, rows.shape[-1])
        return torch.baddbmm(self.bias, blocks, self.weight).view(*rows.shape[:-1], self.out_features)


def _side_by_side(policies: Sequence[Any]) -> Policy:
    """One policy for M blocks of rows: with several members, their networks with every layer stacked."""
    if len(policies) == 1:
        return policies[0]
    actors = [policy.actor for policy in policies]
    stacked = copy.deepcopy(actors[0])
    for name, module in actors[0].named_modules():
        if isinstance(module, nn.Linear):
            stacked.set_submodule(name, StackedLinear([actor.get_submodule(name) for actor in actors]))
    assert not list(stacked.parameters()), "a layer with weights that is not linear needs a stacked form here"
    return Allocated(stacked)


def _groups(policies: Sequence[Policy]) -> list[list[int]]:
    """Places of the policies that can vote in one pass."""
    groups: dict[Any, list[int]] = {}
    for place, policy in enumerate(policies):
        groups.setdefault(_shape(policy, place), []).append(place)
    return list(groups.values())


def _shape(policy: Policy, place: int) -> Any:
    """Equal for policies that differ in their weights only."""
    if isinstance(policy, Allocated) and isinstance(policy.actor, ActorNet):
        state = policy.actor.state_dict()
        tensors = ((name, value.shape, value.dtype, value.device) for name, value in state.items())
        return policy.actor.net.config, *tensors
    return place
