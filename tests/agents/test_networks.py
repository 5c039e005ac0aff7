"""Networks: what a bar is made of is computed once, knows no later bar, and does not care how symbols are ordered."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import random_actions, tensors
from panels import random_panel
from torch import nn

from agents.base import StateNet, split
from agents.build import AGENTS, Agent
from agents.config import DirectConfig, PPOConfig, SACConfig, TD3Config
from agents.heads import ActorNet, TwinNet, ValueNet, shown
from agents.networks import NetworkConfig, PortfolioNet, window
from envs.backtest import backtest
from envs.market import MarketTensors
from envs.policy import Allocated, portfolio_width
from envs.trading import TradingEnv
from envs.transition import State
from kit.config import build
from kit.errors import UserError

BARS, ASSETS, FEATURES = 40, 4, 3
ENCODERS, HEADS, LOOKBACKS = ("shared", "flat", "attention"), ("bilinear", "late", "joint"), (1, 4)
EVERY = [NetworkConfig(e, h, (8, 12), n) for e, h, n in itertools.product(ENCODERS, HEADS, LOOKBACKS)]
every_network = pytest.mark.parametrize("config", EVERY, ids=lambda c: f"{c.encoder}-{c.head}-{c.lookback}")
ROUNDING = {"rtol": 1e-9, "atol": 1e-12}
CONFIGS = {
    "ppo": PPOConfig(num_envs=16, horizon=4, batch_size=32, epochs=1),
    "sac": SACConfig(num_envs=16, together=4, horizon=4, batch_size=32, buffer=128),
    "td3": TD3Config(num_envs=16, together=4, horizon=4, batch_size=32, buffer=128),
    "direct": DirectConfig(num_envs=16, horizon=4),
}


def market_of(seed: int = 0, dtype: torch.dtype = torch.float64, bars: int = BARS) -> MarketTensors:
    features = np.random.default_rng(seed).normal(size=(bars, ASSETS, FEATURES)).astype(np.float32)
    return tensors(random_panel(seed, bars, ASSETS, gaps=False), features=features, dtype=dtype)


def loud(net: nn.Module, seed: int = 0) -> nn.Module:
    """The same network with weights large enough for every input to matter."""
    generator = torch.Generator().manual_seed(seed)
    net.double()
    with torch.no_grad():
        for parameter in net.parameters():
            scale = parameter.shape[-1] ** -0.5
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return net


def actor_of(config: NetworkConfig, seed: int = 0) -> ActorNet:
    net = loud(ActorNet(config, ASSETS, FEATURES, ASSETS + 2), seed)
    assert isinstance(net, ActorNet)
    return net


def portfolios(seed: int, count: int) -> torch.Tensor:  # [B, A+2]
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(ASSETS + 1), count)
    return torch.as_tensor(np.concatenate([weights, rng.uniform(0, 0.3, (count, 1))], axis=1))


def agent_of(kind: str, market: MarketTensors, config: NetworkConfig | None = None) -> Agent:
    return AGENTS[kind](market, CONFIGS[kind], config or NetworkConfig(hidden=(8, 8)), 0)  # type: ignore[arg-type]


# -- the order of symbols


def reordered(config: NetworkConfig, seed: int, order: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Actions with the symbols in another order, and the actions themselves put into that order."""
    market, actor, portfolio = market_of(seed), actor_of(config, seed), portfolios(seed, BARS)
    bars = torch.arange(BARS)
    columns = torch.tensor([*order, ASSETS, ASSETS + 1])  # cash and drawdown stay where they are
    moved = actor(replace(market, features=market.features[:, order]), bars, portfolio[:, columns])
    return moved, actor(market, bars, portfolio)[:, columns[:-1]]


@settings(max_examples=40)
@given(
    config=st.sampled_from([c for c in EVERY if c.encoder != "flat"]),
    seed=st.integers(0, 2**31),
    order=st.permutations(range(ASSETS)),
)
def test_shared_and_attention_do_not_care_for_the_order_of_symbols(
    config: NetworkConfig, seed: int, order: list[int]
) -> None:
    torch.testing.assert_close(*reordered(config, seed, order), **ROUNDING)


@pytest.mark.parametrize("head", HEADS)
def test_flat_tells_symbols_apart(head: str) -> None:
    config = NetworkConfig("flat", head, (8, 12))  # type: ignore[arg-type]
    moved, same = reordered(config, 0, [2, 0, 3, 1])
    assert not torch.allclose(moved, same, atol=1e-2)


