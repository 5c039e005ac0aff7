"""Where the columns beside the bars come from while trading. What is missing or late is refused, never filled."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import requests

from kit.errors import UserError
from market.align import as_of
from market.panel import Observed, Panel
from market.sources.observed import ObservedFile
from paper.bars import Stale
from paper.config import BrokerColumns, DataConfig, FileColumns, HttpColumns

LARGEST = 64 << 20  # bytes of an answer


class ObservedSource(Protocol):
    def columns(self, panel: Panel) -> Mapping[str, Observed]:
        """What was known at each bar's close; raises Stale where it cannot be had."""
        ...


def with_columns(panel: Panel, source: ObservedSource | None, names: Sequence[str], fresh: int) -> Panel:
    """The panel with the columns that the ensemble reads; raises Stale where one is missing or too old."""
    if not names:
        return panel
    if source is None:
        raise UserError(f"data.observed: the ensemble reads {', '.join(names)}; expected where they come from")
    found = source.columns(panel)
    if missing := [name for name in names if name not in found]:
        raise Stale(f"no column {missing[0]}; the ensemble reads {', '.join(names)}")
    since = panel.closes[-1 - fresh] if len(panel) > fresh else panel.times[0]
    for name in names:
        known_at = found[name].known_at[-1]  # [A]
        late = panel.tradable[-1] & ~(known_at > since)  # NaT compares False
        if late.any():
            symbol = panel.symbols[int(np.argmax(late))]
            raise Stale(f"{name} of {symbol} is of {known_at[np.argmax(late)]}; expected one after {since}")
    return replace(panel, observed={name: found[name] for name in names})


def source_of(config: DataConfig, ask: Callable[[str, str], Mapping[str, Any]] | None) -> ObservedSource | None:
    """`ask` is how a local exchange is asked for its own."""
    match config.observed:
        case None:
            return None
        case FileColumns() as file:
            return FromFile(file)
        case HttpColumns() as http:
            return FromJson(lambda start, stop: _get(http, start, stop))
        case BrokerColumns():
            if ask is None:
                raise UserError("data.observed.kind = broker: only a local exchange has columns; expected file or http")
            return FromJson(ask)


class FromFile:
    """Read anew for each bar: something else appends to it."""

    def __init__(self, config: FileColumns) -> None:
        self.file = ObservedFile(config.path, config.known_at, timezone=config.timezone)

    def columns(self, panel: Panel) -> Mapping[str, Observed]:
        try:
            found = self.file.read()
        except UserError as error:  # half-written, gone: it may be there again
            raise Stale(str(error)) from None
        if found.symbols is None:
            places, width = np.zeros(len(found.codes), np.int64), 1
        else:
            known = {symbol: k for k, symbol in enumerate(panel.symbols)}
            places, width = np.array([known.get(symbol, -1) for symbol in found.symbols])[found.codes], len(known)
        columns = {
            name: as_of(panel.closes, places, found.known_at, values, width) for name, values in found.values.items()
        }
        shape = panel.close.shape
        return {
            name: Observed(np.broadcast_to(c.values, shape), np.broadcast_to(c.known_at, shape))
            for name, c in columns.items()
        }


class FromJson:
    """{"times": [T], "symbols": [A], "columns": {name: {"values": [A][T], "known_at": [A][T]}}}"""

    def __init__(self, ask: Callable[[str, str], Mapping[str, Any]]) -> None:
        self.ask = ask

    def columns(self, panel: Panel) -> Mapping[str, Observed]:
        start, stop = (f"{np.datetime_as_string(time, 's')}Z" for time in (panel.times[0], panel.closes[-1]))
        answer = self.ask(start, stop)
        try:
            found = {name: _column(answer, column, panel) for name, column in answer["columns"].items()}
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise Stale(f"observed columns cannot be read: {type(error).__name__}: {error}") from None
        return found


def _column(answer: Mapping[str, Any], column: Mapping[str, Any], panel: Panel) -> Observed:
    """Laid out by the panel's own times: each value where it was known at the bar's close, the last one known."""
    symbols = list(answer["symbols"])
    values = np.array(column["values"], dtype=np.float64)  # [A, T]
    known_at = np.array([[_moment(text) for text in row] for row in column["known_at"]], "datetime64[ns]")
    if values.shape != (len(symbols), len(answer["times"])) or known_at.shape != values.shape:
        raise ValueError(f"{values.shape} values and {known_at.shape} times of {len(symbols)} symbols")
    place = {symbol: k for k, symbol in enumerate(panel.symbols)}
    codes = np.repeat([place.get(symbol, -1) for symbol in symbols], values.shape[1])
    return as_of(panel.closes, codes, known_at.reshape(-1), values.reshape(-1), len(place))


def _moment(text: str | None) -> np.datetime64:
    return np.datetime64("NaT") if text is None else np.datetime64(text.removesuffix("Z").removesuffix("+00:00"), "ns")


def _get(config: HttpColumns, start: str, stop: str) -> Mapping[str, Any]:
    try:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(
                config.url, params={"start": start, "stop": stop}, timeout=config.timeout, allow_redirects=False
            )
        if answer.status_code != 200 or len(answer.content) > LARGEST:
            raise Stale(f"{config.url}: answered {answer.status_code}, {len(answer.content)} bytes")
        tree = json.loads(answer.content)
    except (requests.RequestException, ValueError) as error:
        raise Stale(f"{config.url}: {type(error).__name__}") from None
    return tree if isinstance(tree, dict) else {}
