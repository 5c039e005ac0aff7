"""What goes over the wire: the request as JSON, and the answer, which is believed only if every part of it is sound."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

import numpy as np

from kit.errors import UserError
from kit.log import HIDDEN
from market.panel import FIELDS, Panel

VERSION = re.compile(r"[0-9a-f]{12}")
MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?)(?:Z|\+00:00)")
MESSAGE = 300  # characters
CLOSE_TO_ONE = 1e-6


class ServeError(Exception):
    """The endpoint gave no answer that can be used; one line says why."""

    def __str__(self) -> str:
        return one_line(" ".join(map(str, self.args)))


class BadAnswer(ServeError):
    """The endpoint answered, but not as it must."""


@dataclass(frozen=True)
class Portfolio:
    """What is held when asking."""

    cash: float
    positions: Mapping[str, float]  # shares
    peak_equity: float

    def __post_init__(self) -> None:
        positions = {f"positions.{symbol}": shares for symbol, shares in self.positions.items()}
        for key, value in {"cash": self.cash, **positions, "peak_equity": self.peak_equity}.items():
            if not math.isfinite(value):
                raise UserError(f"portfolio: {key} = {value}: expected a finite number")


@dataclass(frozen=True)
class Vote:
    """What one member would hold, and its share in the ensemble."""

    name: str
    share: float
    weights: Mapping[str, float]
    cash: float


@dataclass(frozen=True)
class Answer:
    """A decision. Weights are in the order of the panel's symbols, and sum to 1 with the cash beside them."""

    version: str
    as_of: np.datetime64  # UTC, the panel's last close
    asked_at: datetime
    weights: Mapping[str, float]  # the ensemble's target
    cash: float
    ordered: Mapping[str, float]  # after rate and no-trade band: what orders should reach
    ordered_cash: float
    members: tuple[Vote, ...]
    dispersion: float
    warnings: tuple[str, ...]
    milliseconds: float


@dataclass(frozen=True)
class Part:
    """A part of an answer, which gives its values only if they are what they must be."""

    tree: Mapping[str, Any]
    token: str  # not to be shown
    at: str = ""

    def wrong(self, key: str, right: str) -> NoReturn:
        value = repr(self.tree[key]).replace(self.token, HIDDEN) if key in self.tree else "missing"
        raise BadAnswer(f"{self.at}{key} = {value if len(value) < 100 else f'{value[:100]}...'}: expected {right}")

    def number(self, key: str) -> float:
        value = self.tree.get(key, "")
        return float(value) if _is_number(value) else self.wrong(key, "a finite number")

    def text(self, key: str) -> str:
        value = self.tree.get(key)
        return value if isinstance(value, str) else self.wrong(key, "a text")

    def list(self, key: str) -> list[Any]:
        value = self.tree.get(key)
        return value if isinstance(value, list) else self.wrong(key, "a list")

    def version(self, asked: str | None) -> str:
        version = self.text("version")
        if not VERSION.fullmatch(version):
            self.wrong("version", "12 hexadecimal digits")
        return version if asked in (None, version) else self.wrong("version", f"{asked}, which was asked")

    def moment(self, key: str) -> np.datetime64:
        match = MOMENT.fullmatch(self.text(key))
        try:
            return np.datetime64(match[1], "ns") if match else self.wrong(key, "a time in UTC")
        except ValueError:
            self.wrong(key, "a time in UTC")

    def weights(self, key: str, cash_key: str, symbols: Sequence[str]) -> tuple[dict[str, float], float]:
        """A weight for each symbol, in their order, and the cash beside them."""
        given, cash = self.tree.get(key), self.number(cash_key)
        if not isinstance(given, dict) or given.keys() != set(symbols):
            self.wrong(key, "a weight for each symbol that was asked, and no other")
        if not all(map(_is_number, given.values())):
            self.wrong(key, "finite numbers")
        weights = {symbol: float(given[symbol]) for symbol in symbols}
        whole = math.fsum(weights.values()) + cash
        if abs(whole - 1.0) > CLOSE_TO_ONE:
            self.wrong(key, f"1 as the sum with {self.at}{cash_key}, not {whole:.9g}")
        return weights, cash