@pytest.mark.parametrize("head", ["bilinear", "late"])
def test_shared_sees_one_asset_at_a_time_and_attention_all_of_them(head: str) -> None:
    market, portfolio, bars = market_of(), portfolios(0, BARS), torch.arange(BARS)
    features = market.features.clone()
    features[:, 0] += 1.0
    for encoder, apart in (("shared", True), ("attention", False), ("flat", False)):
        actor = actor_of(NetworkConfig(encoder, head, (8, 12)))  # type: ignore[arg-type]
        one, other = actor(market, bars, portfolio), actor(replace(market, features=features), bars, portfolio)
        assert torch.equal(one[:, 1:ASSETS], other[:, 1:ASSETS]) == apart
        assert not torch.allclose(one[:, 0], other[:, 0])
        assert not torch.allclose(one[:, -1], other[:, -1])  # cash answers to every asset


# -- once per bar


@every_network
def test_preparing_every_bar_and_looking_up_is_preparing_single_bars(config: NetworkConfig) -> None:
    market, actor = market_of(), actor_of(config)
    whole = actor.prepare(market)
    assert len(whole) == BARS
    bars = torch.tensor([0, 1, 7, 7, BARS - 1, 2])
    torch.testing.assert_close(whole.index_select(0, bars), actor.prepare(market, bars), **ROUNDING)
    for bar in (0, 3, BARS - 1):
        torch.testing.assert_close(whole[bar : bar + 1], actor.prepare(market, torch.tensor([bar])), **ROUNDING)
    portfolio = portfolios(1, len(bars))
    raw = actor.raw(whole.index_select(0, bars), portfolio)
    torch.testing.assert_close(raw.tanh(), actor(market, bars, portfolio), **ROUNDING)


@every_network
@pytest.mark.parametrize("count", [5, BARS, 3 * BARS])
def test_an_agents_network_looks_up_the_same_however_many_bars_are_asked_for(config: NetworkConfig, count: int) -> None:
    market = market_of(dtype=torch.float64)
    net = agent_of("direct", market, config).act.double()
    bars = torch.as_tensor(np.random.default_rng(0).integers(0, BARS, count))
    torch.testing.assert_close(net.look_up(bars), net.net.prepare(market, bars), **ROUNDING)


@every_network
def test_neighbours_at_the_same_bar_are_told_the_same_together_as_each_by_itself(config: NetworkConfig) -> None:
    market = market_of()
    generator = torch.Generator().manual_seed(1)
    portfolio = torch.rand(12, portfolio_width(market), generator=generator, dtype=torch.float64)
    action = 2 * torch.rand(12, ASSETS + 1, generator=generator, dtype=torch.float64) - 1
    groups = torch.tensor([7, 30, 7])
    bar = groups.repeat_interleave(4)
    actor, twin = actor_of(config), loud(TwinNet(config, ASSETS, FEATURES, portfolio_width(market)))
    for net, ask in (
        (actor, lambda prepared: actor.raw(prepared, portfolio)),
        (twin, lambda prepared: twin.values(market, prepared, bar, portfolio, action)),
    ):
        together, apart = ask(net.prepare(market, groups)), ask(net.prepare(market, bar))
        torch.testing.assert_close(together, apart, **ROUNDING)


@every_network
def test_pooled_is_the_mean_over_assets_and_the_whole(config: NetworkConfig) -> None:
    market = market_of()
    net = loud(PortfolioNet(config, ASSETS, FEATURES, 2, 3, 2))
    generator = torch.Generator().manual_seed(1)
    own = list(torch.rand(2, 6, ASSETS, generator=generator, dtype=torch.float64))
    common = list(torch.rand(3, 6, generator=generator, dtype=torch.float64))
    prepared = net.prepare(market, torch.tensor([3, 9]))
    each, whole = net.join(prepared, own, common)
    torch.testing.assert_close(net.pooled(prepared, own, common), each.mean(2) + whole, **ROUNDING)


@pytest.mark.parametrize("kind", ["sac", "td3"])
def test_one_of_a_group_that_was_ruined_is_looked_up_at_its_own_bar(kind: str) -> None:
    market = market_of()
    act = agent_of(kind, market).act.double()
    assert act.together == 4
    bar = torch.tensor([5, 5, 5, 5, 8, 8, 9, 8])
    alone = act.net.prepare(market, bar)
    torch.testing.assert_close(act.look_up(bar), alone, **ROUNDING)
    torch.testing.assert_close(act.look_up(bar[:4]), alone[:1], **ROUNDING)


@pytest.mark.parametrize("lookback", [1, 2, 4, BARS + 5])
def test_a_window_holds_the_last_bars_oldest_first_and_never_reads_forward(lookback: int) -> None:
    features = market_of().features
    seen = window(features, lookback, None)
    for bar in range(BARS):
        for asset in range(ASSETS):
            by_hand = [features[max(0, bar + 1 - lookback + step), asset] for step in range(lookback)]
            assert torch.equal(seen[bar, asset], torch.cat(by_hand))
    picked = torch.tensor([9, 0, 9])
    assert torch.equal(window(features, lookback, picked), seen[picked])


