"""Whatever goes wrong around a desk: the state that is stated, an alert, nothing doubled, positions as explained."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from bundles import PANEL
from desks import START, World
from endpoint import TOKEN
from exchanges import order, script
from loopback import Endpoint as Liar
from loopback import changed
from stands import BARS, End, Stand, end_of, entries, standing

from kit.errors import UserError
from market.panel import Observed, Panel
from market.sources.patience import Clock
from paper import alpaca, keeper
from paper.broker import whole_steps
from paper.desk import Desk
from paper.risk import State
from serve.client import Client

CALM = PANEL.symbols[0]  # trades at every bar
QUICK = 0.02  # of the real pauses between attempts
ORDERS = 3  # of the first bar
HANG = ("broker.timeout_s=1",)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(tmp_path_factory.mktemp("ensemble")) as stand:
        yield stand


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clock, "sleep", lambda self, seconds: time.sleep(seconds * QUICK))
    monkeypatch.setattr(alpaca, "LOOK_UPS", (0.0, 0.1))
    monkeypatch.setattr(keeper, "PAUSE", 0.001)


@pytest.fixture(scope="module")
def unharmed(stand: Stand, tmp_path_factory: pytest.TempPathFactory) -> End:
    folder = tmp_path_factory.mktemp("unharmed")
    with stand.world(folder) as there:
        assert replayed(there) == State.ACTIVE
        assert there.alerts == []
        return end_of(there.exchange, folder)


def replayed(there: World, *words: str, **hooks: Any) -> State:
    """To the end of the market: the state that the desk is in then. What it did is explained."""
    with there.desk(*words, **hooks) as desk:
        desk.run()
        return settled(there, desk)


def settled(there: World, desk: Desk) -> State:
    """Every order that is at the exchange was decided, and the accounts agree."""
    decided = {id for body in entries(there.folder, "decision") for id in body["orders"]}
    sent = {body["id"] for body in entries(there.folder, "sent")}
    assert {*there.exchange.exchange.book.by_client} <= sent <= decided
    desk.keeper.agree()
    return desk.guard.state


def kinds(there: World) -> set[str]:
    return {kind for kind, _, _ in there.alerts}


def after_bars(count: int, act: Callable[[], object]) -> Callable[[Desk, float], None]:
    """Act once so many bars are handled."""
    left = iter([*[None] * (count - 1), act])

    def handled(desk: Desk, seconds: float) -> None:
        if due := next(left, None):
            due()

    return handled


# -- answers of the exchange


@pytest.mark.parametrize("kind", ["429", "500", "502_html", "504", "drop", "hang"])
def test_an_order_that_was_not_taken_is_sent_again_under_its_name(
    kind: str, stand: Stand, unharmed: End, tmp_path: Path
):
    with stand.world(tmp_path) as there:
        script(there.exchange, {"route": "POST /v2/orders", "kind": kind, "nth": 2, "seconds": 3})
        assert replayed(there, *HANG) == State.ACTIVE
        assert end_of(there.exchange, tmp_path) == unharmed
    assert {("unknown", "critical")} == {(kind, level) for kind, level, _ in there.alerts}
    resent = [body["id"] for body in entries(tmp_path, "sent")]
    assert len(resent) == len(set(resent)) + 1


@pytest.mark.parametrize("kind", ["429", "500", "502_html", "504", "drop", "hang"])
def test_an_order_that_was_booked_without_an_answer_is_found(
    kind: str, stand: Stand, unharmed: End, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with stand.world(tmp_path) as there, caplog.at_level(logging.WARNING):
        script(there.exchange, {"route": "POST /v2/orders", "kind": f"{kind}_after", "nth": 2, "seconds": 3})
        assert replayed(there, *HANG) == State.ACTIVE
        assert end_of(there.exchange, tmp_path) == unharmed
    sent = [body["id"] for body in entries(tmp_path, "sent")]
    assert len(sent) == len(set(sent))
    assert f"order {sent[1]}: " in caplog.text and "looking it up" in caplog.text


@pytest.mark.parametrize("kind", ["429", "500", "502_html", "504", "drop", "hang"])
def test_questions_are_asked_again(kind: str, stand: Stand, unharmed: End, tmp_path: Path):
    with stand.world(tmp_path) as there:
        script(there.exchange, {"route": "GET /v2/*", "kind": kind, "nth": 12, "times": 3, "seconds": 3})
        assert replayed(there, *HANG) == State.ACTIVE
        assert end_of(there.exchange, tmp_path) == unharmed


def test_an_order_is_not_given_up_while_the_broker_cannot_be_asked(stand: Stand, unharmed: End, tmp_path: Path):
    with stand.world(tmp_path) as there:
        lost = [
            {"route": "POST /v2/orders", "kind": "504_after", "nth": 2},
            {"route": "GET /v2/orders:by_client_order_id", "kind": "500", "times": 60},
        ]
        script(there.exchange, *lost)
        assert replayed(there, "orders.settle=0.01") == State.ACTIVE
        assert end_of(there.exchange, tmp_path) == unharmed
    assert kinds(there) >= {"unknown", "broker"}
    assert entries(tmp_path, "lost") == []


def test_orders_that_never_arrive_are_given_up(stand: Stand, tmp_path: Path):
    """All of the first bar's, and each was sent twice."""
    with stand.world(tmp_path) as there:
        script(there.exchange, {"route": "POST /v2/orders", "kind": "drop", "times": 2 * ORDERS})
        assert replayed(there, "orders.settle=0.01") == State.ACTIVE
        lost = [body["id"] for body in entries(tmp_path, "lost")]
        assert lost == entries(tmp_path, "decision")[0]["orders"]
        assert len(lost) == ORDERS
        assert there.exchange.exchange.book.by_client
        assert not {*lost} & {*there.exchange.exchange.book.by_client}
    assert kinds(there) == {"unknown", "lost"}


