"""A desk that is killed, wherever that is, ends as one that never was: to the last digit, and by the same orders."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bundles import PANEL
from desks import FAST, KEY, START
from endpoint import CAPITAL, TOKEN, Endpoint, bundle_of, serving
from exchanges import settings
from killed import LOG, Drivers, events

from paper.chain import KEY as KEY_NAME
from paper.chain import read_entries, read_state
from paper.exchange.run import Running, running
from paper.run import JOURNAL
from paper.run import TOKEN as TOKEN_NAME
from paper.verify import verify

BARS = 4  # of a short replay
TRANSITIONS = (
    "key", "start", "opening", "decision", "sent sent", "order pending", "phase", "fill partial", "fill filled",
    "order canceled", "settled", "anchor",
)  # fmt: skip
REQUESTS = ("POST /v1/actions", "POST /v2/orders", "DELETE /v2/orders/ID", "POST /local/advance")
MOMENTS = [f"{when} {what}" for what in TRANSITIONS for when in ("before", "within", "after")]
MOMENTS += [f"{when} {what}" for what in REQUESTS for when in ("asked", "answered")]
DEAD = -signal.SIGKILL


@dataclass(frozen=True)
class End:
    """What a replay came to."""

    cash: str
    positions: dict[str, str]
    orders: dict[str, tuple[object, ...]]  # at the exchange, by our name
    books: dict[str, Any]
    decisions: list[Any]


@dataclass
class Stand:
    """Where desks are killed."""

    drivers: Drivers
    endpoint: Endpoint
    trading: Any

    @contextmanager
    def market(self, bars: int, partial: float = 1.0) -> Iterator[Running]:
        given = {"trading": self.trading, "bar": START, "cash": CAPITAL, "partial": partial}
        with running(settings(**given), PANEL[: START + bars + 1]) as exchange:
            yield exchange

    def live(self, exchange: Running, folder: Path, kill: str = "", nth: int = 0) -> int:
        folder.mkdir(exist_ok=True)
        words = [f"broker.url={exchange.url}", f"ensemble.url={self.endpoint.url}", "port=0", *FAST]
        return self.drivers.live(folder, words, kill, nth)

    def end(self, exchange: Running, folder: Path) -> End:
        book, report = exchange.exchange.book, verify(folder / JOURNAL, [KEY])
        assert exchange.exchange.tape.ended
        assert report.problems == []
        return End(
            cash=str(book.cash),
            positions={symbol: str(held.quantity) for symbol, held in book.positions.items()},
            orders={
                order.client_id: (order.symbol, order.side, order.quantity, order.filled, order.spent, order.status)
                for order in book.orders.values()
            },
            books={key: read_state(folder / JOURNAL)["books"][key] for key in ("cash", "positions")},
            decisions=[entry.body for entry in read_entries(folder / JOURNAL, kinds=("decision",))],
        )


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("ensemble")
    bundle = bundle_of(folder / "bundle")
    drivers = Drivers({TOKEN_NAME: TOKEN, KEY_NAME: KEY.decode()})
    with serving({"champion": [folder / "bundle"]}, max_age=1e9) as endpoint:
        yield Stand(drivers, endpoint, bundle.lens.trading)
    drivers.close()


@pytest.fixture(scope="module")
def unharmed(stand: Stand, tmp_path_factory: pytest.TempPathFactory) -> tuple[End, list[str]]:
    """The end of a short replay that nobody disturbed, and all the moments at which it could have been killed."""
    folder = tmp_path_factory.mktemp("unharmed")
    with stand.market(BARS) as exchange:
        assert stand.live(exchange, folder) == 0, (folder / LOG).read_text()
        end = stand.end(exchange, folder)
    return end, events(folder)


def test_every_moment_at_which_a_desk_could_be_killed_is_tried_below(unharmed: tuple[End, list[str]]):
    assert set(unharmed[1]) == set(MOMENTS)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_at_any_moment_changes_nothing(
    moment: str, stand: Stand, unharmed: tuple[End, list[str]], tmp_path: Path
):
    """Once in the middle of the replay; the desk that goes on is killed at its next such moment as well."""
    end, met = unharmed
    middle = met.count(moment) // 2 + 1
    with stand.market(BARS) as exchange:
        assert stand.live(exchange, tmp_path, moment, middle) == DEAD
        code = stand.live(exchange, tmp_path, moment, 1)
        assert code == DEAD or moment not in met[met.index(moment) + 1 :], (tmp_path / LOG).read_text()
        if code == DEAD:
            assert stand.live(exchange, tmp_path) == 0, (tmp_path / LOG).read_text()
        assert stand.end(exchange, tmp_path) == end


def kill_at_random(stand: Stand, folder: Path, bars: int, kills: int, longest: int) -> None:
    """Kills are so many moments apart; the last desk lives."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with stand.market(bars, partial=0.5) as exchange:
        assert stand.live(exchange, folder / "unharmed") == 0, (folder / "unharmed" / LOG).read_text()
        end = stand.end(exchange, folder / "unharmed")
    with stand.market(bars, partial=0.5) as exchange:
        for number in range(kills):
            code = stand.live(exchange, folder / "killed", nth=chance.randint(1, longest))
            assert code == DEAD, (number, (folder / "killed" / LOG).read_text()[-5000:])
        assert stand.live(exchange, folder / "killed") == 0
        assert stand.end(exchange, folder / "killed") == end


def test_twenty_random_kills_in_one_replay_change_nothing(stand: Stand, tmp_path: Path):
    kill_at_random(stand, tmp_path, bars=12, kills=20, longest=50)


@pytest.mark.slow
def test_two_hundred_random_kills_in_one_long_replay_change_nothing(stand: Stand, tmp_path: Path):
    kill_at_random(stand, tmp_path, bars=len(PANEL) - 1 - START, kills=200, longest=45)
