"""Faults of bars: what counts as one, what is done about it, and what is said.

Nothing is repaired silently: each repair is counted in the report.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from kit.config import setting
from kit.errors import UserError

Mend = Literal["refuse", "repair"]  # a panel cannot hold it as it is
Bear = Literal["refuse", "repair", "report"]
Tell = Literal["refuse", "report"]  # there is nothing to repair
EXAMPLES = 3


@dataclass(frozen=True)
class QualityConfig:
    """What to do about each kind of fault. A bar that is repaired is dropped, unless said otherwise."""

    bad_time: Mend = setting("refuse", help="no time; repair: drop the row")
    missing_column: Mend = setting("refuse", help="repair: open, high, low from close; volume 0")
    unordered: Mend = setting("refuse", help="a symbol's times go back; repair: sort")
    duplicate: Mend = setting("refuse", help="a symbol's time comes twice; repair: keep the last")
    non_finite: Mend = setting("refuse", help="a price or volume that is empty or infinite")
    non_positive: Mend = setting("refuse", help="a price of zero or less")
    high_below_low: Bear = setting("refuse")
    high_inside_body: Bear = setting("refuse", help="high below open or close")
    low_inside_body: Bear = setting("refuse", help="low above open or close")
    negative_volume: Mend = setting("refuse")
    missing_bars: Tell = setting("report", help="times at which other symbols have bars")
    zero_volume: Tell = setting("report")
    stale: Tell = setting("report", help="the same close for `stale_bars` bars or more")
    split_like: Tell = setting("report", help="an overnight jump like that of an unadjusted split")
    stale_bars: int = setting(20, low=2)


RIGHT = {
    "bad_time": "every row needs a time",
    "missing_column": "bars need open, high, low, close and volume; rename yours with columns: {theirs: ours}",
    "unordered": "a symbol's rows must run forward in time",
    "duplicate": "a symbol has one bar per time; several symbols need a column symbol",
    "non_finite": "expected a finite number",
    "non_positive": "prices must be above zero",
    "high_below_low": "high must be at least low",
    "high_inside_body": "high must be at least open and close",
    "low_inside_body": "low must be at most open and close",
    "negative_volume": "volume must be zero or more",
    "missing_bars": "other symbols have bars at this time",
    "zero_volume": "a bar without trades",
    "stale": "the close does not move for many bars",
    "split_like": "the open jumps like a split that the prices are not adjusted for",
}
ONLY_TOLD = ("missing_bars", "zero_volume", "stale", "split_like")
REPAIRED = {
    "missing_column": "filled from close, volume with 0",
    "unordered": "sorted",
    "duplicate": "kept the last",
    "bad_time": "dropped the rows",
}


@dataclass(frozen=True)
class Example:
    """One place where a fault shows."""

    place: str
    symbol: str = ""
    time: str = ""
    column: str = ""
    value: str = ""

    def __str__(self) -> str:
        what = f"{self.column} = {self.value}" if self.value else self.column
        where = " ".join(part for part in (self.symbol, self.time) if part)
        return f"{self.place}: {what} ({where})" if what and where else f"{self.place}: {what or where}"


@dataclass
class Fault:
    """All faults of one kind: how many, what was done, the first few."""

    kind: str
    policy: str
    count: int = 0
    examples: list[Example] = field(default_factory=list)

    def add(self, count: int, examples: list[Example]) -> None:
        self.count += count
        self.examples += examples[: EXAMPLES - len(self.examples)]

    def refusal(self) -> UserError:
        more = f"; {self.count - 1:,} more of this kind" if self.count > 1 else ""
        way = "report lets it pass" if self.kind in ONLY_TOLD else "repair mends it"
        key = f"quality.{self.kind}"
        return UserError(f"{self.examples[0]}: {RIGHT[self.kind]}{more}; {key}: {way} (in a run: data.{key})")

    def line(self) -> str:
        done = "filled forward, not tradable" if self.kind == "missing_bars" else "left as they are"
        if self.policy == "repair":
            done = f"repaired: {REPAIRED.get(self.kind, 'dropped the bars')}"
        return f"{self.kind.replace('_', ' ')}: {self.count:,} ({done}), e.g. {self.examples[0]}"


@dataclass(frozen=True)
class Coverage:
    """Which bars there are of a symbol."""

    symbol: str
    bars: int
    missing: int  # between its first and last bar
    first: str
    last: str
    listed_late: bool  # its first bar is not the panel's first
    ended_early: bool


@dataclass
class Report:
    """What was found in bars, what was repaired, and what they cover."""

    origin: str
    config: QualityConfig
    times: int = 0
    first: str = ""
    last: str = ""
    notes: list[str] = field(default_factory=list)
    faults: dict[str, Fault] = field(default_factory=dict)
    coverage: list[Coverage] = field(default_factory=list)

    def add(self, kind: str, count: int, examples: list[Example]) -> None:
        """Count faults; `refuse` says so once all that belongs together was looked at."""
        if count:
            fault = self.faults.setdefault(kind, Fault(kind, getattr(self.config, kind)))
            fault.add(count, examples)

    def refuse(self) -> None:
        """Raise for the gravest fault whose policy is to refuse, if there is one."""
        for kind in RIGHT:
            if kind in self.faults and self.faults[kind].policy == "refuse":
                raise self.faults[kind].refusal()

    @property
    def missing_share(self) -> float:
        """Missing bars over the bars that symbols should have between their first and last."""
        missing, bars = sum(c.missing for c in self.coverage), sum(c.bars for c in self.coverage)
        return missing / (missing + bars) if missing else 0.0

    def lines(self) -> list[str]:
        """For the terminal."""
        head = f"{self.origin}: {len(self.coverage)} symbols, {self.times:,} times from {self.first} to {self.last} UTC"
        bars = f"{sum(c.bars for c in self.coverage):,} bars, {self.missing_share:.1%} missing"
        partial = [
            f"{label}: {len(symbols)} symbols, e.g. {symbols[0]}"
            for label, symbols in (
                ("listed late", [f"{c.symbol} from {c.first}" for c in self.coverage if c.listed_late]),
                ("ended early", [f"{c.symbol} at {c.last}" for c in self.coverage if c.ended_early]),
            )
            if symbols
        ]
        faults = [self.faults[kind].line() for kind in RIGHT if kind in self.faults]
        return [head, bars, *(f"note: {note}" for note in self.notes), *partial, *(faults or ["no faults"])]

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"missing_share": self.missing_share}
