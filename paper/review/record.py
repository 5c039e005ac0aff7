"""What a desk did, as arrays: read from its journal, a bar a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import UserError
from paper.chain import Entry, read_entries

INCOME = ("INT", "FEE")  # activities that are the price of trading and holding
TRANSFERS = ("CSD", "CSW", "JNLC", "TRANS", "ACATC")  # those that are nobody's merit
SPLIT = "SPLIT"
INCIDENTS = {
    "refused": "no trade",
    "halt": "halt",
    "reset": "reset",
    "stop-loss": "stop-loss",
    "rejected": "rejected",
    "withheld": "withheld",
    "lost": "lost",
    "start": "restart",
    "canary-begun": "canary begun",
    "canary-ended": "canary ended",
}
OF_ORDERS = ("sent", "order", "withheld", "rejected", "lost")
KINDS = ("opening", "decision", "fill", "settled", "activity", "rounding", *OF_ORDERS, *INCIDENTS)


@dataclass(frozen=True)
class Incident:
    at: str  # by the clock of the machine
    close: str  # of the bar that was being handled; empty: none yet
    kind: str
    text: str


@dataclass(frozen=True)
class Record:
    """T closes that the desk handled. The orders of the last one have not been seen at a close yet."""

    symbols: tuple[str, ...]
    closes: np.ndarray  # [T] datetime64[ns], UTC
    data: tuple[str, ...]  # [T] hash of the bars that it saw; empty: it refused them
    equity: np.ndarray  # [T] as it saw it, NaN where it refused the bar
    cash: np.ndarray  # [T] before the bar's orders, likewise the next
    held: np.ndarray  # [T, A] quantities
    unadjusted: np.ndarray  # [T, A] by how much splits have multiplied a holding since the first close
    wanted: np.ndarray  # [T, A] NaN where the ensemble was not asked, likewise the next three
    ordered: np.ndarray  # [T, A]
    votes: np.ndarray  # [T, M, A] NaN where a member had none
    dispersion: np.ndarray  # [T]
    members: Mapping[str, float]  # and what share they had when they voted last
    versions: tuple[str, ...]  # of the ensemble
    clipped: np.ndarray  # [T, A] bool: a limit had something to say of it
    canary: np.ndarray  # [T] bool: orders are those of a canary too
    asked: np.ndarray  # [T, A] quantity of the orders decided, below zero: to sell
    withheld: np.ndarray  # [T, A] of that, what was not sent
    filled: np.ndarray  # [T, A]
    paid: np.ndarray  # [T, A] for that, below zero: received
    expected: np.ndarray  # [T, A] the price that orders were decided at; NaN without an order
    income: np.ndarray  # [T] interest less fees, until the next close
    transfers: np.ndarray  # [T]
    sent_after: np.ndarray  # [T] seconds from the decision to its last order sent; NaN without orders
    ended_after: np.ndarray  # [T] seconds until all of them had ended
    incidents: tuple[Incident, ...]

    def __len__(self) -> int:
        return len(self.closes)

    @property
    def answered(self) -> np.ndarray:  # [T] bool: the ensemble was asked
        return ~np.isnan(self.dispersion)

    @property
    def decided(self) -> np.ndarray:  # [T] bool
        return ~np.isnan(self.equity)


@dataclass
class _Row:
    close: str
    cash: float
    held: dict[str, float]
    splits: dict[str, float]
    canary: bool
    began: str = ""
    told: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, float] = field(default_factory=dict)
    withheld: dict[str, float] = field(default_factory=dict)
    filled: dict[str, float] = field(default_factory=dict)
    paid: dict[str, float] = field(default_factory=dict)
    expected: dict[str, float] = field(default_factory=dict)
    income: float = 0.0
    transfers: float = 0.0
    sent: str = ""
    ended: str = ""


class _Reader:
    """Follows the entries in their order, with books of its own."""

    def __init__(self) -> None:
        self.rows: list[_Row] = []
        self.incidents: list[Incident] = []
        self.cash, self.held, self.splits = 0.0, dict[str, float](), dict[str, float]()
        self.orders: set[str] = set()  # of the bar that is being handled
        self.starts = 0
        self.canary = False

    def follow(self, entry: Entry) -> None:
        body, kind = entry.body, entry.kind
        if kind in INCIDENTS:
            self._incident(entry, body)
        if kind == "opening":
            self.cash, self.held = float(body["cash"]), _floats(body["positions"])
        elif kind == "activity":
            self._activity(body)
        elif kind.startswith("canary"):
            self.canary = kind == "canary-begun"
        elif kind == "rounding":
            self.cash = float(body["cash"])
        elif kind in ("decision", "refused"):
            told = body if kind == "decision" else {}
            held, splits = dict(self.held), dict(self.splits)
            self.rows.append(_Row(body["close"], self.cash, held, splits, self.canary, entry.at, told))
            self.orders = set()
        elif kind == "settled":
            self.cash, self.held = float(body["cash"]), _floats(body["positions"])
            if self.rows:
                self.rows[-1].ended = entry.at
        elif kind in OF_ORDERS and self.rows:
            self._order(entry, body)
        elif kind == "fill" and self.rows:
            self._fill(body)

    def _activity(self, body: Mapping[str, Any]) -> None:
        cash, symbol, change = float(body["cash"]), body["symbol"], float(body["quantity"])
        before = self.held.get(symbol, 0.0)
        if change and body["kind"] == SPLIT and before:
            self.splits[symbol] = self.splits.get(symbol, 1.0) * (before + change) / before
        if change:
            self.held[symbol] = before + change
        self.cash += cash
        if self.rows and body["kind"] in TRANSFERS:
            self.rows[-1].transfers += cash
        elif self.rows and body["kind"] in INCOME:
            self.rows[-1].income += cash

    def _order(self, entry: Entry, body: Mapping[str, Any]) -> None:
        row, symbol, quantity = self.rows[-1], body["symbol"], _signed(body)
        if body["id"] not in self.orders:
            self.orders.add(body["id"])
            row.asked[symbol] = row.asked.get(symbol, 0.0) + quantity
            row.expected[symbol] = float(body["price"])
        if entry.kind == "withheld":
            row.withheld[symbol] = row.withheld.get(symbol, 0.0) + quantity
        elif entry.kind == "sent":
            row.sent = entry.at
        elif entry.kind == "order" and (body["status"] in ("rejected", "expired") or body.get("reason")):
            self._tell(entry, body["status"], f"{body['id']}: {body.get('reason', 'the broker gave no reason')}")

    def _fill(self, body: Mapping[str, Any]) -> None:
        row, symbol, quantity = self.rows[-1], body["symbol"], _signed(body)
        paid = quantity * float(body["price"])
        row.filled[symbol] = row.filled.get(symbol, 0.0) + quantity
        row.paid[symbol] = row.paid.get(symbol, 0.0) + paid
        self.cash -= paid
        self.held[symbol] = self.held.get(symbol, 0.0) + quantity

    def _incident(self, entry: Entry, body: Mapping[str, Any]) -> None:
        self.starts += entry.kind == "start"
        if entry.kind == "start" and self.starts == 1:
            return
        words = {
            "refused": "{kind}: {why}",
            "halt": "{state}: {why}",
            "reset": "{who}: {why}",
            "stop-loss": "{symbol}: {why}",
            "start": "with version {version}",
            "canary-begun": "{version}",
            "canary-ended": "{version}: {why}",
        }
        self._tell(entry, INCIDENTS[entry.kind], words.get(entry.kind, "{id}: {reason}").format_map(body))

    def _tell(self, entry: Entry, kind: str, text: str) -> None:
        refused = entry.body["close"] if entry.kind == "refused" else ""
        self.incidents.append(Incident(entry.at, refused or (self.rows[-1].close if self.rows else ""), kind, text))


def read(journal: Path, symbols: Sequence[str]) -> Record:
    """The record of a desk that trades these symbols."""
    reader = _Reader()
    try:
        for entry in read_entries(journal, kinds=KINDS):
            reader.follow(entry)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{journal}: is no journal of a desk ({error}); python -m paper verify says more") from None
    rows, place = reader.rows, {symbol: k for k, symbol in enumerate(symbols)}
    if len(rows) < 2:
        raise UserError(f"{journal}: {len(rows)} bars were handled; expected 2 at least, to see what came of the first")
    for name in sorted({name for row in rows for name in (*row.held, *row.asked)} - set(place)):
        raise UserError(f"{journal}: {name} is not a symbol of this bundle; expected the bundle that the desk traded")
    members = {vote["name"]: float(vote["share"]) for row in rows for vote in row.told.get("votes", ())}

    def laid_out(maps: Iterator[Mapping[str, float]], missing: float) -> np.ndarray:  # [T, A]
        table = np.full((len(rows), len(place)), missing)
        for line, values in zip(table, maps):
            for name, value in values.items():
                if name in place:
                    line[place[name]] = value
        return table

    votes = np.full((len(rows), len(members), len(place)), np.nan)
    for k, name in enumerate(members):
        told = ({v["name"]: v["weights"] for v in row.told.get("votes", ())} for row in rows)
        votes[:, k] = laid_out((weights.get(name, {}) for weights in told), np.nan)
    clipped = [{ruling["symbol"]: 1.0 for ruling in row.told.get("rulings", ())} for row in rows]
    return Record(
        symbols=tuple(symbols),
        closes=np.array([_moment(row.close) for row in rows], "datetime64[ns]"),
        data=tuple(row.told.get("data", "") for row in rows),
        equity=np.array([float(row.told.get("equity", np.nan)) for row in rows]),
        cash=np.array([row.cash for row in rows]),
        held=laid_out((row.held for row in rows), 0.0),
        unadjusted=laid_out((row.splits for row in rows), 1.0),
        wanted=laid_out((row.told.get("wanted", {}) for row in rows), np.nan),
        ordered=laid_out((row.told.get("ordered", {}) for row in rows), np.nan),
        votes=votes,
        dispersion=np.array([float(row.told.get("dispersion", np.nan)) for row in rows]),
        members=members,
        versions=tuple(dict.fromkeys(row.told["version"] for row in rows if "version" in row.told)),
        clipped=laid_out(iter(clipped), 0.0) > 0,
        canary=np.array([row.canary for row in rows]),
        asked=laid_out((row.asked for row in rows), 0.0),
        withheld=laid_out((row.withheld for row in rows), 0.0),
        filled=laid_out((row.filled for row in rows), 0.0),
        paid=laid_out((row.paid for row in rows), 0.0),
        expected=laid_out((row.expected for row in rows), np.nan),
        income=np.array([row.income for row in rows]),
        transfers=np.array([row.transfers for row in rows]),
        sent_after=np.array([_seconds(row.began, row.sent) for row in rows]),
        ended_after=np.array([_seconds(row.began, row.ended) if row.sent else np.nan for row in rows]),
        incidents=tuple(reader.incidents),
    )


def _signed(body: Mapping[str, Any]) -> float:
    quantity = float(body["quantity"])
    return quantity if body["side"] == "buy" else -quantity


def _floats(amounts: Mapping[str, str]) -> dict[str, float]:
    return {symbol: float(amount) for symbol, amount in amounts.items()}


def _moment(text: str) -> np.datetime64:
    return np.datetime64(datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None), "ns")


def _seconds(start: str, end: str) -> float:
    if not (start and end):
        return np.nan
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
