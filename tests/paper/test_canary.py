"""A canary at the desk: beside the champion in one account, sent back by rule, and reported."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from bundles import PANEL, SHARED
from desks import KEY, World, world
from endpoint import ADMIN, bundle_of
from versions import clock

from agents.networks import NetworkConfig
from paper.desk import Desk
from paper.sleeve import champions
from paper.verify import verify
from serve.registry import Registry

SMALL = ("canary.share=0.25", "canary.drawdown=0.9", "canary.behind=9")


@pytest.fixture
def two(tmp_path: Path):
    """A world whose endpoint has a champion and a canary, in a registry."""
    bundle_of(tmp_path / "newer", networks=(SHARED, NetworkConfig(hidden=(5,))))
    registry = Registry(tmp_path / "registry", clock())
    registry.register(tmp_path / "newer", "ann")
    bundle_of(tmp_path / "bundle")
    registry.register(tmp_path / "bundle", "ann")
    with world(tmp_path, registry=registry) as there:
        folders = {"champion": [tmp_path / "bundle"], "canary": [tmp_path / "newer"]}
        assert there.endpoint.service.load(folders)
        yield there


def kinds(there: World, desk: Desk, *names: str) -> list[dict]:
    return [entry.body for entry in desk.journal.entries(kinds=names)]


def test_both_sets_of_books_are_the_account_at_every_bar(two: World):
    seen = []

    def handled(desk: Desk, seconds: float) -> None:
        books, sleeve = desk.keeper.now(), desk.canary.sleeve
        assert sleeve is not None
        own = champions(books, sleeve)
        for symbol in PANEL.symbols:
            both = own.positions.get(symbol, Decimal(0)) + sleeve.positions.get(symbol, Decimal(0))
            assert both == books.positions.get(symbol, Decimal(0))
        assert own.cash + sleeve.cash == books.cash
        assert min(sleeve.positions.values(), default=Decimal(0)) >= 0
        assert sleeve.cash > -1
        seen.append(sleeve.equity(desk.seen.prices) / books.equity(desk.seen.prices))

    with two.desk(*SMALL, handled=handled) as desk:
        desk.run(25)
        assert desk.guard.state == "active", desk.guard.why
        desk.keeper.agree()
    assert len(seen) == 25
    assert np.allclose(seen, 0.25, atol=0.08), "each earns its own"
    assert np.ptp(seen) > 1e-5
    assert verify(two.folder / "desk.db", [KEY]).ok


def test_a_canary_follows_its_own_ensemble(two: World):
    """Its weights come to those that the canary's ensemble alone would have had, whoever trades beside it."""
    with two.desk(*SMALL) as desk:
        desk.run(20)
        mixed = desk.canary.sleeve
        assert mixed is not None
        prices = desk.seen.prices
        weights = {s: float(q) * prices[s] / mixed.equity(prices) for s, q in mixed.positions.items()}
    alone = two.folder / "alone"
    alone.mkdir()
    with world(alone) as other:
        assert other.endpoint.service.load({"champion": [two.folder / "newer"]})
        with other.desk() as desk:
            desk.run(20)
            books = desk.keeper.now()
            expected = {s: float(q) * prices[s] / books.equity(prices) for s, q in books.positions.items()}
    assert weights == pytest.approx(expected, abs=2e-3)  # impact of a smaller order is smaller


def test_it_goes_back_by_rule_and_the_registry_hears_of_it(two: World):
    with two.desk("canary.share=0.25", "canary.drawdown=1e-9", admin=ADMIN) as desk:
        desk.run(12)
        assert desk.canary.sleeve is None
        (ended,) = kinds(two, desk, "canary-ended")
        assert "since its highest equity" in ended["why"]
        assert ended["version"] in desk.journal.get("sent-back")
        (record,) = Registry(two.folder / "registry").records_of(ended["version"])
        assert (record.bars, record.halts, record.id) == (ended["record"]["bars"], 0, ended["record"]["id"])
        assert desk.journal.get("reports") == []
    assert [kind for kind, _, text in two.alerts if "sent back" in text] == ["canary"]


def test_a_bar_that_is_tried_again_counts_once(two: World):
    with two.desk(*SMALL) as desk:
        desk.run(4)
        before, books, prices = desk.canary.sleeve, desk.keeper.now(), desk.seen.prices
        close = desk.pace.next(None)
        for _ in range(3):
            desk.canary.consider(close.at, books, prices, 1.0, "")
        assert desk.canary.sleeve.bars == before.bars + 1


def test_a_halt_ends_it(two: World):
    with two.desk(*SMALL) as desk:
        desk.run(3)
        desk.guard.ask_to_kill("enough")
        desk.begin = lambda: None  # type: ignore[method-assign]
        desk.run(1)
        (ended,) = kinds(two, desk, "canary-ended")
        assert ended["why"] == "enough"
        assert ended["record"]["halts"] == 1


def test_no_share_means_no_canary(two: World):
    with two.desk() as desk:
        desk.run(2)
        assert desk.canary.sleeve is None
        assert kinds(two, desk, "canary-begun") == []
