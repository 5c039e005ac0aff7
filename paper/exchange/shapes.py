"""What the exchange holds, as Alpaca writes it: amounts of money and quantities are texts."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from paper.exchange.book import ZERO, Activity, Event, Order, Position, exact, name
from paper.exchange.core import MULTIPLIER, Exchange
from paper.exchange.tape import iso

Json = dict[str, Any]
ACCOUNT = name("account")


def asset_class(symbol: str) -> str:
    return "crypto" if "/" in symbol else "us_equity"


def venue(symbol: str) -> str:
    return "CRYPTO" if "/" in symbol else "NASDAQ"


def order(held: Order, status: str | None = None) -> Json:
    at = iso(held.updated or held.created)
    status = status or held.status
    return {
        "id": held.id,
        "client_order_id": held.client_id,
        "created_at": iso(held.created),
        "updated_at": at,
        "submitted_at": iso(held.created),
        "filled_at": at if status == "filled" else None,
        "expired_at": at if status == "expired" else None,
        "canceled_at": at if status == "canceled" else None,
        "failed_at": at if status == "rejected" else None,
        "replaced_at": None,
        "replaced_by": None,
        "replaces": None,
        "asset_id": name("asset", held.symbol),
        "symbol": held.symbol,
        "asset_class": asset_class(held.symbol),
        "notional": None if held.notional is None else text(held.notional),
        "qty": None if held.notional is not None else text(held.quantity),
        "filled_qty": text(held.filled),
        "filled_avg_price": None if held.average is None else text(held.average),
        "order_class": "simple",
        "order_type": "market",
        "type": "market",
        "side": held.side,
        "time_in_force": held.time_in_force,
        "limit_price": None,
        "stop_price": None,
        "status": status,
        "extended_hours": False,
        "legs": None,
        "trail_percent": None,
        "trail_price": None,
        "hwm": None,
        "source": None,
        "subtag": None,
    }


def update(event: Event) -> Json:
    """A message of the stream."""
    data: Json = {
        "event": event.kind,
        "execution_id": event.execution,
        "order": order(event.order),
        "timestamp": iso(event.at),
        "at": iso(event.at),
    }
    if event.quantity:
        data |= {
            "price": text(event.price),
            "qty": text(event.quantity),
            "position_qty": text(event.position),
        }
    return {"stream": "trade_updates", "data": data}


def account(exchange: Exchange) -> Json:
    long, short = exchange.worth(1), exchange.worth(-1)
    equity, power, cash = exchange.equity(), text(exchange.buying_power()), text(exchange.book.cash)
    return {
        "id": ACCOUNT,
        "account_number": "LOCAL",
        "status": "ACTIVE",
        "crypto_status": "ACTIVE",
        "currency": "USD",
        "cash": cash,
        "accrued_fees": "0",
        "portfolio_value": text(equity),
        "equity": text(equity),
        "last_equity": text(exchange.last_equity),
        "buying_power": power,
        "regt_buying_power": power,
        "daytrading_buying_power": power,
        "non_marginable_buying_power": text(max(ZERO, exchange.book.cash)),
        "long_market_value": text(long),
        "short_market_value": text(-short),
        "initial_margin": text((long + short) / 2),
        "maintenance_margin": text((long + short) / MULTIPLIER),
        "last_maintenance_margin": "0",
        "sma": "0",
        "multiplier": str(MULTIPLIER),
        "shorting_enabled": exchange.shorts,
        "trading_blocked": exchange.blocked,
        "account_blocked": False,
        "transfers_blocked": False,
        "trade_suspended_by_user": False,
        "created_at": iso(exchange.panel.times[0]),
    }


def position(exchange: Exchange, symbol: str, held: Position) -> Json:
    price = exchange.tape.price(symbol)
    worth, cost = held.quantity * price, held.quantity * held.average
    bound = sum(
        (o.left for o in exchange.book.open.values() if o.symbol == symbol and o.sign * held.quantity < 0), ZERO
    )
    last = exact(exchange.tape.last_close(symbol))
    return {
        "asset_id": name("asset", symbol),
        "symbol": symbol,
        "exchange": venue(symbol),
        "asset_class": asset_class(symbol),
        "asset_marginable": True,
        "qty": text(held.quantity),
        "qty_available": text(max(ZERO, abs(held.quantity) - bound).copy_sign(held.quantity)),
        "side": "long" if held.quantity > 0 else "short",
        "avg_entry_price": text(held.average),
        "market_value": text(worth),
        "cost_basis": text(cost),
        "unrealized_pl": text(worth - cost),
        "unrealized_plpc": text((worth - cost) / abs(cost)),
        "unrealized_intraday_pl": text(held.quantity * (price - last)),
        "unrealized_intraday_plpc": text((price - last) / last),
        "current_price": text(price),
        "lastday_price": text(last),
        "change_today": text((price - last) / last),
    }


def asset(exchange: Exchange, symbol: str) -> Json:
    return {
        "id": name("asset", symbol),
        "class": asset_class(symbol),
        "exchange": venue(symbol),
        "symbol": symbol,
        "name": symbol,
        "status": "active",
        "tradable": exchange.tape.tradable(symbol),
        "marginable": True,
        "shortable": exchange.shorts,
        "easy_to_borrow": exchange.shorts,
        "fractionable": not exchange.whole,
        "attributes": [],
    }


def activity(done: Activity) -> Json:
    shared = {"id": done.id, "account_id": ACCOUNT, "activity_type": done.kind}
    if done.order is not None and done.price is not None:
        return shared | {
            "transaction_time": iso(done.at),
            "type": "fill" if done.order.status == "filled" else "partial_fill",
            "price": text(done.price),
            "qty": text(done.quantity),
            "side": done.order.side,
            "symbol": done.order.symbol,
            "leaves_qty": text(done.order.left),
            "cum_qty": text(done.order.filled),
            "order_id": done.order.id,
            "order_status": done.order.status,
        }
    told = {"INT": "interest on cash", "FEE": "fee on what is borrowed", "SPLIT": f"split {done.price} for 1"}
    shared |= {
        "date": str(done.at.date()),
        "created_at": iso(done.at),
        "net_amount": text(done.cash),
        "description": told[done.kind],
        "status": "executed",
    }
    return shared | ({"symbol": done.symbol, "qty": text(done.quantity)} if done.symbol else {})


def text(amount: Decimal) -> str:
    """Without an exponent and without zeros at its end."""
    digits = f"{amount:f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits
