"""CSV and Parquet files as tables that are read one column at a time."""

from __future__ import annotations

import ast
import csv
import io
import re
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from kit.errors import UserError
from market.sources.times import ISO, NS, in_zone, refuse_unreadable, times_from_numbers, times_from_text

PARQUET_MAGIC = b"PAR1"
BATCH = 1 << 20
SAMPLE_ROWS = 200
WORDS = pa.dictionary(pa.int32(), pa.string())
Name = tuple[str, ...]  # several parts where the header has several rows


class Table:
    """Columns by position. What cannot be read is refused with file, row, column and value."""

    path: Path
    names: list[Name]
    rows: int

    def __init__(self, path: Path, empty: tuple[str, ...]) -> None:
        self.path, self.empty = path, empty

    def place(self, row: int) -> str:
        raise NotImplementedError

    def numeric(self, column: int) -> bool:
        """Whether a column is meant to hold numbers: by its type, or by its first value that is not empty."""
        raise NotImplementedError

    def _batches(self, column: int) -> Iterator[pa.Array]:
        raise NotImplementedError

    def _word_batches(self, column: int) -> Iterator[pa.Array]:
        return self._batches(column)

    def _texts(self, column: int) -> pd.Series:
        raise NotImplementedError

    def _cell(self, row: int, column: int) -> object:
        """One value as the file writes it."""
        raise NotImplementedError

    def numbers(self, column: int) -> np.ndarray:  # [R] float64
        out, at = np.empty(self.rows), 0
        for array in self._batches(column):
            kind = array.type
            if pa.types.is_decimal(kind) or pa.types.is_boolean(kind):
                array = array.cast(pa.float64())
            elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
                return self._numbers_from_text(column)
            out[at : at + len(array)] = np.nan if pa.types.is_null(kind) else array.to_numpy(zero_copy_only=False)
            at += len(array)
        return out

    def words(self, column: int) -> tuple[np.ndarray, list[str]]:
        """A column of few distinct texts -> codes [R] int32, and the texts; -1 where there is no value."""
        codes, known, at = np.empty(self.rows, np.int32), dict[str, int](), 0
        for array in self._word_batches(column):
            coded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
            texts = coded.dictionary.cast(pa.string()).to_pylist()
            table = np.array([-1 if t is None else known.setdefault(t, len(known)) for t in texts] + [-1], np.int32)
            codes[at : at + len(array)] = table[coded.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False)]
            at += len(array)
        return codes, list(known)

    def times(self, column: int, zone: str, end_of_day: bool = False) -> np.ndarray:  # [R] datetime64[ns], UTC
        def refuse(row: int, right: str) -> NoReturn:
            self.refuse(row, column, right)

        def refuse_after(start: int, row: int, right: str) -> NoReturn:
            refuse(start + row, right)

        first = next(self._batches(column), None)
        kind = pa.null() if first is None else first.type
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            out, at = np.empty(self.rows, NS), 0
            for array in self._batches(column):
                raw = array.to_numpy(zero_copy_only=False)
                refuse_unreadable(raw, ~np.isnat(raw), partial(refuse_after, at))
                out[at : at + len(raw)] = raw
                at += len(raw)
            zoned = pa.types.is_timestamp(kind) and kind.tz
            return out if zoned else in_zone(out, zone, refuse, end_of_day)
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            exact = [array.to_numpy(zero_copy_only=False) for array in self._batches(column)]
            return times_from_numbers(np.concatenate(exact), zone, refuse, end_of_day)
        if pa.types.is_null(kind):
            return np.full(self.rows, np.datetime64("NaT"), NS)
        if not (pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            refuse(0, ISO)
        codes, texts = self.words(column)
        texts = ["" if t in self.empty else t for t in texts]

        def refuse_text(which: int, right: str) -> NoReturn:
            self.refuse(int(np.flatnonzero(codes == which)[0]), column, right)

        return np.append(times_from_text(texts, zone, refuse_text, end_of_day), np.datetime64("NaT"))[codes]

    def refuse(self, row: int, column: int, right: str, more: str = "") -> NoReturn:
        value = self._cell(row, column)
        raise UserError(f"{self.place(row)}: {self.title(column)} = {str(value)[:60]!r}: {right}{more}")

    def title(self, column: int) -> str:
        return " ".join(part for part in self.names[column] if part) or f"column {column + 1}"

    def _numbers_from_text(self, column: int) -> np.ndarray:  # [R]
        texts = self._texts(column).str.strip()
        values = pd.to_numeric(texts, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        wrong = np.flatnonzero(np.isnan(values) & ~texts.isna().to_numpy() & ~texts.isin(self.empty).to_numpy())
        if len(wrong):
            more = f"; {len(wrong) - 1} more such cells in this column" if len(wrong) > 1 else ""
            self.refuse(int(wrong[0]), column, "expected a number, or leave the cell empty", more)
        return values


class ParquetTable(Table):
    """Holds the footer only; every column is read, in batches, when it is asked for."""

    def __init__(self, path: Path, empty: tuple[str, ...]) -> None:
        super().__init__(path, empty)
        try:
            schema = pq.read_schema(path)
            texts = [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
            self._file = pq.ParquetFile(path, read_dictionary=texts)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UserError(f"{path}: is damaged or cut off; expected a whole Parquet file ({error})") from None
        self._schema = self._file.schema_arrow
        self.names = [_tuple_name(name) for name in self._schema.names]
        self.rows = self._file.metadata.num_rows

    def place(self, row: int) -> str:
        return f"{self.path} row {row} (counted from 0)"

    def numeric(self, column: int) -> bool:
        kind = self._schema.types[column]
        tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
        return any(test(kind) for test in tests)

    def _batches(self, column: int) -> Iterator[pa.Array]:
        name = self._schema.names[column]
        try:
            for batch in self._file.iter_batches(BATCH, columns=[name]):
                array = batch.column(batch.schema.get_field_index(name))
                if pa.types.is_dictionary(array.type):
                    array.validate(full=True)  # codes of a damaged file may point beyond the texts
                yield array
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{self.path}: column {name!r} is damaged ({error})") from None

    def _texts(self, column: int) -> pd.Series:
        return pd.Series([value for batch in self._batches(column) for value in batch.to_pylist()], dtype=object)

    def _cell(self, row: int, column: int) -> object:
        for batch in self._batches(column):
            if row < len(batch):
                return batch[row].as_py()
            row -= len(batch)
        raise IndexError(row)


class CsvTable(Table):
    """Parsed once, on first use; columns of text are kept as codes."""

    def __init__(self, path: Path, empty: tuple[str, ...]) -> None:
        super().__init__(path, empty)
        try:
            with self._lines() as lines:
                head = lines.read(1 << 16)
            self._delimiter = max(",;\t|", key=head.partition("\n")[0].count)
            sample, ends = self._head()
        except UnicodeDecodeError:
            self._refuse_encoding()
        except (csv.Error, EOFError, OSError) as error:  # a cell without end, or gzip that is none
            raise UserError(f"{path}: is neither CSV text nor whole gzip ({error})") from None
        if not sample:
            raise UserError(f"{path}: is empty; expected a header and rows of bars")
        header = 1
        while header < 3 and len(sample) > header and header == _text_rows(sample[: header + 1]) - 1:
            header += 1
        self._skip, self._sample = ends[header - 1], sample[header:]
        width = max(map(len, sample[:header]))
        if any(len(row) != width for row in sample[:header]):
            raise UserError(f"{path} line {ends[header - 1]}: the rows of the header differ in length")
        self.names = [tuple(part.strip() for part in parts) for parts in zip(*sample[:header], strict=True)]

    @property
    def rows(self) -> int:  # type: ignore[override]
        return self._table.num_rows

    def place(self, row: int) -> str:
        number = self._skip + row + 1
        for blank in self._blank_lines:
            number += blank <= number
        return f"{self.path} line {number}"

    def numeric(self, column: int) -> bool:
        return _is_number(self._first(column))

    def _first(self, column: int) -> str:
        values = (row[column].strip() for row in self._sample if len(row) > column)
        return next((value for value in values if value not in self.empty), "")

    def _batches(self, column: int) -> Iterator[pa.Array]:
        yield from self._table.column(column).chunks

    def _word_batches(self, column: int) -> Iterator[pa.Array]:
        if self.numeric(column):  # as numbers 000001 would have become 1
            return iter(self._parse({str(column): WORDS}, [str(column)]).column(0).chunks)
        return self._batches(column)

    def _texts(self, column: int) -> pd.Series:
        return pd.Series(self._as_text(column).to_pylist(), dtype=object)

    def _cell(self, row: int, column: int) -> object:
        return self._as_text(column)[row].as_py()

    def _as_text(self, column: int) -> pa.ChunkedArray:
        return self._parse({str(column): pa.string()}, [str(column)]).column(0)

    @cached_property
    def _table(self) -> pa.Table:
        words = {str(i): WORDS for i in range(len(self.names)) if self._first(i) and not self.numeric(i)}
        return self._parse(words, [])

    @cached_property
    def _blank_lines(self) -> list[int]:
        with self._lines() as lines:
            return [n for n, line in enumerate(lines, 1) if n > self._skip and not line.strip("\r\n")]

    def _parse(self, types: dict[str, pa.DataType], include: list[str]) -> pa.Table:
        ragged = 0

        def skip(_: pacsv.InvalidRow) -> str:
            nonlocal ragged
            ragged += 1
            return "skip"

        try:
            table = pacsv.read_csv(
                self.path,
                pacsv.ReadOptions(skip_rows=self._skip, column_names=[str(i) for i in range(len(self.names))]),
                pacsv.ParseOptions(delimiter=self._delimiter, invalid_row_handler=skip),
                pacsv.ConvertOptions(column_types=types, null_values=self.empty, include_columns=include),
            )
        except (pa.ArrowException, OSError) as error:
            if "UTF8" in str(error):
                self._refuse_encoding()
            if "Empty CSV" in str(error):
                raise UserError(f"{self.path}: holds a header but no bars") from None
            raise UserError(f"{self.path}: is not a CSV file: {error}") from None
        if ragged:
            self._refuse_ragged(ragged)
        return table

    def _lines(self) -> io.TextIOWrapper:
        return io.TextIOWrapper(pa.input_stream(str(self.path)), encoding="utf-8-sig", newline=None)

    def _head(self) -> tuple[list[list[str]], list[int]]:
        """The first rows that are not blank, and the line on which each ends."""
        rows, ends = [], []
        with self._lines() as lines:
            reader = csv.reader(lines, delimiter=self._delimiter)
            for row in reader:
                if row:
                    rows.append(row)
                    ends.append(reader.line_num)
                if len(rows) >= SAMPLE_ROWS:
                    break
        return rows, ends

    def _refuse_ragged(self, count: int) -> NoReturn:
        with self._lines() as lines:
            reader = csv.reader(lines, delimiter=self._delimiter)
            for row in reader:
                if row and reader.line_num > self._skip and len(row) != len(self.names):
                    break
            more = f"; {count - 1} more such lines" if count > 1 else ""
            raise UserError(
                f"{self.path} line {reader.line_num}: has {len(row)} cells; the header has {len(self.names)}{more}"
            )

    def _refuse_encoding(self) -> NoReturn:
        data = self.path.read_bytes()
        try:
            data.decode()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise UserError(f"{self.path} line {line}: byte {error.start} is not UTF-8; save as UTF-8") from None
        raise UserError(f"{self.path}: is not UTF-8 text; save as UTF-8")


def open_table(path: Path, empty: tuple[str, ...]) -> Table:
    with open(path, "rb") as file:
        start = file.read(1 << 12)
    if not start:
        raise UserError(f"{path}: is empty; expected a CSV or Parquet file of bars")
    if start.startswith(PARQUET_MAGIC):
        return ParquetTable(path, empty)
    if b"\0" in start and not start.startswith(b"\x1f\x8b"):  # gzip is read as CSV
        raise UserError(f"{path}: is neither UTF-8 CSV text nor a Parquet file")
    return CsvTable(path, empty)


def _text_rows(rows: list[list[str]]) -> int:
    """How many rows, from the first, hold text and no number: a header of several rows has several."""
    count = 0
    for row in rows:
        filled = [cell for cell in row if cell.strip()]
        if not filled or any(_is_number(cell) or re.match(r"\d{4}-\d\d", cell) for cell in filled):
            break
        count += 1
    return count


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _tuple_name(name: str) -> Name:
    """pandas writes a column of several header rows as `('Close', 'AAPL')`."""
    if name.startswith("(") and name.endswith(")"):
        try:
            parts = ast.literal_eval(name)
        except (ValueError, SyntaxError):
            return (name,)
        if isinstance(parts, tuple):
            return tuple(str(part).strip() for part in parts)
    return (name.strip(),)
