"""Alpaca as the desk's broker, through alpaca-py, and the local exchange, which speaks as Alpaca does.

alpaca-py has no time limits, repeats orders by itself and fails on words it does not know. Here
every call has a time limit, answers are read as the JSON that came, questions are repeated, and
an order or a cancellation never is: without a clear answer it is looked up by our own id.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, partial
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from market.sources.alpaca import SIZES, in_regular_hours
from market.sources.patience import Clock, RateBudget, Trouble, ask, keys_if_any, read_keys, set_limits
from paper import alpaca_answers as answers
from paper.alpaca_answers import NEW_YORK, UNREADABLE
from paper.alpaca_config import AlpacaConfig, LocalConfig
from paper.alpaca_stream import OrderStream
from paper.broker import (
    Account,
    Activity,
    BrokerError,
    Order,
    OutcomeUnknown,
    Position,
    Quote,
    Rejected,
    Request,
    Row,
    Session,
    Unreachable,
    whole_steps,
)

__all__ = ["AlpacaBroker", "AlpacaConfig", "LocalBroker", "LocalClock", "LocalConfig"]

log = logging.getLogger(__name__)

TIMEFRAMES = {"minute": "1Min", "hour": "1Hour", "day": "1Day"}
ORDERS_PAGE, ACTIVITIES_PAGE, BARS_PAGE = 500, 100, 10_000  # the most that Alpaca gives at once
LONGEST_PAUSE = 30.0  # seconds between two attempts, whatever the server asks for
LOOK_UPS = (0.0, 1.0, 3.0)  # seconds before each, after an order without a clear answer
UNCLEAR = {408, 409, 425, 429}  # statuses of 4xx that do not settle an order
MICROSECOND = timedelta(microseconds=1)
SYSTEM = Clock()
LOCAL_RATE = 1_000_000  # calls per minute: no limit
T = TypeVar("T")


class AlpacaBroker:
    """`paper.broker.Broker` at Alpaca. For one thread at a time; only what `listen` calls runs in another."""

    _one_kind: ClassVar[bool] = True  # of assets is asked for: there are thousands of others

    def __init__(self, config: AlpacaConfig, clock: Clock = SYSTEM, keys: tuple[str, str] | None = None) -> None:
        from alpaca.data.historical import CryptoHistoricalDataClient, StockHistoricalDataClient
        from alpaca.trading.client import TradingClient

        self._config, self._clock = config, clock
        self._crypto = config.asset_class == "crypto"
        key, secret = keys or read_keys()
        data_client = CryptoHistoricalDataClient if self._crypto else StockHistoricalDataClient
        self._trading: Any = TradingClient(key, secret, paper=True, raw_data=True, url_override=config.url)
        self._data: Any = data_client(key, secret, raw_data=True, url_override=config.data_url)
        for client in (self._trading, self._data):
            set_limits(client, config.timeout_s)
        self._budget = RateBudget(clock, config.per_minute, burst=config.per_minute // 10)
        self._open_stream = partial(OrderStream, config.order_events, key, secret)
        self._stream: OrderStream | None = None

    def __reduce__(self) -> Any:
        raise TypeError("a broker holds keys and stays in its process")

    # --- the market

    def now(self) -> datetime:
        return self._question("clock", self._trading.get_clock, lambda raw: answers.moment(raw["timestamp"]))

    def sessions(self, first: date, last: date) -> Sequence[Session]:
        if self._crypto:
            days = [first + timedelta(days=i) for i in range((last - first).days + 1)]
            midnights = [datetime.combine(day, time(), UTC) for day in days]
            return [Session(day, at, at + timedelta(days=1)) for day, at in zip(days, midnights)]
        from alpaca.trading.requests import GetCalendarRequest

        call = partial(self._trading.get_calendar, GetCalendarRequest(start=first, end=last))
        found = self._question("calendar", call, lambda raw: [answers.session(day) for day in raw])
        return [session for session in found if first <= session.day <= last]

    def rows(self, symbols: Sequence[str], start: datetime, stop: datetime) -> Sequence[Row]:
        first, end = _nanoseconds(start), _nanoseconds(stop)
        if not symbols or first >= end:
            return []
        rows = [row for row in self._bars(symbols, start, stop - MICROSECOND) if first <= row.time < end]
        return sorted(self._closed(rows), key=lambda row: (row.time, row.symbol))

    def quotes(self, symbols: Sequence[str]) -> dict[str, Quote]:
        found = self._latest("trades", symbols, answers.last_trade)
        return found | self._latest("quotes", [s for s in symbols if s not in found], answers.middle)

    def tradable(self, symbols: Sequence[str]) -> dict[str, str]:
        from alpaca.trading.enums import AssetClass, AssetStatus
        from alpaca.trading.requests import GetAssetsRequest

        kind = AssetClass.CRYPTO if self._crypto else AssetClass.US_EQUITY
        wanted = GetAssetsRequest(status=AssetStatus.ACTIVE, asset_class=kind if self._one_kind else None)
        call = partial(self._trading.get_all_assets, wanted)
        assets = self._question("assets", call, lambda raw: {asset["symbol"]: asset for asset in raw})
        return {symbol: answers.untradable(assets.get(symbol)) for symbol in symbols}

    # --- the account

    def account(self) -> Account:
        return self._question("account", self._trading.get_account, answers.account)

    def positions(self) -> dict[str, Position]:
        def read(raw: Any) -> dict[str, Position]:
            found = [answers.position(item) for item in raw]
            return {position.symbol: position for position in found if position.quantity}

        return self._question("positions", self._trading.get_all_positions, read)

    def activities(self, after: str) -> Sequence[Activity]:
        def read(raw: Any) -> tuple[list[Activity], str, bool]:
            found = [answers.activity(item) for item in raw if item["activity_type"] != "FILL"]
            return found, raw[-1]["id"] if raw else "", len(raw) < ACTIVITIES_PAGE

        wanted = {"category": "non_trade_activity", "direction": "asc", "page_size": ACTIVITIES_PAGE}
        found: list[Activity] = []
        while True:
            asked = wanted | ({"page_token": after} if after else {})
            page, last, ended = self._question(
                "activities", partial(self._trading.get, "/account/activities", asked), read
            )
            found += page
            if ended:
                return found
            if last == after:
                raise Unreachable("activities: a page names itself as its next; nothing can follow")
            after = last

    # --- orders

    def open_orders(self) -> Sequence[Order]:
        from alpaca.common.enums import Sort
        from alpaca.trading.enums import QueryOrderStatus
        from alpaca.trading.requests import GetOrdersRequest

        def read(raw: Any) -> list[tuple[Order, datetime]]:
            return [(answers.order(item), answers.submitted(item)) for item in raw]

        found: dict[str, Order] = {}
        after: datetime | None = None
        while True:
            wanted = GetOrdersRequest(status=QueryOrderStatus.OPEN, limit=ORDERS_PAGE, direction=Sort.ASC, after=after)
            page = self._question("open orders", partial(self._trading.get_orders, wanted), read)
            known = len(found)
            found |= {order.broker_id: order for order, _ in page}
            if len(page) < ORDERS_PAGE:
                return list(found.values())
            if len(found) == known:
                raise Unreachable(f"open orders: over {ORDERS_PAGE} of one moment; the broker lists no others")
            after = page[-1][1] - MICROSECOND  # others may be of the same moment

    def order(self, id: str) -> Order | None:
        def read(raw: Any) -> Order:
            found = answers.order(raw)
            if found.id != id:
                raise ValueError(f"it is of order {found.id}")
            return found

        answer = self._asked(f"order {id}", partial(self._trading.get_order_by_client_id, id), read)
        if not isinstance(answer, Trouble):
            return answer
        if answer.status == 404 and answer.reason is not None:
            return None
        raise self._gave_up(f"order {id}", answer)

    def submit(self, request: Request) -> Order:
        about = f"order {request.id}"
        if request.quantity <= 0 or whole_steps(request.quantity) != request.quantity:
            raise Rejected(f"{about}: a quantity of {request.quantity}; expected one above 0, of 9 decimals at most")
        sent = _market_order()(
            symbol=request.symbol,
            qty=f"{request.quantity.normalize():f}",
            side=request.side,
            time_in_force="gtc" if self._crypto else "day",  # what Alpaca takes for crypto, and for parts of shares
            client_order_id=request.id,
        )
        answer = self._attempt(partial(self._trading.submit_order, sent))
        if not isinstance(answer, Trouble):
            try:
                placed = answers.order(answer)
                if placed.id == request.id:
                    return placed
                answer = Trouble(f"the answer is of order {placed.id}", passes=False)
            except UNREADABLE as error:
                answer = _unreadable(error)
        if _settles(answer) and not _used_before(answer):
            raise Rejected(f"{about}: {answer.reason} ({answer.status})")
        log.warning("%s: %s; looking it up", about, answer.what)
        return self._look_up(request.id, answer)

    def cancel(self, order: Order) -> None:
        about = f"cancel {order.id}"
        answer = self._attempt(partial(self._trading.cancel_order_by_id, order.broker_id))
        if not isinstance(answer, Trouble):
            return
        if _settles(answer):
            if answer.status not in (404, 422):  # those say that there is nothing left to cancel
                raise Rejected(f"{about}: {answer.reason} ({answer.status})")
            log.warning("%s: %s", about, answer.what)
        elif not self._look_up(order.id, answer).ended:
            raise OutcomeUnknown(f"{about}: {answer.what}; the order has not ended")

    def listen(self, changed: Callable[[str], None]) -> None:
        if self._stream is not None:
            raise RuntimeError("someone listens already")
        self._stream = self._open_stream(changed)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        for client in (self._trading, self._data):
            client._session.close()

    # --- how it asks

    def _question(self, about: str, call: Callable[[], Any], read: Callable[[Any], T]) -> T:
        answer = self._asked(about, call, read)
        if isinstance(answer, Trouble):
            raise self._gave_up(about, answer)
        return answer

    def _asked(self, about: str, call: Callable[[], Any], read: Callable[[Any], T]) -> T | Trouble:
        """What was read from the answer, or the trouble that remained after all attempts."""
        for left in reversed(range(self._config.attempts)):
            answer = self._attempt(call)
            if not isinstance(answer, Trouble):
                try:
                    return read(answer)
                except UNREADABLE as error:
                    answer = _unreadable(error)
            if not answer.passes:
                break
            if left:
                pause = min(max(answer.pause, 2.0 ** (self._config.attempts - left - 2)), LONGEST_PAUSE)
                log.warning("%s: %s; asking again in %.1f s", about, answer.what, pause)
                self._clock.sleep(pause)
        return answer

    def _attempt(self, call: Callable[[], Any]) -> Any | Trouble:
        self._budget.wait()
        return ask(call, "", self._clock)

    def _gave_up(self, about: str, trouble: Trouble) -> BrokerError:
        if trouble.passes:
            return Unreachable(f"{about}: {trouble.what}, {self._config.attempts} times")
        return (Rejected if trouble.reason else Unreachable)(f"{about}: {trouble.what}")

    def _look_up(self, id: str, trouble: Trouble) -> Order:
        """An order whose outcome the answer did not tell."""
        about = f"order {id}: {trouble.what}"
        for pause in LOOK_UPS:
            self._clock.sleep(pause)
            try:
                found = self.order(id)
            except BrokerError as error:
                raise OutcomeUnknown(f"{about}; and when it was looked up, {error}") from None
            if found is not None:
                return found
        raise OutcomeUnknown(f"{about}; the broker did not know it, {len(LOOK_UPS)} times")

    def _bars(self, symbols: Sequence[str], first: datetime, last: datetime) -> Iterator[Row]:
        def read(raw: Any) -> tuple[list[Row], str | None]:
            bars = raw["bars"] or {}
            rows = [answers.row(symbol, bar) for symbol, of_symbol in bars.items() for bar in of_symbol or ()]
            return rows, raw.get("next_page_token")

        of_stocks = {} if self._crypto else {"feed": self._config.feed, "adjustment": self._config.adjustment}
        wanted = {
            "symbols": ",".join(symbols),
            "timeframe": TIMEFRAMES[self._config.bar],
            "start": first.astimezone(UTC).isoformat(),
            "end": last.astimezone(UTC).isoformat(),
            "limit": BARS_PAGE,
        }
        token: str | None = None
        while True:
            asked = wanted | of_stocks | ({"page_token": token} if token else {})
            rows, following = self._question("bars", partial(self._data.get, f"{self._market}/bars", asked), read)
            yield from rows
            if following is None:
                return
            if following == token:
                raise Unreachable("bars: a page names itself as its next; nothing can follow")
            token = following

    def _latest(self, what: str, symbols: Sequence[str], read: Callable[[str, Any], Quote | None]) -> dict[str, Quote]:
        """Trades or quotes."""
        if not symbols:
            return {}
        middle, end = ("/latest", "") if self._crypto else ("", "/latest")
        asked = {"symbols": ",".join(symbols)} | ({} if self._crypto else {"feed": self._config.feed})
        call = partial(self._data.get, f"{self._market}{middle}/{what}{end}", asked)

        def read_all(raw: Any) -> dict[str, Quote]:
            found = [read(symbol, item) for symbol, item in (raw[what] or {}).items() if item]
            return {quote.symbol: quote for quote in found if quote}

        return self._question(f"latest {what}", call, read_all)

    @property
    def _market(self) -> str:
        return "/crypto/us" if self._crypto else "/stocks"

    def _closed(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Those that have closed; of intraday bars of stocks, those within the wanted hours."""
        if not rows:
            return rows
        now = self.now()
        if self._config.bar == "day" and not self._crypto:
            today = now.astimezone(NEW_YORK).date()
            days = [_day_of(row.time) for row in rows]
            over = max(days) >= today and any(s.close <= now for s in self.sessions(today, today))
            return [row for row, day in zip(rows, days) if day < today or (day == today and over)]
        size = SIZES[self._config.bar]
        latest = _nanoseconds(now) - size
        rows = [row for row in rows if row.time <= latest]
        if self._crypto or self._config.hours == "extended":
            return rows
        inside = in_regular_hours(np.array([row.time for row in rows], "datetime64[ns]"), size)
        return [row for row, keep in zip(rows, inside) if keep]


