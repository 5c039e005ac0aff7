"""Starts: from a baseline, from an earlier training, and never from one that has seen more than this one may."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from markets import tensors, wild_panel
from pods import EVERYTHING, KINDS, SPANS, STEPS, candidate, finished, market, policy, run, same, weights_of
from test_checkpoint import PLANTED, Bomb, stopped

from agents.baselines import BASELINES
from agents.build import build_agent
from agents.heads import ActorNet
from agents.imitate import imitate
from agents.networks import NetworkConfig
from envs.backtest import backtest
from envs.market import MarketTensors
from envs.policy import Allocated, Policy, portfolio_width
from kit.errors import UserError
from kit.files import hash_file
from kit.metrics import sharpe
from podracer import checkpoint
from podracer.spans import Spans
from podracer.start import Start
from podracer.training import Training

NEAR = 0.005  # mean of Σ|Δw| over assets and cash, that imitation leaves
TRAINED_AGAIN = {  # spans that end later, at the same bar and earlier
    "later": replace(SPANS, validation=slice(SPANS.validation.start, SPANS.validation.stop + 1)),
    "same": SPANS,
    "earlier": Spans(slice(20, 150), slice(152, 180), slice(182, 240)),
}


def refused(start: str, kind: str = "ppo", **more: Any) -> str:
    with pytest.raises(UserError) as caught:
        Training(more.get("made") or candidate(kind, EVERYTHING), market(), SPANS, start=Start(start))
    text = str(caught.value)
    assert "\n" not in text
    assert start in text
    return text


def a_checkpoint(folder: Path, kind: str = "ppo", spans: Spans = SPANS, **settings: Any) -> Path:
    training = Training(candidate(kind, EVERYTHING, **settings), market(), spans, seed=8)
    for _ in range(2):
        training.advance()
    checkpoint.write(folder / "parent.pt", training.state_dict())
    return folder / "parent.pt"


# -- an earlier training


@pytest.mark.parametrize("kind", KINDS)
def test_a_child_has_its_parents_weights_and_momentum_under_its_own_settings(kind: str, tmp_path: Path) -> None:
    file = a_checkpoint(tmp_path, kind, learning_rate=0.004, weight_decay=0.0)
    parent = checkpoint.read(file)["agent"]
    made = candidate(kind, EVERYTHING, learning_rate=0.001, weight_decay=0.07)
    child = Training(made, market(), SPANS, start=Start(str(file)))
    agent = child.agent
    for name in agent._networks():
        assert same(getattr(agent, name).state_dict(), parent[name])
    for optimizer, values in zip(agent._optimizers(), parent["optimizers"], strict=True):
        mine = optimizer.state_dict()
        assert mine["state"].keys() == values["state"].keys() != set()
        for index, moments in values["state"].items():
            assert same(mine["state"][index], moments)
            assert moments["exp_avg"].abs().max() > 0
    for optimizer in (agent.act_optimizer, agent.cri_optimizer):
        assert [group["weight_decay"] for group in optimizer.param_groups] == [0.07]
        assert [group["lr"] for group in optimizer.param_groups] == [0.001]
    child.advance()
    assert [group["lr"] for group in agent.act_optimizer.param_groups] == [0.001]
    assert child.samples == STEPS  # it counts its own samples, in its own environments
    assert len(child.history) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_start_is_an_argument_like_any_other(kind: str, tmp_path: Path) -> None:
    start = Start(str(a_checkpoint(tmp_path, kind)))
    one, other = (run(Training(candidate(kind, EVERYTHING), market(), SPANS, start=start)) for _ in range(2))
    assert same(weights_of(one), weights_of(other))
    assert same(policy(one), policy(other))
    assert not same(weights_of(one), weights_of(finished(kind, EVERYTHING)))


@pytest.mark.parametrize("when", ["same", "earlier"])
def test_a_start_that_ends_no_later_is_taken(when: str, tmp_path: Path) -> None:
    file = a_checkpoint(tmp_path, spans=TRAINED_AGAIN[when])
    child = Training(candidate("ppo", EVERYTHING), market(), SPANS, start=Start(str(file)))
    assert same(child.agent.act.state_dict(), checkpoint.read(file)["agent"]["act"])


@pytest.mark.parametrize("end", ["validation", "train"])
def test_a_start_that_has_seen_one_bar_more_is_refused_with_both_dates(end: str, tmp_path: Path) -> None:
    """Its train span or the one it was chosen on, whichever is last."""
    spans = TRAINED_AGAIN["later"]
    if end == "train":
        spans = replace(
            spans,
            train=slice(20, spans.validation.stop),
            validation=slice(spans.validation.stop, spans.validation.stop),
        )
    file = a_checkpoint(tmp_path, spans=spans)
    text = refused(str(file))
    dates = market().dates
    for bar in (SPANS.validation.stop + 1, SPANS.validation.stop):
        assert str(dates[bar])[:10] in text
    assert "leak" in text


@pytest.mark.parametrize(
    ("kind", "network"),
    [("sac", None), ("td3", None), ("direct", None), ("ppo", (8, 4)), ("ppo", "flat"), ("ppo", 2), ("ppo", "late")],
)
def test_networks_that_do_not_fit_are_one_clear_line(kind: str, network: Any, tmp_path: Path) -> None:
    made = {
        (8, 4): NetworkConfig(hidden=(8, 4)),
        "flat": NetworkConfig("flat", hidden=(8, 8)),
        "late": NetworkConfig("shared", "late", (8, 8)),
        2: NetworkConfig(hidden=(8, 8), lookback=2),
        None: None,
    }[network]
    text = refused(str(a_checkpoint(tmp_path)), made=candidate(kind, EVERYTHING, made))
    assert "do not fit" in text


# -- damaged and missing


def test_a_missing_start_is_one_clear_line(tmp_path: Path) -> None:
    assert "no such checkpoint" in refused(str(tmp_path / "missing.pt"))


def test_the_hash_of_a_missing_start_is_one_clear_line_too(tmp_path: Path) -> None:
    """A ledger asks for it before anything is trained."""
    with pytest.raises(UserError, match="no such checkpoint"):
        Start(str(tmp_path / "missing.pt")).hash  # noqa: B018


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_cut_off_start_is_one_clear_line(share: float, tmp_path: Path) -> None:
    file = a_checkpoint(tmp_path)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    assert "damaged" in refused(str(file))


def test_code_in_a_start_is_not_executed(tmp_path: Path) -> None:
    file = tmp_path / "parent.pt"
    for content in (Bomb(tmp_path), {"format": checkpoint.FORMAT, "agent": Bomb(tmp_path), "ends": "2000-01-01"}):
        torch.save(content, file)
        refused(str(file))
        file.write_bytes(pickle.dumps(content))
        refused(str(file))
    assert not (tmp_path / PLANTED).exists()


@pytest.mark.parametrize("missing", ["agent", "ends"])
def test_a_checkpoint_without_a_part_is_one_clear_line(missing: str, tmp_path: Path) -> None:
    file = a_checkpoint(tmp_path)
    state = checkpoint.read(file)
    torch.save({name: part for name, part in state.items() if name != missing}, file)
    assert missing in refused(str(file))


# -- imitation


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it does not matter how well it is learnt."""
    monkeypatch.setattr("agents.imitate.UPDATES", 12)