def silenced(there: World, times: int) -> Callable[[], None]:
    return lambda: script(there.exchange, {"route": "* /v2/*", "kind": "500", "times": times})


def test_a_broker_that_is_silent_for_a_while_is_waited_for(stand: Stand, unharmed: End, tmp_path: Path):
    with stand.world(tmp_path) as there:
        assert replayed(there, "data.patience=60", handled=after_bars(1, silenced(there, 40))) == State.ACTIVE
        assert end_of(there.exchange, tmp_path) == unharmed


def test_a_broker_that_is_silent_for_long_costs_bars_and_no_more(stand: Stand, tmp_path: Path):
    with stand.world(tmp_path) as there, there.desk(handled=after_bars(1, silenced(there, 10**6))) as desk:
        desk.run()
        there.exchange.exchange.script.clear()
        assert settled(there, desk) == State.ACTIVE
    assert {(body["kind"], body["why"].split(":")[0]) for body in entries(tmp_path, "refused")} == {("broker", "clock")}
    assert len(entries(tmp_path, "decision")) == 1
    assert [(kind, level) for kind, level, _ in there.alerts] == [("broker", "critical")] * (BARS - 1)


def test_a_cancellation_that_is_lost_is_asked_for_again(stand: Stand, tmp_path: Path):
    with stand.world(tmp_path) as there:
        script(there.exchange, {"market": "partial", "symbol": CALM, "share": 0.25})
        script(there.exchange, {"route": "DELETE /v2/orders/*", "kind": "504", "times": 2})
        assert replayed(there) == State.ACTIVE
    assert kinds(there) == {"unknown", "cut"}


# -- its stream


@pytest.mark.parametrize("kind", ["silent", "duplicate", "unknown_enum", "drop"])
def test_what_the_stream_tells_is_only_a_hint(kind: str, stand: Stand, unharmed: End, tmp_path: Path):
    with stand.world(tmp_path) as there:
        script(there.exchange, {"stream": kind, "times": 10**6})
        assert replayed(there) == State.ACTIVE
        assert end_of(there.exchange, tmp_path) == unharmed
    assert there.alerts == []


def test_a_fill_before_the_answer_is_booked_once(stand: Stand, tmp_path: Path):
    with stand.world(tmp_path) as there:
        script(there.exchange, {"stream": "before_answer", "times": 2})
        assert replayed(there) == State.ACTIVE
        end_of(there.exchange, tmp_path)
    fills = [body["order"] for body in entries(tmp_path, "fill")]
    assert len(fills) == len(set(fills))