@dataclass(frozen=True)
class LocalClock:
    """Where the local exchange stands."""

    now: datetime
    bar: int  # the last that has closed
    stage: Literal["closed", "filled"]  # filled: the orders sent after that bar have met their fill
    bars: int  # in all
    ended: bool
    symbols: tuple[str, ...]
    bars_per_year: float
    start: datetime  # of the bar
    close: datetime


class LocalBroker(AlpacaBroker):
    """The same calls to the local exchange, which gives no bar before it has closed."""

    _one_kind = False

    def __init__(self, config: LocalConfig, clock: Clock = SYSTEM) -> None:
        same = AlpacaConfig(
            url=config.url,
            data_url=config.url,
            bar=config.bar,
            timeout_s=config.timeout_s,
            attempts=config.attempts,
            per_minute=LOCAL_RATE,
        )
        super().__init__(same, clock, keys_if_any() or ("local", "local"))

    def local_clock(self) -> LocalClock:
        return self._question("exchange", partial(self._trading.get, "/clock", api_version="local"), _local_clock)

    def advance(self, bar: int, stage: Literal["closed", "filled"]) -> LocalClock:
        """Done with this stage of this bar. Said again it changes nothing, so it may be repeated."""
        told = {"bar": bar, "stage": stage}
        call = partial(self._trading._request, "POST", "/advance", told, api_version="local")
        return self._question("exchange", call, _local_clock)

    def observed(self, start: str, stop: str) -> Mapping[str, Any]:
        """The columns beside the bars of that span which have closed."""
        call = partial(self._trading.get, "/observed", {"start": start, "stop": stop}, api_version="local")
        return self._question("exchange", call, dict)

    def _closed(self, rows: Sequence[Row]) -> Sequence[Row]:
        return rows


