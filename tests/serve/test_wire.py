"""The request says what the panel says, and only a sound answer is believed."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from loopback import ASKED_AT, PANEL, PORTFOLIO, TOKEN, VERSION, answer
from panels import random_panel

from kit.errors import UserError
from market.panel import FIELDS, Observed, Panel
from serve.wire import Answer, BadAnswer, Part, Portfolio, Vote, body, parse, read_answer

# ---- the request


def numbers(columns: list[list[float | None]]) -> np.ndarray:  # [T, A]
    return np.array([[math.nan if v is None else v for v in column] for column in columns], float).T


def times(texts: list[str | None]) -> np.ndarray:  # [T] datetime64[ns]
    assert all(text is None or text.endswith("Z") for text in texts)
    return np.array([np.datetime64("NaT") if t is None else np.datetime64(t[:-1], "ns") for t in texts], "M8[ns]")


def panel_of(data: bytes) -> Panel:
    """Read a request back by hand."""
    tree = json.loads(data, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    columns = {name: numbers(tree[name]) for name in FIELDS}
    observed = {
        name: Observed(numbers(column["values"]), np.stack([times(row) for row in column["known_at"]], axis=1))
        for name, column in tree["observed"].items()
    }
    return Panel(
        symbols=tuple(tree["symbols"]),
        times=times(tree["times"]),
        closes=times(tree["closes"]),
        **columns,
        tradable=np.array(tree["tradable"]).T if "tradable" in tree else ~np.isnan(columns["close"]),
        bars_per_year=PANEL.bars_per_year,
        observed=observed,
    )


@given(seed=st.integers(0, 999), bars=st.integers(1, 30), symbols=st.integers(1, 4), gaps=st.booleans())
@settings(max_examples=30)
def test_a_panel_reads_back_to_the_bit(seed, bars, symbols, gaps):
    panel = random_panel(seed, bars, symbols, gaps=gaps and bars > 3)
    assert replace(panel_of(body(panel, PORTFOLIO)), bars_per_year=panel.bars_per_year).hash == panel.hash


@given(hnp.arrays(np.float64, (3, 2), elements=st.floats(allow_infinity=False, allow_nan=True)))
@settings(max_examples=100)
def test_every_float_reads_back_to_the_bit(values):
    values = np.where(np.isnan(values), np.nan, values)  # one kind of NaN
    known_at = np.where(np.isnan(values), np.datetime64("NaT"), PANEL.closes[:3, None]).astype("M8[ns]")
    panel = replace(PANEL[:3], observed={}, **dict.fromkeys(FIELDS, np.ones((3, 3))), tradable=np.ones((3, 3), bool))
    two = replace(
        panel,
        symbols=("A", "B"),
        **{name: getattr(panel, name)[:, :2] for name in (*FIELDS, "tradable")},
        observed={"signal": Observed(values, known_at)},
    )
    assert panel_of(body(two, PORTFOLIO)).observed["signal"].values.tobytes() == values.tobytes()


@given(st.lists(st.integers(-(2**62), 2**62), min_size=2, max_size=5, unique=True))
@settings(max_examples=50)
def test_every_nanosecond_reads_back(nanoseconds):
    labels = np.array(sorted(nanoseconds), "M8[ns]")
    one = np.ones((len(labels), 1))
    panel = Panel(("A",), labels, labels, one, one, one, one, one, one.astype(bool), 252.0)
    assert (panel_of(body(panel, PORTFOLIO)).closes == labels).all()


def test_a_request_looks_as_the_endpoint_expects():
    nan = math.nan
    labels = np.array(["2020-01-02T14:30", "2020-01-03T14:30"], "M8[ns]")
    known = np.array([["NaT"], ["2020-01-03T15:00:00.5"]], "M8[ns]")
    prices = dict.fromkeys(FIELDS, np.array([[nan], [0.1]]))
    panel = Panel(
        ("NaN",),
        labels,
        labels + np.timedelta64(390, "m"),
        **prices,
        tradable=np.array([[False], [True]]),
        bars_per_year=252.0,
        observed={'a "b"': Observed(np.array([[nan], [1e300]]), known)},
    )
    asked_at = datetime(2020, 1, 3, 16, 0, 5, tzinfo=timezone(timedelta(hours=-5)))
    assert json.loads(body(panel, PORTFOLIO, asked_at, VERSION)) == {
        "symbols": ["NaN"],
        "times": ["2020-01-02T14:30:00Z", "2020-01-03T14:30:00Z"],
        "closes": ["2020-01-02T21:00:00Z", "2020-01-03T21:00:00Z"],
        **{name: [[None, 0.1]] for name in FIELDS},
        "observed": {'a "b"': {"values": [[None, 1e300]], "known_at": [[None, "2020-01-03T15:00:00.500000000Z"]]}},
        "portfolio": {"cash": 1000.0, "positions": {"S001": 3.5}, "peak_equity": 1200.0},
        "asked_at": "2020-01-03T21:00:05Z",
        "version": VERSION,
    }


def test_tradable_is_sent_only_where_it_says_something():
    gapless = random_panel(0, 10, 2, gaps=False)
    assert "tradable" not in json.loads(body(gapless, PORTFOLIO))
    paused = gapless.tradable.copy()
    paused[4, 1] = False
    sent = json.loads(body(replace(gapless, tradable=paused), PORTFOLIO))["tradable"]
    assert sent == [[True] * 10, [True] * 4 + [False] + [True] * 5]


def test_what_no_endpoint_could_take_is_refused_before_it_is_sent():
    infinite = np.array(PANEL.close)
    infinite[-1, 0] = math.inf
    with pytest.raises(UserError, match=r"asked_at = 2019-02-01T00:00:00: has no time zone"):
        body(PANEL, PORTFOLIO, datetime(2019, 2, 1))
    with pytest.raises(UserError, match="version = 'champion': expected 12 hexadecimal digits"):
        body(PANEL, PORTFOLIO, version="champion")
    with pytest.raises(UserError, match="close holds infinity"):
        body(replace(PANEL, close=infinite), PORTFOLIO)
    with pytest.raises(UserError, match="holds no bar"):
        body(PANEL[:0], PORTFOLIO)
    with pytest.raises(UserError, match=r"positions\.S001 = nan: expected a finite number"):
        Portfolio(1.0, {"S001": math.nan}, 1.0)


# ---- the answer


SOUND = answer(json.loads(body(PANEL, PORTFOLIO, ASKED_AT, VERSION)))


def read(tree: dict[str, Any]) -> Answer:
    return read_answer(Part(tree, TOKEN), PANEL, ASKED_AT, VERSION)


def test_an_answer_is_read_whole():
    answer = read(SOUND)
    assert answer.version == VERSION
    assert answer.as_of == PANEL.closes[-1]
    assert answer.asked_at == ASKED_AT
    assert list(answer.weights.items()) == [("S000", 0.1), ("S001", 0.1), ("S002", 0.1)]  # in the panel's order
    assert answer.cash == pytest.approx(0.7)
    assert list(answer.ordered.items()) == [("S000", 0.2), ("S001", 0.1), ("S002", 0.1)]
    assert answer.ordered_cash == pytest.approx(0.6)
    assert answer.members == (Vote("a", 1.0, answer.weights, answer.cash),)
    assert (answer.dispersion, answer.milliseconds) == (0.05, 3.1)
    assert answer.warnings == ("the last bar is old",)


WEIGHTS = {"S000": 0.1, "S001": 0.1, "S002": 0.1}
MEMBER = {"name": "a", "share": 1.0, "weights": WEIGHTS, "cash": 0.7}
UNSOUND = {
    "another version": {"version": "ba9876543210"},
    "a version that is none": {"version": "0123456789AB"},
    "another bar": {"as_of": "2019-01-02T21:00:00Z"},
    "a time that is none": {"as_of": "2019-02-31T21:00:00Z"},
    "a time without a zone": {"asked_at": "2019-02-01T21:00:05.25"},
    "asked at another time": {"asked_at": "2019-02-01T21:00:06Z"},
    "a symbol too few": {"weights": {"S000": 0.1, "S001": 0.2}},
    "a symbol too many": {"weights": {**WEIGHTS, "S009": 0.0}},
    "another symbol": {"ordered": {"S000": 0.1, "S001": 0.1, "S009": 0.1}},
    "a sum beside 1": {"cash": 0.70001},
    "an ordered sum beside 1": {"ordered_cash": 0.5},
    "true as a number": {"dispersion": True},
    "true as a weight": {"weights": {**WEIGHTS, "S000": True}, "cash": -0.2},
    "a text as a number": {"cash": "0.7"},
    "null as a number": {"dispersion": None},
    "a number beyond all floats": {"milliseconds": 10**400},
    "members as a number": {"members": 1},
    "a member as a text": {"members": ["a"]},
    "a vote with a sum beside 1": {"members": [MEMBER, {**MEMBER, "cash": 0.6}]},
    "a vote of other symbols": {"members": [{**MEMBER, "weights": {"S000": 0.3}}]},
    "a vote without a share": {"members": [{key: MEMBER[key] for key in ("name", "weights", "cash")}]},
    "warnings that are no texts": {"warnings": [1]},
}


@pytest.mark.parametrize("changes", UNSOUND.values(), ids=UNSOUND)
def test_an_unsound_answer_is_not_believed(changes):
    with pytest.raises(BadAnswer, match=re.escape(next(iter(changes)))):
        read(SOUND | changes)


def test_a_difference_within_rounding_is_believed():
    assert read(SOUND | {"cash": 0.7 + 9e-7}).cash == 0.7 + 9e-7


@pytest.mark.parametrize("key", sorted(SOUND))
def test_an_answer_that_lacks_anything_is_not_believed(key):
    with pytest.raises(BadAnswer, match=f"{key} = missing"):
        read({k: v for k, v in SOUND.items() if k != key})


def test_a_complaint_does_not_show_the_token():
    with pytest.raises(BadAnswer, match="version = ") as caught:
        read(SOUND | {"version": f"Bearer {TOKEN}"})
    assert TOKEN not in str(caught.value)


NOT_JSON = {
    "a page": b"<html>",
    "nothing": b"",
    "a list": b"[1]",
    "NaN": b'{"cash": NaN}',
    "Infinity": b'{"cash": -Infinity}',
    "a key twice": b'{"cash": 0.1, "cash": 0.2}',
    "no UTF-8": b'{"cash": "\xff"}',
}


@pytest.mark.parametrize("content", NOT_JSON.values(), ids=NOT_JSON)
def test_only_strict_json_is_parsed(content):
    with pytest.raises(ValueError):
        parse(content)
