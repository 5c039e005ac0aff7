"""When bars close: by the calendar of a market, or in step with a local exchange that waits for the desk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal, Protocol

import numpy as np

from market.clock import DAY
from paper.alpaca import LocalClock
from paper.broker import Broker, Session

AHEAD = timedelta(days=14)  # of the calendar; no market is closed for so long
BEHIND = timedelta(days=7)


@dataclass(frozen=True)
class Close:
    """A bar that closes, and when what is decided there can fill."""

    at: datetime
    fills: datetime
    index: int = -1  # of a local exchange's bar


class Pace(Protocol):
    def next(self, after: datetime | None) -> Close | None:
        """The close to handle after that one: it may lie in the future. None: there is no other."""
        ...

    def left(self, close: Close) -> float:
        """Seconds until it has closed; none are left: not above 0."""
        ...

    def sent(self, close: Close) -> None:
        """All orders of that bar are out."""
        ...

    def late(self, close: Close, deadline: float) -> bool:
        """Whether orders of that bar that are still open should be cancelled; `deadline` in seconds."""
        ...

    def followed(self, close: Close) -> None:
        """All of them have ended."""
        ...


class Lockstep:
    """The exchange's clock moves when it is told that the desk is done; telling it again changes nothing."""

    def __init__(
        self, clock: Callable[[], LocalClock], advance: Callable[[int, Literal["closed", "filled"]], LocalClock]
    ) -> None:
        self._clock, self._advance = clock, advance

    def next(self, after: datetime | None) -> Close | None:
        now = self._clock()
        while now.stage == "filled" or (after is not None and now.close <= after and not now.ended):
            now = self._advance(now.bar, now.stage)  # the desk is done with it
        return None if now.ended else Close(now.close, now.close, now.bar)

    def left(self, close: Close) -> float:
        return 0.0  # it tells of none that has not closed

    def sent(self, close: Close) -> None:
        self._advance(close.index, "closed")

    def late(self, close: Close, deadline: float) -> bool:
        return True  # what did not fill at its time never will: the clock stands still

    def followed(self, close: Close) -> None:
        self._advance(close.index, "filled")


class Calendar:
    """A market's own time. A bar whose orders could have filled already is let pass."""

    def __init__(self, broker: Broker, bar: np.timedelta64, patience: float) -> None:
        self.broker, self.bar, self.patience = broker, bar, timedelta(seconds=patience)

    def next(self, after: datetime | None) -> Close:
        now = self.broker.now()
        sessions = sorted(
            self.broker.sessions((now - BEHIND).date(), (now + AHEAD).date()), key=lambda session: session.open
        )
        for close in self._closes(sessions):
            if after is not None and close.at <= after:
                continue
            if now <= max(close.at + self.patience, close.fills):
                return close
        raise RuntimeError(f"the calendar names no close after {now:%Y-%m-%d %H:%M}")

    def left(self, close: Close) -> float:
        return (close.at - self.broker.now()).total_seconds()

    def sent(self, close: Close) -> None:
        pass

    def late(self, close: Close, deadline: float) -> bool:
        return self.broker.now() > close.fills + timedelta(seconds=deadline)

    def followed(self, close: Close) -> None:
        pass

    def _closes(self, sessions: list[Session]) -> Iterator[Close]:
        """Daily bars close with their session, others as often as they fit in it."""
        step = timedelta(microseconds=int(self.bar / np.timedelta64(1, "us")))
        for session, following in pairwise(sessions):
            at = session.close if self.bar >= DAY else min(session.open + step, session.close)
            while at < session.close:
                yield Close(at, at)
                at = min(at + step, session.close)
            yield Close(session.close, following.open)