# -- no leak


@every_network
@pytest.mark.parametrize("last", [6, 25])
def test_a_backtest_decides_the_same_up_to_t_whatever_the_features_after_t_are(
    config: NetworkConfig, last: int
) -> None:
    market, actor = market_of(), actor_of(config)
    features = market.features.clone()
    features[last + 1 :] = 100.0 * torch.as_tensor(random_actions(1, BARS - last - 1, ASSETS, FEATURES))
    other = replace(market, features=features)
    one, changed = (backtest([Allocated(actor)], each)[0] for each in (market, other))
    np.testing.assert_array_equal(one.traded[: last + 1], changed.traded[: last + 1])
    np.testing.assert_array_equal(one.weights[: last + 1], changed.weights[: last + 1])
    assert not np.allclose(one.traded[last + 1], changed.traded[last + 1])
    prepared, others = actor.prepare(market), actor.prepare(other)
    assert torch.equal(prepared[: last + 1], others[: last + 1])
    assert not torch.allclose(prepared[last + 1], others[last + 1])


@every_network
def test_a_decision_forgets_what_lies_before_its_look_back(config: NetworkConfig) -> None:
    market, actor, bar = market_of(), actor_of(config), 20
    portfolio = portfolios(0, 1)
    for row, matters in ((bar - config.lookback, False), (bar - config.lookback + 1, True)):
        features = market.features.clone()
        features[row] += 1.0
        decided = actor(replace(market, features=features), torch.tensor([bar]), portfolio)
        same = torch.equal(decided, actor(market, torch.tensor([bar]), portfolio))
        assert same != matters


# -- at first


@every_network
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_first_actions_are_near_equal_weight(config: NetworkConfig, seed: int) -> None:
    torch.manual_seed(seed)
    actor = ActorNet(config, ASSETS, FEATURES, ASSETS + 2).double()
    market, bars, portfolio = market_of(seed), torch.arange(BARS), portfolios(seed, BARS)
    with torch.no_grad():
        action = actor(market, bars, portfolio)
        weights = Allocated(actor)(market, bars, portfolio)
    assert 0 < float(action.abs().max()) < 0.1
    assert float((weights[:, :-1] - 1 / ASSETS).abs().max()) < 0.05


@every_network
@pytest.mark.parametrize("kind", ["actor", "value", "twin"])
def test_gradient_reaches_every_parameter(config: NetworkConfig, kind: str) -> None:
    torch.manual_seed(0)
    market, bars, portfolio = market_of(), torch.arange(BARS), portfolios(2, BARS)
    shape = (config, ASSETS, FEATURES, ASSETS + 2)
    if kind == "actor":
        net: nn.Module = ActorNet(*shape).double()
        answer = net(market, bars, portfolio)
    elif kind == "value":
        net = ValueNet(*shape).double()
        answer = net.value(net.prepare(market, bars), portfolio)
    else:
        net = TwinNet(*shape).double()
        answer = net.values(market, net.prepare(market, bars), bars, portfolio, random_actions(3, BARS, ASSETS + 1))
    (answer * random_actions(4, *answer.shape)).sum().backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert silent == []


@every_network
def test_an_action_answers_to_each_thing_that_the_portfolio_shows(config: NetworkConfig) -> None:
    market, actor, bar = market_of(), actor_of(config), torch.tensor([11])
    portfolio = portfolios(5, 1)
    same = actor(market, bar, portfolio)
    for column in range(ASSETS + 2):
        moved = portfolio.clone()
        moved[0, column] += 0.1
        assert not torch.allclose(actor(market, bar, moved), same)


def test_holdings_are_shown_against_equal_weight() -> None:
    portfolio = torch.tensor([[0.25, 0.5, 0.0, 0.125, 0.125, 0.3]])
    (held,), (cash, drawdown) = shown(4, portfolio)
    assert torch.equal(held, torch.tensor([[0.0, 1.0, -1.0, -0.5]]))
    assert cash.item() == 0.125
    assert drawdown.item() == pytest.approx(0.3)


