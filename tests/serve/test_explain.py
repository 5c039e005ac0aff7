"""What explains a decision adds up to it, and nothing is explained by what nobody looks at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundles import LENS, PANEL, PROVENANCE, SHARED, actor_of, measured
from endpoint import KINDS, TOKEN, Endpoint, Held, bundle_of, holdings, problem, request_at, serving

from agents.bundle import Member, save
from agents.candidate import Candidate
from agents.heads import ActorNet
from agents.networks import NetworkConfig
from serve.client import Client
from serve.model import Model
from serve.schema import Portfolio
from serve.wire import Portfolio as Desk

SMOOTH = [kind for kind in KINDS if kind != "shares"]  # whole shares have no slope
ONE_LAYER = NetworkConfig(hidden=(4,))
NAMES = (*PANEL.symbols, "cash")
BARS = (30, 55, 80, len(PANEL) - 1)


@pytest.fixture(scope="module", params=SMOOTH)
def endpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    bundle_of(folder, request.param)
    with serving({"champion": [folder]}, timeout=30) as running:
        yield running


def explained(endpoint: Endpoint, body: Any) -> dict[str, Any]:
    response = endpoint.ask(body, "/v1/explain")
    assert response.status_code == 200, response.text
    return dict(response.json())


@pytest.mark.parametrize("bar", BARS)
def test_features_and_members_sum_to_the_change(endpoint: Endpoint, bar: int) -> None:
    held = holdings(np.random.default_rng(bar), PANEL.close[bar], "softmax")
    body = request_at(bar, endpoint.needed(), held)
    told, answer = explained(endpoint, body), endpoint.ask(body).json()
    assert told["weights"] == pytest.approx(answer["weights"] | {"cash": answer["cash"]}, abs=1e-6)
    assert (told["version"], told["as_of"]) == (answer["version"], answer["as_of"])
    for name in NAMES:
        change = told["weights"][name] - told["on_an_average_day"][name]
        assert told["change"][name] == pytest.approx(change, abs=1e-9)
        assert sum(told["features"][name].values()) == pytest.approx(change, abs=2e-3)
        assert sum(told["features"][name].values()) + told["unexplained"][name] == pytest.approx(change, abs=1e-9)
        assert sum(told["members"][name].values()) == pytest.approx(change, abs=1e-6)
    assert {"m0", "m1", "m2"} == set(told["members"]["cash"])


def test_the_members_shares_are_how_far_each_has_moved(endpoint: Endpoint) -> None:
    """A member's share of an average day's vote is what is missing to its vote now."""
    body = endpoint.good()
    told, answer = explained(endpoint, body), endpoint.ask(body).json()
    for symbol in PANEL.symbols:
        usual = sum(m["share"] * m["weights"][symbol] - told["members"][symbol][m["name"]] for m in answer["members"])
        assert usual == pytest.approx(told["on_an_average_day"][symbol], abs=1e-6)


@pytest.mark.parametrize("kind", SMOOTH)
def test_a_feature_that_no_member_reads_explains_nothing(kind: str, tmp_path: Path) -> None:
    bundle_of(tmp_path / "plain", kind)
    model = Model(tmp_path / "plain")
    place = LENS.scaler.names.index("log_return_5")
    lookbacks = [member.network.lookback for member in model.members]
    members = []
    for entry, lookback, seed in zip(model.members, lookbacks, range(3)):
        actor = actor_of(entry.network, seed, model.lens)
        with torch.no_grad():
            for name, layer in actor.named_modules():
                if isinstance(layer, torch.nn.Linear) and layer.in_features == lookback * 4 and "encoder" in name:
                    layer.weight[:, place::4] = 0.0
        members.append(Member(entry.name, actor, entry.weight, Candidate(network=entry.network)))
    save(tmp_path / "blind", members, model.lens, measured(members, model.lens), PROVENANCE)
    with serving({"champion": [tmp_path / "blind"]}, timeout=30) as endpoint:
        told = explained(endpoint, endpoint.good(55))["features"]
    assert {told[name]["log_return_5"] for name in NAMES} == {0.0}
    assert all(any(abs(told[name][other]) > 1e-4 for name in NAMES) for other in ("log_return_1", "signal"))


def test_a_straight_line_is_explained_by_hand(tmp_path: Path) -> None:
    """A member whose action is a thousandth of each asset's signal: so little that tanh is a line.

    So a weight is the signal, the thousandth and the cap of one name multiplied, and explained by
    the signal alone; on an average day it is 0.
    """
    lens = replace(LENS, trading=replace(LENS.trading, allocation=replace(LENS.trading.allocation, kind="long_short")))
    actor = ActorNet(ONE_LAYER, len(lens.symbols), len(lens.scaler.names), lens.portfolio_width)
    signal = lens.scaler.names.index("signal")
    with torch.no_grad():
        for values in actor.parameters():
            values.zero_()
        actor.net.encoder.line.weight[0, signal] = 1.0  # type: ignore[union-attr,index]
        actor.net.each.weight[0, 0] = 1e-3
    members = [Member("line", actor, 1.0, Candidate(network=ONE_LAYER))]
    save(tmp_path / "line", members, lens, measured([Member("m", actor_of(SHARED, 0), 1.0, Candidate(network=SHARED))]),
         PROVENANCE)  # fmt: skip
    model = Model(tmp_path / "line")
    bar = int(np.flatnonzero(PANEL.tradable.all(axis=1))[-1])
    window = PANEL[bar + 1 - model.needed : bar + 1]
    scaled = model.bundle.market(window).features[-1, :, signal]
    with serving({"champion": [tmp_path / "line"]}) as endpoint:
        told = explained(endpoint, endpoint.good(bar))
    for symbol, value in zip(PANEL.symbols, scaled.tolist()):
        by_hand = 0.2 * 1e-3 * value
        assert told["features"][symbol]["signal"] == pytest.approx(by_hand, abs=1e-7)
        assert told["on_an_average_day"][symbol] == 0.0
        assert told["features"][symbol]["log_return_1"] == 0.0
        assert told["members"][symbol]["line"] == pytest.approx(by_hand, abs=1e-7)
    assert told["features"]["cash"]["signal"] == pytest.approx(-0.2 * 1e-3 * float(scaled.sum()), abs=1e-7)
    assert float(scaled.abs().max()) > 0.1


def test_an_average_day_explains_itself(endpoint: Endpoint) -> None:
    """A day on which every feature is what it was on average: the change is none."""
    model = endpoint.service.now.champion
    market = model.bundle.market(PANEL[-model.needed :])
    flat = replace(market, features=torch.zeros_like(market.features))
    state = model.state(flat, PANEL[-model.needed :], Portfolio(cash=1000.0, positions={}, peak_equity=1e9))
    votes = model.policy.members(
        flat, state.bar, torch.cat([state.weights, state.wealth[:, None] / state.peak[:, None] - 1.0], 1)
    )
    told = explained(endpoint, endpoint.good())["on_an_average_day"]
    assert list(told.values()) == pytest.approx(model.policy.average(votes)[0].tolist(), abs=1e-6)


def test_whole_shares_leave_all_unexplained_and_say_so(tmp_path: Path) -> None:
    bundle_of(tmp_path / "bundle", "shares")
    with serving({"champion": [tmp_path / "bundle"]}, timeout=30) as endpoint:
        told = explained(endpoint, endpoint.good())
    assert told["unexplained"] == pytest.approx(told["change"])
    assert {value for row in told["features"].values() for value in row.values()} == {0.0}


def test_what_is_refused_is_not_explained(endpoint: Endpoint) -> None:
    problem(endpoint.ask(endpoint.good(held=Held(cash=-1.0)), "/v1/explain"), 422, "portfolio")
    problem(endpoint.ask(endpoint.good(version="0123456789ab"), "/v1/explain"), 422, "version")
    problem(endpoint.ask({}, "/v1/explain"), 422, "symbols")


def test_the_projects_own_client_gets_it_too(endpoint: Endpoint) -> None:
    panel = PANEL[-endpoint.needed() :]
    told = Client(endpoint.url, TOKEN, deadline=30.0).explain(
        panel, Desk(1000.0, {}, 1e9), endpoint.service.clock(), endpoint.service.now.champion.version
    )
    assert told == explained(endpoint, endpoint.good())
