"""A request becomes the panel that training would have seen, or is refused with the field that is wrong."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from bundles import LENS, PANEL
from endpoint import request_of
from hypothesis import given, settings
from hypothesis import strategies as st
from panels import random_panel
from pydantic import ValidationError

from market.panel import FIELDS, PRICES, Panel
from serve.panel import panel_of
from serve.schema import ActionsRequest, Problem, parse

NEEDED = LENS.features.warmup + 4
WINDOW = PANEL[-40:]
GOOD = request_of(WINDOW)
LAST = len(WINDOW) - 1
PAUSED = tuple(int(k) for k in np.argwhere(~WINDOW.tradable[1:] & WINDOW.listed[:-1])[0] + (1, 0))  # bar, symbol
GAP = f"{PAUSED[1]}.{PAUSED[0]}"


@dataclass(frozen=True)
class Raw:
    """JSON as it is to be sent, which Python's own writer would refuse."""

    text: str


def sent(tree: Any) -> bytes:
    text = json.dumps(tree, default=lambda raw: f"<<{raw.text}>>")
    return re.sub(r'"<<(.*?)>>"', r"\1", text).encode()


def made(tree: Any) -> Panel:
    return panel_of(parse(sent(tree)), LENS, NEEDED)


def refused(tree: Any, field: str, reason: str = "") -> None:
    with pytest.raises(Problem) as caught:
        made(tree)
    problem = caught.value
    assert (problem.status, problem.field) == (422, field), problem
    assert problem.reason.isprintable()
    assert reason in problem.reason, problem.reason


def spoilt(path: str, value: Any) -> dict[str, Any]:
    """The good request but for one place; `...` takes the place away."""
    tree = copy.deepcopy(GOOD)
    *way, last = (int(key) if key.isdigit() else key for key in path.split("."))
    part: Any = tree
    for key in way:
        part = part[key]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    return tree


# What is accepted


def test_a_request_is_the_panel_it_was_made_of() -> None:
    assert made(GOOD).hash == WINDOW[-NEEDED:].hash


@given(st.permutations(range(len(PANEL.symbols))))
@settings(max_examples=10)
def test_symbols_may_come_in_any_order(order: list[int]) -> None:
    def turned(rows: Any) -> Any:
        return [rows[k] for k in order]

    tree = GOOD | {name: turned(GOOD[name]) for name in ("symbols", "tradable", *FIELDS)}
    tree["observed"] = {"signal": {name: turned(rows) for name, rows in GOOD["observed"]["signal"].items()}}
    assert made(tree).hash == WINDOW[-NEEDED:].hash


@pytest.mark.parametrize("bars", [NEEDED, NEEDED + 1, 60, len(PANEL)])
def test_bars_beyond_those_needed_change_nothing(bars: int) -> None:
    assert made(request_of(PANEL[-bars:])).hash == PANEL[-NEEDED:].hash


def test_older_bars_may_say_anything() -> None:
    tree = copy.deepcopy(GOOD)
    old = len(WINDOW) - NEEDED
    for name in FIELDS:
        for row in tree[name]:
            row[: old - 1] = [None if value is None else value * 3 for value in row[: old - 1]]
    tree["tradable"] = [[flag or value is not None for flag, value in zip(flags[:old], closes)] + flags[old:]
                        for flags, closes in zip(tree["tradable"], tree["close"])]  # fmt: skip
    tree["observed"]["signal"]["values"] = [
        [None if value is None else -value for value in row[:old]] + row[old:]
        for row in tree["observed"]["signal"]["values"]
    ]
    assert tree["close"] != GOOD["close"]
    assert made(tree).hash == made(GOOD).hash


def test_without_a_word_on_trading_every_listed_bar_is_traded() -> None:
    panel = random_panel(5, 40, 4, gaps=False)
    tree = request_of(panel)
    del tree["tradable"]
    assert made(tree).tradable.all()
    assert made(tree | {"tradable": None}).tradable.all()


def test_times_of_other_zones_are_the_same_moments() -> None:
    tree = spoilt(
        "closes.3", GOOD["closes"][3].replace("T20:00:00Z", "T21:00:00+01:00").replace("T21:00:00Z", "T22:00:00+01:00")
    )
    assert tree["closes"][3].endswith("+01:00")
    assert made(tree).hash == made(GOOD).hash


# What is refused


NUMBERS = [float("nan"), float("inf"), -float("inf"), Raw("1e400"), Raw("9" * 400), "1.5", "", True, [], {}, [1.0]]


