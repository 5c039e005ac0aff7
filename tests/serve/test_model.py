"""What is answered over HTTP is what the policy decides offline, where it was trained; what nobody holds is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundles import PANEL, SHARED
from endpoint import (
    CAPITAL,
    KINDS,
    LOOKING,
    NETWORKS,
    SOON,
    TOKEN,
    Endpoint,
    Held,
    bundle_of,
    holdings,
    problem,
    request_at,
    request_of,
    serving,
)

from agents.bundle import Bundle
from agents.networks import NetworkConfig
from envs.allocation import approach
from envs.market import MarketTensors
from market.panel import FIELDS, Panel
from serve.client import Client
from serve.model import Decision, Model
from serve.schema import Portfolio
from serve.wire import Portfolio as Desk

LAST = len(PANEL) - 1
OTHER_LOOK = NetworkConfig("shared", "joint", (8, 4), 4)
BUNDLES = [
    *((kind, NETWORKS, {"rate": 0.7, "band": 0.01}) for kind in KINDS),
    ("softmax", (SHARED,), {}),
    ("softmax", (SHARED, SHARED), {"rate": 1.0}),
    ("tilt", (LOOKING, OTHER_LOOK, LOOKING), {}),
]


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    bundle_of(folder, request.param)
    return Model(folder)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    bundle_of(folder)
    with serving({"champion": [folder]}) as running:
        yield running


def seen(bundle: Bundle, bar: int, held: Held) -> torch.Tensor:  # [1, P]
    """What a policy sees of a portfolio, worked out anew."""
    shares = np.array([held.positions.get(symbol, 0.0) for symbol in PANEL.symbols])
    values = np.where(shares != 0.0, shares * PANEL.close[bar], 0.0)
    equity = held.cash + values.sum()
    peak = max(held.peak, equity)
    columns = [*(values / equity), held.cash / equity, equity / peak - 1.0]
    if bundle.trading.allocation.kind == "shares":
        columns.append(equity / CAPITAL)
    return torch.tensor([columns], dtype=torch.float32)


def named(weights: torch.Tensor) -> dict[str, Any]:  # [A+1]
    return dict(zip((*PANEL.symbols, "cash"), weights.tolist()))


def assert_parity(bundle: Bundle, market: MarketTensors, answer: dict[str, Any], bar: int, held: Held) -> None:
    """`answer` is JSON; `market` is the whole panel's, beyond the bar too."""
    bars = torch.tensor([bar])
    portfolio = seen(bundle, bar, held)
    wanted = bundle.policy(market, bars, portfolio)
    ordered = approach(portfolio[:, : market.assets + 1], wanted, bundle.trading.allocation)
    votes = bundle.policy.members(market, bars, portfolio)[:, 0]
    assert answer["weights"] | {"cash": answer["cash"]} == pytest.approx(named(wanted[0]), abs=1e-6)
    orders = named(ordered[0])
    orders["cash"] = 1.0 - ordered[0, :-1].sum().item()  # it is never ordered, but what the orders leave
    assert answer["ordered"] | {"cash": answer["ordered_cash"]} == pytest.approx(orders, abs=1e-6)
    assert [vote["name"] for vote in answer["members"]] == [member.name for member in bundle.members]
    for vote, entry, expected in zip(answer["members"], bundle.members, votes):
        assert vote["share"] == entry.weight
        assert vote["weights"] | {"cash": vote["cash"]} == pytest.approx(named(expected), abs=1e-6)
    assert answer["version"] == bundle.hash[:12]


# Parity


@pytest.mark.parametrize(("kind", "networks", "more"), BUNDLES)
def test_every_bar_is_answered_as_the_policy_decides_offline(
    kind: str, networks: Sequence[NetworkConfig], more: dict[str, Any], tmp_path: Path
) -> None:
    bundle = bundle_of(tmp_path / "bundle", kind, networks, **more)
    rng, market = np.random.default_rng(5), bundle.market(PANEL)
    with serving({"champion": [tmp_path / "bundle"]}) as endpoint:
        for bar in range(bundle.bars_needed - 1, len(PANEL)):
            held = holdings(rng, PANEL.close[bar], kind)
            response = endpoint.ask(request_at(bar, bundle.bars_needed, held))
            assert response.status_code == 200, response.text
            assert_parity(bundle, market, response.json(), bar, held)