def body(panel: Panel, portfolio: Portfolio, asked_at: datetime | None = None, version: str | None = None) -> bytes:
    """The request as JSON; every number and time reads back as exactly what it was."""
    if not len(panel):
        raise UserError("panel: holds no bar; expected at least those that the ensemble's features need")
    held = {symbol: float(shares) for symbol, shares in portfolio.positions.items()}
    parts = {
        "symbols": _json(panel.symbols),
        "times": _moments(panel.times),
        "closes": _moments(panel.closes),
        **{name: _numbers(name, getattr(panel, name)) for name in FIELDS},
        "observed": _object(
            {
                name: _object({"values": _numbers(name, column.values), "known_at": _moments(column.known_at)})
                for name, column in panel.observed.items()
            }
        ),
        "portfolio": _json(
            {"cash": float(portfolio.cash), "positions": held, "peak_equity": float(portfolio.peak_equity)}
        ),
    }
    if not np.array_equal(panel.tradable, panel.listed):
        parts["tradable"] = _json(panel.tradable.T.tolist())
    if asked_at is not None:
        if asked_at.utcoffset() is None:
            raise UserError(f"asked_at = {asked_at.isoformat()}: has no time zone; expected one, such as UTC")
        parts["asked_at"] = _json(asked_at.astimezone(UTC).isoformat().replace("+00:00", "Z"))
    if version is not None:
        parts["version"] = _json(checked_version(version))
    return _object(parts).encode()


def read_answer(part: Part, panel: Panel, asked_at: datetime | None, version: str | None) -> Answer:
    """The answer, if every part of it is as it must be."""
    if (as_of := part.moment("as_of")) != panel.closes[-1]:
        part.wrong("as_of", f"{panel.closes[-1]}Z, the panel's last close")
    asked = part.moment("asked_at").astype("datetime64[us]").item().replace(tzinfo=UTC)
    if asked_at not in (None, asked):
        part.wrong("asked_at", f"{asked_at}, as was said")
    weights, cash = part.weights("weights", "cash", panel.symbols)
    ordered, ordered_cash = part.weights("ordered", "ordered_cash", panel.symbols)
    if not all(isinstance(warning, str) for warning in part.list("warnings")):
        part.wrong("warnings", "texts")
    return Answer(
        version=part.version(version),
        as_of=as_of,
        asked_at=asked,
        weights=weights,
        cash=cash,
        ordered=ordered,
        ordered_cash=ordered_cash,
        members=tuple(_vote(part, number, panel.symbols) for number in range(len(part.list("members")))),
        dispersion=part.number("dispersion"),
        warnings=tuple(map(one_line, part.list("warnings"))),
        milliseconds=part.number("milliseconds"),
    )


def parse(content: bytes) -> dict[str, Any]:
    """A JSON object without NaN, Infinity or a key given twice."""
    tree = json.loads(content, parse_constant=_no_number, object_pairs_hook=_no_key_twice)
    if not isinstance(tree, dict):
        raise ValueError(f"holds a {type(tree).__name__}, no keys with values")
    return tree


def checked_version(version: str) -> str:
    if not VERSION.fullmatch(version):
        raise UserError(f"version = {version!r}: expected 12 hexadecimal digits")
    return version


def one_line(text: str) -> str:
    """One line that a terminal shows as it is, of bounded length."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return line if len(line) <= MESSAGE else f"{line[: MESSAGE - 3]}..."


def _vote(answer: Part, number: int, symbols: Sequence[str]) -> Vote:
    member = answer.list("members")[number]
    if not isinstance(member, dict):
        answer.wrong("members", "a vote each")
    part = Part(member, answer.token, f"members.{number}.")
    weights, cash = part.weights("weights", "cash", symbols)
    return Vote(part.text("name"), part.number("share"), weights, cash)


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        raise ValueError("a key is given twice")
    return tree


def _numbers(name: str, array: np.ndarray) -> str:  # [T, A] float64
    """One list per symbol; json writes the shortest digits that read back as the same number."""
    text = _json(array.T.tolist())
    if "Infinity" in text:
        raise UserError(f"panel: {name} holds infinity; expected finite numbers")
    return text.replace("NaN", "null")


def _moments(times: np.ndarray) -> str:  # [T] or [T, A] datetime64[ns]
    """Times recur across symbols, so that each is written once and placed often; NaT is null."""
    distinct, where = np.unique(times, return_inverse=True)
    known = distinct[~np.isnat(distinct)]  # NaT is the last
    whole_seconds = (known == known.astype("datetime64[s]")).all()
    texts = np.full(len(distinct), None, object)
    texts[: len(known)] = np.datetime_as_string(known, unit="s" if whole_seconds else "ns", timezone="UTC")
    return _json(texts[where].T.tolist())


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _object(parts: Mapping[str, str]) -> str:
    """A JSON object of values that are JSON already."""
    return "{" + ",".join(f"{_json(name)}:{text}" for name, text in parts.items()) + "}"
