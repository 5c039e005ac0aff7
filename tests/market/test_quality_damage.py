"""Damaged files are refused in one line that says where and what, or load as stated; never a traceback."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from bar_files import folder_of, long_frame, write
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.errors import UserError
from market.data import load_file

HEADER = "timestamp,symbol,open,high,low,close,volume"


def csv(*rows: str, header: str = HEADER) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "bars.csv").write_text("\n".join([header, *rows]) + "\n")
        return folder / "bars.csv"

    return make


def raw(data: bytes, name: str = "bars.csv") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def truncated_parquet(folder: Path) -> Path:
    path = write(long_frame(), folder / "bars.parquet")
    path.write_bytes(path.read_bytes()[:-200])
    return path


def holed_parquet(folder: Path) -> Path:
    path = write(long_frame(300), folder / "bars.parquet")
    data = bytearray(path.read_bytes())
    data[8:2000] = b"\xff" * 1992
    path.write_bytes(data)
    return path


def empty_folder(folder: Path) -> Path:
    (folder / "bars").mkdir()
    (folder / "bars" / "README.md").write_text("no bars here")
    return folder / "bars"


def folder_with_a_short_file(folder: Path) -> Path:
    path = folder_of(long_frame(), folder / "bars")
    write(long_frame().drop(columns=["symbol", "volume"]).iloc[::3], path / "MSFT.csv")
    return path


def text_in_parquet(folder: Path) -> Path:
    frame = long_frame()
    frame["high"] = frame["high"].astype(str).where(frame.index != 4, "n.a.")
    return write(frame, folder / "bars.parquet")


def twin_columns_in_parquet(folder: Path) -> Path:
    return write(long_frame().assign(Close=1.0), folder / "bars.parquet")


GOOD = "2020-01-02,AAPL,10,11,9,10,100"
DAMAGE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty file": (raw(b""), "bars.csv: is empty; expected a CSV or Parquet file of bars"),
    "only blank lines": (raw(b"\n\n\n"), "bars.csv: is empty; expected a header"),
    "only a header": (csv(), "bars.csv: holds a header but no bars"),
    "no such file": (lambda folder: folder / "bars.csv", "bars.csv: no such file or folder"),
    "folder without bars": (empty_folder, "bars: the folder holds no bars; expected files such as AAPL.csv"),
    "folder with a short file": (folder_with_a_short_file, "MSFT.csv: has no column volume, which other files"),
    "binary junk": (raw(bytes(range(256)) * 9), "bars.csv: is neither UTF-8 CSV text nor a Parquet file"),
    "binary junk named parquet": (raw(b"\0\1\2" * 99, "bars.parquet"), "bars.parquet: is neither UTF-8 CSV"),
    "only the magic of Parquet": (raw(b"PAR1" * 9, "bars.parquet"), "bars.parquet: is damaged or cut off"),
    "truncated Parquet": (truncated_parquet, "bars.parquet: is damaged or cut off; expected a whole Parquet file"),
    "holed Parquet": (holed_parquet, "bars.parquet: column 'timestamp' is damaged"),
    "text in a Parquet price": (text_in_parquet, "bars.parquet row 4 (counted from 0): high = 'n.a.': expected"),
    "twin columns in Parquet": (twin_columns_in_parquet, "columns 6 and 9 are both named 'Close'"),
    "UTF-8 in a cell": (csv(GOOD.replace("AAPL", "S\u00e3o")), ""),
    "latin-1": (
        raw(f"{HEADER}\n{GOOD}\n2020-01-03,S\u00e3o,1,1,1,1,1\n".encode("latin-1")),
        "line 3: byte 87 is not UTF-8",
    ),
    "latin-1 header": (raw(f"caf\u00e9,{HEADER}\n".encode("latin-1")), "line 1: byte 3 is not UTF-8"),
    "latin-1 far down": (
        raw(f"{HEADER}\n{GOOD}\n".encode() + b"2020-01-03,AAPL,1,1,1,1,1\n" * 5000 + b"2020-01-04,S\xe3o,1,1,1,1,1\n"),
        "line 5003: byte",
    ),
    "UTF-16": (raw(f"{HEADER}\n{GOOD}\n".encode("utf-16")), "bars.csv: is neither UTF-8 CSV text nor a Parquet file"),
    "no gzip": (raw(b"\x1f\x8b no gzip", "bars.csv.gz"), "bars.csv.gz: is neither CSV text nor whole gzip"),
    "a cell without end": (raw(HEADER.encode() + b'\n"' + b"9" * 200_000), "is neither CSV text nor whole gzip"),
    "short row": (csv(GOOD, "2020-01-03,AAPL,10,11,9"), "bars.csv line 3: has 5 cells; the header has 7"),
    "long rows": (csv(GOOD, GOOD + ",1", GOOD + ",1"), "bars.csv line 3: has 8 cells; the header has 7; 1 more"),
    "duplicate column": (csv(GOOD + ",1", header=HEADER + ",close"), "columns 6 and 8 are both named 'close'"),
    "no time column": (csv("AAPL,1,1,1,1,1", header="symbol,open,high,low,close,volume"), "has no column of times"),
    "no price column": (csv("2020-01-02,1,2", header="date,foo,bar"), "has none of the columns open, high, low, close"),
    "missing column": (csv("2020-01-02,1,1,1,1", header="date,open,high,low,close"), "has no column volume; found"),
    "missing wide column": (
        csv("2020-01-02,1,1", header="date,A_close,B_open"),
        "has no column open of A",
    ),
    "no symbol column": (
        csv("2020-01-02,1,1,1,1,1", "2020-01-02,2,2,2,2,2", header="date,open,high,low,close,volume"),
        "line 2: comes again further down (bars 2020-01-02): a symbol has one bar per time",
    ),
    "empty symbol": (csv(GOOD, GOOD.replace("AAPL", "")), "line 3: symbol = '': expected a symbol, e.g. AAPL"),
    "text in a price": (csv(GOOD, "2020-01-03,AAPL,10,abc,9,10,1"), "line 3: high = 'abc': expected a number"),
    "thousands separators": (csv(GOOD, '2020-01-03,AAPL,"1,000",1,1,1,1'), "line 3: open = '1,000': expected a number"),
    "a date in a price": (csv(GOOD, "2020-01-03,AAPL,10,2020-01-01,9,10,1"), "line 3: high = '2020-01-01': expected"),
    "true in a price": (csv(GOOD, "2020-01-03,AAPL,10,true,9,10,1"), "line 3: high = 'true': expected a number"),
    "bad date": (csv(GOOD, "2020-13-03,AAPL,10,11,9,10,1"), "line 3: timestamp = '2020-13-03': expected a time"),
    "empty date": (csv(GOOD, ",AAPL,10,11,9,10,1"), "line 3: has no time (AAPL): every row needs a time"),
    "mixed zones": (
        csv("2020-01-02 09:30,AAPL,1,1,1,1,1", "2020-01-02 09:31Z,AAPL,1,1,1,1,1"),
        "line 3: timestamp = '2020-01-02 09:31Z': times with and without a zone are mixed",
    ),
    "two bar closes at once": (
        csv(*(f"{t},AAPL,10,11,9,10,1" for t in ("2020-01-01", "2020-01-02", "2020-01-03", "2020-01-03 05:00"))),
        "the bars of 2020-01-03 00:00:00 and 2020-01-03 05:00:00 close at one time",
    ),
    "infinite observed value": (
        csv(GOOD + ",0.5", "2020-01-03,AAPL,10,11,9,10,1,inf", header=HEADER + ",signal"),
        "line 3: signal = inf: expected a finite number",
    ),
    "text in an observed value": (
        csv(GOOD + ",0.5", "2020-01-03,AAPL,10,11,9,10,1,high", header=HEADER + ",signal"),
        "line 3: signal = 'high': expected a number",
    ),
    "infinite price": (csv(GOOD, "2020-01-03,AAPL,10,1e999,9,10,1"), "line 3: high = inf"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused_in_one_line_that_names_it(name: str, tmp_path: Path) -> None:
    make, complaint = DAMAGE[name]
    path = make(tmp_path)
    if not complaint:
        assert load_file(path)[0].symbols == ("S\u00e3o",)
        return
    with pytest.raises(UserError) as refusal:
        load_file(path)
    message = str(refusal.value)
    assert complaint in message
    assert message.startswith(str(path)), "the line begins with the file"
    assert "\n" not in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = write(long_frame(), tmp_path / "bars.csv")
    path.chmod(0)
    with pytest.raises(UserError, match=r"bars.csv: permission denied"):
        load_file(path)


@given(st.data())
@settings(max_examples=400)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_any_damage_is_refused_in_one_line_or_read(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    path = write(long_frame(), folder / f"bars.{suffix}")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content)))
        piece = data.draw(
            st.one_of(st.binary(max_size=4), st.sampled_from([b",", b"\n", b'"', b"-", b"\0", b"e999", b"."]))
        )
        content[at : at + data.draw(st.integers(0, 40))] = piece
    path.write_bytes(content)
    complaint = ""
    try:
        panel, _ = load_file(path)
        assert (panel.close[panel.listed] > 0).all()
    except UserError as refusal:
        complaint = str(refusal)
    assert "\n" not in complaint
