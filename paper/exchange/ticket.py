"""What a client asks to order, checked as Alpaca checks it, and how a refusal looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from paper.exchange.book import NANO, SHARE, Side

LONGEST_ID = 128
LEAST_NOTIONAL = Decimal(1)


class Refusal(Exception):
    """An answer that is an error: status, code, message and what else it holds."""

    def __init__(self, status: int, code: int, message: str, **more: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": code, "message": message, **more}


def forbidden(message: str, **more: str) -> Refusal:
    return Refusal(403, 40310000, message, **more)


def unprocessable(message: str) -> Refusal:
    return Refusal(422, 42210000, message)


def not_found(what: str) -> Refusal:
    return Refusal(404, 40410000, what)


@dataclass(frozen=True)
class Ticket:
    """A market order for the next fill: a quantity, or an amount of money."""

    symbol: str
    side: Side
    quantity: Decimal | None
    notional: Decimal | None
    time_in_force: str = "day"
    client_id: str = ""

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> Ticket:
        """Raises Refusal."""
        if not isinstance(body, Mapping):
            raise Refusal(422, 40010001, "the body is no object")
        quantity, notional = (_amount(body, key) for key in ("qty", "notional"))
        if (quantity is None) == (notional is None):
            raise Refusal(422, 40010001, "qty or notional is required, and not both")
        side, client_id = body.get("side"), body.get("client_order_id") or ""
        if side not in ("buy", "sell"):
            raise Refusal(422, 40010001, "side must be buy or sell")
        if body.get("type", body.get("order_type")) != "market" or body.get("order_class") not in (None, "", "simple"):
            raise unprocessable("only simple market orders are filled here")
        in_force = body.get("time_in_force")
        if in_force not in ("day", "opg", "cls"):
            raise unprocessable("time_in_force must be day")
        if quantity is not None and quantity % SHARE and in_force != "day":
            raise unprocessable("fractional orders must be DAY orders")
        if body.get("extended_hours"):
            raise unprocessable("extended hours order must be DAY limit orders")
        if not isinstance(client_id, str) or len(client_id) > LONGEST_ID:
            raise Refusal(422, 40010001, f"client_order_id must be no more than {LONGEST_ID} characters")
        if notional is not None and notional < LEAST_NOTIONAL:
            raise Refusal(422, 40010001, "notional must be at least 1")
        return cls(str(body.get("symbol")), side, quantity, notional, in_force, client_id)


def _amount(body: Mapping[str, Any], key: str) -> Decimal | None:
    given = body.get(key)
    if given is None:
        return None
    try:
        amount = Decimal(str(given))
    except InvalidOperation:
        raise Refusal(422, 40010001, f"{key} is not a number") from None
    if not amount.is_finite() or not 0 < amount < 10**12:
        raise Refusal(422, 40010001, f"{key} must be > 0")
    if amount % (NANO if key == "qty" else Decimal("0.01")):
        places = "9" if key == "qty" else "2"
        raise unprocessable(f"{key} must be limited to {places} decimal places")
    return amount
