"""The bars of a decision are those of training, and what is stale, gappy or senseless is refused."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from panels import random_panel

from market.clock import DAY
from market.panel import FIELDS, Panel
from paper.bars import Bars, Stale
from paper.broker import Row

PANEL = random_panel(6, bars=90, symbols=4)
NEEDED = 21


def moment(time: np.datetime64) -> datetime:
    return time.astype("datetime64[us]").item().replace(tzinfo=UTC)


class Market:
    """The part of a broker that bars are asked of: a panel up to a bar."""

    def __init__(self, panel: Panel = PANEL) -> None:
        self.panel, self.asked, self.reasons = panel, [], {}
        self.scale = 1.0  # of prices, as after a split that was adjusted for
        self.absent: set[tuple[int, str]] = set()

    def rows(self, symbols: Sequence[str], start: datetime, stop: datetime) -> list[Row]:
        self.asked.append((start, stop))
        found = []
        for t, time in enumerate(self.panel.times):
            for a, symbol in enumerate(self.panel.symbols):
                inside = start <= moment(time) < stop and moment(self.panel.closes[t]) <= stop
                if symbol in symbols and inside and self.panel.tradable[t, a] and (t, symbol) not in self.absent:
                    values = [float(getattr(self.panel, name)[t, a]) for name in FIELDS]
                    found.append(Row(symbol, time, *[v * self.scale for v in values[:4]], values[4]))
        return found

    def tradable(self, symbols: Sequence[str]) -> dict[str, str]:
        return {symbol: self.reasons.get(symbol, "") for symbol in symbols}


def bars_of(market: Market, gaps: float = 1.0, needed: int = NEEDED, kept: int = 0) -> Bars:
    year = market.panel.bars_per_year
    return Bars(market, market.panel.symbols, needed, year, DAY, None, gaps, kept)  # type: ignore[arg-type]


def at(bar: int) -> datetime:
    return moment(PANEL.closes[bar])


def test_every_window_is_that_of_the_panel():
    bars = bars_of(Market())
    for bar in range(60, 90):
        found, expected = bars.upto(at(bar)), PANEL[bar + 1 - NEEDED : bar + 1]
        for name in (*FIELDS, "tradable"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=f"{name} at {bar}")
        np.testing.assert_array_equal(found.closes, expected.closes)


def test_these_bars_pause_for_longer_than_they_are_seen():
    both = PANEL.listed[1:] & PANEL.listed[:-1]
    moved = PANEL.close[1:] != PANEL.close[:-1]
    assert not (moved & ~PANEL.tradable[1:] & both).any(), "a gap repeats the last close"
    assert (~PANEL.tradable & PANEL.listed)[60:].any(axis=0).sum() >= 2


def test_after_the_first_time_only_the_newest_bars_are_fetched():
    market = Market()
    bars = bars_of(market)
    bars.upto(at(60))
    bars.upto(at(61))
    start, _ = market.asked[-1]
    assert at(61) - start < timedelta(days=6)
    assert len(market.asked) == 2


def test_when_the_past_was_adjusted_all_of_it_is_fetched_again():
    market = Market()
    bars = bars_of(market)
    before = bars.upto(at(60))
    market.scale = 0.5
    after = bars.upto(at(61))
    assert len(market.asked) == 3
    known = ~np.isnan(before.close[1:])
    np.testing.assert_allclose(after.close[:-1][known], before.close[1:][known] / 2)


def test_a_bar_that_has_not_come_is_stale():
    with pytest.raises(Stale, match="the last bar closed at"):
        bars_of(Market()).upto(at(60) + timedelta(hours=1))


def test_too_short_a_history_is_refused():
    with pytest.raises(Stale, match=r"bars up to .*; the ensemble needs 200"):
        bars_of(Market(), needed=200).upto(at(60))


def test_more_bars_than_are_needed_are_kept_where_there_are_so_many():
    market = Market()
    long, short = bars_of(market, needed=20, kept=30), bars_of(market, needed=20)
    assert len(long.upto(at(60))) == 30
    assert len(short.upto(at(60))) == 20
    assert long.upto(at(61))[-20:].hash == short.upto(at(61)).hash
    assert len(bars_of(market, needed=20, kept=500).upto(at(60))) == 61


def test_a_symbol_without_the_last_bar_must_be_one_that_cannot_trade():
    panel = random_panel(2, bars=90, symbols=4, gaps=False)
    market = Market(panel)
    market.absent = {(60, "S002")}
    with pytest.raises(Stale, match="no bar of S002, which can be traded"):
        bars_of(market, gaps=0.0).upto(moment(panel.closes[60]))
    market.reasons["S002"] = "halted"
    found = bars_of(market, gaps=0.0).upto(moment(panel.closes[60]))
    assert found.tradable[-1].tolist() == [True, True, False, True]
    assert found.close[-1, 2] == panel.close[59, 2]


@pytest.mark.parametrize(("field", "value"), [("close", float("nan")), ("low", -1.0), ("high", 1e-9), ("volume", -5.0)])
def test_a_senseless_bar_is_refused(field: str, value: float):
    class Odd(Market):
        def rows(self, symbols: Sequence[str], start: datetime, stop: datetime) -> list[Row]:
            found = super().rows(symbols, start, stop)
            last = found[-1]
            values = {name: getattr(last, name) for name in FIELDS} | {field: value}
            return [*found[:-1], Row(last.symbol, last.time, **values)]

    with pytest.raises(Stale, match="makes no sense"):
        bars_of(Odd()).upto(at(60))


def test_a_half_day_closes_when_its_session_does():
    panel = random_panel(2, bars=90, symbols=2, gaps=False)
    early = moment(panel.closes[60]) - timedelta(hours=3)

    class HalfDay(Market):
        def rows(self, symbols: Sequence[str], start: datetime, stop: datetime) -> list[Row]:
            return [
                row for row in super().rows(symbols, start, stop + timedelta(hours=3)) if row.time < panel.times[61]
            ]

    found = bars_of(HalfDay(panel)).upto(early)
    assert moment(found.closes[-1]) == early
    np.testing.assert_array_equal(found.closes[:-1], panel.closes[61 - NEEDED : 60])


def test_the_future_does_not_move_what_was_seen():
    market = Market()
    found = bars_of(market).upto(at(60))
    later = random_panel(9, bars=90, symbols=4)
    columns = {}
    for name in FIELDS:
        columns[name] = getattr(PANEL, name).copy()
        columns[name][61:] = getattr(later, name)[61:]
    other = Panel(PANEL.symbols, PANEL.times, PANEL.closes, *columns.values(), PANEL.tradable, PANEL.bars_per_year)
    assert bars_of(Market(other)).upto(at(60)).hash == found.hash
