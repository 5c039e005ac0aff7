"""A captured step gives the numbers of an eager one. Needs a CUDA device."""

from __future__ import annotations

import pytest
import torch
from markets import wild_panel

from envs.capture import CapturedEnv
from envs.config import EnvConfig, RewardConfig
from envs.market import MarketTensors
from envs.trading import TradingEnv

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a CUDA device")


def test_a_captured_environment_equals_an_eager_one() -> None:
    market = MarketTensors.build(wild_panel(3, bars=60), device="cuda")
    config = EnvConfig(RewardConfig(differential_sharpe=0.5), episode=7)
    eager, other = (TradingEnv(market, config, 64, seed=5) for _ in range(2))
    captured = CapturedEnv(other)
    other.generator.manual_seed(5)
    eager.generator.manual_seed(5)
    torch.testing.assert_close(captured.reset(), eager.reset(), rtol=0, atol=0)
    actions = torch.rand(20, 64, eager.action_dim, device="cuda") * 2 - 1
    with torch.no_grad():
        for action in actions:
            ours, theirs = captured.step(action), eager.step(action)
            for a, b in zip(ours[:3], theirs[:3]):
                torch.testing.assert_close(a, b)
            torch.testing.assert_close(ours[3]["final"].weights, theirs[3]["final"].weights)
