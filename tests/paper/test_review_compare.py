"""Live against backtest: nothing to explain where nothing went wrong, and every cause is seen by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundles import PANEL
from desks import START, World, world

from agents.bundle import Bundle
from envs.backtest import backtest
from envs.config import CostConfig, TradingConfig
from envs.market import MarketTensors
from envs.policy import equal_weight
from kit.errors import UserError
from market.panel import Panel
from paper.desk import Desk
from paper.review.compare import PARTS, Comparison, compare
from paper.review.record import Record, read

UNLIMITED = ("limits.gross=null", "limits.net_low=null", "limits.net_high=null", "limits.leverage=null")
LATE = 94  # so that a replay is short
SAME = 1e-9
SEEN = 1e-6  # of the first wealth: a cause that this is


@dataclass(frozen=True)
class Traded:
    record: Record
    bundle: Bundle

    def compared(self, charges: CostConfig | None = None, panel: Panel = PANEL) -> Comparison:
        return compare(self.record, self.bundle, panel, charges)


@contextmanager
def desk_of(folder: Path, *words: str, kind: str = "softmax", **exchange: Any) -> Iterator[tuple[World, Desk]]:
    with world(folder, kind, **{"start": LATE} | exchange) as there, there.desk(*UNLIMITED, *words) as desk:
        yield there, desk


def traded(folder: Path, *words: str, kind: str = "softmax", **exchange: Any) -> Traded:
    with desk_of(folder, *words, kind=kind, **exchange) as (there, desk):
        desk.run()
    return recorded(there)


def recorded(there: World) -> Traded:
    return Traded(read(there.folder / "desk.db", there.bundle.symbols), there.bundle)


def sizes(found: Comparison) -> dict[str, float]:
    """The largest that each part ever was; they sum to the whole at every close."""
    np.testing.assert_allclose(sum(found.parts.values()), found.live - found.backtest, rtol=0, atol=1e-14)
    return {name: float(np.abs(part).max()) for name, part in found.parts.items()}


def only(found: Comparison, cause: str) -> None:
    """That cause alone; networks have single precision at the endpoint, and double here."""
    assert tuple(found.parts) == PARTS
    size = sizes(found)
    assert size[cause] > SEEN
    assert size["answers"] < 1e-5
    assert {name: value for name, value in size.items() if name not in (cause, "answers") and value > SAME} == {}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Traded:
    return traded(tmp_path_factory.mktemp("clean"), start=START)


@pytest.mark.parametrize("kind", ["softmax", "long_short"])
def test_a_clean_replay_leaves_nothing_to_explain(kind: str, clean: Traded, tmp_path: Path) -> None:
    found = (clean if kind == "softmax" else traded(tmp_path, kind=kind)).compared()
    size = sizes(found)
    assert size.pop("answers") < 1e-5, "networks have single precision"
    assert max(size.values()) < SAME, size
    assert found.live[0] == 1.0
    assert abs(found.live[-1] - 1.0) > 1e-3
    assert found.missed == 0
    assert found.same_data == (len(found.dates), len(found.dates))


def test_the_runs_are_those_of_the_backtest(clean: Traded) -> None:
    found, bundle = clean.compared(), clean.bundle
    seen, market = bundle.market(PANEL), MarketTensors.build(PANEL, bundle.trading, dtype=torch.float64)

    def policy(market: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
        return bundle.policy(seen, bar, portfolio.float()).double()

    tracks = backtest([policy, equal_weight], market, slice(START, START + len(found.dates) - 1))
    for track, wealth, rtol in zip(tracks, (found.backtest, found.equal_weight), (1e-5, 1e-12)):
        np.testing.assert_allclose(wealth[1:], np.cumprod(1 + track.returns), rtol=rtol)
    assert (found.dates[1:] == tracks[0].dates).all()


def test_live_wealth_is_the_journals(clean: Traded) -> None:
    found, record = clean.compared(), clean.record
    np.testing.assert_allclose(found.live, record.equity / record.equity[0], rtol=1e-14)
    assert sum(found.gains.values()) == pytest.approx(found.live[-1] - 1.0, abs=1e-12)
    assert found.gains["rest"] == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(found.charged, found.modelled, rtol=1e-12)
    np.testing.assert_allclose(found.slippage, 0.0, atol=1e-6)
    assert found.charged.min() > 1.0


def test_members_shares_of_the_answers_are_those_that_were_given(clean: Traded) -> None:
    record = clean.record
    shares = np.array([*record.members.values()])
    np.testing.assert_allclose(np.tensordot(shares, record.votes, axes=(0, 1)), record.wanted, atol=1e-6)
    found = clean.compared()
    np.testing.assert_allclose(found.answers, found.backtest, rtol=1e-5)
    assert set(found.followed) == {member.name for member in clean.bundle.members}
    assert len({float(wealth[-1]) for wealth in found.followed.values()}) == len(found.followed)


def test_whole_shares_are_rounding(tmp_path: Path) -> None:
    only(traded(tmp_path, "orders.fractional=false").compared(), "rounding")


def test_partial_fills_are_fills(tmp_path: Path) -> None:
    with desk_of(tmp_path) as (there, desk):
        there.exchange.exchange.script.add([fault(market="partial", share=0.5, times=20, nth=10)])
        desk.run()
    only(recorded(there).compared(), "fills")


def test_other_prices_are_fills_and_told_by_name(clean: Traded) -> None:
    """Whoever pays half a percent more for what is bought of one name has lost that."""
    record, name = clean.record, 2
    bought = np.where(record.filled[:, name] > 0, record.paid[:, name], 0.0)
    more = 0.005 * bought
    paid = record.paid.copy()
    paid[:, name] += more
    cash, equity = record.cash.copy(), record.equity.copy()
    cash[1:] -= np.cumsum(more)[:-1]
    equity[1:] -= np.cumsum(more)[:-1]
    found = Traded(replace(record, paid=paid, cash=cash, equity=equity), clean.bundle).compared()
    size = sizes(found)
    assert size["fills"] > SEEN
    assert found.slippage[name] == pytest.approx(more[:-1].sum(), rel=1e-2)
    assert np.abs(np.delete(found.slippage, name)).max() < 1e-6
    assert found.parts["fills"][-1] == pytest.approx(-more[:-1].sum() / equity[0], rel=0.2)


def test_missed_bars_are_timing(tmp_path: Path) -> None:
    with desk_of(tmp_path) as (there, desk):
        there.exchange.exchange.script.add([fault(market="late", bar=bar) for bar in (97, 98, 105)])
        desk.run()
    done = recorded(there)
    found, record = done.compared(), done.record
    assert found.missed == 3
    only(found, "timing")
    kept = {name: value[record.decided] for name, value in vars(record).items() if isinstance(value, np.ndarray)}
    silent = replace(record, **kept, data=tuple(filter(None, record.data)))  # as if the desk had not been there
    other = Traded(silent, done.bundle).compared()
    assert other.missed == 3
    for name in PARTS:
        np.testing.assert_allclose(other.parts[name], found.parts[name], rtol=0, atol=1e-12)


def test_costs_that_are_known_are_costs_and_else_they_are_fills(tmp_path: Path) -> None:
    charges = CostConfig(multiple=3.0, cash_rate=0.05)
    done = traded(tmp_path, trading=TradingConfig(costs=charges, capital=1e5))
    known, unknown = done.compared(charges), done.compared()
    only(known, "costs")
    assert known.charged.sum() == pytest.approx(3 * known.modelled.sum(), rel=1e-9)
    assert sizes(unknown)["fills"] > SEEN
    assert known.gains["interest and fees"] > 0


def test_limits_are_limits(tmp_path: Path) -> None:
    only(traded(tmp_path, "limits.per_name=0.3").compared(), "limits")


def test_a_halt_is_limits(tmp_path: Path) -> None:
    with desk_of(tmp_path) as (there, desk):
        desk.handled = lambda desk, seconds: desk.guard.ask_to_kill("a person")
        desk.run()
    done = recorded(there)
    assert (done.record.decided & ~done.record.answered).sum() > 10
    only(done.compared(), "limits")


def test_all_at_once_still_sums_and_leaves_no_rest(tmp_path: Path) -> None:
    costs = CostConfig(multiple=2.0)
    words = ("orders.fractional=false", "limits.per_name=0.3")
    with desk_of(tmp_path, *words, trading=TradingConfig(costs=costs, capital=1e5)) as (there, desk):
        faults = [
            fault(market="late", bar=100),
            fault(market="partial", times=9, nth=20),
            fault(market="reject", nth=40),
        ]
        there.exchange.exchange.script.add(faults)
        desk.run()
    size = sizes(recorded(there).compared(costs))
    assert {name for name, value in size.items() if value > SEEN} >= {"timing", "rounding", "limits", "fills", "costs"}
    assert size["rest"] < SAME


def test_a_split_is_no_gain(tmp_path: Path) -> None:
    with desk_of(tmp_path) as (there, desk):
        there.exchange.exchange.script.add([fault(market="split", symbol=PANEL.symbols[0], bar=105, ratio=2.0)])
        desk.run()
    done = recorded(there)
    assert done.record.unadjusted[-1, 0] == pytest.approx(2.0)
    only(done.compared(), "fills")  # as the exchange cancels what is open then


def test_a_transfer_is_no_gain(clean: Traded) -> None:
    """As much again from outside, at half time: whoever held it in cash has halved what prices do to it."""
    record, at = clean.record, 30
    given = record.equity[at + 1]
    transfers, cash, equity = record.transfers.copy(), record.cash.copy(), record.equity.copy()
    transfers[at] = given
    cash[at + 1 :] += given
    equity[at + 1 :] += given
    found = Traded(replace(record, transfers=transfers, cash=cash, equity=equity), clean.bundle).compared()
    np.testing.assert_allclose(found.live[: at + 2], clean.compared().live[: at + 2], rtol=1e-12)
    before, after = record.equity[at + 1], record.equity[at + 2]
    assert found.live[at + 2] / found.live[at + 1] - 1 == pytest.approx((after / before - 1) / 2, rel=1e-9)
    assert max(value for name, value in sizes(found).items() if name == "rest") < SAME


def test_nothing_after_the_last_close_is_looked_at(clean: Traded) -> None:
    record = clean.record
    short = replace(
        record,
        **{name: value[:30] for name, value in vars(record).items() if isinstance(value, np.ndarray)},
        data=record.data[:30],
    )
    last = START + 30
    later = {name: getattr(PANEL, name).copy() for name in ("open", "high", "low", "close", "volume")}
    for values in later.values():
        values[last:] *= 3.0
    one, other = (Traded(short, clean.bundle).compared(panel=panel) for panel in (PANEL, replace(PANEL, **later)))
    for name in ("live", "backtest", "equal_weight", "answers"):
        assert (getattr(one, name) == getattr(other, name)).all(), name
    assert all((one.parts[name] == other.parts[name]).all() for name in PARTS)
    assert one.gains == other.gains


def test_other_bars_than_those_that_were_traded_are_refused_or_told(clean: Traded) -> None:
    with pytest.raises(UserError, match="has no bar that closes at"):
        clean.compared(panel=PANEL[: START + 20])
    other = replace(PANEL, volume=PANEL.volume * 1.01)
    same, looked = clean.compared(panel=other).same_data
    assert (same, looked) == (0, len(clean.record))


def fault(**keys: Any) -> Any:
    from kit.config import build
    from paper.exchange.faults import Fault

    return build(Fault, keys, "fault")
