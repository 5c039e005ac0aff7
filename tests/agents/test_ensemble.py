"""An ensemble is one policy: the average of its members' votes, which batching does not change."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import KINDS, tensors, wild_panel

from agents.baselines import hold
from agents.ensemble import Ensemble
from agents.heads import ActorNet
from agents.networks import NetworkConfig
from envs.backtest import backtest
from envs.market import MarketTensors
from envs.policy import Allocated, Policy, equal_weight, portfolio_width

BARS, ASSETS, FEATURES = 60, 4, 3
SHAPES = [
    NetworkConfig(encoder, head, (8, 4), lookback)
    for encoder in ("shared", "flat", "attention")
    for head in ("bilinear", "late", "joint")
    for lookback in (1, 4)
]


def wild_market(kind: str = "softmax") -> MarketTensors:
    features = np.random.default_rng(5).standard_normal((BARS, ASSETS, FEATURES)).astype(np.float32)
    return tensors(wild_panel(0, BARS, ASSETS), kind, dtype=torch.float32, features=features)


def trained(market: MarketTensors, network: NetworkConfig, seed: int) -> Policy:
    """As far from zero actions as training leads."""
    torch.manual_seed(seed)
    actor = ActorNet(network, market.assets, market.features.shape[2], portfolio_width(market))
    for values in actor.parameters():
        torch.nn.init.normal_(values, std=0.5)
    return Allocated(actor)


def portfolios(market: MarketTensors, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:  # [B], [B, P]
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(market.assets + 1), count)
    rest = -rng.uniform(0, 0.3, (count, 1))
    columns = [weights, rest] if market.lot is None else [weights, rest, rng.uniform(0.5, 2, (count, 1))]
    return torch.as_tensor(rng.integers(0, BARS - 1, count)), torch.as_tensor(np.concatenate(columns, 1)).float()


def always(*weights: float) -> Policy:
    return lambda market, bar, portfolio: torch.tensor(weights).expand(len(bar), -1)


@torch.no_grad()
def one_by_one(
    policies: list[Policy], market: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor
) -> torch.Tensor:
    return torch.stack([policy(market, bar, portfolio) for policy in policies])


@pytest.mark.parametrize("network", SHAPES, ids=lambda n: f"{n.encoder}-{n.head}-{n.lookback}")
@pytest.mark.parametrize("count", [1, 5])
def test_members_vote_together_as_they_would_alone(network: NetworkConfig, count: int) -> None:
    market = wild_market()
    policies = [trained(market, network, seed) for seed in range(3)]
    bar, portfolio = portfolios(market, count)
    votes = Ensemble(policies, [0.5, 0.3, 0.2]).members(market, bar, portfolio)
    alone = one_by_one(policies, market, bar, portfolio)
    torch.testing.assert_close(votes, alone, atol=2e-6, rtol=0)
    assert (alone[0] - alone[1]).abs().max() > 1e-2, "members that agree would prove nothing"


@pytest.mark.parametrize("kind", KINDS)
def test_votes_keep_the_order_of_the_policies_whatever_their_shapes(kind: str) -> None:
    market = wild_market(kind)
    small, large = NetworkConfig(hidden=(4,)), NetworkConfig("attention", "late", (8, 4), 4)
    shapes = [small, large, None, small, large, NetworkConfig(hidden=(4,), lookback=2)]
    policies = [equal_weight if shape is None else trained(market, shape, k) for k, shape in enumerate(shapes)]
    bar, portfolio = portfolios(market, 7)
    votes = Ensemble(policies, [1 / 6] * 6).members(market, bar, portfolio)
    torch.testing.assert_close(votes, one_by_one(policies, market, bar, portfolio), atol=2e-6, rtol=0)


def test_the_average_is_weighted() -> None:
    market = wild_market()
    ensemble = Ensemble([always(1, 0, 0, 0, 0), always(0, 0.5, 0, 0, 0.5)], [0.75, 0.25])
    wanted = ensemble(market, *portfolios(market, 2))
    torch.testing.assert_close(wanted, torch.tensor([[0.75, 0.125, 0, 0, 0.125]] * 2))


def test_the_spread_is_nothing_for_those_who_agree_and_grows_with_what_is_not_shared() -> None:
    ensemble = Ensemble([equal_weight, hold], [0.75, 0.25])
    same = torch.tensor([[0.5, 0.5]])
    apart = torch.stack([torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])])
    assert ensemble.spread(torch.stack([same, same])).tolist() == [0.0]
    assert ensemble.spread(apart).tolist() == pytest.approx([0.75 * 0.25 + 0.25 * 0.75])


@settings(max_examples=30)
@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=5), st.sampled_from(["softmax", "tilt", "long_short"]))
def test_an_average_of_portfolios_is_a_portfolio(raw: list[float], kind: str) -> None:
    market = wild_market(kind)
    policies = [trained(market, SHAPES[0], seed) for seed in range(len(raw))]
    bar, portfolio = portfolios(market, 9)
    wanted = Ensemble(policies, [value / sum(raw) for value in raw])(market, bar, portfolio)
    torch.testing.assert_close(wanted.sum(1), torch.ones(9))
    if kind != "long_short":
        assert wanted.min() >= -1e-6
    assert market.open_now is not None
    stuck = market.open_now[bar][:, :-1] == 0
    torch.testing.assert_close(wanted[:, :-1][stuck], portfolio[:, :ASSETS][stuck], atol=1e-6, rtol=0)


def test_members_see_the_ensembles_portfolio() -> None:
    market = wild_market()
    seen: list[torch.Tensor] = []

    def watching(market: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
        seen.append(portfolio.clone())
        return equal_weight(market, bar, portfolio)

    greedy = always(1, 0, 0, 0, 0)
    track = backtest([Ensemble([watching, greedy], [0.5, 0.5])], market)[0]
    for row, portfolio in enumerate(seen[1:]):
        np.testing.assert_array_equal(portfolio[0, : ASSETS + 1].numpy(), track.weights[row])


def test_an_ensemble_of_one_is_its_member() -> None:
    market = wild_market()
    policy = trained(market, SHAPES[0], 1)
    tracks = backtest([policy, Ensemble([policy], [1.0])], market)
    np.testing.assert_array_equal(tracks[0].weights, tracks[1].weights)


def test_who_is_asked_along_does_not_matter() -> None:
    market = wild_market()
    ensemble = Ensemble([trained(market, SHAPES[0], seed) for seed in range(3)], [1 / 3] * 3)
    bar, portfolio = portfolios(market, 6)
    alone = [ensemble(market, bar[k : k + 1], portfolio[k : k + 1]) for k in range(6)]
    torch.testing.assert_close(ensemble(market, bar, portfolio), torch.cat(alone), atol=1e-6, rtol=0)


def test_threads_do_not_disturb_each_other() -> None:
    market = wild_market()
    ensemble = Ensemble([trained(market, SHAPES[0], seed) for seed in range(3)], [1 / 3] * 3)
    asked = [portfolios(market, 1, seed) for seed in range(50)]
    expected = [ensemble(market, *question) for question in asked]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda question: ensemble(market, *question), asked))
    assert all(torch.equal(*pair) for pair in zip(expected, answers, strict=True))


def test_members_that_train_on_do_not_move_the_ensemble() -> None:
    market = wild_market()
    policies = [trained(market, SHAPES[0], seed) for seed in range(2)]
    ensemble = Ensemble(policies, [0.5, 0.5])
    asked = portfolios(market, 3)
    before = ensemble(market, *asked)
    with torch.no_grad():
        for values in policies[0].actor.parameters():
            values.add_(1.0)
    assert torch.equal(ensemble(market, *asked), before)


@pytest.mark.parametrize("weights", [[0.5, 0.6], [1.0, 0.0], [1.5, -0.5], [1.0], [float("nan"), 1.0]])
def test_weights_that_are_no_average_are_refused(weights: list[float]) -> None:
    with pytest.raises(AssertionError):
        Ensemble([equal_weight, hold], weights)
