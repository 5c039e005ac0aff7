"""The market page: what a panel holds, how equal weight fared on it, and where bars are missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from kit import metrics
from kit.charts import POINTS, format_value
from kit.errors import UserError
from kit.page import Page
from market.clock import infer_bar
from market.panel import Panel

WINDOW = 60  # bars of rolling volatility
CORRELATED = 40  # symbols in the heat map
_AT_ONCE = 16  # columns worked on together, so that a wide panel needs no second copy of itself
_BUCKETS = 60
_CALENDAR = {"h": "hour", "D": "day", "M": "month", "Y": "year"}
_SIZES = {
    "day": np.timedelta64(1, "D"),
    "hour": np.timedelta64(1, "h"),
    "minute": np.timedelta64(1, "m"),
    "second": np.timedelta64(1, "s"),
}


class Report(Protocol):
    """Findings about the data, one a line."""

    def lines(self) -> list[str]: ...


@dataclass(frozen=True)
class _Survey:
    """What one pass over the panel's columns yields; R = T - 1 returns."""

    equal_weight: np.ndarray  # [R]
    sampled: np.ndarray  # [S] positions of returns at which a window of WINDOW ends
    rolling: np.ndarray  # [S] median over symbols of their rolling volatility
    first: np.ndarray  # [A] bar of the first and of the last trade; -1 without any
    last: np.ndarray  # [A]
    gaps: np.ndarray  # [A] bars missing between them
    zero_volume: np.ndarray  # [A] bars traded with no volume
    growth: np.ndarray  # [A] see `_growth`
    volatility: np.ndarray  # [A]
    worst_drawdown: np.ndarray  # [A]


def write_market_page(panel: Panel, path: str | Path, *, title: str, report: Report | None = None) -> Path:
    """Write the page of a panel; `report` adds what the quality check found."""
    if len(panel) < 2 or not panel.symbols:
        size = f"{len(panel)} bars of {len(panel.symbols)} symbols"
        raise UserError(f"{title}: the panel holds {size}; a page needs at least 2 bars of 1 symbol")
    survey = _survey(panel)
    times, years = panel.times, panel.bars_per_year
    page = Page(title, f"{len(panel.symbols):,} symbols, {len(panel):,} bars of {bar_name(panel)}, UTC")
    _key_figures(page, panel, survey)

    page.section("Equal weight")
    page.text(
        "The same share of wealth in every symbol listed so far, rebalanced at each bar, without costs; a symbol "
        "that could not be traded returns 0. Symbols that vanished before the data were gathered are not in it, so "
        "this may flatter."
    )
    wealth = metrics.equity(survey.equal_weight)
    spread = wealth.max() / wealth.min() if wealth.min() > 0 else 1.0
    page.lines("Equity", times, {"equal weight": wealth}, log=spread > 5, note=f"Of 1 at the start.{_scale(spread)}")
    fall = metrics.drawdown(survey.equal_weight)
    page.lines("Drawdown", times, {"equal weight": fall}, unit="%", area=True, note="Below the highest equity so far.")
    if len(survey.sampled):
        own = _rolling(survey.equal_weight, survey.sampled) * np.sqrt(years)
        page.lines(
            "Volatility",
            times[survey.sampled + 1],
            {"equal weight": own, "median of symbols": survey.rolling * np.sqrt(years)},
            unit="%",
            note=f"Of the last {WINDOW} bars, annualised with {years:,.0f} bars a year.{_sampling(survey.sampled)}",
        )

    page.section("Correlation")
    _correlation(page, panel)

    page.section("Missing bars")
    _missing(page, panel)
    page.section("Symbols")
    _symbols(page, panel, survey)
    if panel.observed:
        page.section("Observed columns")
        _observed(page, panel)
    if report is not None:
        page.section("Quality")
        page.bullets(report.lines() or ["Nothing was found wrong."])
    page.provenance({"Panel": f"sha256 {panel.hash}", "Bars a year": f"{years:,.0f}"})
    return page.write(path)


def equal_weight_returns(panel: Panel) -> np.ndarray:  # [T - 1]
    """Returns of the same share in every symbol listed before the bar, rebalanced at each bar, without costs."""
    return _survey(panel).equal_weight