@pytest.mark.parametrize("route", ["POST /v2/orders", "GET /v2/orders*"])
def test_a_status_that_nobody_knows_is_looked_at_again(route: str, stand: Stand, unharmed: End, tmp_path: Path):
    with stand.world(tmp_path) as there:
        script(there.exchange, {"route": route, "kind": "unknown_enum", "nth": 2, "times": 5})
        assert replayed(there) == State.ACTIVE
        assert end_of(there.exchange, tmp_path) == unharmed


# -- its market


def test_a_partial_fill_whose_rest_is_cancelled(stand: Stand, tmp_path: Path):
    with stand.world(tmp_path) as there:
        script(there.exchange, {"market": "partial", "symbol": CALM, "share": 0.25})
        assert replayed(there) == State.ACTIVE
        first = next(o for o in there.exchange.exchange.book.orders.values() if o.symbol == CALM)
        assert (first.status, first.filled) == ("canceled", whole_steps(first.quantity / 4))
    assert [(kind, level) for kind, level, _ in there.alerts] == [("cut", "warning")]
    assert first.client_id in there.alerts[0][2]


def test_an_order_that_the_account_cannot_pay_is_rejected(stand: Stand, tmp_path: Path):
    with stand.world(tmp_path) as there:
        script(there.exchange, {"route": "POST /v2/orders", "kind": "reject_buying_power", "nth": 2})
        assert replayed(there) == State.ACTIVE
        (rejected,) = entries(tmp_path, "rejected")
        assert "insufficient buying power" in rejected["reason"]
        assert rejected["id"] not in there.exchange.exchange.book.by_client
    assert [(kind, level) for kind, level, _ in there.alerts] == [("rejected", "critical")]


def test_an_order_that_is_rejected_when_it_should_fill(stand: Stand, tmp_path: Path):
    with stand.world(tmp_path) as there:
        script(there.exchange, {"market": "reject", "symbol": CALM})
        assert replayed(there) == State.ACTIVE
    assert [(kind, level) for kind, level, _ in there.alerts] == [("rejected", "critical")]


def test_a_halted_symbol_keeps_its_position(stand: Stand, tmp_path: Path):
    """What was queued is rejected, and so is what is sent while it lasts; then it trades again."""
    halt = {"market": "halt", "symbol": CALM, "bar": START + 2, "until": START + 4}
    with stand.world(tmp_path, bars=6) as there:
        script(there.exchange, halt)
        assert replayed(there) == State.ACTIVE
        fills = [body["order"] for body in entries(tmp_path, "fill") if body["symbol"] == CALM]
    stamps = [f"{np.datetime_as_string(PANEL.closes[START + k], 'D')}".replace("-", "") for k in range(6)]
    assert [any(stamp in fill for fill in fills) for stamp in stamps] == [True, False, False, False, True, True]
    assert [kind for kind, _, _ in there.alerts] == ["rejected"] * 3


def test_a_split_overnight_is_explained(stand: Stand, tmp_path: Path):
    """Shares double as prices halve; what was ordered before is canceled by the exchange."""
    with stand.world(tmp_path) as there:
        script(there.exchange, {"market": "split", "symbol": CALM, "bar": START + 2, "ratio": 2.0})
        assert replayed(there) == State.ACTIVE
        equity = np.array([body["equity"] for body in entries(tmp_path, "decision")])
        assert np.abs(equity[1:] / equity[:-1] - 1).max() < 0.05
        (split,) = [body for body in entries(tmp_path, "activity") if body["kind"] == "SPLIT"]
        assert Decimal(split["quantity"]) > 0
    assert [(kind, level) for kind, level, _ in there.alerts] == [("activity", "info")]


@pytest.mark.parametrize("seconds", [-300.0, 300.0])
def test_a_clock_that_is_wrong_is_reported(seconds: float, stand: Stand, unharmed: End, tmp_path: Path):
    with stand.world(tmp_path) as there:
        script(there.exchange, {"market": "clock_skew", "seconds": seconds})
        assert replayed(there) == State.ACTIVE
        assert end_of(there.exchange, tmp_path) == unharmed
    assert set(there.alerts) == {("clock", "warning", f"the broker's clock is {seconds:+.0f} s from ours")}


