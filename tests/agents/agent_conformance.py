"""What every algorithm must keep true, to train in a pod, to be gone on with, to enter a tournament and a bundle.

Each check takes an algorithm's settings, whose `kind` is in `agents.build.AGENTS`, and says what broke.
Those in CLAIMS want settings that are done in a moment, as `quick` makes them; `learns` wants as many
samples as the algorithm needs.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from bundles import LENS, PANEL, PROVENANCE, measured
from markets import wild_panel
from panels import with_arrays
from pods import EVERYTHING, SPANS, market, market_of, panel, run, same

from agents import bundle
from agents.build import AGENTS
from agents.candidate import Candidate
from agents.networks import NetworkConfig
from envs.backtest import backtest
from envs.market import MarketTensors
from envs.policy import Actor, Allocated, equal_weight
from envs.trading import Step
from kit.config import build, to_dict
from kit.metrics import sharpe
from market.features import FeatureSpec
from market.panel import FIELDS, Observed, Panel
from podracer import checkpoint
from podracer.spans import SpanConfig, Spans
from podracer.start import Start
from podracer.training import Training

SMALL = NetworkConfig(hidden=(8, 8))
QUICK = {"samples": 640, "num_envs": 16, "together": 4, "horizon": 4, "batch_size": 64, "buffer": 256, "reuse": 2.0}
NO_VALIDATION = replace(SPANS, validation=slice(SPANS.validation.stop, SPANS.validation.stop))
BEFORE_THE_HOLD_OUT = Spans.cut(900, 1, SpanConfig(validation=0, test=300))


def quick(settings: Any) -> Any:
    """The same algorithm with ten small rollouts to do."""
    return replace(settings, **{name: value for name, value in QUICK.items() if hasattr(settings, name)})


def training(settings: Any, world: MarketTensors | None = None, spans: Spans = SPANS, **more: Any) -> Training:
    """Every kind of reward at once, and episodes that end within a few rollouts."""
    return Training(Candidate(settings, SMALL, EVERYTHING), world or market(), spans, **more)


def finished(settings: Any, spans: Spans = SPANS) -> Training:
    """One that was never interrupted; not to be touched."""
    return _finished(settings, spans.validation.start == spans.validation.stop, AGENTS[settings.kind])


@cache
def _finished(settings: Any, unchosen: bool, agent: type) -> Training:
    return run(training(settings, spans=NO_VALIDATION if unchosen else SPANS))


def has_what_a_pod_reads(settings: Any) -> None:
    assert settings.kind in AGENTS, f"{settings.kind} is not registered"
    assert build(type(settings), to_dict(settings)) == settings, "its settings must survive a configuration"
    assert hash(settings) == hash(replace(settings)), "its settings must be frozen"
    made = training(settings)
    for name in ("anneal", "learn", "explore_vec_env", "state_dict", "load_state_dict", "take_over", "align_targets"):
        assert callable(getattr(made.agent, name, None)), f"has no {name}"
    rollout = made.pod.collect()
    assert rollout.rewards.numel() == settings.num_envs * settings.horizon, "rewards are not [H, N]"
    losses = made.agent.learn(rollout)
    assert all(torch.as_tensor(value).isfinite().all() for value in losses.values()), "a loss is no number"


def is_a_function_of_its_seed(settings: Any) -> None:
    one, other = finished(settings).state_dict(), run(training(settings)).state_dict()
    assert _equal(one, other), "the same seed must give the same policy, to the last bit"
    another = _policy(run(training(settings, seed=4)))
    assert not same(_policy(finished(settings)), another), "another seed must give another policy"


def neither_hears_nor_disturbs_other_generators(settings: Any) -> None:
    other = training(settings)
    while not other.done:
        random.seed(other.samples)
        np.random.seed(other.samples)  # noqa: NPY002 - the one that others may share
        torch.manual_seed(other.samples)
        before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index]  # noqa: NPY002
        other.advance()
        after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index]  # noqa: NPY002
        assert after == before, "it drew from a generator that it shares"
    assert same(_policy(finished(settings)), _policy(other)), "its policy depends on a generator that it shares"


def goes_on_from_a_checkpoint_to_the_same_bits(settings: Any) -> None:
    for rollouts in (1, 6):
        stopped = training(settings)
        for _ in range(rollouts):
            stopped.advance()
        with TemporaryDirectory() as folder:
            checkpoint.write(Path(folder) / "checkpoint.pt", stopped.state_dict())
            state = checkpoint.read(Path(folder) / "checkpoint.pt")
        gone_on = training(settings)
        gone_on.load_state_dict(state)
        whole = finished(settings).state_dict()
        assert _equal(run(gone_on).state_dict(), whole), f"stopped after {rollouts} rollouts, it ends elsewhere"


def acts_between_minus_1_and_1(settings: Any) -> None:
    made, seen = training(settings), []
    env: Any = made.pod.env  # type: ignore[union-attr]
    advance = env.advance

    def listening(account: Any, action: torch.Tensor, starts: torch.Tensor) -> Step:
        seen.append(action.detach().clone())
        return advance(account, action, starts)

    env.advance = listening
    run(made)
    assert seen, "it never acted in its environment"
    bars = torch.arange(len(market()))
    generator = torch.Generator().manual_seed(0)
    portfolio = torch.randn(len(bars), 7, generator=generator) * 3.0  # no portfolio is as far out as that
    seen.append(made.agent.policy(market(), bars, portfolio).detach())
    for action in seen:
        assert action.shape[1:] == (6,), "an action has an entry for each asset, and one for cash"
        assert action.isfinite().all(), "an action is no number"
        assert action.abs().max() <= 1.0, "an action lies beyond 1"


def decides_without_the_future(settings: Any) -> None:
    """Perturb everything after a bar: what the policy wants up to it is the same."""
    actor, last = finished(settings).result().actor, 150
    bars, held = torch.arange(len(market())), torch.full((len(market()), 7), 0.1)
    worlds = (market(), market_of(_other_bars(panel(), last + 1)))
    one, other = (actor(world, bars, held).detach() for world in worlds)
    torch.testing.assert_close(one[: last + 1], other[: last + 1])
    assert not torch.allclose(one[last + 1 :], other[last + 1 :]), "the perturbation did not reach it"
    one, other = (backtest([Allocated(actor)], world, slice(20, 200))[0].weights for world in worlds)  # type: ignore[assignment]
    np.testing.assert_allclose(one[: last - 20], other[: last - 20], atol=1e-6)


def learns_without_the_future(settings: Any) -> None:
    """Perturb every bar after those that training and choosing may see: the policy is the same."""
    for spans in (SPANS, NO_VALIDATION):
        end = max(spans.train.stop, spans.validation.stop) + 1  # the bar at which the last order fills
        other = market_of(_other_bars(panel(), end + 1))
        ours, theirs = (_policy(made) for made in (finished(settings, spans), run(training(settings, other, spans))))
        assert same(ours, theirs), "its training saw bars after its span"


def bears_gaps_and_halts(settings: Any) -> None:
    """Late listings, pauses, bars on which nothing trades and missing volume: every weight stays a number."""
    made = wild_panel(5, bars=300)
    features = FeatureSpec.from_config([{"log_return": {"horizons": [1]}}, "volume_zscore"]).compute(made)
    practised = run(training(settings, MarketTensors.build(made, features=features.values)))
    assert all(value.isfinite().all() for value in _policy(practised).values()), "a weight is no number"


def enters_a_bundle(settings: Any) -> None:
    """Saved and loaded, its policy wants the same, to the last bit."""
    spans, world = Spans.cut(len(PANEL), 20, SpanConfig(validation=10, test=30)), LENS.market(PANEL)
    made = run(training(settings, world, spans)).result()
    members = [bundle.Member("m0", made.actor, 1.0, made.candidate)]
    with TemporaryDirectory() as folder:
        saved = bundle.save(Path(folder) / "bundle", members, LENS, measured(members), PROVENANCE)
        loaded = bundle.load(Path(folder) / "bundle")
    assert loaded.hash == saved.hash, "it changed on its way"
    one, other = (backtest([p], world, spans.test)[0] for p in (Allocated(made.actor), loaded.policy))
    np.testing.assert_array_equal(one.weights, other.weights)


def starts_where_another_ended(settings: Any) -> None:
    """Into the next fold: the policy of a finished trial, as the ledger keeps it, under settings of its own."""
    parent = finished(settings, NO_VALIDATION)
    agent = parent.agent.state_dict()
    held = {name.removeprefix("net."): value for name, value in agent["act"].items() if name.startswith("net.")}
    assert _equal(held, parent.agent.policy.state_dict()), "state_dict()['act'] must hold the policy under net."
    kept = {name: value for name, value in agent.items() if name not in ("buffer", "last_state")}
    own = replace(settings, learning_rate=settings.learning_rate / 2)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "checkpoint.pt"
        checkpoint.write(file, {"ends": str(NO_VALIDATION.ends(market())), "agent": kept})
        child = training(own, start=Start(str(file)))
    assert same(child.agent.policy.state_dict(), parent.agent.policy.state_dict()), "it does not start as its parent"
    assert child.agent.settings == own, "it took over its parent's settings"
    child.advance()
    assert not same(child.agent.policy.state_dict(), parent.agent.policy.state_dict()), "it learns no further"


def learns(settings: Any) -> None:
    """On the built-in market with a strong signal: a third of the edge of the rule that follows it, or more."""
    world = signal_market()
    candidate = Candidate(settings, SMALL)
    actor = run(Training(candidate, world, BEFORE_THE_HOLD_OUT)).result().actor
    found, known = edge(actor, world), edge(follows_the_signal, world)
    assert found > known / 3, f"its edge is {found:.2f}, that of the rule {known:.2f}"


CLAIMS: tuple[Callable[[Any], None], ...] = (
    has_what_a_pod_reads,
    is_a_function_of_its_seed,
    neither_hears_nor_disturbs_other_generators,
    goes_on_from_a_checkpoint_to_the_same_bits,
    acts_between_minus_1_and_1,
    decides_without_the_future,
    learns_without_the_future,
    bears_gaps_and_halts,
    enters_a_bundle,
    starts_where_another_ended,
)


@cache
def signal_market() -> MarketTensors:
    return market_of(panel(11, 900))


def follows_the_signal(world: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
    """bar [B], portfolio [B, P] -> action [B, A+1]"""
    signal = world.features[bar, :, 0].clamp(-1.0, 1.0)
    return torch.cat([signal, torch.zeros_like(signal[:, :1])], dim=1)


def edge(actor: Actor, world: MarketTensors) -> float:
    """Sharpe ratio over equal weight's, on days that no training saw."""
    tracks = backtest([Allocated(actor), equal_weight], world, BEFORE_THE_HOLD_OUT.test)
    ours, standard = (float(sharpe(track.returns, track.bars_per_year)) for track in tracks)
    return ours - standard


def _policy(made: Training) -> dict[str, torch.Tensor]:
    return made.result().actor.state_dict()


def _other_bars(made: Panel, first: int) -> Panel:
    """Every price, volume and signal from a bar on is another; all still trade."""
    generator = np.random.default_rng(5)
    arrays = {name: getattr(made, name).copy() for name in FIELDS}
    for array in arrays.values():
        array[first:] *= generator.lognormal(0.0, 1.0, array[first:].shape)
    observed = {name: Observed(column.values.copy(), column.known_at) for name, column in made.observed.items()}
    for column in observed.values():
        column.values[first:] = generator.normal(0.0, 30.0, column.values[first:].shape)
    return with_arrays(made, **arrays, observed=observed)


def _equal(one: Any, other: Any) -> bool:
    """Trees of plain values and tensors, to the last bit; two not-numbers are the same."""
    if isinstance(one, torch.Tensor):
        return one.shape == other.shape and torch.equal(one.nan_to_num(1e30), other.nan_to_num(1e30))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other or (one != one and other != other))