@pytest.mark.parametrize("value", NUMBERS, ids=repr)
@pytest.mark.parametrize("field", ["open.0.30", "volume.2.39", "observed.signal.values.1.7", "portfolio.cash"])
def test_no_number_is_refused(field: str, value: Any) -> None:
    refused(spoilt(field, value), field)


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    refused(spoilt("portfolio.cash", Raw("9" * 10_000)), "", "number out of range")


TIMES = [
    None, 5, True, "", "now", "2019-06-21", "2019-06-21T20:00:00", "2019-13-01T00:00:00Z", "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00", "1899-12-31T23:59:59Z",
    "2200-01-01T00:00:00Z", "2019-06-21T20:00:00+24:00",
]  # fmt: skip


@pytest.mark.parametrize("value", TIMES, ids=repr)
@pytest.mark.parametrize("field", ["times.39", "closes.0", "observed.signal.known_at.0.39", "asked_at"])
def test_no_time_is_refused(field: str, value: Any) -> None:
    if value is None and field == "asked_at":
        return  # as good as nothing
    if value is None and "known_at" in field:
        refused(spoilt(field, value), field, "expected a time for every value")
    else:
        refused(spoilt(field, value), field)


CASES: list[tuple[str, Any, str, str]] = [
    # prices and volumes
    ("close.0.30", 0.0, "close.0.30", "not positive"),
    ("low.0.30", -1.0, "low.0.30", "not positive"),
    ("open.1.39", 1e-300, "open.1.39", "from 1e-09 to 1e+12"),
    ("high.1.39", 1e13, "high.1.39", "from 1e-09 to 1e+12"),
    ("high.0.30", 1.0, "high.0.30", "below the open or the close"),
    ("low.0.30", 1e6, "low.0.30", "above the open or the close"),
    ("volume.0.30", -1, "volume.0.30", "negative"),
    ("volume.0.30", 1e19, "volume.0.30", "above 1e+18"),
    ("volume.0.30", None, "volume.0.30", "is null"),
    ("close.0.30", None, "open.0.30", "where the close is null"),
    ("open.0", [], "open.0", "0 values; expected one for each of 40"),
    ("open.2", [1.0] * 41, "open.2", "41 values"),
    ("open", [], "open", "0 lists; expected one for each of 4 symbols"),
    ("open", None, "open", "valid array"),
    ("open", 1.0, "open", "valid array"),
    ("open.1", None, "open.1", "valid array"),
    ("low", ..., "low", "required"),
    # gaps
    ("tradable.0.3", 1, "tradable.0.3", "valid boolean"),
    ("tradable.0.3", "true", "tradable.0.3", "valid boolean"),
    ("tradable.3", [True], "tradable.3", "1 values"),
    ("tradable", [[True]], "tradable", "1 lists"),
    (f"volume.{GAP}", 5.0, f"volume.{GAP}", "expected 0 where tradable is false"),
    (f"high.{GAP}", 1e6, f"high.{GAP}", "not the last close"),
    # times
    ("times", [], "times", "at least 1 item"),
    ("closes", [], "closes", "at least 1 item"),
    ("times", GOOD["times"][:-1], "closes", "40 of 39 bars"),
    ("times.5", GOOD["times"][4], "times.5", "not after the one before"),
    ("times.5", GOOD["times"][6], "times.6", "not after the one before"),
    ("closes.5", GOOD["closes"][4], "closes.5", "not after the one before"),
    ("closes.0", "2019-01-01T00:00:00Z", "closes.0", "before the bar's start"),
    # symbols
    ("symbols", [], "symbols", "at least 1 item"),
    ("symbols.2", "S000", "symbols.2", "S000 is given twice"),
    ("symbols.2", "TSLA", "symbols.2", "TSLA is not one"),
    ("symbols.2", "a\nb\u202e", "symbols.2", "a b is not one"),
    ("symbols.2", "", "symbols.2", "at least 1 character"),
    ("symbols.2", "x" * 65, "symbols.2", "at most 64 characters"),
    ("symbols.2", 5, "symbols.2", "valid string"),
    ("symbols.3", ..., "symbols", "S003 is missing"),
    # observed columns
    ("observed.signal", ..., "observed", "signal is missing"),
    ("observed", ..., "observed", "signal is missing"),
    ("observed.mood", GOOD["observed"]["signal"], "observed.mood", "is unknown; expected signal"),
    ("observed.signal.values.0.39", None, "observed.signal.known_at.0.39", "expected a time for every value"),
    ("observed.signal.values.0.39", 1e19, "observed.signal.values.0.39", "beyond 1e+18"),
    ("observed.signal.known_at.0.39", "2020-01-01T00:00:00Z", "observed.signal.known_at.0.39", "nobody could know it"),
    ("observed.signal.known_at.0.30", GOOD["closes"][31], "observed.signal.known_at.0.30", "nobody could know it"),
    ("observed.signal.known_at.1", [], "observed.signal.known_at.1", "0 values"),
    ("observed.signal.values", [], "observed.signal.values", "0 lists"),
    ("observed.signal.unit", "m", "observed.signal.unit", "not permitted"),
    ("observed.signal.known_at", ..., "observed.signal.known_at", "required"),
    # the rest
    ("portfolio", ..., "portfolio", "required"),
    ("portfolio.cash", ..., "portfolio.cash", "required"),
    ("portfolio.peak_equity", 0, "portfolio.peak_equity", "greater than 0"),
    ("portfolio.positions", [], "portfolio.positions", "object"),
    ("portfolio.positions.S000", None, "portfolio.positions.S000", "valid number"),
    ("portfolio.leverage", 2, "portfolio.leverage", "not permitted"),
    ("hello", "world", "hello", "not permitted"),
    ("version", "0123456789aB", "version", "match pattern"),
    ("version", "0123456789ab\n", "version", "match pattern"),
    ("version", 123456789012, "version", "valid string"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "field", "reason"), CASES, ids=lambda value: str(value)[:40])
