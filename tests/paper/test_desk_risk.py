"""The desk under its limits: a halt latches until a person resets it, and no restart gets an order past a limit."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from bundles import PANEL
from desks import KEY, START, World
from endpoint import TOKEN
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from killed import LOG, Drivers
from stands import Stand, entries, standing

from market.panel import PRICES, Panel
from paper import __main__ as command
from paper.broker import Request
from paper.chain import KEY as KEY_NAME
from paper.guard import KILL, Guard, ask_for_reset
from paper.journal import Journal
from paper.risk import State
from paper.run import TOKEN as TOKEN_NAME
from serve.client import Answer, Portfolio

SYMBOLS = PANEL.symbols
CALM = SYMBOLS[0]  # trades at every bar


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(tmp_path_factory.mktemp("ensemble")) as stand:
        yield stand


def lived(there: World, *words: str, bars: int | None = None, **hooks: Any) -> State:
    """A desk that starts, handles so many bars and ends: the state that it was in then."""
    with there.desk(*words, **hooks) as desk:
        desk.run(bars)
        desk.keeper.agree()
        return desk.guard.state


def traded(there: World) -> int:
    return len(there.exchange.exchange.book.orders)


def _moved(symbol: str, bar: int, factor: float) -> Panel:
    """Its prices from that bar on."""
    cube = {name: getattr(PANEL, name).copy() for name in PRICES}
    for values in cube.values():
        values[bar:, PANEL.symbols.index(symbol)] *= factor
    return replace(PANEL, **cube)


def _noon() -> datetime:
    return datetime(2026, 1, 5, 12, tzinfo=UTC)


def reset(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a person does it."""
    monkeypatch.setattr(sys, "argv", ["paper", "reset", str(folder), "--reason", "looked at it"])
    assert command.main() == 0


# -- halts


@pytest.mark.parametrize("limit", ["daily_loss", "drawdown"])
def test_a_loss_halts_until_a_person_resets(limit: str, stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever starts meanwhile, nothing is ordered and every position is kept."""
    with stand.world(tmp_path, bars=8) as there:
        assert lived(there, f"limits.{limit}=0.0001", bars=4) == State.HALTED
        count, held = traded(there), {s: p.quantity for s, p in there.exchange.exchange.book.positions.items()}
        assert lived(there, bars=2) == State.HALTED, "without the limit the halt stays"
        assert (traded(there), len(held) > 0) == (count, True)
        assert held == {s: p.quantity for s, p in there.exchange.exchange.book.positions.items()}
        reset(tmp_path, monkeypatch)
        assert lived(there) == State.ACTIVE
        assert traded(there) > count
    (halt,), (reset_entry,) = entries(tmp_path, "halt"), entries(tmp_path, "reset")
    assert halt["why"].startswith(f"{limit} is ")
    assert (reset_entry["why"], reset_entry["before"]) == ("looked at it", "halted")
    assert [kind for kind, _, _ in there.alerts] == ["halt", "reset"]


def test_after_a_reset_losses_count_from_then_on(stand: Stand, tmp_path: Path):
    with stand.world(tmp_path, bars=6) as there:
        assert lived(there, "limits.drawdown=0.0001", bars=4) == State.HALTED
        ask_for_reset(tmp_path, "ann", "new money")
        lived(there, "limits.drawdown=0.0001", bars=1)
    *before, after = entries(tmp_path, "decision")
    assert after["equity"] < 0.999 * max(body["equity"] for body in before)
    assert after["state"] == "active"


def test_a_file_kills_even_before_the_first_order(stand: Stand, tmp_path: Path):
    (tmp_path / KILL).touch()
    with stand.world(tmp_path) as there:
        assert lived(there) == State.HALTED
        assert traded(there) == 0
        assert there.exchange.exchange.tape.ended, "it goes on watching"


@pytest.mark.parametrize("how", ["file", "thread"])
def test_the_kill_switch_cancels_what_is_open_and_holds_back_the_rest(how: str, stand: Stand, tmp_path: Path):
    """It is pressed while the second bar's orders are being sent, after the first of them."""

    class Pressing:
        """The broker, and somebody who presses after the fourth order."""

        def __init__(self, broker: Any) -> None:
            self.broker, self.sent = broker, 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.broker, name)

        def submit(self, request: Request) -> Any:
            self.sent += 1
            if self.sent == 4:
                if how == "file":
                    (tmp_path / KILL).touch()
                else:
                    desk.guard.ask_to_kill("kill switch: dashboard")
            return self.broker.submit(request)

    with stand.world(tmp_path) as there, there.desk(broker=Pressing) as desk:
        desk.run()
        assert desk.guard.state == State.HALTED
        assert desk.guard.why.startswith("kill switch: ")
        orders = list(there.exchange.exchange.book.orders.values())
        desk.keeper.agree()
    assert [order.status for order in orders] == ["filled"] * 3 + ["canceled"]
    assert orders[3].filled == 0, "it was cancelled before it could fill"
    decided = [id for body in entries(tmp_path, "decision") for id in body["orders"]]
    assert [body["id"] for body in entries(tmp_path, "withheld")] == decided[4:]
    assert ("halt", "critical") in {(kind, level) for kind, level, _ in there.alerts}


def test_a_signal_kills(stand: Stand, tmp_path: Path):
    drivers = Drivers({TOKEN_NAME: TOKEN, KEY_NAME: KEY.decode()})
    with stand.market() as exchange:
        words = stand.words(exchange)
        assert drivers.live(tmp_path, words, "after decision", 2, signal.SIGUSR1) == 0, (tmp_path / LOG).read_text()
        assert exchange.exchange.tape.ended
        assert len(exchange.exchange.book.orders) == 3
    drivers.close()
    (halt,) = entries(tmp_path, "halt")
    assert (halt["state"], halt["why"]) == ("halted", "kill switch: SIGUSR1")


def test_what_cannot_be_looked_at_counts_as_killed(tmp_path: Path):
    (tmp_path / "file").touch()
    told: list[str] = []
    with Journal(tmp_path / "desk.db", KEY, _noon) as journal:
        for folder in (tmp_path / "file", tmp_path / "gone"):
            guard = Guard(journal, folder, lambda kind, level, text: told.append(text))
            assert guard._killed_by_file().startswith("kill switch: ")
            guard.heed()
            assert guard.state == State.HALTED
        assert len(told) == 1


def test_a_reset_does_not_undo_a_kill_that_still_stands(tmp_path: Path):
    with Journal(tmp_path / "desk.db", KEY, _noon) as journal:
        guard = Guard(journal, tmp_path, lambda kind, level, text: None)
        ask_for_reset(tmp_path, "ann", "again")
        (tmp_path / KILL).touch()
        guard.heed()
        guard.heed()
        assert guard.state == State.HALTED
        ask_for_reset(tmp_path, "ann", "now")
        guard.heed()
        assert guard.state == State.ACTIVE


# -- stop-loss


