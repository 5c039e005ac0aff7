"""Rewards: a weighted sum of terms per bar, each in units of log growth."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from envs.config import RewardConfig
from envs.transition import Costs, State, drawdown


class SharpeMemory(NamedTuple):
    """Decaying first and second moments of growth, for the differential Sharpe ratio. Each [N]."""

    mean: torch.Tensor
    square: torch.Tensor


def _new_drawdown(before: State, after: State, growth: torch.Tensor, costs: Costs) -> torch.Tensor:
    return -(drawdown(before) - drawdown(after)).relu()


def _turnover(before: State, after: State, growth: torch.Tensor, costs: Costs) -> torch.Tensor:
    return -costs.traded


Term = Callable[[State, State, torch.Tensor, Costs], torch.Tensor]  # before, after, log growth [N], costs -> [N]
TERMS: dict[str, Term] = {  # each weighed by the setting of its name
    "drawdown": _new_drawdown,
    "turnover": _turnover,
}


def no_memory(count: int, like: torch.Tensor) -> SharpeMemory:
    zeros = like.new_zeros(count)
    return SharpeMemory(zeros, zeros)


def reward(
    config: RewardConfig,
    before: State,
    after: State,
    growth: torch.Tensor,  # [N] log growth
    costs: Costs,
    equal_weight: torch.Tensor | None,  # [N] log growth of equal weight over the same bar
    memory: SharpeMemory | None,
) -> tuple[torch.Tensor, SharpeMemory | None]:
    """[N] rewards, and the memory moved on (only the differential Sharpe ratio has one)."""
    weight = config.log_growth + config.excess
    total = growth if weight == 1.0 else growth * weight
    if config.excess:
        assert equal_weight is not None
        total = total - config.excess * equal_weight
    for name, term in TERMS.items():
        if factor := getattr(config, name, 0.0):
            total = total + factor * term(before, after, growth, costs)
    if config.differential_sharpe:
        assert memory is not None
        change, memory = _differential_sharpe(growth, memory, config.sharpe_decay)
        total = total + config.differential_sharpe * change
    return total, memory


def _differential_sharpe(
    growth: torch.Tensor, memory: SharpeMemory, decay: float
) -> tuple[torch.Tensor, SharpeMemory]:  # [N]
    """Moody and Saffell's derivative of the decaying Sharpe ratio; 0 until the variance is known.

    It is scaled by the standard deviation, so that it is in units of growth like the other terms.
    """
    step_mean, step_square = growth - memory.mean, growth * growth - memory.square
    variance = memory.square - memory.mean * memory.mean
    known = variance > 1e-10
    change = (memory.square * step_mean - 0.5 * memory.mean * step_square) / variance.clamp_min(1e-10)
    moved = SharpeMemory(memory.mean + decay * step_mean, memory.square + decay * step_square)
    return torch.where(known, change, torch.zeros_like(change)), moved