def test_the_span_has_gaps_late_listings_and_unknown_values() -> None:
    """So that parity is not about the easy bars alone."""
    span = slice(LAST - 100, None)
    assert not PANEL.listed[span].all()
    assert (PANEL.listed & ~PANEL.tradable)[span].any()
    assert np.isnan(PANEL.observed["signal"].values).any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_projects_own_client_is_answered_alike(kind: str, tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "bundle", kind)
    rng = np.random.default_rng(6)
    with serving({"champion": [tmp_path / "bundle"]}) as endpoint:
        client = Client(endpoint.url, TOKEN)
        for bar in range(bundle.bars_needed - 1, len(PANEL), 9):
            held = holdings(rng, PANEL.close[bar], kind)
            asked_at = (PANEL.closes[bar] + SOON).astype("datetime64[us]").item().replace(tzinfo=UTC)
            panel = PANEL[bar + 1 - bundle.bars_needed : bar + 1]
            answer = client.actions(panel, Desk(held.cash, held.positions, held.peak), asked_at, bundle.hash[:12])
            raw = endpoint.ask(request_at(bar, bundle.bars_needed, held)).json()
            assert dict(answer.weights) == raw["weights"]
            assert dict(answer.ordered) == raw["ordered"]
            assert (answer.cash, answer.ordered_cash, answer.version) == (
                raw["cash"],
                raw["ordered_cash"],
                bundle.hash[:12],
            )
            assert answer.as_of == PANEL.closes[bar]


def test_weights_and_cash_sum_to_one(endpoint: Endpoint) -> None:
    answer = endpoint.ask(endpoint.good()).json()
    for part, cash in (("weights", "cash"), ("ordered", "ordered_cash")):
        assert sum(answer[part].values()) + answer[cash] == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("bar", [40, 77, LAST])
def test_symbols_in_another_order_are_answered_alike_by_name(endpoint: Endpoint, bar: int) -> None:
    held = holdings(np.random.default_rng(bar), PANEL.close[bar], "softmax")
    plain = request_at(bar, endpoint.needed(), held)
    turned = {name: plain[name][::-1] for name in ("symbols", "tradable", *FIELDS)}
    turned["observed"] = {"signal": {name: rows[::-1] for name, rows in plain["observed"]["signal"].items()}}
    first, second = (endpoint.ask(tree).json() for tree in (plain, plain | turned))
    assert first | {"milliseconds": 0} == second | {"milliseconds": 0}


@pytest.mark.parametrize("more", [1, 20, LAST])
def test_a_longer_window_is_answered_alike(endpoint: Endpoint, more: int) -> None:
    needed = endpoint.needed()
    longer = request_of(PANEL[max(0, len(PANEL) - needed - more) :])
    first, second = (endpoint.ask(tree).json() for tree in (request_at(LAST, needed), longer))
    assert first | {"milliseconds": 0} == second | {"milliseconds": 0}


# Many at once


def decided(model: Model, panel: Panel, held: Held) -> Decision:
    return model.decide(panel, wallet(held))


def wallet(held: Held) -> Portfolio:
    return Portfolio(cash=held.cash, positions=dict(held.positions), peak_equity=held.peak)


def test_decisions_made_together_are_those_made_one_by_one(model: Model) -> None:
    """With gaps in some of the windows and none in others."""
    rng, kind = np.random.default_rng(7), model.bundle.trading.allocation.kind
    bars = [*range(model.needed - 1, len(PANEL), 3)]
    whole = replace(PANEL[: model.needed], tradable=np.ones((model.needed, len(PANEL.symbols)), bool))
    whole = replace(whole, **{name: np.nan_to_num(getattr(whole, name), nan=50.0) for name in FIELDS})
    windows = [PANEL[bar + 1 - model.needed : bar + 1] for bar in bars] + [whole]
    helds = [holdings(rng, window.close[-1], kind) for window in windows]
    assert {window.tradable.all() for window in windows} == {True, False}
    together = model.decide_together([(window, wallet(held)) for window, held in zip(windows, helds)])
    for window, held, one in zip(windows, helds, together):
        alone = decided(model, window, held)
        for name in ("wanted", "ordered", "votes"):
            torch.testing.assert_close(getattr(one, name), getattr(alone, name), atol=1e-6, rtol=0.0)
        assert one.dispersion == pytest.approx(alone.dispersion, abs=1e-6)
        assert one.warnings == alone.warnings


# Portfolios


