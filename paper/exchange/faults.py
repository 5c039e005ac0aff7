"""What goes wrong on demand. A script is a list of faults, from the configuration or POST /local/faults.

`nth` (from 1) counts what matches a fault since it was scripted; `times` says how many of these in
a row it strikes.

| fault | keys | what happens |
|---|---|---|
| route, e.g. `POST /v2/orders` or `GET /v2/*` | kind, nth, times | the request goes wrong, see below |
| stream | event (e.g. `fill`), nth, times | an event of the stream goes wrong, see below |
| market: split | symbol, bar, ratio | before the open of `bar` one share becomes `ratio`; open orders for it \
are canceled |
| market: halt | symbol, bar, until | not tradable at the bars from `bar` up to, not including, `until`; what was \
queued is rejected |
| market: reject | symbol, nth, times | an order that was accepted is rejected when it should fill |
| market: partial | symbol, share, nth, times | an order fills in part; the rest stays open until canceled, or \
expires at the close |
| market: late | bar, nth, times | at `bar`, bars are answered without the newest one |
| market: clock_skew | seconds | GET /v2/clock is wrong by so much |

| kind of a route's fault | the request is carried out | the client gets |
|---|---|---|
| 429, 500, 502_html, 504 | no | that status; an HTML page with 502 |
| hang, drop | no | nothing for `seconds`, or the connection closed at once |
| 429_after, 500_after, 502_html_after, 504_after, hang_after, drop_after | yes | the same |
| unknown_enum | yes | a status that no client knows |
| reject_buying_power | no | 403 with code 40310000 |

| stream | what happens |
|---|---|
| silent | the event is never sent, though the connection stands |
| duplicate | it is sent twice |
| unknown_enum | it has an order status that no client knows |
| drop | the connection is closed in its place |
| before_answer | an order that is posted (`nth` counts these) fills at once at the last price, and the event \
leaves before the answer |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from kit.config import setting

AFTER = "_after"
BROKEN = ("429", "500", "502_html", "504", "hang", "drop")
KINDS = (*BROKEN, *(kind + AFTER for kind in BROKEN), "unknown_enum", "reject_buying_power")
UNKNOWN = "under_a_new_review"  # a status that no client knows


@dataclass(frozen=True)
class Fault:
    """One line of a script; exactly one of route, stream and market."""

    route: str | None = setting(None, help="method and path; * stands for anything")
    stream: Literal["silent", "duplicate", "unknown_enum", "drop", "before_answer"] | None = None
    market: Literal["split", "halt", "reject", "partial", "late", "clock_skew"] | None = None
    kind: str = setting("", help="of a route's fault")
    event: str = setting("*", help="of the stream")
    nth: int = setting(1, low=1)
    times: int = setting(1, low=1)
    symbol: str = "*"
    bar: int = setting(0, low=0)
    until: int = setting(2**31, low=0)
    ratio: float = setting(2.0, above=0)
    share: float = setting(0.5, above=0, below=1)
    seconds: float = 30.0

    def __post_init__(self) -> None:
        if sum(part is not None for part in (self.route, self.stream, self.market)) != 1:
            raise ValueError("expected exactly one of route, stream and market")
        if (self.kind in KINDS) != (self.route is not None):
            raise ValueError(f"kind = {self.kind!r}: expected one of {', '.join(KINDS)} with a route, else none")
        if self.market == "split" and (self.symbol == "*" or self.bar == 0):
            raise ValueError("a split needs a symbol and a bar above 0")

    @property
    def after(self) -> bool:
        return self.kind.endswith(AFTER)


class Script:
    """Faults, and how often each was met."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self.faults: list[Fault] = []
        self._met: list[int] = []
        self.add(faults)

    def add(self, faults: Sequence[Fault]) -> None:
        self.faults += faults
        self._met += [0] * len(faults)

    def clear(self) -> None:
        self.faults, self._met = [], []

    def of_request(self, method: str, path: str) -> Fault | None:
        asked = f"{method} {path}"
        return self._strike([f.route is not None and fnmatchcase(asked, f.route) for f in self.faults])

    def of_event(self, event: str) -> Fault | None:
        return self._strike(
            [f.stream not in (None, "before_answer") and fnmatchcase(event, f.event) for f in self.faults]
        )

    def fills_at_once(self) -> bool:
        return self._strike([f.stream == "before_answer" for f in self.faults]) is not None

    def of_fill(self, market: str, symbol: str) -> Fault | None:
        return self._strike([f.market == market and f.symbol in ("*", symbol) for f in self.faults])

    def holds_back(self, bar: int) -> bool:
        return self._strike([f.market == "late" and f.bar == bar for f in self.faults]) is not None

    def halted(self, symbol: str, bar: int) -> bool:
        return any(f.market == "halt" and f.symbol in ("*", symbol) and f.bar <= bar < f.until for f in self.faults)

    def splits(self, bar: int) -> list[Fault]:
        """Those before the open of this bar."""
        return [f for f in self.faults if f.market == "split" and f.bar == bar]

    @property
    def skew(self) -> float:
        return sum(f.seconds for f in self.faults if f.market == "clock_skew")

    def _strike(self, matches: list[bool]) -> Fault | None:
        """Count what matches; the first whose turn it is."""
        hit = None
        for i, matched in enumerate(matches):
            self._met[i] += matched
            fault = self.faults[i]
            if matched and hit is None and fault.nth <= self._met[i] < fault.nth + fault.times:
                hit = fault
        return hit