@pytest.mark.parametrize(("own", "common", "outputs"), [(1, 2, 1), (4, 3, 2)])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_bilinear_join_is_these_plain_loops(own: int, common: int, outputs: int, encoder: str) -> None:
    config, batch = NetworkConfig(encoder, "bilinear", (8, 12)), 3  # type: ignore[arg-type]
    net, market = loud(PortfolioNet(config, ASSETS, FEATURES, own, common, outputs)), market_of()
    assert isinstance(net, PortfolioNet)
    bars = torch.tensor([4, 0, 30])
    held = list(random_actions(1, own, batch, ASSETS))
    numbers = list(random_actions(2, common, batch))
    each, whole = net.join(net.prepare(market, bars), held, numbers)
    assert each.shape == (batch, outputs, ASSETS)
    assert whole.shape == (batch, outputs)
    code = net.encoder(market.features[bars])  # [B, A, D]
    terms = 1 + own + common
    for row, output in itertools.product(range(batch), range(outputs)):
        for asset in range(ASSETS):
            values = [1.0, *(h[row, asset] for h in held), *(n[row] for n in numbers)]
            total = 0.0
            for term in range(terms):
                line = output * terms + term
                coefficient = net.each.weight[line] @ code[row, asset] + net.each.bias[line]
                total = total + coefficient * values[term]
            torch.testing.assert_close(each[row, output, asset], total, **ROUNDING)
        mean, total = sum(code[row, asset] for asset in range(ASSETS)) / ASSETS, 0.0
        for term in range(1 + common):
            line = output * (1 + common) + term
            coefficient = net.whole.weight[line] @ mean + net.whole.bias[line]
            total = total + coefficient * (1.0 if term == 0 else numbers[term - 1][row])
        torch.testing.assert_close(whole[row, output], total, **ROUNDING)


# -- memory and precision


@pytest.mark.parametrize("kind", sorted(AGENTS))
def test_deep_copies_of_agents_and_networks_share_the_market(kind: str) -> None:
    market = market_of(dtype=torch.float32)
    agent = agent_of(kind, market)
    nets = {name: net for name, net in vars(agent).items() if isinstance(net, StateNet)}
    assert "act" in nets
    for net in nets.values():
        twin = copy.deepcopy(net)
        assert net.market is twin.market is market
        for one, other in zip(net.parameters(), twin.parameters()):
            assert one.data_ptr() != other.data_ptr()
            assert torch.equal(one, other)
        assert not set(net.state_dict()) & {"market", "features", "table"}
    assert copy.deepcopy(agent).market is market


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bar_index_survives_the_state_exactly(dtype: torch.dtype) -> None:
    market = market_of(dtype=dtype)
    env = TradingEnv(market, num_envs=5)
    bars = torch.tensor([0, 1, 2**24 - 1, 2**24 - 2, 9_999_999])
    state = env.account.state
    observation = env.observe(State(bars, state.weights, state.wealth, state.peak))
    assert observation.dtype == dtype
    assert torch.equal(split(observation)[0], bars)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        observation = env.observe(State(bars, state.weights, state.wealth, state.peak))
    assert torch.equal(split(observation)[0], bars)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype: torch.dtype) -> None:
    """A bar index would not be exact in it: bfloat16 cannot tell bar 257 from 256."""
    with pytest.raises((AssertionError, UserError), match="float32"):
        market_of(dtype=dtype)
    with pytest.raises((AssertionError, UserError), match="float32"):
        market_of().to(dtype=dtype)


@pytest.mark.parametrize("kind", sorted(AGENTS))
def test_every_number_of_an_agent_has_the_markets_precision(kind: str) -> None:
    market = market_of(dtype=torch.float32)
    agent = agent_of(kind, market)
    env = TradingEnv(market, num_envs=16, together=4)
    agent.last_state = env.reset()
    rollout = agent.explore_vec_env(env, 4)
    losses = agent.learn(rollout)
    assert all(part.dtype == torch.float32 for part in (*rollout, *losses.values(), agent.last_state))
    assert all(p.dtype == torch.float32 for p in agent.act.parameters())


# -- configuration


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"hidden": []}, "hidden"),
        ({"hidden": [8, 0]}, "hidden"),
        ({"hidden": [8, -4]}, "hidden"),
        ({"hidden": 8}, "hidden = 8: expected a list"),
        ({"lookback": 0}, "lookback = 0: must be at least 1"),
        ({"encoder": "shard"}, "encoder = 'shard': expected one of shared, flat, attention; did you mean shared?"),
        ({"head": "lat"}, "head = 'lat': expected one of"),
        ({"encoder": "attention", "hidden": [30, 32]}, "divisible by 4, not 30"),
    ],
)
def test_impossible_networks_are_one_clear_line(tree: dict[str, object], words: str) -> None:
    with pytest.raises(UserError) as caught:
        build(NetworkConfig, tree, "net.yaml")
    assert str(caught.value).startswith("net.yaml: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_attention_takes_any_width_after_a_first_one_divisible_by_four() -> None:
    config = build(NetworkConfig, {"encoder": "attention", "hidden": [12, 7]})
    net = ActorNet(config, ASSETS, FEATURES, portfolio_width(market_of())).double()
    assert net(market_of(), torch.tensor([3]), portfolios(0, 1)).shape == (1, ASSETS + 1)
