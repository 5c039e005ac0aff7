"""The limits of the risk engine. Each is off where it is null."""

from __future__ import annotations

from dataclasses import dataclass

from kit.config import setting


@dataclass(frozen=True)
class Limits:
    """Shares are of equity unless said otherwise. At a limit is within it.

    The defaults suit an ensemble that is long only and borrows nothing, on daily bars: they stop what
    such a desk never does, and let its own rebalancing be. A softmax over few names may put nearly all
    into one, so a name may have all of the equity. Orders are sized at one price and filled at another,
    so their sum misses by a little: per name, gross, net and leverage leave a tenth for that. A full
    exchange of the portfolio trades twice the equity. The two losses that halt are somewhat worse than
    any that the Dow's thirty, held in equal parts, had from 2010 to 2023. Off are `order_notional`, which
    depends on the desk's capital, and what the backtest does not know of: `min_cash` and `stop_loss`.
    """

    per_name: float | None = setting(1.1, above=0, help="largest position, long or short")
    gross: float | None = setting(1.1, above=0, help="longs plus shorts")
    net_low: float | None = setting(-0.1, below=0, help="longs less shorts, at least")
    net_high: float | None = setting(1.1, above=0, help="longs less shorts, at most")
    leverage: float | None = setting(1.1, low=1, help="longs plus cash: above 1, money or shares are borrowed")
    min_cash: float | None = setting(None, low=0, below=1, help="cash that orders must leave")
    turnover: float | None = setting(2.0, above=0, help="bought plus sold in a day")
    order_notional: float | None = setting(None, above=0, help="one order, in money")
    orders_per_minute: int | None = setting(180, low=1, help="orders sent; Alpaca takes 200 requests")
    collar: float | None = setting(0.1, above=0, help="expected price against the last quote, share of the quote")
    var: float | None = setting(0.1, above=0, help="value at risk, 95 %, one day")
    var_bars: int = setting(250, low=20, help="newest bars that the value at risk is taken from")
    stop_loss: float | None = setting(None, above=0, help="loss of a position, share of its average price")
    daily_loss: float | None = setting(0.15, above=0, below=1, help="loss since the day's start that halts")
    drawdown: float | None = setting(0.35, above=0, below=1, help="loss since the highest equity that halts")
