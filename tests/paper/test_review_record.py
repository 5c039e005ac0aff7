"""What is read of a journal: books followed entry by entry, and what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from journals import opened

from kit.errors import UserError
from paper.review.record import Record, read

CLOSES = [f"2026-01-0{day}T21:00:00+00:00" for day in (5, 6, 7, 8)]


def order(symbol: str, quantity: str, price: str, bar: int, **more: Any) -> dict[str, Any]:
    side = "sell" if quantity.startswith("-") else "buy"
    amount = quantity.lstrip("-")
    about = {"id": f"{bar}-{symbol}", "symbol": symbol, "side": side, "quantity": amount, "price": price, "bar": bar}
    return {**about, "filled": "0", "value": "0"} | more


def fill(symbol: str, quantity: str, price: str, bar: int) -> dict[str, Any]:
    return {**order(symbol, quantity, price, bar), "order": f"{bar}-{symbol}", "expected": "1"}


def decision(bar: int, equity: float, **more: Any) -> dict[str, Any]:
    told = {"close": CLOSES[bar], "data": f"hash{bar}", "equity": equity, "equal": 1.0, "state": "active"}
    return told | {"rulings": [], "orders": []} | more


def settled(bar: int, cash: str, **held: str) -> dict[str, Any]:
    return {"close": CLOSES[bar], "phase": "settled", "cash": cash, "positions": held}


def activity(kind: str, cash: str = "0", symbol: str = "", quantity: str = "0") -> dict[str, Any]:
    return {"id": kind, "kind": kind, "at": CLOSES[0], "cash": cash, "symbol": symbol, "quantity": quantity}


STORY: list[tuple[str, dict[str, Any]]] = [
    ("start", {"version": "v1", "config": "c"}),
    ("opening", {"cash": "1000", "positions": {"B": "2"}, "orders": [], "activity": "", "traded": "0"}),
    (
        "decision",
        decision(
            0,
            1040.0,
            version="v1",
            wanted={"A": 0.5, "B": 0.0},
            ordered={"A": 0.25, "B": 0.0},
            votes=[{"name": "m", "share": 1.0, "weights": {"A": 0.5, "B": 0.0}}],
            dispersion=0.25,
            rulings=[{"symbol": "A", "quantity": "10", "findings": []}],
        ),
    ),
    ("sent", order("B", "-2", "20", 0, status="sent")),
    ("sent", order("A", "10", "26", 0, status="sent")),
    ("fill", fill("B", "-2", "19", 0)),
    ("fill", fill("A", "4", "25", 0)),
    ("fill", fill("A", "4", "27", 0)),
    ("order", order("A", "10", "26", 0, status="canceled", reason="the rest was cut")),
    ("order", order("A", "1", "26", 0, status="expired", filled="1")),
    ("settled", settled(0, "830", A="8")),
    ("activity", activity("INT", "1.5")),
    ("activity", activity("FEE", "-0.5")),
    ("activity", activity("CSD", "100")),
    ("activity", activity("SPLIT", symbol="A", quantity="8")),
    ("refused", {"close": CLOSES[1], "phase": "following", "kind": "stale", "why": "no bar"}),
    ("settled", settled(1, "931", A="16")),
    ("start", {"version": "v1", "config": "c"}),
    ("halt", {"state": "halted", "before": "active", "why": "drawdown"}),
    ("decision", decision(2, 1200.0)),
    ("withheld", order("A", "-16", "13", 2, status="canceled", reason="halted")),
    ("settled", settled(2, "931", A="16")),
    ("decision", decision(3, 1300.0)),
]


def told(folder: Path, story: Sequence[tuple[str, dict[str, Any]]] = STORY) -> Record:
    with opened(folder / "desk.db") as journal:
        for kind, body in story:
            with journal.transition() as step:
                step.write(kind, body)
    return read(folder / "desk.db", ["A", "B"])


def test_a_row_is_a_close_and_holds_what_was_before_its_orders(tmp_path: Path) -> None:
    record = told(tmp_path)
    assert [str(close)[:10] for close in record.closes] == [text[:10] for text in CLOSES]
    assert record.cash.tolist() == [1000.0, 931.0, 931.0, 931.0]
    assert record.held.tolist() == [[0, 2], [16, 0], [16, 0], [16, 0]]
    np.testing.assert_array_equal(record.equity, [1040.0, np.nan, 1200.0, 1300.0])
    assert record.decided.tolist() == [True, False, True, True]
    assert record.answered.tolist() == [True, False, False, False]
    assert record.data == ("hash0", "", "hash2", "hash3")


def test_orders_and_fills_of_a_bar_are_summed_by_name_with_their_sign(tmp_path: Path) -> None:
    record = told(tmp_path)
    assert record.asked[0].tolist() == [10.0, -2.0]
    assert record.filled[0].tolist() == [8.0, -2.0]
    assert record.paid[0].tolist() == [4 * 25.0 + 4 * 27.0, -2 * 19.0]
    assert record.expected[0].tolist() == [26.0, 20.0]
    assert record.clipped[0].tolist() == [True, False]
    assert record.withheld[2].tolist() == [-16.0, 0.0]
    assert record.sent_after[0] == 2.0  # the clock of these journals moves a second an entry
    assert record.ended_after[0] == 8.0


def test_answers_are_laid_out_by_symbol_and_missing_ones_are_nan(tmp_path: Path) -> None:
    record = told(tmp_path)
    assert record.wanted[0].tolist() == [0.5, 0.0]
    assert np.isnan(record.wanted[1:]).all()
    assert record.votes.shape == (4, 1, 2)
    assert record.members == {"m": 1.0}
    assert record.versions == ("v1",)


def test_money_from_outside_is_kept_apart_from_interest_and_fees(tmp_path: Path) -> None:
    record = told(tmp_path)
    assert record.income.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert record.transfers.tolist() == [100.0, 0.0, 0.0, 0.0]
    assert record.unadjusted.tolist() == [[1, 1], [2, 1], [2, 1], [2, 1]]


def test_incidents_are_told_in_their_order_and_the_first_start_is_none(tmp_path: Path) -> None:
    assert [(incident.kind, incident.close[:10]) for incident in told(tmp_path).incidents] == [
        ("canceled", "2026-01-05"),
        ("expired", "2026-01-05"),
        ("no trade", "2026-01-06"),
        ("restart", "2026-01-06"),
        ("halt", "2026-01-06"),
        ("withheld", "2026-01-07"),
    ]


def test_a_journal_without_a_bar_that_was_seen_to_its_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 bars were handled; expected 2 at least"):
        told(tmp_path, STORY[:3])


def test_a_name_that_the_bundle_does_not_have_is_refused(tmp_path: Path) -> None:
    told(tmp_path)
    with pytest.raises(UserError, match="B is not a symbol of this bundle"):
        read(tmp_path / "desk.db", ["A"])


def test_what_is_no_journal_of_a_desk_is_one_line(tmp_path: Path) -> None:
    with opened(tmp_path / "desk.db") as journal, journal.transition() as step:
        step.write("fill", {"price": Decimal(1)})
        step.write("decision", {"equity": 1.0})
    with pytest.raises(UserError, match="is no journal of a desk"):
        read(tmp_path / "desk.db", ["A"])