def _local_clock(raw: Any) -> LocalClock:
    if raw["stage"] not in ("closed", "filled"):
        raise ValueError(f"stage is {raw['stage']!r}")
    return LocalClock(
        now=answers.moment(raw["now"]),
        bar=int(raw["bar"]),
        stage=raw["stage"],
        bars=int(raw["bars"]),
        ended=bool(raw["ended"]),
        symbols=tuple(raw["symbols"]),
        bars_per_year=float(raw["bars_per_year"]),
        start=answers.moment(raw["times"]),
        close=answers.moment(raw["close"]),
    )


@cache
def _market_order() -> Any:
    """alpaca-py's market order, with the quantity as the text that is sent: a float would round it."""
    from alpaca.trading.requests import MarketOrderRequest

    class ExactMarketOrder(MarketOrderRequest):
        qty: str  # type: ignore[assignment]

    return ExactMarketOrder


def _settles(trouble: Trouble) -> bool:
    """Whether it is the broker's own word that an order was not taken."""
    return trouble.reason is not None and 400 <= (trouble.status or 0) < 500 and trouble.status not in UNCLEAR


def _used_before(trouble: Trouble) -> bool:
    return "client order id must be unique" in (trouble.reason or "").replace("_", " ")


def _unreadable(error: Exception) -> Trouble:
    return Trouble(f"the answer cannot be read ({type(error).__name__})", passes=True)


def _nanoseconds(at: datetime) -> np.datetime64:
    return np.datetime64(at.astimezone(UTC).replace(tzinfo=None), "ns")


def _day_of(label: np.datetime64) -> date:
    """Of a daily bar: a bare date, or midnight in New York."""
    at: datetime = label.astype("datetime64[us]").item()
    return at.date() if at.time() == time() else at.replace(tzinfo=UTC).astimezone(NEW_YORK).date()