def test_a_stop_loss_sells_and_keeps_the_name_out(stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    falling = _moved(CALM, START + 2, 0.8)
    with stand.world(tmp_path, bars=8, panel=falling) as there:
        assert lived(there, "limits.stop_loss=0.1", bars=4) == State.ACTIVE
        book = there.exchange.exchange.book
        assert CALM not in book.positions and book.positions
        assert lived(there, "limits.stop_loss=0.1", bars=2) == State.ACTIVE
        assert CALM not in book.positions, "the ensemble wants it, the desk does not"
        assert any(body["ordered"][CALM] > 0 for body in entries(tmp_path, "decision")[4:])
        reset(tmp_path, monkeypatch)
        lived(there, "limits.stop_loss=0.1")
        assert CALM in book.positions
    (stopped,) = entries(tmp_path, "stop-loss")
    assert stopped["symbol"] == CALM
    assert ("stop-loss", "warning") in {(kind, level) for kind, level, _ in there.alerts}


def test_a_stop_loss_sells_while_halted(stand: Stand, tmp_path: Path):
    falling = _moved(CALM, START + 2, 0.8)
    with stand.world(tmp_path, bars=6, panel=falling) as there:
        assert lived(there, "limits.stop_loss=0.1", "limits.daily_loss=0.01") == State.HALTED
        assert CALM not in there.exchange.exchange.book.positions
    last = [body for body in entries(tmp_path, "sent") if body["symbol"] == CALM][-1]
    assert last["side"] == "sell"


# -- limits, through the whole path


class Wanting:
    """An ensemble that wants what it is told, bar by bar."""

    def __init__(self, targets: list[list[float]]) -> None:
        self.targets = iter(targets)

    def actions(self, panel: Panel, portfolio: Portfolio, asked_at: Any = None, version: Any = None) -> Answer:
        target = next(self.targets)
        weights, cash = dict(zip(panel.symbols, target)), 1.0 - sum(target)
        as_of = panel.closes[-1]
        return Answer("0" * 12, as_of, asked_at, weights, cash, weights, cash, (), 0.0, (), 0.0)


BARS = 4
TARGETS = st.lists(st.floats(0.0, 1.0), min_size=len(SYMBOLS), max_size=len(SYMBOLS)).map(
    lambda row: [w / max(1.0, sum(row)) for w in row]
)
NOTIONAL, PER_NAME, TURNOVER = 20_000.0, 0.3, 0.5
LIMITS = (f"limits.order_notional={NOTIONAL}", f"limits.per_name={PER_NAME}", f"limits.turnover={TURNOVER}")
LITTLE = 1 + 1e-9


def check_limits(stand: Stand, folder: Path, start: int, targets: list[list[float]], restarts: list[bool]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    wanting = Wanting(targets)
    with stand.world(folder, bars=start - START + BARS, bar=start) as there:
        book, done = there.exchange.exchange.book, 0
        for bar, restart in enumerate(restarts):
            if not restart and bar < BARS - 1:
                continue
            with there.desk(*LIMITS) as desk:
                desk.client = wanting  # type: ignore[assignment]
                desk.run(bar + 1 - done)
                done = bar + 1
        held = dict.fromkeys(SYMBOLS, Decimal(0))
        for number, decision in enumerate(entries(folder, "decision")):
            prices, equity = dict(zip(SYMBOLS, PANEL.close[start + number].tolist())), decision["equity"]
            orders = [book.by_client[id] for id in decision["orders"]]
            worth = {order.symbol: float(order.quantity) * prices[order.symbol] for order in orders}
            assert sum(worth.values()) <= TURNOVER * equity * LITTLE
            for order in orders:
                assert worth[order.symbol] <= NOTIONAL * LITTLE
                if order.side == "buy":
                    after = float(held[order.symbol] + order.quantity) * prices[order.symbol]
                    assert after <= PER_NAME * equity * LITTLE
            for order in orders:
                held[order.symbol] += order.sign * order.filled
        assert len(entries(folder, "decision")) == BARS
        assert len(entries(folder, "start")) == sum(restarts[:-1]) + 1


CASES = given(
    start=st.integers(START, len(PANEL) - 2 - BARS),
    targets=st.lists(TARGETS, min_size=BARS, max_size=BARS),
    restarts=st.lists(st.booleans(), min_size=BARS, max_size=BARS),
)
QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@settings(max_examples=8, suppress_health_check=QUIET)
@CASES
def test_no_targets_and_restarts_get_an_order_past_a_limit(
    stand: Stand, tmp_path: Path, start: int, targets: list[list[float]], restarts: list[bool]
):
    check_limits(stand, tmp_path / "desk", start, targets, restarts)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=150, suppress_health_check=QUIET)
@CASES
def test_no_targets_and_restarts_get_an_order_past_a_limit_at_length(
    stand: Stand, tmp_path: Path, start: int, targets: list[list[float]], restarts: list[bool]
):
    check_limits(stand, tmp_path / "desk", start, targets, restarts)


def test_a_restart_does_not_forget_how_many_orders_were_sent(stand: Stand, tmp_path: Path):
    with stand.world(tmp_path) as there:
        with there.desk() as desk:
            desk.run(1)
            sent = [*desk.decider.sent_at]
            assert len(sent) == traded(there) > 0
        with there.desk() as desk:
            assert [*desk.decider.sent_at] == sent


def test_limits_are_watched_as_soon_as_a_desk_is_started_again(stand: Stand, tmp_path: Path):
    """Between bars too: nothing is to be decided yet."""
    with stand.world(tmp_path) as there:
        lived(there, bars=2)
        with there.desk("limits.gross=0.01") as desk:
            desk.begin()
            assert not there.alerts
            desk.look_around()
            assert desk.guard.state == State.REDUCING
        assert [text for _, _, text in there.alerts if text.startswith("reducing: gross is ")]


def test_the_reason_in_the_file_kill_is_kept(stand: Stand, tmp_path: Path):
    with stand.world(tmp_path) as there:
        (tmp_path / KILL).write_text("ada: earnings\ntonight\n")
        assert lived(there, bars=1) == State.HALTED
        assert [text for kind, _, text in there.alerts if kind == "halt"] == [
            "halted: kill switch: the file KILL is there: ada: earnings tonight"
        ]


def test_a_file_kill_that_cannot_be_read_halts_too(stand: Stand, tmp_path: Path):
    """A pipe would be waited for; a folder cannot be read."""
    for number, make in enumerate((os.mkfifo, os.mkdir)):
        (tmp_path / str(number)).mkdir()
        with stand.world(tmp_path / str(number)) as there:
            make(there.folder / KILL)
            assert lived(there, bars=1) == State.HALTED


def test_value_at_risk_is_known_to_an_ensemble_that_looks_back_on_few_bars(stand: Stand, tmp_path: Path):
    with stand.world(tmp_path) as there:
        assert there.bundle.bars_needed < 20
        lived(there, "limits.var=0.5", bars=2)
        assert traded(there)
        assert not [text for _, _, text in there.alerts if text.startswith(f"{CALM}: its risk is not known")]
