"""From the weights that are wanted to the orders that lead there: exact quantities, and names that never repeat."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import numpy as np

from paper.broker import SMALLEST, Request, Side, whole_steps
from paper.config import OrderConfig

ONE = Decimal(1)


def smallest(config: OrderConfig) -> Decimal:
    return SMALLEST if config.fractional else ONE


def changes(
    wanted: Mapping[str, float],
    positions: Mapping[str, Decimal],
    prices: Mapping[str, float],
    equity: float,
    config: OrderConfig,
) -> dict[str, Decimal]:
    """By how much each position is to change: fixed now, at these prices, whatever it will fill at.

    A name that is wanted at nothing is sold to the last digit, however small that order is.
    """
    found = {}
    for symbol, weight in wanted.items():
        held, price = positions.get(symbol, Decimal(0)), prices[symbol]
        change = weight - float(held) * price / equity
        if weight == 0.0 and held:
            found[symbol] = -held
        elif change and abs(change) >= config.band and abs(change) * equity >= config.least:
            quantity = whole_steps(Decimal(change * equity / price).quantize(SMALLEST), smallest(config))
            if weight >= 0 and held >= 0:
                quantity = max(quantity, -held)  # rounding must not sell more than there is
            if quantity:
                found[symbol] = quantity
    return found


def requests(run: str, bar: np.datetime64, quantities: Mapping[str, Decimal], sequence: int = 0) -> list[Request]:
    """Sells first. The same order of the same bar has the same name, however often it is worked out."""
    moment = np.datetime_as_string(bar, unit="s").translate({ord("-"): None, ord(":"): None, ord("T"): None})
    found = []
    for symbol, quantity in sorted(quantities.items(), key=lambda item: (item[1] > 0, item[0])):
        side: Side = "buy" if quantity > 0 else "sell"
        name = f"{run}-{moment}-{symbol.replace('/', '_')}-{side}-{sequence}"
        found.append(Request(name, symbol, side, abs(quantity)))
    return found