# -- data


def test_a_bar_that_stays_away_is_not_traded(stand: Stand, tmp_path: Path):
    with stand.world(tmp_path) as there:
        script(there.exchange, {"market": "late", "bar": START + 1, "times": 50})
        assert replayed(there) == State.ACTIVE
    (refused,) = entries(tmp_path, "refused")
    assert refused["kind"] == "stale" and "the last bar closed at" in refused["why"]
    assert len(entries(tmp_path, "decision")) == BARS - 1
    assert [(kind, level) for kind, level, _ in there.alerts] == [("stale", "critical")]


def test_a_bar_that_is_late_is_waited_for(stand: Stand, unharmed: End, tmp_path: Path):
    with stand.world(tmp_path) as there:
        script(there.exchange, {"market": "late", "bar": START + 1, "times": 4})
        assert replayed(there, "data.patience=60") == State.ACTIVE
        assert end_of(there.exchange, tmp_path) == unharmed
    assert there.alerts == []


class Spoilt:
    """The exchange's own observed columns, but for what is done to them at the bars numbered so."""

    def __init__(self, source: Any, spoil: Callable[[Observed], Observed | None], bars: set[int]) -> None:
        self.source, self.spoil, self.bars = source, spoil, bars

    def columns(self, panel: Panel) -> Mapping[str, Observed]:
        found = self.source.columns(panel)
        if int(np.searchsorted(PANEL.closes, panel.closes[-1])) not in self.bars:
            return found
        spoilt = {name: self.spoil(column) for name, column in found.items()}
        return {name: column for name, column in spoilt.items() if column is not None}


def _old(column: Observed) -> Observed:
    return Observed(column.values, column.known_at - np.timedelta64(30, "D"))


@pytest.mark.parametrize(
    ("spoil", "words"), [(lambda column: None, "no column signal"), (_old, "signal of S")], ids=["missing", "late"]
)
def test_an_observed_column_that_lacks_is_never_filled(
    spoil: Callable[[Observed], Observed | None], words: str, stand: Stand, tmp_path: Path
):
    with stand.world(tmp_path) as there, there.desk() as desk:
        desk.decider.observed = Spoilt(desk.decider.observed, spoil, {START + 1})
        desk.run()
        assert settled(there, desk) == State.ACTIVE
    (refused,) = entries(tmp_path, "refused")
    assert refused["kind"] == "stale" and words in refused["why"]
    assert [(kind, level) for kind, level, _ in there.alerts] == [("stale", "critical")]


# -- the ensemble


@contextmanager
def lying(*lies: Any) -> Iterator[Liar]:
    """An endpoint that answers soundly but for its first answers."""
    server = Liar()
    server.faults = [*lies]
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _all_in(handler: Any) -> None:
    symbols = json.loads(handler.content)["symbols"]
    handler.reply(200, handler.good() | {"ordered": dict.fromkeys(symbols, 3.0 / len(symbols)), "ordered_cash": 0.0})


