"""The market page: equal weight by hand, what it says about gaps, and that it opens in a browser."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from browser import dump_dom, evaluate, needs_chromium

from kit.errors import UserError
from market.page import bar_name, equal_weight_returns, write_market_page
from market.panel import Observed, Panel

NAN = float("nan")


def panel_of(
    close: np.ndarray,  # [T, A]; NaN before a symbol's first bar
    tradable: np.ndarray | None = None,
    symbols: tuple[str, ...] | None = None,
    minutes: int = 24 * 60,
    bars_per_year: float = 252.0,
    observed: dict[str, Observed] | None = None,
) -> Panel:
    close = np.asarray(close, dtype=np.float64)
    bars, width = close.shape
    step = np.timedelta64(minutes, "m")
    times = (np.datetime64("2020-01-01T00:00") + np.arange(bars) * step).astype("datetime64[ns]")
    seen = ~np.isnan(close) if tradable is None else np.asarray(tradable)
    return Panel(
        symbols=symbols or tuple(f"S{i}" for i in range(width)),
        times=times,
        closes=times + step,
        open=close.copy(),
        high=close.copy(),
        low=close.copy(),
        close=close,
        volume=np.where(seen, 100.0, 0.0),
        tradable=seen,
        bars_per_year=bars_per_year,
        observed=observed or {},
    )


def walk(bars: int, width: int, seed: int = 0) -> np.ndarray:
    return 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.01, (bars, width)), axis=0))


def test_equal_weight_of_two_symbols_by_hand() -> None:
    # bar 1: +10 % and -20 % -> -5 %; bar 2: 0 % (a gap) and +50 % -> +25 %
    panel = panel_of([[100, 50], [110, 40], [110, 60]], [[True, True], [True, True], [False, True]])
    assert np.allclose(equal_weight_returns(panel), [-0.05, 0.25])


def test_a_symbol_joins_only_after_its_first_bar() -> None:
    # S1 is first seen at bar 1, so it can be held from there on: bar 1 is S0 alone
    panel = panel_of([[100, NAN], [110, 40], [121, 60]])
    assert np.allclose(equal_weight_returns(panel), [0.10, (0.10 + 0.50) / 2])


def test_before_any_listing_equal_weight_returns_nothing() -> None:
    panel = panel_of([[NAN, NAN], [100, NAN], [110, NAN]])
    assert np.allclose(equal_weight_returns(panel), [0.0, 0.10])


def test_wide_panels_in_chunks_equal_the_plain_formula() -> None:
    close = walk(50, 37)
    panel = panel_of(close)
    assert np.allclose(equal_weight_returns(panel), (close[1:] / close[:-1] - 1).mean(axis=1))


def test_no_return_moves_when_the_future_does() -> None:
    close = walk(100, 5)
    changed = close.copy()
    changed[60:] *= np.random.default_rng(1).uniform(0.5, 2, changed[60:].shape)
    before, after = equal_weight_returns(panel_of(close)), equal_weight_returns(panel_of(changed))
    assert np.array_equal(before[:59], after[:59])
    assert not np.array_equal(before, after)


def figures_of(html: str) -> dict[str, str]:
    return dict(re.findall(r'<dt>([^<]*)</dt><dd class="value">([^<]*)</dd>', html))


def table_of(html: str, title: str) -> dict[str, list[str]]:
    body = html.split(f"<h3>{title}</h3>")[1].split("</table>")[0]
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in body.split("<tr>")[2:]]
    return {row[0]: row[1:] for row in rows}


def test_page_states_the_figures(tmp_path: Path) -> None:
    close = np.array([[100.0, 10.0], [50.0, 10.0], [75.0, 10.0], [75.0, 10.0]])
    panel = panel_of(close, [[True, True], [True, False], [True, True], [True, False]], bars_per_year=4.0)
    html = write_market_page(panel, tmp_path / "page.html", title="Two").read_text()
    figures = figures_of(html)
    assert figures["Symbols"] == "2"
    assert figures["Bars"] == "4"
    assert figures["First bar"] == "2020-01-01"
    assert figures["Last bar"] == "2020-01-04"
    # S0 has 4 of 4 bars, S1 two of the three from its first to its last: 1 of 7 is missing
    assert figures["Missing bars"] == "14.3\u00a0%"
    # equal weight returns -25 %, +25 %, 0 %: down to 0.75, then 0.9375
    assert figures["Worst drawdown"] == "−25.0\u00a0%"
    # a year of 4 bars, 3 returns: 0.9375 ** (4 / 3) - 1
    assert figures["Annual return"] == "−8.2\u00a0%"
    each = table_of(html, "Each symbol")
    assert each["S0"][:4] == ["2020-01-01", "2020-01-04", "0.0\u00a0%", "0"]
    assert each["S0"][6] == "−50.0\u00a0%"
    assert each["S1"][:3] == ["2020-01-01", "2020-01-03", "33.3\u00a0%"]


def test_less_than_a_year_is_not_extrapolated(tmp_path: Path) -> None:
    html = write_market_page(panel_of([[100.0], [110.0]]), tmp_path / "page.html", title="Short").read_text()
    figures = figures_of(html)
    assert figures["Return"] == "10.0\u00a0%"
    assert figures["Sharpe ratio"] == "–"  # one return has no spread
    assert "Annual return" not in html


def test_a_symbol_that_never_traded_gets_dashes(tmp_path: Path) -> None:
    panel = panel_of([[100, NAN], [110, NAN], [121, NAN]])
    html = write_market_page(panel, tmp_path / "page.html", title="t").read_text()
    assert table_of(html, "Each symbol")["S1"] == ["–", "–", "–", "0", "–", "–", "–"]


def test_zero_volume_counts_only_bars_that_traded(tmp_path: Path) -> None:
    panel = panel_of(np.full((4, 1), 5.0), [[True], [False], [True], [True]])
    volume = panel.volume.copy()
    volume[3] = 0.0
    panel = Panel(**{**vars(panel), "volume": volume})
    html = write_market_page(panel, tmp_path / "page.html", title="t").read_text()
    assert table_of(html, "Each symbol")["S0"][3] == "1"


def test_rolling_volatility_is_that_of_the_last_sixty_returns(tmp_path: Path) -> None:
    close = walk(70, 3)
    html = write_market_page(panel_of(close), tmp_path / "page.html", title="t").read_text()
    data = html.split("<h3>Volatility</h3>")[1].split('<script type="application/json">')[1].split("</script>")[0]
    drawn = re.search(r'"v":\[\[([^\]]*)\],\[([^\]]*)\]\]', data)
    assert drawn is not None
    returns = close[1:] / close[:-1] - 1
    own = returns.mean(axis=1)[-60:].std(ddof=1) * np.sqrt(252)
    median = np.median(returns[-60:].std(axis=0, ddof=1)) * np.sqrt(252)
    assert [float(part.split(",")[-1]) for part in drawn.groups()] == pytest.approx([own, median], rel=1e-5)
    assert all(len(part.split(",")) == 10 for part in drawn.groups())  # 69 returns hold 10 windows


def test_heat_map_is_capped_and_says_so(tmp_path: Path) -> None:
    html = write_market_page(panel_of(walk(30, 45)), tmp_path / "page.html", title="t").read_text()
    assert "The first 40 symbols; 5 more are not shown." in html
    assert '"columns":["S0",' in html
    assert '"S40"' not in html


def test_missing_bars_are_drawn_per_bucket_or_said_to_be_none(tmp_path: Path) -> None:
    whole = write_market_page(panel_of(walk(30, 2)), tmp_path / "whole.html", title="t").read_text()
    assert "Every symbol has every bar." in whole
    tradable = np.ones((48, 2), dtype=bool)
    tradable[24:36, 0] = False  # 12 of the 48 cells of the second day
    panel = panel_of(walk(48, 2), tradable, minutes=60)
    html = write_market_page(panel, tmp_path / "gap.html", title="t").read_text()
    assert "Missing per hour" in html
    longer = panel_of(walk(80 * 24, 2), np.tile(tradable, (40, 1)), minutes=60)
    html = write_market_page(longer, tmp_path / "month.html", title="t").read_text()
    data = html.split("<h3>Missing per month</h3>")[1]
    assert '"v":[[0.120968' in data  # January: 15 of 31 days lack a quarter of their cells


def test_observed_columns_and_the_quality_report_are_listed(tmp_path: Path) -> None:
    class Findings:
        def lines(self) -> list[str]:
            return ["3 rows <dropped>"]

    close = walk(4, 2)
    values = np.array([[NAN, NAN], [1.0, NAN], [1.0, 2.0], [1.0, 2.0]])
    panel = panel_of(close)
    known = np.where(np.isnan(values), np.datetime64("NaT"), panel.closes[:, None])
    panel = panel_of(close, observed={"vix": Observed(values, known)})
    html = write_market_page(panel, tmp_path / "page.html", title="t", report=Findings()).read_text()
    assert table_of(html, "Known beside the bars")["vix"] == ["62.5\u00a0%", "2020-01-03 00:00"]
    assert "3 rows &lt;dropped&gt;" in html


@pytest.mark.parametrize(("bars", "width"), [(0, 2), (1, 2), (3, 0)])
def test_a_panel_without_a_return_is_refused_in_one_line(tmp_path: Path, bars: int, width: int) -> None:
    panel = panel_of(np.full((bars, width), 1.0), symbols=tuple("ab"[:width]))
    with pytest.raises(UserError, match=rf"Mine: the panel holds {bars} bars of {width} symbols; a page needs"):
        write_market_page(panel, tmp_path / "page.html", title="Mine")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("minutes", "name"), [(1, "1 minute"), (15, "15 minutes"), (60, "1 hour"), (1440, "1 day")])
def test_bar_name(minutes: int, name: str) -> None:
    assert bar_name(panel_of(walk(3, 1), minutes=minutes)) == name


@needs_chromium
@pytest.mark.parametrize("width", [400, 1400])
def test_market_page_opens_without_error_or_sideways_scroll(tmp_path: Path, width: int) -> None:
    tradable = np.random.default_rng(0).random((400, 45)) > 0.1
    tradable[0] = True
    panel = panel_of(walk(400, 45), tradable, symbols=tuple(f"LONGNAME{i}.X" for i in range(45)))
    path = write_market_page(panel, tmp_path / "page.html", title="A market with a long name " * 4)
    dom = dump_dom(path, width)
    assert 'data-ready="yes"' in dom[:200]
    assert "data-error" not in dom[:400]
    inner, content = evaluate(path, width, "return [innerWidth, document.documentElement.scrollWidth]")
    assert inner == width
    assert content <= inner