def bar_name(panel: Panel) -> str:
    """`1 day`, `5 minutes`."""
    bar = infer_bar(panel.times)
    for name, size in _SIZES.items():
        count, rest = divmod(bar, size)
        if count and not rest:
            return f"{count} {name}" + ("s" if count > 1 else "")
    return str(bar)


def _survey(panel: Panel) -> _Survey:
    bars, width = panel.close.shape
    total, count = np.zeros(bars - 1), np.zeros(bars - 1)
    sampled = np.unique(np.linspace(WINDOW - 1, bars - 2, POINTS).astype(int)) if bars > WINDOW else np.zeros(0, int)
    rolling = np.empty((len(sampled), width))
    first, last, gaps = (np.full(width, -1) for _ in range(3))
    growth, volatility, worst = (np.full(width, np.nan) for _ in range(3))
    zero_volume = np.zeros(width, dtype=int)
    for start in range(0, width, _AT_ONCE):
        columns = slice(start, start + _AT_ONCE)
        returns = _returns(panel, columns)
        listed = ~np.isnan(returns)
        count += listed.sum(axis=0)
        total += np.where(listed, returns, 0.0).sum(axis=0)
        rolling[:, columns] = _rolling(returns, sampled).T
        traded = panel.tradable[:, columns]
        zero_volume[columns] = ((panel.volume[:, columns] == 0) & traded).sum(axis=0)
        for a, (own, seen) in enumerate(zip(returns, traded.T), start):
            at = np.flatnonzero(seen)
            if not len(at):
                continue
            first[a], last[a] = at[0], at[-1]
            gaps[a] = at[-1] - at[0] + 1 - len(at)
            own = own[at[0] : at[-1]]
            if len(own):
                growth[a] = _growth(own, panel)
                volatility[a] = metrics.volatility(own, panel.bars_per_year)
                worst[a] = metrics.max_drawdown(own)
    median = pd.DataFrame(rolling).median(axis=1).to_numpy()  # skips symbols not listed yet
    equal_weight = total / np.maximum(count, 1)
    return _Survey(equal_weight, sampled, median, first, last, gaps, zero_volume, growth, volatility, worst)


def _returns(panel: Panel, columns: slice) -> np.ndarray:  # [k, T - 1]
    """Simple returns of some symbols, one row each; NaN until a bar after the first."""
    close = np.ascontiguousarray(panel.close[:, columns].T)
    return close[:, 1:] / close[:, :-1] - 1.0


def _rolling(returns: np.ndarray, ends: np.ndarray) -> np.ndarray:  # [..., R], [S] -> [..., S]
    """Standard deviation of the WINDOW returns up to each end."""
    if not len(ends):
        return np.empty((*returns.shape[:-1], 0))
    windows = np.lib.stride_tricks.sliding_window_view(returns, WINDOW, axis=-1)
    return windows[..., ends - WINDOW + 1, :].std(axis=-1, ddof=1)


def _growth(returns: np.ndarray, panel: Panel) -> float:  # returns [R]
    """Return a year; over the whole span where the panel is shorter than a year, as it should not be extrapolated."""
    if len(panel) < panel.bars_per_year:
        return float(metrics.equity(returns)[-1] - 1.0)
    return float(metrics.cagr(returns, panel.bars_per_year))


def _growth_name(panel: Panel) -> str:
    return "Return" if len(panel) < panel.bars_per_year else "Annual return"


def _scale(spread: float) -> str:
    return " Logarithmic scale." if spread > 5 else ""


def _sampling(sampled: np.ndarray) -> str:
    bars = int(sampled[-1] - sampled[0] + 1)
    return f" Sampled at {len(sampled):,} of {bars:,} bars." if bars > len(sampled) else ""


