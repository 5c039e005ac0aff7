"""How the ensemble and equal weight fared in different states of the market."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from kit import metrics
from market.page import equal_weight_returns
from market.synth import SynthSource
from tournament.arena import Arena
from tournament.config import TournamentConfig
from tournament.report.drawings import Report
from tournament.report.material import ENSEMBLE, EQUAL, Material

VOLATILITY, TREND = 60, 200  # bars behind each
LEAST = 20  # bars that a figure needs
STRESS = {
    "2007–2009 financial crisis": ("2007-10-09", "2009-03-09"),
    "2020 pandemic": ("2020-02-19", "2020-03-23"),
    "2022 rise of interest rates": ("2022-01-03", "2022-10-12"),
}
LEVELS, TRENDS = ("calm", "middling", "turbulent"), ("rising", "falling")


def add(page: Report, config: TournamentConfig, arena: Arena, material: Material) -> None:
    page.section("States of the market")
    seen = arena.panel[: material.folds[-1].spans.test.stop + 1]
    labels = regimes(equal_weight_returns(seen))[-len(material.theirs.returns) :]
    rows = {name: labels == name for name in sorted(set(labels), key=_rank) if name}
    if rows:
        _table(
            page,
            "Regimes",
            "State",
            rows,
            material,
            "Returns are a year's. States are those of equal weight without costs, by what was known the bar before: "
            f"its volatility over {VOLATILITY} bars, among thirds of all earlier ones, and whether it stood above its "
            f"mean of {TREND} bars.",
        )
    else:
        page.text(f"The bars are too few for regimes: {TREND} are needed before the first test day.")
    _stress(page, config, material)


def regimes(returns: np.ndarray) -> np.ndarray:  # [T] -> [T] texts, "" where too little is known
    """The state in which each bar began: nothing of the bar itself or later ones is in its label."""
    series = pd.Series(returns)
    volatility = series.rolling(VOLATILITY).std()
    level = (volatility > volatility.expanding(VOLATILITY).quantile(1 / 3)).astype(int)
    level += (volatility > volatility.expanding(VOLATILITY).quantile(2 / 3)).astype(int)
    wealth = pd.Series(metrics.equity(returns)[1:])
    mean = wealth.rolling(TREND).mean()
    known = mean.notna() & volatility.expanding(VOLATILITY).quantile(1 / 3).notna()
    names = np.array([f"{level}, {trend}" for level in LEVELS for trend in TRENDS])
    now = np.where(known, names[level.to_numpy() * 2 + (wealth <= mean).to_numpy()], "")
    return np.concatenate([[""], now[:-1]])


def _rank(name: str) -> tuple[int, int]:
    level, _, trend = name.partition(", ")
    return (LEVELS.index(level), TRENDS.index(trend)) if trend else (-1, 0)


def _stress(page: Report, config: TournamentConfig, material: Material) -> None:
    dates = material.theirs.dates.astype("datetime64[D]")
    rows: dict[str, np.ndarray] = {}
    invented = isinstance(config.data.source, SynthSource)
    for name, (first, last) in {} if invented else STRESS.items():
        if dates[0] <= np.datetime64(first) and dates[-1] >= np.datetime64(last):
            rows[name] = (dates >= np.datetime64(first)) & (dates <= np.datetime64(last))
    within = len(rows)
    worst = deepest(material.theirs.returns)
    if worst.stop > worst.start:
        name = f"deepest fall, {dates[worst.start]} to {dates[worst.stop - 1]}"
        rows[name] = np.isin(np.arange(len(dates)), np.arange(worst.start, worst.stop))
    if rows:
        _table(
            page,
            "Under stress",
            "Window",
            rows,
            material,
            "Of the whole window, not a year's. Deepest fall: of equal weight on these days.",
            whole=True,
        )
    if not within:
        reason = "the built-in market's dates are made up" if invented else "none lies within the test days"
        page.text(f"Known crises ({', '.join(STRESS)}) are left out: {reason}.")


def deepest(returns: np.ndarray) -> slice:  # [T]
    """The bars from the peak to the bottom of the worst drawdown; empty where nothing was ever lost."""
    wealth = metrics.equity(returns)
    bottom = int(np.argmin(metrics.drawdown(returns)))
    return slice(int(np.argmax(wealth[: bottom + 1])), bottom)


def _table(
    page: Report, title: str, head: str, rows: dict[str, np.ndarray], material: Material, note: str, whole: bool = False
) -> None:
    tracks = {name: track for name, track in material.tracks.items() if name in (ENSEMBLE, EQUAL)}
    year = material.theirs.bars_per_year
    columns: dict[str, np.ndarray] = {"Bars": np.array([int(mask.sum()) for mask in rows.values()])}
    for name, track in tracks.items():
        found = [track.returns[mask] for mask in rows.values()]
        if whole:
            columns[f"Return, {name}"] = np.array([float(metrics.equity(part)[-1] - 1.0) for part in found])
            columns[f"Drawdown, {name}"] = np.array([float(metrics.max_drawdown(part)) for part in found])
        else:
            columns[f"Return, {name}"] = np.array([_known(part, metrics.cagr, year) for part in found])
            columns[f"Sharpe, {name}"] = np.array([_known(part, metrics.sharpe, year) for part in found])
    units = dict.fromkeys([name for name in columns if name.startswith(("Return", "Drawdown"))], "%")
    less = "" if whole else f" A dash: fewer than {LEAST} bars."
    page.table(title, {head: list(rows), **columns}, units=units, note=note + less)


def _known(returns: np.ndarray, figure: Callable[[np.ndarray, float], np.ndarray], year: float) -> float:
    return float(figure(returns, year)) if len(returns) >= LEAST else np.nan
