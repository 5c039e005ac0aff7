"""Every layout of the same bars gives the same panel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from bar_files import SYMBOLS, folder_of, long_frame, wide_frame, write
from source_conformance import conforms

from kit.config import build, to_dict
from kit.errors import UserError
from market.data import DataConfig, load, load_file
from market.panel import Panel
from market.sources.files import FileSource
from market.sources.tables import ParquetTable
from market.synth import SynthSource


def in_layout(layout: str, frame: pd.DataFrame, folder: Path) -> Path:
    kind, _, suffix = layout.partition(".")
    if kind == "folder":
        return folder_of(frame, folder / "bars", f".{suffix}")
    if kind == "wide":
        frame = wide_frame(frame)
    return write(frame, folder / f"bars.{suffix}")


LAYOUTS = ["long.csv", "long.parquet", "wide.csv", "wide.parquet", "folder.csv", "folder.parquet"]


def panel_of(path: Path, **settings: object) -> Panel:
    return load(DataConfig(source=FileSource(path, **settings)))[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_file_sources_conform(layout: str, tmp_path: Path) -> None:
    bars = conforms(FileSource(in_layout(layout, long_frame(), tmp_path)))
    assert sorted(bars.symbols) == sorted(SYMBOLS)
    assert bars.names == ("open", "high", "low", "close", "volume", "signal")


def test_the_built_in_market_conforms() -> None:
    conforms(SynthSource(symbols=3, bars=40))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_panel(layout: str, tmp_path: Path) -> None:
    frame = long_frame()
    panel = panel_of(in_layout(layout, frame, tmp_path))
    assert panel.symbols == SYMBOLS
    for name in ("open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(getattr(panel, name), frame[name].to_numpy().reshape(8, 3))
    np.testing.assert_array_equal(panel.observed["signal"].values, frame["signal"].to_numpy().reshape(8, 3))
    assert panel.tradable.all()
    assert panel.closes[0] == np.datetime64("2020-01-02T21:00")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_are_named_so_that_a_person_finds_them(layout: str, tmp_path: Path) -> None:
    frame = long_frame()
    path = in_layout(layout, frame, tmp_path)
    bars = FileSource(path).read()
    row = int(np.flatnonzero((bars.codes == bars.symbols.index("MSFT")) & (bars.times == bars.times[-1]))[0])
    file = path / f"MSFT{'.csv' if layout.endswith('csv') else '.parquet'}" if path.is_dir() else path
    in_file = 23 if layout.startswith("long") else 7  # counted from 0
    named = f"line {in_file + 2}" if layout.endswith("csv") else f"row {in_file} (counted from 0)"
    assert bars.row_name(row) == f"{file} {named}"


@pytest.mark.parametrize("pattern", ["{symbol}_{field}", "{field}_{symbol}", "{symbol} {field}", "{field}:{symbol}"])
@pytest.mark.parametrize("capital", [False, True])
def test_wide_names_are_read_either_way_round(pattern: str, capital: bool, tmp_path: Path) -> None:
    frame = long_frame()
    if capital:
        frame = frame.rename(columns={name: name.title() for name in ("open", "high", "low", "close", "volume")})
    wide = panel_of(write(wide_frame(frame, pattern), tmp_path / "wide.csv"))
    assert wide.hash == panel_of(write(frame, tmp_path / "long.csv")).hash


def test_an_empty_wide_cell_group_is_a_missing_bar_and_a_half_empty_one_is_refused(tmp_path: Path) -> None:
    wide = wide_frame(long_frame())
    wide.loc[2, [f"MSFT_{field}" for field in ("open", "high", "low", "close", "volume")]] = np.nan
    panel = panel_of(write(wide, tmp_path / "wide.csv"))
    assert panel.tradable.sum() == 23
    assert not panel.tradable[2, 2]
    assert panel.close[2, 2] == panel.close[1, 2]
    wide.loc[4, "AAPL_high"] = np.nan
    with pytest.raises(UserError, match=r"half.csv line 6: high = nan \(AAPL 2020-01-08\): expected a finite number"):
        panel_of(write(wide, tmp_path / "half.csv"))


def test_a_wide_column_of_no_symbol_is_observed_by_all(tmp_path: Path) -> None:
    wide = wide_frame(long_frame())
    wide["vix"] = np.arange(8.0)
    panel = panel_of(write(wide, tmp_path / "wide.parquet"))
    np.testing.assert_array_equal(panel.observed["vix"].values, np.repeat(np.arange(8.0)[:, None], 3, axis=1))


def test_finrl_files_are_read_and_their_weekday_is_no_observation(tmp_path: Path) -> None:
    frame = long_frame().drop(columns="signal")
    frame["day"] = frame["timestamp"].dt.day_of_week
    frame["timestamp"] = frame["timestamp"].dt.strftime("%Y-%m-%d")
    frame["macd"] = 0.5
    finrl = frame.rename(columns={"timestamp": "date", "symbol": "tic"})
    panel = panel_of(write(finrl, tmp_path / "finrl.csv"))
    assert list(panel.observed) == ["macd"]
    assert panel.closes[0] == np.datetime64("2020-01-02T21:00"), "a bare date closes with the session of that date"


def yfinance(frame: pd.DataFrame, columns_by: str = "field") -> pd.DataFrame:
    """What yf.download returns: two levels of columns, the field first or the ticker first."""
    names = {f: f.title() for f in ("open", "high", "low", "close", "volume")}
    wide = frame.drop(columns="signal").rename(columns=names).pivot(index="timestamp", columns="symbol")
    wide.columns.names = ["Price", "Ticker"]
    wide.index.name = "Date"
    return wide if columns_by == "field" else wide.swaplevel(axis=1).sort_index(axis=1)


@pytest.mark.parametrize("columns_by", ["field", "ticker"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_yfinance_files_of_several_tickers_are_read(columns_by: str, suffix: str, tmp_path: Path) -> None:
    frame = long_frame()
    path = tmp_path / f"yf.{suffix}"
    wide = yfinance(frame, columns_by)
    _ = wide.to_csv(path) if suffix == "csv" else wide.to_parquet(path)
    long = panel_of(write(frame.drop(columns="signal"), tmp_path / "long.parquet"))
    panel = panel_of(path)
    assert panel.hash == long.hash
    assert not panel.observed


def test_a_yfinance_line_number_counts_the_three_header_lines(tmp_path: Path) -> None:
    wide = yfinance(long_frame())
    wide.iloc[1, 0] = -1.0
    wide.to_csv(tmp_path / "yf.csv")
    with pytest.raises(UserError, match=r"yf.csv line 5: "):
        load_file(tmp_path / "yf.csv")


def one_symbol_with_adj_close(path: Path) -> Path:
    rows = ["Date,Open,High,Low,Close,Adj Close,Volume"]
    rows += ["2020-01-02,10,12,9,10,5,100", "2020-01-03,20,22,18,20,15,100"]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_adj_close_is_left_alone_and_said_so_unless_asked_for(tmp_path: Path) -> None:
    path = one_symbol_with_adj_close(tmp_path / "AAPL.csv")
    panel, report = load_file(path)
    assert panel.symbols == ("AAPL",)
    np.testing.assert_array_equal(panel.close[:, 0], [10, 20])
    assert any("Adj Close" in line for line in report.lines())
    adjusted = panel_of(path, adjust=True)
    np.testing.assert_array_equal(adjusted.close[:, 0], [5, 15])
    np.testing.assert_array_equal(adjusted.open[:, 0], [5, 15])
    np.testing.assert_array_equal(adjusted.high[:, 0], [6, 16.5])
    np.testing.assert_array_equal(adjusted.low[:, 0], [4.5, 13.5])
    np.testing.assert_array_equal(adjusted.volume[:, 0], [100, 100])


def test_adjusting_needs_adj_close(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="adjust = true needs a column Adj Close"):
        panel_of(write(long_frame(), tmp_path / "bars.csv"), adjust=True)


@pytest.mark.parametrize(
    "names",
    [
        ["timestamp", "symbol", "open", "high", "low", "close", "volume", "trade_count", "vwap"],
        ["t", "S", "o", "h", "l", "c", "v", "n", "vw"],
    ],
)
def test_alpaca_files_are_read_without_their_extras(names: list[str], tmp_path: Path) -> None:
    frame = long_frame().assign(vwap=50.0).rename(columns={"signal": "trade_count"})
    frame["timestamp"] = frame["timestamp"].dt.strftime("%Y-%m-%dT05:00:00Z")
    frame.columns = pd.Index(names)
    panel, report = load_file(write(frame, tmp_path / "alpaca.csv"))
    assert not panel.observed
    assert panel.closes[0] == np.datetime64("2020-01-02T21:00")
    assert any(names[-1] in note for note in report.notes), "what is ignored is said"


def test_observed_columns_can_be_chosen_and_renamed(tmp_path: Path) -> None:
    frame = long_frame().rename(columns={"close": "px_last"}).assign(vwap=1.0, sector="tech")
    path = write(frame, tmp_path / "bars.csv")
    renames = {"px_last": "close"}
    assert list(panel_of(path, columns=renames).observed) == ["signal"], "text is no observation"
    assert list(panel_of(path, columns=renames, observed=["vwap"]).observed) == ["vwap"]
    assert not panel_of(path, columns=renames, observed=[]).observed
    with pytest.raises(UserError, match="observed names 'sentiment', which the file has not"):
        panel_of(path, columns=renames, observed=["sentiment"])
    with pytest.raises(UserError, match="columns names 'px', which the file has not"):
        panel_of(path, columns={"px": "close"})


def test_semicolons_byte_order_marks_blank_lines_and_quotes_do_not_matter(tmp_path: Path) -> None:
    frame = long_frame()
    plain = write(frame, tmp_path / "plain.csv")
    odd = write(frame, tmp_path / "odd.csv", sep=";", encoding="utf-8-sig", lineterminator="\r\n", quoting=2)
    lines = odd.read_bytes().split(b"\r\n")
    odd.write_bytes(b"\r\n".join([*lines[:4], b"", *lines[4:], b"", b""]))
    assert panel_of(odd).hash == panel_of(plain).hash
    assert FileSource(odd).read().row_name(1).endswith("line 3")
    assert FileSource(odd).read().row_name(3).endswith("line 6"), "the blank line is counted"


def test_gzip_is_read_and_the_symbol_is_the_name_before_the_endings(tmp_path: Path) -> None:
    one = long_frame().query("symbol == 'BRK.B'").drop(columns="symbol")
    one.to_csv(tmp_path / "BRK.B.csv.gz", index=False)
    assert panel_of(tmp_path / "BRK.B.csv.gz").symbols == ("BRK.B",)


def test_symbols_that_look_like_numbers_or_like_nothing_are_kept(tmp_path: Path) -> None:
    for suffix in ("csv", "parquet"):
        frame = long_frame().replace({"symbol": {"AAPL": "10107", "MSFT": "NA"}})
        assert panel_of(write(frame, tmp_path / f"odd.{suffix}")).symbols == ("10107", "BRK.B", "NA")


def test_leading_zeros_of_symbols_are_kept(tmp_path: Path) -> None:
    frame = long_frame().replace({"symbol": {"AAPL": "000001", "BRK.B": "000002", "MSFT": "600519"}})
    assert panel_of(write(frame, tmp_path / "china.csv")).symbols == ("000001", "000002", "600519")


def test_a_symbol_can_be_given_to_a_file_that_has_none(tmp_path: Path) -> None:
    one = long_frame().query("symbol == 'AAPL'").drop(columns="symbol")
    assert panel_of(write(one, tmp_path / "export.csv"), symbol="AAPL").symbols == ("AAPL",)
    with pytest.raises(UserError, match="names its symbols itself; leave out symbol = 'X'"):
        panel_of(write(long_frame(), tmp_path / "bars.csv"), symbol="X")
    with pytest.raises(UserError, match="in a folder the names of the files do"):
        panel_of(folder_of(long_frame(), tmp_path / "bars"), symbol="X")


def test_prices_kept_as_text_in_parquet_are_read(tmp_path: Path) -> None:
    frame = long_frame()
    text = frame.assign(close=frame["close"].astype(str))
    assert panel_of(write(text, tmp_path / "t.parquet")).hash == panel_of(write(frame, tmp_path / "f.parquet")).hash


def test_a_number_that_turns_to_text_late_in_a_long_file_is_found(tmp_path: Path) -> None:
    rows = 120_000  # several of the reader's blocks
    minutes = np.datetime64("2020-01-02", "s") + np.arange(rows) * np.timedelta64(60, "s")
    lines = [f"{t},10.5,10.5,10.5,10.5,1" for t in minutes.astype(str)]
    lines[rows - 3] = lines[rows - 3].removesuffix(",10.5,1") + ",oops,1"
    path = tmp_path / "bars.csv"
    path.write_text("\n".join(["timestamp,open,high,low,close,volume", *lines]) + "\n")
    with pytest.raises(UserError, match=r"bars.csv line 119999: close = 'oops': expected a number"):
        load_file(path)


def test_a_source_survives_its_configuration(tmp_path: Path) -> None:
    config = DataConfig(source=FileSource(tmp_path / "bars.csv", timezone="America/New_York", observed=["signal"]))
    assert build(DataConfig, to_dict(config)) == config


def test_an_unknown_time_zone_is_refused() -> None:
    with pytest.raises(UserError, match=r"timezone 'New York' is unknown; write e.g. UTC or America/New_York"):
        build(DataConfig, {"source": {"kind": "file", "path": "bars.csv", "timezone": "New York"}})


def test_parquet_columns_are_read_only_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    batches = ParquetTable._batches

    def spy(table: ParquetTable, column: int) -> Iterator[pa.Array]:
        read.append(table.title(column))
        return batches(table, column)

    monkeypatch.setattr(ParquetTable, "_batches", spy)
    bars = FileSource(write(long_frame(), tmp_path / "bars.parquet")).read()
    assert set(read) == {"timestamp", "symbol"}
    bars.column("close")
    assert set(read) == {"timestamp", "symbol", "close"}
