"""The panel: immutable, sliced as views, known by its content, and without the future."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from panels import random_panel

from market.panel import FIELDS, Observed, Panel

ARRAYS = ("times", "closes", *FIELDS, "tradable")


def copy_of(panel: Panel, start: int = 0, stop: int | None = None) -> Panel:
    rows = slice(start, stop)
    return replace(
        panel,
        **{name: getattr(panel, name)[rows].copy() for name in ARRAYS},
        observed={k: Observed(v.values[rows].copy(), v.known_at[rows].copy()) for k, v in panel.observed.items()},
    )


@given(st.integers(0, 9), st.integers(0, 40), st.integers(0, 40))
def test_a_view_shares_memory_and_hashes_like_a_copy(seed: int, start: int, stop: int) -> None:
    panel = random_panel(seed, bars=40, symbols=3)
    view = panel[start:stop]
    assert len(view) == max(0, stop - start)
    for name in ARRAYS:
        if len(view):
            assert np.shares_memory(getattr(view, name), getattr(panel, name))
    assert view.hash == copy_of(panel, start, stop).hash


@given(st.data())
def test_the_hash_changes_with_any_value(data: st.DataObject) -> None:
    panel = random_panel(1, bars=20, symbols=3)
    name = data.draw(st.sampled_from([*FIELDS, "tradable"]))
    changed = getattr(panel, name).copy()
    cell = data.draw(st.integers(0, changed.size - 1))
    value = changed.flat[cell]
    changed.flat[cell] = ~value if name == "tradable" else np.nextafter(value, np.inf) if value == value else 1.0
    assert replace(panel, **{name: changed}).hash != panel.hash


@given(st.integers(0, 59))
def test_the_hash_changes_with_any_observed_value_and_its_time(cell: int) -> None:
    panel = random_panel(1, bars=20, symbols=3, gaps=False)
    values, known_at = (array.copy() for array in (panel.observed["signal"].values, panel.observed["signal"].known_at))
    values.flat[cell] += 1e-12 + abs(values.flat[cell])
    known_at.flat[cell] -= np.timedelta64(1, "ns")
    hashes = {panel.hash}
    hashes.add(replace(panel, observed={"signal": Observed(values, panel.observed["signal"].known_at)}).hash)
    hashes.add(replace(panel, observed={"signal": Observed(panel.observed["signal"].values, known_at)}).hash)
    hashes.add(replace(panel, observed={"other": panel.observed["signal"]}).hash)
    assert len(hashes) == 4


def test_the_hash_tells_symbols_times_and_the_year_apart() -> None:
    panel = random_panel(0, bars=20, symbols=3)
    hour = np.timedelta64(3_600_000_000_000, "ns")
    others = [
        replace(panel, symbols=("A", "B", "C")),
        replace(panel, times=panel.times - hour),
        replace(panel, closes=panel.closes + hour),
        replace(panel, bars_per_year=250.0),
    ]
    assert len({panel.hash, *(other.hash for other in others)}) == 5


def test_the_hash_does_not_depend_on_memory_layout() -> None:
    panel = random_panel(0, bars=20, symbols=3)
    fortran = replace(panel, close=np.asfortranarray(panel.close))
    known_at = np.broadcast_to(panel.closes[:, None], panel.close.shape)
    view = replace(panel, observed={"signal": Observed(panel.close, known_at)})
    copy = replace(panel, observed={"signal": Observed(panel.close, known_at.copy())})
    assert fortran.hash == panel.hash
    assert view.hash == copy.hash


@given(st.integers(0, 59))
def test_a_value_known_after_its_close_is_refused(cell: int) -> None:
    panel = random_panel(0, bars=20, symbols=3, gaps=False)
    known_at = np.broadcast_to(panel.closes[:, None], panel.close.shape).copy()
    exact = replace(panel, observed={"news": Observed(panel.close, known_at.copy())})
    assert len(exact.observed) == 1
    known_at.flat[cell] += np.timedelta64(1, "ns")
    with pytest.raises(AssertionError, match="news holds values that were not yet known at their bar's close"):
        replace(panel, observed={"news": Observed(panel.close, known_at)})


def test_a_panel_cannot_be_written_to() -> None:
    panel = random_panel(0, bars=20, symbols=3)
    for name in ARRAYS:
        with pytest.raises(ValueError, match="read-only"):
            getattr(panel, name)[0] = getattr(panel, name)[1]
    with pytest.raises(ValueError, match="read-only"):
        panel.observed["signal"].values[0] = 0
    with pytest.raises(TypeError):
        panel.observed["other"] = panel.observed["signal"]  # type: ignore[index]
    with pytest.raises(AttributeError):
        panel.close = panel.open  # type: ignore[misc]


def test_a_span_by_time_starts_at_its_start_and_stops_before_its_end() -> None:
    panel = random_panel(0, bars=20, symbols=3, start="2019-01-07")
    span = panel.between("2019-01-08", "2019-01-11")
    assert [str(time)[:10] for time in span.times] == ["2019-01-08", "2019-01-09", "2019-01-10"]
    assert panel.between().hash == panel.hash
    assert len(panel.between("2019-01-12", "2019-01-13")) == 0, "a weekend"
    assert len(panel.between("2019-01-11", "2019-01-08")) == 0
    before, after = panel.between(None, "2019-01-15"), panel.between("2019-01-15")
    assert len(before) + len(after) == 20


def test_shapes_and_order_are_asserted() -> None:
    panel = random_panel(0, bars=20, symbols=3)
    for wrong in (
        {"close": panel.close[:, :2]},
        {"times": panel.times[::-1]},
        {"closes": panel.times - np.timedelta64(1, "ns")},
        {"observed": {"signal": Observed(panel.close[:5], panel.observed["signal"].known_at)}},
    ):
        with pytest.raises(AssertionError):
            replace(panel, **wrong)
    with pytest.raises(AssertionError, match="consecutive bars"):
        panel[::2]


def test_nbytes_counts_every_array() -> None:
    panel = random_panel(0, bars=20, symbols=3)
    assert panel.nbytes == 2 * 20 * 8 + 60 * (5 * 8 + 1) + 60 * 16