def test_a_portfolio_that_cannot_be_is_refused(endpoint: Endpoint) -> None:
    unlisted = int(np.flatnonzero(~PANEL.listed.all(axis=1))[-1])
    nowhere = PANEL.symbols[int(np.flatnonzero(~PANEL.listed[unlisted])[0])]
    price = float(PANEL.close[-1, 0])
    cases = [
        (Held(positions={"TSLA": 1.0}), "portfolio.positions.TSLA", "not a symbol"),
        (Held(positions={"TSLA": 0.0}), "portfolio.positions.TSLA", "not a symbol"),
        (Held(positions={"S000": -1.0}), "portfolio.positions.S000", "no short positions"),
        (Held(cash=0.0), "portfolio", "an equity of 0"),
        (Held(cash=-5.0), "portfolio", "an equity of -5"),
        (Held(cash=1e-40, peak=1e-40), "portfolio", "an equity of 1e-40"),
        (Held(cash=1e16), "portfolio", "an equity of 1e+16"),
        (Held(positions={"S000": 1e308, "S001": 1e308}), "portfolio", "an equity of inf"),
        (Held(cash=-1e308, positions={"S000": 1e308}), "portfolio", "an equity of"),
        (Held(cash=-1.0, positions={"S000": 10.0}), "portfolio.cash", "holds no debt"),
        (Held(peak=1e300), "portfolio.peak_equity", "expected 1e+15 at most"),
    ]
    for held, field, reason in cases:
        assert reason in problem(endpoint.ask(endpoint.good(held=held)), 422, field)
    held = Held(positions={nowhere: 1.0})
    told = problem(endpoint.ask(endpoint.good(unlisted, held=held)), 422, f"portfolio.positions.{nowhere}")
    assert "no price yet" in told
    rounded = Held(cash=-1e-7, positions={"S000": 10.0 / price})  # what rounding leaves
    assert endpoint.ask(endpoint.good(held=rounded)).status_code == 200


def test_the_smallest_portfolio_is_answered_with_numbers(model: Model) -> None:
    decision = model.decide(PANEL[-model.needed :], Portfolio(cash=0.01, positions={}, peak_equity=1e-300))
    assert decision.wanted.isfinite().all()
    assert decision.votes.isfinite().all()


def test_where_shorts_are_traded_they_may_be_held(tmp_path: Path) -> None:
    bundle_of(tmp_path / "bundle", "long_short")
    with serving({"champion": [tmp_path / "bundle"]}) as endpoint:
        assert endpoint.ask(endpoint.good(held=Held(2000.0, {"S000": -3.0}))).status_code == 200
        assert endpoint.ask(endpoint.good(held=Held(-10.0, {"S000": 3.0}))).status_code == 200


# Warnings


def test_what_is_far_from_training_is_named(model: Model) -> None:
    window = PANEL[-model.needed :]
    column = window.observed["signal"]
    values = column.values.copy()
    values[-1, 0] = 1e6
    far = replace(window, observed={"signal": replace(column, values=values)})
    assert any("signal" in line and "10 or more" in line for line in decided(model, far, Held()).warnings)
    assert not any("10 or more" in line for line in decided(model, window, Held()).warnings)


def test_what_does_not_trade_is_named_and_kept(endpoint: Endpoint) -> None:
    bar, symbol = (int(k) for k in np.argwhere(PANEL.listed & ~PANEL.tradable)[-1])
    name = PANEL.symbols[symbol]
    held = Held(1000.0, {name: 3.0})
    answer = endpoint.ask(endpoint.good(bar, held=held)).json()
    value = 3.0 * float(PANEL.close[bar, symbol])
    assert any("not traded" in line and name in line for line in answer["warnings"])
    assert answer["weights"][name] == pytest.approx(value / (value + 1000.0), abs=1e-6)
    assert answer["ordered"][name] == pytest.approx(value / (value + 1000.0), abs=1e-6)


def test_members_who_drift_apart_are_told_of(tmp_path: Path) -> None:
    bundle_of(tmp_path / "bundle")
    model = Model(tmp_path / "bundle")
    window = PANEL[-model.needed :]
    spread = decided(model, window, Held()).dispersion
    for usual, told in ((spread / 2.9, False), (spread / 3.1, True)):
        model.bundle = replace(model.bundle, reference=replace(model.bundle.reference, dispersion=usual))
        lines = [line for line in decided(model, window, Held()).warnings if "apart" in line]
        assert bool(lines) == told
        assert all("3.1 times" in line for line in lines)
