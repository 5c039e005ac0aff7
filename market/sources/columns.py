"""Which column of a file is what: FinRL, yfinance, Alpaca, our own and plain wide files, by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from kit.errors import UserError
from market.panel import FIELDS
from market.sources.tables import Name, Table

TIME = ("timestamp", "datetime", "date", "time", "t", "__index_level_0__", "")
SYMBOL = ("symbol", "ticker", "tic", "s")
SPELLINGS = {
    "open": ("open", "o"),
    "high": ("high", "h"),
    "low": ("low", "l"),
    "close": ("close", "c"),
    "volume": ("volume", "vol", "v"),
    "adj_close": ("adj_close", "adjclose", "adjusted_close"),
}
KNOWN_AT = "_known_at"
# What vendors and index dumps add; taken only when named in `observed`. `day` is FinRL's weekday.
EXTRAS = {
    "adj_close", "trade_count", "n", "vwap", "vw", "dividends", "stock_splits", "capital_gains", "day",
    "index", "level_0", "__index_level_0__", "",
}  # fmt: skip
SEPARATORS = tuple("_ .:/|-")
_FIELD = "adj[_ ]?close|open|high|low|close|volume"
_AFFIXED = (re.compile(rf"(?P<field>{_FIELD})[_ .:/|-](?P<symbol>.+)", re.I),
            re.compile(rf"(?P<symbol>.+?)[_ .:/|-](?P<field>{_FIELD})", re.I))  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """Positions of columns. Wide files have a column per symbol; the symbol None stands for every row."""

    time: int
    symbol: int | None
    columns: dict[str, dict[str | None, int]]  # open, ..., adj_close, then observed columns and their known_at
    observed: tuple[str, ...]
    ignored: tuple[str, ...]
    wide: bool = False
    symbols: tuple[str, ...] = field(default=())  # of a wide file


def recognise(table: Table, renames: Mapping[str, str], wanted: list[str] | None) -> Layout:
    """Tell what each column holds; `wanted` observed columns are taken even where they are usually ignored."""
    names = _renamed(table, renames)
    keys = [tuple(_key(part) for part in name) for name in names]
    _refuse_twins(table, keys)
    plain = {key[0]: i for i, key in enumerate(keys) if len(key) == 1}
    fields = {
        f: plain[s] for f, spellings in SPELLINGS.items() if (s := next((s for s in spellings if s in plain), None))
    }
    time = _time_column(table, keys, plain)
    if fields.keys() & set(FIELDS):
        symbol = next((plain[s] for s in SYMBOL if s in plain and plain[s] != time), None)
        columns: dict[str, dict[str | None, int]] = {f: {None: i} for f, i in fields.items()}
        return _with_extras(table, names, Layout(time, symbol, columns, (), ()), wanted)
    columns = {}
    for i, name in enumerate(names):
        if i != time and (pair := _field_and_symbol(name)):
            columns.setdefault(pair[0], {})[pair[1]] = i
    symbols = tuple(dict.fromkeys(s for f, by in columns.items() if f in FIELDS for s in by if s is not None))
    if not symbols:
        raise UserError(
            f"{table.path}: has none of the columns {', '.join(FIELDS)}; found {_list(table)}; "
            "rename yours with columns: {theirs: close}"
        )
    return _with_extras(table, names, Layout(time, None, columns, (), (), True, symbols), wanted)


def _renamed(table: Table, renames: Mapping[str, str]) -> list[Name]:
    titles = [table.title(i) for i in range(len(table.names))]
    for theirs in renames:
        if theirs not in titles:
            raise UserError(f"{table.path}: columns names {theirs!r}, which the file has not; found {_list(table)}")
    return [(renames[title],) if title in renames else name for title, name in zip(titles, table.names, strict=True)]


def _refuse_twins(table: Table, keys: list[Name]) -> None:
    seen: dict[Name, int] = {}
    for i, key in enumerate(keys):
        if key in seen and key != ("",):
            raise UserError(
                f"{table.path}: columns {seen[key] + 1} and {i + 1} are both named {table.title(i)!r}; "
                "expected one of them"
            )
        seen[key] = i


def _time_column(table: Table, keys: list[Name], plain: Mapping[str, int]) -> int:
    found = next((plain[name] for name in TIME if name in plain), None)
    if found is not None:
        return found
    several = [i for i, key in enumerate(keys) if len(key) > 1]
    if several:  # yfinance: the index stands first, under Price/Ticker/Date, or as ('Date', '')
        return next((i for i in several if any(part in TIME[:4] for part in keys[i])), 0)
    raise UserError(f"{table.path}: has no column of times ({', '.join(TIME[:4])}); found {_list(table)}")


def _with_extras(table: Table, names: list[Name], layout: Layout, wanted: list[str] | None) -> Layout:
    """Sort the columns left over into observed ones, their `_known_at`, and ignored ones."""
    used = {layout.time, layout.symbol, *(i for by in layout.columns.values() for i in by.values())}
    left: dict[str, dict[str | None, int]] = {}
    for i, name in enumerate(names):
        if i not in used:
            title, symbol = _split_extra(name, layout.symbols)
            left.setdefault(title, {})[symbol] = i
    for title, by in layout.columns.items():
        if title not in FIELDS:
            left[title] = by
    if wanted is None:
        observed = [
            title for title, by in left.items()
            if _key(title) not in EXTRAS and not title.endswith(KNOWN_AT) and not _key(title).startswith("unnamed")
            and any(table.numeric(i) for i in by.values())
        ]  # fmt: skip
    else:
        for title in wanted:
            if title not in left:
                raise UserError(f"{table.path}: observed names {title!r}, which the file has not; found {_list(table)}")
        observed = list(wanted)
    columns = dict(layout.columns)
    for title in observed:
        columns[title] = left[title]
        if title + KNOWN_AT in left:
            columns[title + KNOWN_AT] = left[title + KNOWN_AT]
    ignored = tuple(title for title in left if title not in columns or (title == "adj_close" and title not in observed))
    return Layout(layout.time, layout.symbol, columns, tuple(observed), ignored, layout.wide, layout.symbols)


def _field_and_symbol(name: Name) -> tuple[str, str] | None:
    """`AAPL_Close`, `Close_AAPL` and ('Close', 'AAPL') -> close, AAPL."""
    if len(name) == 1:
        for pattern in _AFFIXED:
            if match := pattern.fullmatch(name[0]):
                return _field(match["field"]) or "", match["symbol"]
        return None
    parts = [part for part in name if part and not part.startswith("Unnamed:")]
    for i, part in enumerate(parts):
        if (known := _field(part)) and len(parts) == 2:
            return known, parts[1 - i]
    return None


def _split_extra(name: Name, symbols: tuple[str, ...]) -> tuple[str, str | None]:
    parts = [part for part in name if part]
    if len(parts) == 2:
        for i in (0, 1):
            if parts[i] in symbols:
                return parts[1 - i], parts[i]
    title = " ".join(parts)
    for symbol in symbols:
        n = len(symbol)
        if title.startswith(symbol) and title[n : n + 1] in SEPARATORS and title[n + 1 :]:
            return title[n + 1 :], symbol
        if title.endswith(symbol) and title[-n - 1 : -n] in SEPARATORS and title[: -n - 1]:
            return title[: -n - 1], symbol
    return title, None


def _field(text: str) -> str | None:
    key = _key(text)
    return next((f for f, spellings in SPELLINGS.items() if key in spellings and len(key) > 1), None)


def _key(text: str) -> str:
    return text.strip().lower().replace(" ", "_")


def _list(table: Table) -> str:
    titles = [table.title(i) for i in range(len(table.names))]
    return ", ".join(titles[:12]) + (f" and {len(titles) - 12} more" if len(titles) > 12 else "")
