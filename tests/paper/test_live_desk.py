"""A desk beside a clock that waits for nobody, as at Alpaca: by the calendar, with bars that pass while it looks."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from bundles import PANEL
from desks import KEY
from endpoint import TOKEN
from stands import JOURNAL, Stand, entries, standing

from kit.config import load
from paper.chain import KEY as KEY_NAME
from paper.chain import read_state
from paper.config import PaperConfig
from paper.run import TOKEN as TOKEN_NAME
from paper.run import trade
from paper.verify import verify

SECONDS_A_BAR = 3.0


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(tmp_path_factory.mktemp("ensemble")) as stand:
        yield stand


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_NAME, KEY.decode())
    monkeypatch.setenv(TOKEN_NAME, TOKEN)


@pytest.mark.timeout(180)
def test_a_desk_follows_a_market_that_moves_by_itself(stand: Stand, tmp_path: Path) -> None:
    """Whichever bars it met: it decided once at each, on what had closed by then, and its books are the exchange's."""
    with stand.market(bars=40, pace=SECONDS_A_BAR) as exchange:
        config = load(PaperConfig, None, stand.words(exchange, "broker.lockstep=false"))
        assert trade(config, tmp_path, bars=2) == 0
        assert trade(config, tmp_path, bars=1) == 0  # started again, it goes on
        book = exchange.exchange.book
        decided = [np.datetime64(decision["close"][:19]) for decision in entries(tmp_path, "decision")]
        assert len(decided) == 3
        assert (np.diff(decided) > np.timedelta64(0, "s")).all()
        assert np.isin(np.array(decided, "M8[ns]"), PANEL.closes).all()
        orders = list(book.by_client.values())
        assert any(order.filled for order in orders) and not book.open
        # What a late purchase has no cash for, because prices moved on, is canceled.
        assert {order.status for order in orders if order.filled < order.quantity} <= {"canceled"}
        books = read_state(tmp_path / JOURNAL)["books"]
        held = {symbol: Decimal(count) for symbol, count in books["positions"].items()}
        assert held == {symbol: position.quantity for symbol, position in book.positions.items()}
        assert verify(tmp_path / JOURNAL, [KEY]).ok