def distance(actor: ActorNet, teacher: Policy, span: slice, world: MarketTensors) -> float:
    """Mean Σ|Δw| between what actor and teacher want of the portfolios that the teacher has."""
    held = backtest([teacher], world, span)[0].weights
    bars = torch.arange(span.start + 1, span.stop)
    portfolio = torch.zeros(len(bars), portfolio_width(world))
    portfolio[:, : world.assets + 1] = torch.as_tensor(held[:-1])
    with torch.no_grad():
        wanted = teacher(world, bars, portfolio)
        return float((Allocated(actor)(world, bars, portfolio) - wanted).abs().sum(1).mean())


@pytest.mark.parametrize("name", ["cash", "equal_weight"])
def test_imitation_gets_near_a_baseline_and_near_its_sharpe_ratio(name: str) -> None:
    """Near what networks can be: rules that rest on more than their features show are only approached."""
    world, span, teacher = market(), SPANS.train, BASELINES[name]()
    made = candidate("ppo", network=NetworkConfig(hidden=(16, 16)))
    actor = Training(made, world, SPANS, start=Start(f"imitate:{name}")).agent.policy
    untaught = build_agent(made, world, 0).policy
    left, before = (distance(each, teacher, span, world) for each in (actor, untaught))
    assert left < NEAR < 0.5 * before
    mine, its = backtest([Allocated(actor), teacher], world, span)
    if name == "cash":  # whose Sharpe ratio is none
        assert np.abs(mine.returns).max() < 0.1 * NEAR
    else:
        assert float(sharpe(mine.returns, 252.0)) == pytest.approx(float(sharpe(its.returns, 252.0)), abs=0.05)


