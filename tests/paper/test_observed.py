"""Columns beside the bars, live: what was known at each close and no more; missing or late is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from endpoint import grid, moment
from panels import random_panel

from kit.errors import UserError
from market.panel import Observed, Panel
from paper.bars import Stale
from paper.config import BrokerColumns, DataConfig, FileColumns, HttpColumns
from paper.observed import FromJson, source_of, with_columns

WHOLE = random_panel(4, bars=40, symbols=3, gaps=False)
PANEL = WHOLE[:30]
BARE = Panel(PANEL.symbols, PANEL.times, PANEL.closes, PANEL.open, PANEL.high, PANEL.low, PANEL.close, PANEL.volume,
             PANEL.tradable, PANEL.bars_per_year)  # fmt: skip


def answer(panel: Panel = PANEL, **more: Any) -> dict[str, Any]:
    column = panel.observed["signal"]
    known_at = [[moment(t) for t in row] for row in column.known_at.T]
    told = {"signal": {"values": grid(column.values), "known_at": known_at}}
    return {"symbols": list(panel.symbols), "times": [moment(t) for t in panel.times], "columns": told} | more


@contextmanager
def served(body: bytes, status: int = 200) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/columns"
    server.shutdown()
    server.server_close()


def equal(found: Observed, expected: Observed) -> None:
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.known_at, expected.known_at)


def test_a_broker_a_server_and_a_file_give_the_panels_own_column(tmp_path: Path):
    expected = PANEL.observed["signal"]
    asked = []

    def ask(start: str, stop: str) -> dict[str, Any]:
        asked.append((start, stop))
        return answer()

    source = source_of(DataConfig(BrokerColumns()), ask)
    equal(with_columns(BARE, source, ["signal"], 1).observed["signal"], expected)
    assert asked == [(moment(PANEL.times[0]), moment(PANEL.closes[-1]))]
    with served(json.dumps(answer()).encode()) as url:
        source = source_of(DataConfig(HttpColumns(url)), None)
        equal(with_columns(BARE, source, ["signal"], 1).observed["signal"], expected)
    rows = [(s, PANEL.closes[t], expected.values[t, a]) for t in range(30) for a, s in enumerate(PANEL.symbols)
            if not np.isnan(expected.values[t, a])]  # fmt: skip
    pd.DataFrame(rows, columns=["symbol", "known_at", "signal"]).to_csv(tmp_path / "signal.csv", index=False)
    source = source_of(DataConfig(FileColumns(tmp_path / "signal.csv")), None)
    equal(with_columns(BARE, source, ["signal"], 1).observed["signal"], expected)


def test_what_is_known_later_is_not_seen():
    """The server tells more than was known at the close; none of it arrives."""
    found = FromJson(lambda start, stop: answer(WHOLE)).columns(BARE)
    equal(found["signal"], PANEL.observed["signal"])


def test_a_value_that_is_late_is_refused_and_named():
    late = answer()
    late["columns"]["signal"]["known_at"][1][-1] = moment(PANEL.closes[-1] + np.timedelta64(1, "s"))
    with pytest.raises(Stale, match=f"signal of {PANEL.symbols[1]} is of .*; expected one after"):
        with_columns(BARE, FromJson(lambda start, stop: late), ["signal"], 1)
    assert with_columns(BARE, FromJson(lambda start, stop: late), ["signal"], 2).observed["signal"].values.shape


def test_a_column_that_is_missing_is_refused():
    with pytest.raises(Stale, match="no column mood"):
        with_columns(BARE, FromJson(lambda start, stop: answer()), ["signal", "mood"], 1)
    with pytest.raises(UserError, match="expected where they come from"):
        with_columns(BARE, None, ["signal"], 1)
    assert with_columns(BARE, None, [], 1) is BARE
    with pytest.raises(UserError, match="only a local exchange"):
        source_of(DataConfig(BrokerColumns()), None)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"columns": {"signal": 3}, "symbols": [], "times": []}'])
def test_nonsense_is_stale(body: bytes):
    with served(body) as url, pytest.raises(Stale):
        with_columns(BARE, source_of(DataConfig(HttpColumns(url)), None), ["signal"], 1)


def test_a_server_that_fails_is_stale():
    with served(b"no", 500) as url, pytest.raises(Stale, match="answered 500"):
        with_columns(BARE, source_of(DataConfig(HttpColumns(url)), None), ["signal"], 1)
    with pytest.raises(Stale, match="ConnectionError"):
        with_columns(BARE, source_of(DataConfig(HttpColumns("http://127.0.0.1:9/x")), None), ["signal"], 1)


def test_a_file_that_is_gone_is_stale(tmp_path: Path):
    with pytest.raises(Stale, match="no such file"):
        with_columns(BARE, source_of(DataConfig(FileColumns(tmp_path / "gone.csv")), None), ["signal"], 1)