LIES: dict[str, Any] = {
    "NaN": changed(dispersion=float("nan")),
    "NaN as a weight": lambda h: h.reply(200, h.good() | {"weights": {s: float("nan") for s in h.good()["weights"]}}),
    "weights that sum to 3": _all_in,
    "wrong symbols": changed(ordered={"WRONG": 0.5}, ordered_cash=0.5),
    "of another bar": changed(as_of="2019-01-01T21:00:00Z"),
    "no JSON": lambda h: h.reply(200, b"<html>"),
    "502": lambda h: h.reply(502, b"<html><body>Bad Gateway</body></html>"),
    "slow": lambda h: h.server.over.wait(10),
    "gone": lambda h: h.connection.close(),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_answer_that_makes_no_sense_is_not_traded(lie: str, stand: Stand, tmp_path: Path):
    with stand.world(tmp_path) as there, lying(None, LIES[lie]) as liar, there.desk() as desk:
        desk.decider.client = Client(liar.url, TOKEN, deadline=1.0, attempts=1)
        desk.run()
        assert settled(there, desk) == State.ACTIVE
    assert [body["kind"] for body in entries(tmp_path, "refused")] == ["ensemble"]
    assert len(entries(tmp_path, "decision")) == BARS - 1
    assert [(kind, level) for kind, level, _ in there.alerts] == [("ensemble", "critical")]


def test_an_ensemble_that_is_down_leaves_positions_as_they_are(stand: Stand, tmp_path: Path):
    with stand.world(tmp_path) as there, there.desk() as desk, lying() as liar:
        desk.decider.client = Client(liar.url, TOKEN, deadline=1.0, attempts=1)

        def down() -> None:
            desk.decider.client = Client("http://127.0.0.1:9", TOKEN, deadline=1.0, attempts=1)

        desk.handled = after_bars(1, down)
        desk.run()
        assert settled(there, desk) == State.ACTIVE
        assert set(desk.keeper.now().positions) == {*there.exchange.exchange.book.positions} != set()
    assert len(entries(tmp_path, "decision")) == 1
    assert [(kind, level) for kind, level, _ in there.alerts] == [("ensemble", "critical")] * (BARS - 1)


# -- the account and the disk


def test_a_stranger_s_order_halts_the_desk(stand: Stand, tmp_path: Path):
    with stand.world(tmp_path) as there:
        strange = after_bars(2, lambda: order(there.exchange.exchange, CALM, "-1", "not-ours"))
        with there.desk(handled=strange) as desk:
            desk.run()
            assert desk.guard.state == State.HALTED
        assert len(entries(tmp_path, "decision")) == 2
        assert "order not-ours at the broker is not ours" in entries(tmp_path, "halt")[0]["why"]
        with there.desk() as desk:
            desk.run()
            assert desk.guard.state == State.HALTED, "it latches"
    assert {"halt", "mismatch"} == kinds(there)


@pytest.mark.parametrize(("off", "state"), [("0.03", State.ACTIVE), ("0.05", State.HALTED)])
def test_a_broker_may_round_each_fill_and_no_more(off: str, state: State, stand: Stand, tmp_path: Path):
    """Of a bar with three fills, also where the desk starts anew before it has compared them."""
    with stand.world(tmp_path) as there:
        with there.desk() as desk:
            desk.run(1)
        there.exchange.exchange.book.cash -= Decimal(off)
        with there.desk() as desk:
            desk.run(1)
            assert desk.guard.state == state
            assert len(entries(tmp_path, "rounding")) == (state == State.ACTIVE)


def test_a_position_that_nothing_explains_halts_the_desk(stand: Stand, tmp_path: Path):
    def tamper() -> None:
        there.exchange.exchange.book.positions[CALM].quantity += 5

    with stand.world(tmp_path) as there, there.desk(handled=after_bars(2, tamper)) as desk:
        desk.run()
        assert desk.guard.state == State.HALTED
        assert f"{CALM}: the broker has" in desk.guard.why
    assert len(entries(tmp_path, "decision")) == 2


def test_a_desk_does_not_begin_with_an_account_that_others_use(stand: Stand, tmp_path: Path):
    with stand.world(tmp_path) as there, there.desk() as desk:
        order(there.exchange.exchange, CALM, "1", "not-ours")
        with pytest.raises(UserError, match="the account has 1 open orders that are not ours: cancel them"):
            desk.run()
        assert [*there.exchange.exchange.book.by_client] == ["not-ours"]
    assert kinds(there) == {"mismatch"}


def test_a_full_disk_stops_the_desk_and_with_space_it_goes_on(stand: Stand, unharmed: End, tmp_path: Path):
    with stand.world(tmp_path) as there:
        with there.desk() as desk:
            pages = desk.journal._db.execute("PRAGMA page_count").fetchone()[0]
            desk.journal._db.execute(f"PRAGMA max_page_count = {pages + 8}")
            with pytest.raises(UserError, match=r"desk\.db: cannot be written \(database or disk is full\)"):
                desk.run()
        assert [(kind, level) for kind, level, _ in there.alerts] == [("stopped", "critical")]
        assert not there.exchange.exchange.tape.ended
        assert replayed(there) == State.ACTIVE
        assert end_of(there.exchange, tmp_path) == unharmed
