"""A bundle trades as what was saved; saving leaves a whole one or none."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import (
    EVERY_NETWORK,
    LENS,
    NETWORKS,
    PANEL,
    PROVENANCE,
    SHARED,
    SPEC,
    actor_of,
    ensemble_of,
    lens_of,
    measured,
    members_of,
    saved,
)
from panels import with_arrays, with_other_future

import agents.bundle
from agents.bundle import Member, describe, load, save
from agents.networks import NetworkConfig
from agents.reference import Reference
from envs.backtest import backtest
from envs.config import AllocationConfig, TradingConfig
from envs.market import MarketTensors
from envs.policy import Allocated, Policy, portfolio_width
from kit.errors import UserError
from kit.files import hash_json
from market.features import Scaler
from market.panel import Panel


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "original"
    saved(folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(original, tmp_path / "bundle"))


# What comes back


@pytest.mark.parametrize("network", EVERY_NETWORK, ids=lambda n: f"{n.encoder}-{n.head}-{n.lookback}")
def test_a_loaded_policy_decides_bit_for_bit_as_the_saved_one(network: NetworkConfig, tmp_path: Path) -> None:
    members = members_of((network,))
    save(tmp_path / "b", members, LENS, measured(members), PROVENANCE)
    bundle = load(tmp_path / "b")
    assert_same_tracks(Allocated(members[0].actor), bundle.policy, LENS.market(PANEL), bundle.market(PANEL))


@pytest.mark.parametrize("kind", ["softmax", "tilt", "long_short", "shares"])
def test_a_loaded_ensemble_decides_bit_for_bit_as_the_saved_one(kind: str, tmp_path: Path) -> None:
    lens = lens_of(trading=TradingConfig(AllocationConfig(kind, rate=0.7, band=0.01), fill="close", capital=1e5))
    bundle = saved(tmp_path / "b", lens=lens)
    again = load(tmp_path / "b")
    assert bundle.hash == again.hash
    assert again.trading == lens.trading
    ensemble = ensemble_of(members_of(NETWORKS, lens))
    assert_same_tracks(ensemble, again.policy, lens.market(PANEL), again.market(PANEL))


def assert_same_tracks(ours: Policy, theirs: Policy, market: MarketTensors, loaded: MarketTensors) -> None:
    one, two = backtest([ours], market)[0], backtest([theirs], loaded)[0]
    np.testing.assert_array_equal(one.weights, two.weights)
    np.testing.assert_array_equal(one.returns, two.returns)
    assert np.abs(np.diff(one.weights, axis=0)).max() > 1e-3


def test_everything_about_a_bundle_comes_back(folder: Path) -> None:
    bundle, members = load(folder), members_of(NETWORKS)
    assert bundle.lens == LENS
    assert (bundle.symbols, bundle.observed, bundle.scaler) == (PANEL.symbols, ("signal",), LENS.scaler)
    assert bundle.features == SPEC.for_panel(PANEL)
    assert bundle.reference == measured(members)
    assert bundle.manifest.provenance == PROVENANCE
    assert [member.network for member in bundle.members] == list(NETWORKS)
    assert [member.name for member in bundle.members] == ["m0", "m1", "m2"]
    assert bundle.members[1].scores == {"sharpe": 1.5}
    assert bundle.members[2].candidate["network"]["lookback"] == 4
    assert bundle.hash == hash_json(
        {k: v for k, v in json.loads((folder / "manifest.json").read_text()).items() if k != "hash"}
    )


def test_the_same_bundle_has_the_same_bytes_and_hash(folder: Path, tmp_path: Path) -> None:
    assert saved(tmp_path / "again").hash == load(folder).hash
    for file in folder.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_a_score_that_is_not_defined_comes_back_as_none(tmp_path: Path) -> None:
    members = [replace(member, scores={"sharpe": float("nan")}) for member in members_of((SHARED,))]
    bundle = save(tmp_path / "b", members, LENS, measured(members), PROVENANCE)
    assert bundle.members[0].scores == {"sharpe": None}


def test_the_description_says_who_votes_with_what_weight(folder: Path) -> None:
    bundle = load(folder)
    lines = describe(bundle)
    assert lines[0] == f"bundle {bundle.hash}"
    assert "symbols (4): S000, S001, S002, S003" in lines
    assert "member m2: weight 0.500, attention/late, look-back 4, sharpe 2.5" in lines
    assert "ensemble: weight 1.000 in all, sharpe 1" in lines


@pytest.mark.parametrize("kind", ["softmax", "tilt", "long_short", "shares"])
def test_the_networks_width_is_that_of_the_portfolio(kind: str) -> None:
    lens = lens_of(trading=TradingConfig(AllocationConfig(kind)))
    assert lens.portfolio_width == portfolio_width(lens.market(PANEL))


# What is served is what was trained


def random_portfolio(seed: int = 0) -> torch.Tensor:  # [1, P]
    rng = np.random.default_rng(seed)
    return torch.as_tensor(np.append(rng.dirichlet(np.ones(5)), -0.1)[None]).float()


def test_a_window_that_is_just_long_enough_gives_the_decision_of_the_whole_panel(folder: Path) -> None:
    """To float32 rounding: how many bars are worked out together may change the order of a sum."""
    bundle = load(folder)
    assert bundle.bars_needed == bundle.features.warmup + 4
    whole = bundle.market(PANEL)
    for bar in (bundle.bars_needed - 1, 60, 83, 119):
        window = bundle.market(PANEL[bar + 1 - bundle.bars_needed : bar + 1])
        there = bundle.policy(whole, torch.tensor([bar]), random_portfolio(bar))
        here = bundle.policy(window, torch.tensor([len(window) - 1]), random_portfolio(bar))
        torch.testing.assert_close(here, there, atol=1e-6, rtol=0)


def test_a_window_that_is_too_short_is_refused(folder: Path) -> None:
    bundle = load(folder)
    with pytest.raises(UserError, match=f"18 bars: expected at least {bundle.bars_needed}"):
        bundle.market(PANEL[:18])


@pytest.mark.parametrize("last", [40, 90])
def test_the_future_does_not_move_a_decision(folder: Path, last: int) -> None:
    bundle = load(folder)
    bars, portfolio = torch.arange(20, last + 1), random_portfolio().expand(last - 19, -1)
    seen = bundle.policy(bundle.market(PANEL), bars, portfolio)
    other = bundle.policy(bundle.market(with_other_future(PANEL, last)), bars, portfolio)
    assert torch.equal(seen, other)


def with_symbols(*symbols: str) -> Panel:
    return with_arrays(PANEL, symbols=symbols)


@pytest.mark.parametrize(
    ("panel", "words"),
    [
        (with_symbols("S001", "S000", "S002", "S003"), "another order from number 1 on; expected that of training"),
        (with_symbols("S000", "S001", "S002", "XYZ"), "missing S003; unknown XYZ; expected those of training"),
        (with_arrays(PANEL, bars_per_year=365.0), "bars_per_year = 365: expected 252"),
        (with_arrays(PANEL, observed={}), "observed = none: missing signal"),
    ],
)
def test_a_panel_that_the_policy_was_not_trained_for_is_refused(folder: Path, panel: Panel, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load(folder).market(panel)


def test_a_lens_that_contradicts_itself_is_refused() -> None:
    for wrong, words in (
        ({"observed": ()}, "observed must be"),
        ({"features": SPEC}, "name every observed column"),
        ({"scaler": Scaler(("x",), (0.0,), (1.0,))}, "scaler.names must be"),
        ({"symbols": ("A", "A")}, "each given once"),
    ):
        with pytest.raises(ValueError, match=words):
            replace(LENS, **wrong)


# Saving


def test_a_bundle_is_not_overwritten_unless_told(folder: Path) -> None:
    before = load(folder).hash
    with pytest.raises(UserError, match="exists already"):
        saved(folder)
    assert load(folder).hash == before
    after = saved(folder, (SHARED,), overwrite=True)
    assert load(folder).hash == after.hash != before
    assert os.listdir(folder.parent) == ["bundle"]


def test_what_is_no_bundle_is_never_overwritten(tmp_path: Path) -> None:
    for name in ("manifest.json", "thesis.txt"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match="is not a bundle"):
        saved(tmp_path, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["manifest.json", "thesis.txt"]


def wrong_weights(members: list[Member]) -> list[Member]:
    return [replace(member, weight=0.5) for member in members]


def not_finite(members: list[Member]) -> list[Member]:
    with torch.no_grad():
        members[0].actor.net.whole.bias[0] = torch.nan
    return members


def of_another_market(members: list[Member]) -> list[Member]:
    three = replace(LENS, symbols=LENS.symbols[:3])
    return [replace(members[0], actor=actor_of(SHARED, 0, three)), *members[1:]]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (of_another_market, "members.0.assets = 3: expected 4"),
        (wrong_weights, "sum to 1.5; expected 1"),
        (not_finite, "holds NaN"),
        (lambda members: [], "at least one"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(
    tmp_path: Path, spoil: Callable[[list[Member]], list[Member]], words: str
) -> None:
    members = members_of(NETWORKS)
    reference = measured(members)
    with pytest.raises(UserError, match=words) as error:
        save(tmp_path / "b", spoil(members), LENS, reference, PROVENANCE)
    assert str(error.value).startswith(str(tmp_path / "b"))
    assert os.listdir(tmp_path) == []


def test_a_failure_while_saving_leaves_nothing_or_what_was_there(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load(folder).hash
    monkeypatch.setattr(agents.bundle, "_load", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        saved(folder, overwrite=True)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["bundle"]
    assert load(folder).hash == before


def test_a_process_that_is_killed_while_saving_leaves_no_half_bundle(tmp_path: Path) -> None:
    """Killed at the first sync to the disk, at the second, and so on, until one lives to the end."""
    members = members_of((SHARED, SHARED))
    reference = measured(members)
    for syncs in range(1, 50):
        target = tmp_path / f"killed-{syncs}"
        status = save_in_a_child(target, members, reference, syncs)
        if status == 0:
            break
        assert status == signal.SIGKILL
        assert not target.exists() or load(target)
        if not target.exists():
            assert save(target, members, LENS, reference, PROVENANCE).hash, "the next start carries on"
    assert syncs > 8
    assert load(target).hash


def save_in_a_child(target: Path, members: list[Member], reference: Reference, syncs: int) -> int:
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    sync, left = os.fsync, [syncs]

    def counted(handle: int) -> None:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(handle)

    os.fsync = counted
    try:
        save(target, members, LENS, reference, PROVENANCE)
        os._exit(0)
    finally:
        os._exit(1)