def test_imitation_learns_to_follow_a_feature_and_says_how_far_it_is_from_its_teacher() -> None:
    """A teacher that an actor can be: it follows the first feature."""

    def teacher(world: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
        odds = torch.softmax(0.7 * world.features[bar, :, 0], dim=1)
        return torch.cat([odds, torch.zeros_like(odds[:, :1])], dim=1)

    world, span = market(), SPANS.train
    actor = build_agent(candidate("td3", network=NetworkConfig(hidden=(16, 16))), world, 0).policy
    before = distance(actor, teacher, span, world)
    left = imitate(actor, world, span, teacher, seed=0)
    assert left < 0.1 * before
    assert distance(actor, teacher, span, world) < 0.1 * before
    mine, its = backtest([Allocated(actor), teacher], world, span)
    assert float(sharpe(mine.returns, 252.0)) == pytest.approx(float(sharpe(its.returns, 252.0)), abs=0.1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("briefly")
def test_imitation_is_a_function_of_the_seed_and_disturbs_nothing(kind: str) -> None:
    before = torch.get_rng_state()
    one, other, third = (
        Training(candidate(kind), market(), SPANS, seed, Start("imitate:equal_weight")) for seed in (4, 4, 5)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert same(weights_of(one), weights_of(other))
    assert not same(weights_of(one), weights_of(third))
    fresh = build_agent(candidate(kind), market(), 4)
    assert not same(one.agent.policy.state_dict(), fresh.policy.state_dict())
    assert [state for optimizer in one.agent._optimizers() for state in optimizer.state.values()] == []


@pytest.mark.parametrize("kind", ["sac", "td3"])
@pytest.mark.usefixtures("briefly")
def test_targets_follow_the_taught_actor_from_the_start(kind: str) -> None:
    """Or the first updates would pull a taught policy towards an untaught one."""
    agent = Training(candidate(kind), market(), SPANS, start=Start("imitate:cash")).agent
    if kind == "td3":
        assert same(agent.act.state_dict(), agent.act_target.state_dict())
    assert same(agent.cri.state_dict(), agent.cri_target.state_dict())


@pytest.mark.usefixtures("briefly")
def test_imitation_sees_the_train_span_alone() -> None:
    world = market()
    features, table = world.features.clone(), world.table.clone()
    features[SPANS.train.stop :] = 30.0
    table[:, SPANS.train.stop :] *= 1.5
    other = replace(world, features=features, table=table)
    start = Start("imitate:inverse_volatility")
    one, changed = (Training(candidate("direct"), each, SPANS, start=start) for each in (world, other))
    assert same(weights_of(one), weights_of(changed))


@pytest.mark.parametrize("text", ["imitate:equal", "imitate:", "imitate:Cash", "imitate:oracle"])
def test_an_unknown_baseline_is_one_clear_line_that_lists_the_known(text: str) -> None:
    complaint = refused(text)
    assert all(name in complaint for name in BASELINES)


def test_imitation_of_whole_shares_is_one_clear_line() -> None:
    made = wild_panel(0, 60, 4)
    world = tensors(made, "shares", features=np.zeros((60, 4, 1), np.float32), dtype=torch.float32)
    spans = Spans(slice(5, 30), slice(32, 40), slice(42, 59))
    with pytest.raises(UserError, match="whole shares") as caught:
        Training(candidate("ppo"), world, spans, start=Start("imitate:cash"))
    assert "\n" not in str(caught.value)


# -- what a ledger keeps


def test_a_starts_hash_is_of_what_it_is_not_where(tmp_path: Path) -> None:
    file = a_checkpoint(tmp_path)
    copied = tmp_path / "elsewhere" / "copy.pt"
    copied.parent.mkdir()
    copied.write_bytes(file.read_bytes())
    assert Start(str(file)).hash == Start(str(copied)).hash == hash_file(file)
    assert Start().hash == ""
    assert Start("imitate:cash").hash == "imitate:cash" != Start("imitate:hold").hash


def test_a_training_from_a_start_continues_from_its_own_checkpoint(tmp_path: Path) -> None:
    start = Start(str(a_checkpoint(tmp_path)))
    whole = run(Training(candidate("ppo", EVERYTHING), market(), SPANS, start=start))
    stopped("ppo", 3, tmp_path / "child.pt", start=start)
    again = Training(candidate("ppo", EVERYTHING), market(), SPANS, start=start)
    again.load_state_dict(checkpoint.read(tmp_path / "child.pt"))
    assert same(weights_of(run(again)), weights_of(whole))