def _key_figures(page: Page, panel: Panel, survey: _Survey) -> None:
    years, returns = panel.bars_per_year, survey.equal_weight
    spans = int((survey.last - survey.first + 1)[survey.first >= 0].sum())
    gaps = int(survey.gaps[survey.first >= 0].sum())
    start, stop = _moment(panel.times[0]), _moment(panel.times[-1])
    page.figures(
        [
            ("Symbols", f"{len(panel.symbols):,}", ""),
            ("Bars", f"{len(panel):,}", f"of {bar_name(panel)}"),
            ("First bar", *start),
            ("Last bar", *stop),
            ("Missing bars", format_value(gaps / spans if spans else np.nan, "%"), "from a symbol's first to last"),
            (_growth_name(panel), format_value(_growth(returns, panel), "%"), "equal weight"),
            ("Volatility", format_value(float(metrics.volatility(returns, years)), "%"), "equal weight, annual"),
            ("Sharpe ratio", format_value(float(metrics.sharpe(returns, years))), "equal weight, cash at 0\u00a0%"),
            ("Worst drawdown", format_value(float(metrics.max_drawdown(returns)), "%"), "equal weight"),
            ("Observed columns", f"{len(panel.observed)}", ", ".join(list(panel.observed)[:3])),
        ]
    )


def _moment(time: np.datetime64) -> tuple[str, str]:
    date, clock = str(time.astype("datetime64[m]")).split("T")
    return date, "" if clock == "00:00" else f"{clock} UTC"


def _correlation(page: Page, panel: Panel) -> None:
    symbols = panel.symbols[:CORRELATED]
    matrix = pd.DataFrame(_returns(panel, slice(0, CORRELATED)).T).corr(min_periods=2).to_numpy()
    others = len(panel.symbols) - len(symbols)
    note = "Of returns per bar, over the bars that both symbols have."
    if others:
        note += f" The first {len(symbols)} symbols; {others:,} more are not shown."
    page.heatmap("Correlation of returns", symbols, symbols, matrix, limit=1.0, note=note)


def _missing(page: Page, panel: Panel) -> None:
    absent = len(panel.symbols) - panel.tradable.sum(axis=1)  # [T]
    if not absent.any():
        page.text("Every symbol has every bar.")
        return
    for unit in _CALENDAR:
        begins, start = np.unique(panel.times.astype(f"datetime64[{unit}]"), return_index=True)
        if len(begins) <= _BUCKETS:
            break
    cells = np.diff(np.append(start, len(panel))) * len(panel.symbols)
    page.bars(
        f"Missing per {_CALENDAR[unit]}",
        begins,
        np.add.reduceat(absent, start) / cells,
        unit="%",
        note="Share of symbols and bars that could not be traded; the time before a symbol's first bar counts too.",
    )


def _symbols(page: Page, panel: Panel, survey: _Survey) -> None:
    known = survey.first >= 0
    spans = np.where(known, survey.last - survey.first + 1, 1)
    precision = "D" if infer_bar(panel.times) >= np.timedelta64(1, "D") else "m"
    dated = panel.times.astype(f"datetime64[{precision}]")
    never = np.datetime64("NaT")
    page.table(
        "Each symbol",
        {
            "Symbol": panel.symbols,
            "First bar": np.where(known, dated[survey.first], never),
            "Last bar": np.where(known, dated[survey.last], never),
            "Missing": np.where(known, survey.gaps / spans, np.nan),
            "Zero volume": survey.zero_volume,
            _growth_name(panel): survey.growth,
            "Volatility": survey.volatility,
            "Worst drawdown": survey.worst_drawdown,
        },
        units=dict.fromkeys(("Missing", _growth_name(panel), "Volatility", "Worst drawdown"), "%"),
        note="Missing: share of bars absent between the first and the last. Zero volume: bars that report no trade.",
    )


def _observed(page: Page, panel: Panel) -> None:
    shares, starts = [], []
    for column in panel.observed.values():
        known = ~np.isnan(column.values)
        rows = known.any(axis=1)
        shares.append(known.mean())
        starts.append(panel.closes[rows.argmax()] if rows.any() else np.datetime64("NaT"))
    page.table(
        "Known beside the bars",
        {
            "Column": list(panel.observed),
            "Known": np.array(shares),
            "First known at": np.array(starts, dtype="datetime64[m]"),
        },
        units={"Known": "%"},
        note="Known: share of symbols and bars with a value. First known at: the close of the first bar with one, UTC.",
    )
