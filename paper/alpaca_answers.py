"""Alpaca's answers, as the JSON that came, in the desk's own terms.

Words that are not known here are no error: an order of unknown status is "unknown". An answer that
lacks what is needed raises one of UNREADABLE.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from paper.broker import Account, Activity, Order, Position, Quote, Row, Session, Side, Status

UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError)
NEW_YORK = ZoneInfo("America/New_York")
STATUSES: dict[str, Status] = {
    "pending_new": "pending", "pending_review": "pending",
    "accepted": "open", "new": "open", "partially_filled": "partial",
    "accepted_for_bidding": "open", "held": "open", "stopped": "open", "suspended": "open", "calculated": "open",
    "done_for_day": "open", "pending_cancel": "open", "pending_replace": "open",
    "filled": "filled", "canceled": "canceled", "replaced": "canceled", "rejected": "rejected", "expired": "expired",
}  # fmt: skip
BLOCKS = {
    "account_blocked": "the account is blocked",
    "trading_blocked": "trading is blocked",
    "trade_suspended_by_user": "trading is suspended by the account's owner",
}
QUOTED_IN = ("USDT", "USDC", "USD", "BTC")  # what pairs of crypto are priced in
Json = dict[str, Any]


def decimal(value: Any) -> Decimal:
    number = Decimal(str(value))
    if not number.is_finite():
        raise ValueError(f"{value!r} is not a finite number")
    return number


def moment(text: str) -> datetime:
    """Digits beyond the microsecond are cut off."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text!r} names no zone")
    return at.astimezone(UTC)


def account(raw: Json) -> Account:
    reasons = [] if raw["status"] == "ACTIVE" else [f"the account is {raw['status']}"]
    reasons += [words for key, words in BLOCKS.items() if raw.get(key)]
    return Account(
        decimal(raw["cash"]), decimal(raw["equity"]), decimal(raw["buying_power"]), blocked="; ".join(reasons)
    )


def position(raw: Json) -> Position:
    quantity = decimal(raw["qty"])
    if raw.get("side") == "short":
        quantity = -abs(quantity)
    return Position(_symbol(raw), quantity, decimal(raw["avg_entry_price"]))


def order(raw: Json) -> Order:
    filled = decimal(raw.get("filled_qty") or 0)
    price, quantity = raw.get("filled_avg_price"), raw.get("qty")
    status = STATUSES.get(raw.get("status", ""), "unknown")
    return Order(
        id=_text(raw, "client_order_id"),
        broker_id=_text(raw, "id"),
        symbol=_symbol(raw),
        side=_side(raw),
        quantity=filled if quantity is None else decimal(quantity),  # none: a person's order for an amount of money
        status="partial" if status == "open" and filled else status,
        filled=filled,
        average_price=decimal(price) if filled and price is not None else None,
        reason=str(raw.get("reject_reason") or ""),
    )


def submitted(raw: Json) -> datetime:
    return moment(raw.get("submitted_at") or raw["created_at"])


def activity(raw: Json) -> Activity:
    kind = _text(raw, "activity_type")
    moved = raw.get("qty") or 0
    if kind.startswith("DIV"):  # there it is the shares that were paid for
        moved = 0
    at = raw.get("created_at") or raw.get("transaction_time")
    symbol = raw.get("symbol") or ""
    return Activity(
        id=_text(raw, "id"),
        kind=kind,
        at=moment(at) if at else datetime.combine(date.fromisoformat(raw["date"]), time(), UTC),
        cash=decimal(raw.get("net_amount") or 0),
        symbol=_pair(symbol) if kind == "CFEE" else symbol,
        quantity=decimal(moved),
    )


def session(raw: Json) -> Session:
    day = date.fromisoformat(raw["date"])
    opens, closes = (
        datetime.combine(day, time.fromisoformat(raw[key]), NEW_YORK).astimezone(UTC) for key in ("open", "close")
    )
    return Session(day, opens, closes)


def row(symbol: str, raw: Json) -> Row:
    start = np.datetime64(moment(raw["t"]).replace(tzinfo=None), "ns")
    return Row(symbol, start, *(float(raw[key]) for key in "ohlcv"))


def last_trade(symbol: str, raw: Json) -> Quote:
    return Quote(symbol, decimal(raw["p"]), moment(raw["t"]))


def middle(symbol: str, raw: Json) -> Quote | None:
    """Of bid and ask; none where a side is empty."""
    bid, ask = decimal(raw["bp"]), decimal(raw["ap"])
    return Quote(symbol, (bid + ask) / 2, moment(raw["t"])) if bid > 0 and ask > 0 else None


def untradable(raw: Json | None) -> str:
    if raw is None:
        return "the broker has no such symbol, or no longer"
    if raw.get("status") != "active":
        return f"it is {raw.get('status')}"
    return "" if raw.get("tradable") is True else "it cannot be traded at the broker now"


def _text(raw: Json, key: str) -> str:
    if not isinstance(raw[key], str) or not raw[key]:
        raise ValueError(f"{key} is {raw[key]!r}")
    return raw[key]


def _side(raw: Json) -> Side:
    for side in ("buy", "sell"):
        if raw["side"].startswith(side):  # sell_short is a sale
            return side
    raise ValueError(f"side is {raw['side']!r}")


def _symbol(raw: Json) -> str:
    symbol = _text(raw, "symbol")
    return _pair(symbol) if raw.get("asset_class") == "crypto" else symbol


def _pair(symbol: str) -> str:
    """BTC/USD, which positions call BTCUSD."""
    for quoted in QUOTED_IN:
        if "/" not in symbol and symbol.endswith(quoted):
            return f"{symbol.removesuffix(quoted)}/{quoted}"
    return symbol
