"""Each fault is found where it is, and refused, repaired or reported as the configuration says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bar_files import FIELDS, long_frame, write
from hypothesis import given
from hypothesis import strategies as st

from kit.config import build
from kit.errors import UserError
from market.checks import split_like, stale_runs
from market.data import DataConfig, check, load, load_file
from market.quality import QualityConfig
from market.sources.files import FileSource

ROW = 7  # BRK.B on 2020-01-06: the ninth line of a CSV file


def config(path: Path, **policies: object) -> DataConfig:
    return DataConfig(source=FileSource(path), quality=QualityConfig(**policies))  # type: ignore[arg-type]


def damaged(**cells: float) -> pd.DataFrame:
    frame = long_frame()
    for name, value in cells.items():
        frame.loc[ROW, name] = value
    return frame


def duplicated() -> pd.DataFrame:
    frame = long_frame()
    twin = frame.loc[[ROW]].assign(close=frame.loc[ROW, "open"])
    return pd.concat([frame, twin]).sort_values(["timestamp", "symbol"], kind="stable")


def swapped() -> pd.DataFrame:
    frame = long_frame()
    order = np.arange(len(frame))
    order[[ROW, ROW + 3]] = order[[ROW + 3, ROW]]
    return frame.loc[order]


FAULTS = [
    ("non_finite", damaged(close=np.inf), "line 9: close = inf (BRK.B 2020-01-06): expected a finite number"),
    ("non_finite", damaged(open=np.nan), "line 9: open = nan (BRK.B 2020-01-06): expected a finite number"),
    ("non_finite", damaged(volume=np.nan), "line 9: volume = nan (BRK.B 2020-01-06): expected a finite number"),
    ("non_positive", damaged(low=0.0), "line 9: low = 0 (BRK.B 2020-01-06): prices must be above zero"),
    ("non_positive", damaged(low=-3.5), "line 9: low = -3.5 (BRK.B 2020-01-06): prices must be above zero"),
    ("high_below_low", damaged(high=40.0, low=45.0), "line 9: high = 40 (BRK.B 2020-01-06): high must be at least low"),
    ("high_inside_body", damaged(high=50.0), "line 9: high = 50 (BRK.B 2020-01-06): high must be at least open"),
    ("low_inside_body", damaged(low=50.3), "line 9: low = 50.3 (BRK.B 2020-01-06): low must be at most open and close"),
    ("negative_volume", damaged(volume=-1.0), "line 9: volume = -1 (BRK.B 2020-01-06): volume must be zero or more"),
    ("duplicate", duplicated(), "line 9: comes again further down (BRK.B 2020-01-06): a symbol has one bar per time"),
    ("unordered", swapped(), "line 12: goes back in time (BRK.B 2020-01-06): a symbol's rows must run forward"),
    ("bad_time", damaged(timestamp=pd.NaT), "line 9: has no time (BRK.B): every row needs a time"),
    ("missing_column", long_frame().drop(columns="volume"), "has no column volume; found open, high, low, close"),
]  # fmt: skip
IDS = [f"{kind}-{i}" for i, (kind, _, _) in enumerate(FAULTS)]


@pytest.mark.parametrize(("kind", "frame", "complaint"), FAULTS, ids=IDS)
def test_a_fault_is_refused_with_its_place(kind: str, frame: pd.DataFrame, complaint: str, tmp_path: Path) -> None:
    path = write(frame, tmp_path / "bars.csv")
    with pytest.raises(UserError) as refusal:
        load_file(path)
    assert complaint in str(refusal.value)
    assert str(refusal.value).startswith(str(path))
    assert f"quality.{kind}: repair mends it" in str(refusal.value)


@pytest.mark.parametrize(("kind", "frame", "_complaint"), FAULTS, ids=IDS)
def test_a_repair_is_counted_and_leaves_a_sound_panel(
    kind: str, frame: pd.DataFrame, _complaint: str, tmp_path: Path
) -> None:
    panel, report = load(config(write(frame, tmp_path / "bars.csv"), **{kind: "repair"}))
    assert report.faults[kind].count == 1
    assert any("repaired" in line for line in report.lines())
    sound, _ = load_file(write(long_frame(), tmp_path / "sound.csv"))
    assert (panel.high >= np.maximum(panel.open, panel.close)).all()
    assert (panel.low <= np.minimum(panel.open, panel.close)).all()
    if kind == "duplicate":
        assert panel.close[2, 1] == panel.open[2, 1], "the last of the twins is kept"
    elif kind == "unordered":
        assert panel.hash == sound.hash
    elif kind == "missing_column":
        assert (panel.volume == 0).all()
    else:  # the bar is dropped: a gap
        assert np.argwhere(~panel.tradable).tolist() == [[2, 1]]
        assert panel.close[2, 1] == panel.open[2, 1] == sound.close[1, 1]
        assert panel.volume[2, 1] == 0
        np.testing.assert_array_equal(np.delete(panel.close, 2, axis=0), np.delete(sound.close, 2, axis=0))


def test_the_refusal_says_how_many_more_there_are(tmp_path: Path) -> None:
    frame = long_frame()
    frame.loc[[3, 9, 11, 20], "close"] = -1.0
    with pytest.raises(UserError, match=r"line 5: close = -1 .*; 3 more of this kind; quality.non_positive: repair"):
        load_file(write(frame, tmp_path / "bars.csv"))


def test_parquet_rows_are_counted_from_zero_and_said_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"bars.parquet row 7 \(counted from 0\): close = inf"):
        load_file(write(damaged(close=np.inf), tmp_path / "bars.parquet"))


def test_a_missing_column_can_be_filled_but_not_the_close(tmp_path: Path) -> None:
    path = write(long_frame().drop(columns=["open", "high", "low", "volume"]), tmp_path / "closes.csv")
    panel, report = load(config(path, missing_column="repair"))
    np.testing.assert_array_equal(panel.open, panel.close)
    assert report.faults["missing_column"].count == 4
    path = write(long_frame().drop(columns="close"), tmp_path / "no_close.csv")
    with pytest.raises(UserError, match=r"has no column close, from which others could be filled"):
        load(config(path, missing_column="repair"))


def test_scaled_prices_may_be_off_by_rounding(tmp_path: Path) -> None:
    frame = long_frame()
    frame.loc[ROW, "high"] = max(frame.loc[ROW, "open"], frame.loc[ROW, "close"]) * (1 - 1e-12)
    assert not load_file(write(frame, tmp_path / "bars.parquet"))[1].faults


def test_a_first_bar_that_is_dropped_leaves_nothing_behind(tmp_path: Path) -> None:
    frame = long_frame()
    frame.loc[1, "high"] = np.inf
    panel, report = load(config(write(frame, tmp_path / "bars.csv"), non_finite="repair"))
    assert np.isnan([getattr(panel, name)[0, 1] for name in FIELDS]).all()
    assert report.coverage[1].listed_late
    assert panel.tradable[1, 1]


def test_missing_bars_late_listings_and_early_ends_are_told_apart(tmp_path: Path) -> None:
    frame = long_frame()
    gone = [0, 3, 10, 23]  # AAPL lists on the third day; BRK.B pauses on the fourth; MSFT ends a day early
    panel, report = load_file(write(frame.drop(index=gone), tmp_path / "bars.csv"))
    assert report.faults["missing_bars"].count == 1
    assert [(c.symbol, c.bars, c.missing, c.listed_late, c.ended_early) for c in report.coverage] == [
        ("AAPL", 6, 0, True, False),
        ("BRK.B", 7, 1, False, False),
        ("MSFT", 7, 0, False, True),
    ]
    assert report.missing_share == 1 / 21
    assert np.argwhere(~panel.tradable).tolist() == [[0, 0], [1, 0], [3, 1], [7, 2]]
    assert any("missing bars: 1 (filled forward" in line and "BRK.B 2020-01-07" in line for line in report.lines())


def test_zero_volume_and_stale_closes_are_reported(tmp_path: Path) -> None:
    frame = long_frame()
    frame.loc[4, "volume"] = 0.0
    msft = frame["symbol"] == "MSFT"
    for name in ("open", "high", "low", "close"):
        frame.loc[msft & (frame["timestamp"] >= "2020-01-06"), name] = 50.0
    path = write(frame, tmp_path / "bars.csv")
    report = check(config(path, stale_bars=6))
    assert {kind: fault.count for kind, fault in report.faults.items()} == {"zero_volume": 1, "stale": 1}
    assert report.faults["stale"].examples[0].place.endswith("line 10")
    assert "stale" not in check(config(path, stale_bars=7)).faults
    with pytest.raises(UserError, match=r"line 6: volume = 0 .* quality.zero_volume: report lets it pass"):
        check(config(path, zero_volume="refuse"))


@pytest.mark.parametrize("factor", [2.0, 3.0, 4.0, 5.0, 10.0, 20.0, 1.5, 1 / 2, 1 / 10])
def test_a_split_that_prices_are_not_adjusted_for_is_reported(factor: float, tmp_path: Path) -> None:
    frame = long_frame(days=12)
    after = (frame["symbol"] == "MSFT") & (frame["timestamp"] >= "2020-01-10")
    for name in ("open", "high", "low", "close"):
        frame.loc[after, name] /= factor
    fault = load_file(write(frame, tmp_path / "bars.parquet"))[1].faults["split_like"]
    assert fault.count == 1
    assert (fault.examples[0].symbol, fault.examples[0].time) == ("MSFT", "2020-01-10")


def test_a_bad_print_is_not_taken_for_a_split() -> None:
    days = np.arange(12).astype("datetime64[D]")
    close = np.full(12, 100.0)
    opens = close.copy()
    opens[6] = 50.0  # and back by the close
    assert not len(split_like(opens, close, days))
    opens[6:], close[6:] = 50.0, 50.0
    assert split_like(opens, close, days).tolist() == [6]
    assert not len(split_like(opens, close, np.full(12, days[0]))), "splits happen overnight"
    close[6:] = opens[6:] = 88.0
    assert not len(split_like(opens, close, days)), "a fall of 12 % is no split"


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(2, 5))
def test_stale_runs_are_those_of_a_naive_count(closes: list[int], least: int) -> None:
    runs, start = [], 0
    for t in range(1, len(closes) + 1):
        if t == len(closes) or closes[t] != closes[start]:
            if t - start >= least:
                runs.append((start, t - start))
            start = t
    starts, lengths = stale_runs(np.array(closes, float), least)
    assert list(zip(starts.tolist(), lengths.tolist(), strict=True)) == runs


def test_the_report_is_json_and_short_text(tmp_path: Path) -> None:
    frame = long_frame()
    frame.loc[4:9, "volume"] = 0.0
    report = check(config(write(frame, tmp_path / "bars.csv")))
    told = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert told["faults"]["zero_volume"]["count"] == 6
    assert len(told["faults"]["zero_volume"]["examples"]) == 3
    assert len(told["coverage"]) == 3
    assert report.lines()[0].endswith("bars.csv: 3 symbols, 8 times from 2020-01-02 to 2020-01-13 UTC")
    assert report.lines()[1] == "24 bars, 0.0% missing"


def test_sound_bars_have_no_faults(tmp_path: Path) -> None:
    assert load_file(write(long_frame(), tmp_path / "bars.csv"))[1].lines()[-1] == "no faults"


def test_policies_that_cannot_be_kept_are_refused() -> None:
    with pytest.raises(UserError, match=r"quality.duplicate = 'report': expected one of refuse, repair"):
        build(DataConfig, {"source": {"kind": "file", "path": "x.csv"}, "quality": {"duplicate": "report"}})


def test_a_span_is_checked_and_nothing_beside_it(tmp_path: Path) -> None:
    path = write(damaged(close=-1.0), tmp_path / "bars.csv")
    good = replace(config(path), start="2020-01-07", end="2020-01-10", symbols=["MSFT", "AAPL"])
    panel, report = load(good)
    assert panel.symbols == ("AAPL", "MSFT")
    assert str(panel.times[0])[:10] == "2020-01-07"
    assert str(panel.times[-1])[:10] == "2020-01-09"
    assert not report.faults