def test_a_request_that_is_wrong_in_one_place_is_refused_there(path: str, value: Any, field: str, reason: str) -> None:
    refused(spoilt(path, value), field, reason)


def test_a_symbol_once_listed_has_prices_ever_after() -> None:
    tree = copy.deepcopy(GOOD)
    for name in FIELDS:
        tree[name][0][30] = None
    refused(tree, "close.0.29", "is followed by null")


def test_what_is_not_listed_cannot_be_traded() -> None:
    bar = int(np.flatnonzero(~PANEL.listed.all(axis=1))[-1])
    symbol = int(np.flatnonzero(~PANEL.listed[bar])[0])
    tree = request_of(PANEL[bar - NEEDED : bar + 1])
    tree["tradable"][symbol][NEEDED] = True
    refused(tree, f"tradable.{symbol}.{int(np.argmax(tree['tradable'][symbol]))}", "no price yet")


def test_too_few_bars_are_refused() -> None:
    made(request_of(PANEL[-NEEDED:]))
    refused(request_of(PANEL[1 - NEEDED :]), "times", f"{NEEDED - 1} bars; expected at least {NEEDED}")


def test_bars_of_another_size_are_refused() -> None:
    minutes = random_panel(5, 40, 4, gaps=False, minutes=True)
    refused(request_of(minutes), "times", "98280 bars a year; expected about 252")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff", b"\xef\xbb\xbf{}", b"[" * 100_000, b"{}x", b'{"a":' * 300],
)
def test_what_is_no_object_of_json_is_refused(body: bytes) -> None:
    with pytest.raises(Problem) as caught:
        parse(body)
    assert caught.value.status == 422
    assert caught.value.field == ""
    assert caught.value.reason.isprintable()


@pytest.mark.parametrize(
    "path", ["open", "open.1", "times", "closes", "symbols", "tradable", "tradable.0", "observed.signal.known_at.1"]
)
def test_a_list_of_faults_is_read_to_its_first_one(path: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ActionsRequest.model_validate_json(sent(spoilt(path, [{}] * 5000)))
    assert caught.value.error_count() == 1


def test_a_thousand_faults_are_counted_not_told() -> None:
    refused(GOOD | {f"key{k}": 1 for k in range(2000)}, "", "2,000 faults")


@pytest.mark.parametrize("name", ["x" * 100_000, "a\nb", "\x00\x1b[2J", "é" * 64])
def test_a_complaint_is_one_short_line_whatever_it_repeats(name: str) -> None:
    with pytest.raises(Problem) as caught:
        made(GOOD | {name: 1})
    for text in (caught.value.field, caught.value.reason, str(caught.value)):
        assert text.isprintable()
        assert len(text) < 700


def made_or_refused(tree: Any) -> str:
    try:
        return made(tree).hash
    except Problem as problem:
        return f"refused: {problem.field}"


@given(st.sampled_from(PRICES), st.integers(0, 3), st.integers(0, LAST), st.sampled_from([0.5, 0.9, 1.1, 2.0]))
@settings(max_examples=60)
def test_a_changed_price_is_seen_or_refused_unless_it_is_older_than_needed(
    name: str, symbol: int, bar: int, factor: float
) -> None:
    if GOOD[name][symbol][bar] is None:
        return
    outcome = made_or_refused(spoilt(f"{name}.{symbol}.{bar}", GOOD[name][symbol][bar] * factor))
    if not outcome.startswith("refused"):
        assert (outcome == made(GOOD).hash) == (bar < len(WINDOW) - NEEDED)
