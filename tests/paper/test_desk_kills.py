"""A desk that is killed, wherever that is, ends as one that never was: to the last digit, and by the same orders."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from bundles import PANEL
from desks import KEY, START
from endpoint import TOKEN
from killed import LOG, Drivers, events
from stands import End, Stand, end_of, standing

from paper.chain import KEY as KEY_NAME
from paper.exchange.run import Running
from paper.run import TOKEN as TOKEN_NAME

TRANSITIONS = (
    "key", "start", "opening", "decision", "sent sent", "order pending", "phase", "fill partial", "fill filled",
    "order partial", "settled", "rounding", "anchor",
)  # fmt: skip
REQUESTS = ("POST /v1/actions", "POST /v2/orders", "DELETE /v2/orders/ID", "POST /local/advance")
MOMENTS = [f"{when} {what}" for what in TRANSITIONS for when in ("before", "within", "after")]
MOMENTS += [f"{when} {what}" for what in REQUESTS for when in ("asked", "answered")]
DEAD = -signal.SIGKILL


@dataclass
class Range(Stand):
    """Where desks are killed."""

    drivers: Drivers

    def live(self, exchange: Running, folder: Path, kill: str = "", nth: int = 0) -> int:
        folder.mkdir(exist_ok=True)
        return self.drivers.live(folder, self.words(exchange), kill, nth)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Range]:
    drivers = Drivers({TOKEN_NAME: TOKEN, KEY_NAME: KEY.decode()})
    with standing(tmp_path_factory.mktemp("ensemble")) as stand:
        yield Range(stand.endpoint, stand.bundle, drivers)
    drivers.close()


@pytest.fixture(scope="module")
def unharmed(stand: Range, tmp_path_factory: pytest.TempPathFactory) -> tuple[End, list[str]]:
    """The end of a short replay that nobody disturbed, and all the moments at which it could have been killed."""
    folder = tmp_path_factory.mktemp("unharmed")
    with stand.market(partial=1.0) as exchange:
        assert stand.live(exchange, folder) == 0, (folder / LOG).read_text()
        end = end_of(exchange, folder)
    return end, events(folder)


def test_every_moment_at_which_a_desk_could_be_killed_is_tried_below(unharmed: tuple[End, list[str]]):
    assert set(unharmed[1]) == set(MOMENTS)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_at_any_moment_changes_nothing(
    moment: str, stand: Range, unharmed: tuple[End, list[str]], tmp_path: Path
):
    """Once in the middle of the replay; the desk that goes on is killed at its next such moment as well."""
    end, met = unharmed
    middle = met.count(moment) // 2 + 1
    with stand.market(partial=1.0) as exchange:
        assert stand.live(exchange, tmp_path, moment, middle) == DEAD
        code = stand.live(exchange, tmp_path, moment, 1)
        assert code == DEAD or moment not in met[met.index(moment) + 1 :], (tmp_path / LOG).read_text()
        if code == DEAD:
            assert stand.live(exchange, tmp_path) == 0, (tmp_path / LOG).read_text()
        assert end_of(exchange, tmp_path) == end


def kill_at_random(stand: Range, folder: Path, bars: int, kills: int, longest: int) -> None:
    """Kills are so many moments apart; the last desk lives."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with stand.market(bars, partial=0.5) as exchange:
        assert stand.live(exchange, folder / "unharmed") == 0, (folder / "unharmed" / LOG).read_text()
        end = end_of(exchange, folder / "unharmed")
    with stand.market(bars, partial=0.5) as exchange:
        for number in range(kills):
            code = stand.live(exchange, folder / "killed", nth=chance.randint(1, longest))
            assert code == DEAD, (number, (folder / "killed" / LOG).read_text()[-5000:])
        assert stand.live(exchange, folder / "killed") == 0
        assert end_of(exchange, folder / "killed") == end


def test_twenty_random_kills_in_one_replay_change_nothing(stand: Range, tmp_path: Path):
    kill_at_random(stand, tmp_path, bars=12, kills=20, longest=30)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_random_kills_in_one_long_replay_change_nothing(stand: Range, tmp_path: Path):
    kill_at_random(stand, tmp_path, bars=len(PANEL) - 1 - START, kills=200, longest=30)
