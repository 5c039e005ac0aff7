"""The report and the commands behind it: the answer first, everything in one file, and it opens in a browser."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import evaluate, needs_chromium
from bundles import PANEL
from desks import World, world

from kit.errors import UserError
from kit.files import write_json
from market.data import DataConfig
from market.panel import FIELDS
from market.sources.files import FileSource
from paper.exchange.faults import Fault
from paper.review import drift as drifts
from paper.review.commands import Review, report, review
from paper.review.compare import compare
from paper.review.drift import Finding
from paper.review.page import write
from paper.review.record import Incident, read

FIRST = 100
UNLIMITED = ("limits.gross=null", "limits.net_low=null", "limits.net_high=null", "limits.leverage=null")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a desk to which something happened, its bundle, and a file of the bars that it traded."""
    folder = tmp_path_factory.mktemp("desk")
    with world(folder, start=FIRST) as there, there.desk(*UNLIMITED, "orders.fractional=false") as desk:
        there.exchange.exchange.script.add([Fault(market="late", bar=105), Fault(market="reject", nth=9)])
        desk.run()
        _write_config(there)
    _write_bars(folder / "bars.csv")
    return folder


def _write_config(there: World) -> None:
    write_json(there.folder / "config.json", {"broker": {"kind": there.config().broker.kind}})


def _write_bars(file: Path) -> None:
    t, a = np.nonzero(PANEL.tradable)
    column = PANEL.observed["signal"]
    columns = {name: getattr(PANEL, name)[t, a] for name in FIELDS}
    columns |= {"signal": column.values[t, a], "known_at": column.known_at[t, a]}
    pd.DataFrame({"timestamp": PANEL.times[t], "symbol": np.array(PANEL.symbols)[a], **columns}).to_csv(
        file, index=False
    )


def data(folder: Path) -> DataConfig:
    return DataConfig(FileSource(folder / "bars.csv"))


@pytest.fixture(scope="module")
def reviewed(desk: Path) -> Review:
    return review(desk, desk / "bundle", data(desk))


def text_of(page: Path) -> str:
    return re.sub(r"<[^>]+>", " ", page.read_text(encoding="utf-8"))


def test_a_review_leaves_its_drift_for_the_desk(desk: Path, reviewed: Review) -> None:
    tree = json.loads((desk / "drift.json").read_text())
    assert tree["bars"] == len(PANEL) - FIRST - 1, "at the last bar there is nothing to decide"
    assert len(tree["findings"]) == len(reviewed.drift.findings)


def test_the_bars_of_a_file_are_compared_as_those_of_the_panel(desk: Path, reviewed: Review) -> None:
    own = compare(read(desk / "desk.db", reviewed.bundle.symbols), reviewed.bundle, PANEL)
    assert reviewed.comparison.missed == own.missed == 1
    np.testing.assert_allclose(reviewed.comparison.live, own.live, rtol=1e-12)
    np.testing.assert_allclose(reviewed.comparison.equal_weight, own.equal_weight, rtol=1e-9)


def test_at_alpaca_fills_are_taken_to_contain_no_costs(desk: Path, reviewed: Review, tmp_path: Path) -> None:
    (tmp_path / "desk.db").symlink_to(desk / "desk.db")
    write_json(tmp_path / "config.json", {"broker": {"kind": "alpaca"}})
    there = review(tmp_path, desk / "bundle", data(desk)).comparison
    assert there.charged.sum() == 0.0
    assert reviewed.comparison.charged.sum() > 0.0
    assert there.parts["costs"][-1] > 0, "the model charges, and nobody did"
    assert there.slippage.sum() == pytest.approx(reviewed.comparison.charged.sum(), rel=1e-3)


def test_the_answer_comes_first_and_is_that_of_the_comparison(desk: Path, reviewed: Review) -> None:
    page = report(desk, desk / "bundle", data(desk))
    assert page == desk / "report.html"
    said, earned = text_of(page), reviewed.comparison.live[-1] - 1.0
    first = said.index("The desk earned")
    assert said.index("Was it what was promised?") < first < said.index("Equity")
    number = f"{'+' if earned > 0 else '−'}{abs(earned) * 100:.1f}\u00a0%"
    assert said[first:].startswith(f"The desk earned {number}. Equal weight would have earned")
    for part in ("rounding", "timing", "fills", "no trade", "rejected", "sha256"):
        assert part in said
    assert "Missed or refused: 1 of 18 bars" in said


def test_the_page_needs_no_other_file_and_escapes_what_it_is_told(reviewed: Review, tmp_path: Path) -> None:
    evil = Incident("2026-01-05T21:00:00", "", "halt", "<script>alert(1)</script>")
    record = replace(reviewed.record, incidents=(evil,))
    html = write(replace(reviewed, record=record), tmp_path / "page.html").read_text()
    assert "<script>alert(1)" not in html
    assert not re.search(r"""(?:src|href)=["']?(?:http|//)""", html)


def test_the_page_says_so_where_nothing_happened_and_what_has_drifted(reviewed: Review, tmp_path: Path) -> None:
    quiet = replace(reviewed.record, incidents=())
    assert "None: no refusal" in text_of(write(replace(reviewed, record=quiet), tmp_path / "quiet.html"))
    finding = Finding("psi.signal", 1.0, 0.1, "critical", "signal has moved")
    moved = replace(reviewed, drift=replace(reviewed.drift, findings=(finding,)))
    assert text_of(write(moved, tmp_path / "moved.html")).count("Critical: signal has moved.") == 2


@needs_chromium
@pytest.mark.parametrize("width", [390, 1400])
def test_the_page_opens_without_an_error_and_is_no_wider_than_the_window(
    reviewed: Review, tmp_path: Path, width: int
) -> None:
    page = write(reviewed, tmp_path / "page.html")
    script = "const r = document.documentElement; return [r.dataset.error ?? '', r.scrollWidth - innerWidth]"
    assert evaluate(page, width, script) == ["", 0]


def test_other_settings_of_a_desk_than_it_writes_are_one_line(desk: Path, tmp_path: Path) -> None:
    (tmp_path / "desk.db").symlink_to(desk / "desk.db")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json: cannot be read"):
        review(tmp_path, desk / "bundle", data(desk))
    assert drifts.FILE not in {file.name for file in tmp_path.iterdir()}
