"""Is what the desk sees still what its members were trained on?

For every feature, the share of live values in each bin of the train span's histogram is held against
the train span's own by two numbers. The population stability index is sum of (p - q) · ln(p / q): 0
for equal shares, about 1 where the mean has moved by a standard deviation; above 0.1 it is customary to
look, above 0.25 to act. The Kolmogorov-Smirnov distance is the largest gap between the two cumulative
shares, here at the bins' edges only, so it may be smaller than that of the values themselves.

Both are above 0 by chance alone, and the more so as symbols move together and a feature that looks
back k bars hardly changes from one bar to the next. So a limit is never below what chance explains:
live bars are cut into blocks no shorter than the feature's memory; how much shares differ between blocks
says how much their mean may be off (Rao and Scott's correction, with Satterthwaite's degrees of
freedom). Where nothing has changed, all features together raise an alarm in ALARM of all looks, at most.
What has changed more slowly than a block, as the volatility of a market does, counts as changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.stats import chi2, f

from agents.bundle import Bundle
from agents.reference import Histogram
from kit.files import write_json
from kit.metrics import drawdown
from market.panel import Panel
from paper.review.compare import rows_of
from paper.review.record import Record

FILE = "drift.json"  # in the desk's folder
ALARM = 0.01
PSI, KS = (0.1, 0.25), (0.1, 0.2)  # from where on it is worth a warning, and worse
BLOCKS = (8, 20)  # fewer do not tell how much blocks differ
APART = (2.0, 3.0)  # times the dispersion of the walk-forward
ENOUGH = 20  # bars, for dispersion and drawdown
Level = Literal["info", "warning", "critical"]


@dataclass(frozen=True)
class Shift:
    """How far one feature has moved. The limits are what chance may explain; NaN: there are too few bars to tell."""

    name: str
    psi: float
    psi_limit: float
    ks: float
    ks_limit: float
    bars_needed: int

    @property
    def judged(self) -> bool:
        return not np.isnan(self.psi_limit)


@dataclass(frozen=True)
class Finding:
    name: str
    value: float
    limit: float
    level: Level
    text: str


@dataclass(frozen=True)
class Drift:
    at: str  # the last close that was looked at
    bars: int
    shifts: tuple[Shift, ...]
    dispersion: float  # over that of the walk-forward; NaN where members do not differ there
    drawdown: float  # the deepest
    expected_drawdown: float  # of the walk-forward
    findings: tuple[Finding, ...]


def drift(record: Record, bundle: Bundle, panel: Panel) -> Drift:
    """The bars from the first close that the desk handled to the last."""
    rows = rows_of(record, panel)
    span = slice(int(rows[0]), int(rows[-1]) + 1)
    values = bundle.market(panel).features[span].numpy().astype(np.float64)  # [T, A, F]
    listed, names = panel.listed[span], bundle.lens.scaler.names
    memory = {name: part.warmup for part in bundle.features.transforms for name in part.names}
    histograms = bundle.reference.features
    alpha = ALARM / (2 * len(names))
    shifts = [
        shift(name, values[:, :, k], listed, histograms[name], memory[name], alpha) for k, name in enumerate(names)
    ]
    usual, known = bundle.reference.dispersion, record.dispersion[record.answered]
    apart = float(known.mean()) / usual if usual > 0 and len(known) >= ENOUGH else np.nan
    equity = record.equity[record.decided]
    deepest = float(drawdown(np.diff(equity) / equity[:-1]).min())
    least = bundle.reference.walk_forward.drawdown
    findings = [finding for one in shifts for finding in _of_shift(one)]
    if apart > APART[0]:
        text = f"members are {apart:.1f} times as far apart as on the walk-forward"
        findings.append(Finding("dispersion", apart, APART[0], "critical" if apart > APART[1] else "warning", text))
    if len(equity) >= ENOUGH and deepest < least:
        text = f"the drawdown is {-deepest:.1%}; on the walk-forward it was {-least:.1%} at most"
        findings.append(Finding("drawdown", deepest, least, "warning", text))
    if unknown := [one.name for one in shifts if not one.judged]:
        needed = max(one.bars_needed for one in shifts)
        text = f"{len(values)} bars are too few to judge {', '.join(unknown)}; with {needed} all can be"
        findings.append(Finding("bars", float(len(values)), float(needed), "info", text))
    at = f"{np.datetime_as_string(record.closes[-1], 's')}Z"
    return Drift(at, len(values), tuple(shifts), apart, deepest, least, tuple(findings))


def write(folder: Path, drift: Drift) -> Path:
    """What the desk picks up: {"at", "bars", "findings": [{"name", "value", "limit", "level", "text"}]}."""
    findings = [asdict(finding) for finding in drift.findings]
    return write_json(folder / FILE, {"at": drift.at, "bars": drift.bars, "findings": findings})


def shift(
    name: str,
    values: np.ndarray,  # [T, A]
    listed: np.ndarray,  # [T, A] bool
    histogram: Histogram,
    memory: int,  # bars that a value looks back
    alpha: float,  # chance of an alarm by each of the two numbers, where nothing has changed
) -> Shift:
    expected = np.array(histogram.frequencies)
    bins = len(expected)
    places = np.searchsorted(histogram.edges, values, side="right")  # [T, A]
    counts = np.stack([((places == b) & listed).sum(axis=1) for b in range(bins)], axis=1)  # [T, B]
    total = counts.sum()
    live = counts.sum(axis=0) / max(total, 1)
    index, distance = stability(live, expected, float(total)), largest_gap(live, expected)
    length = max(memory, -(-len(values) // BLOCKS[1]), 1)
    blocks = len(values) // length
    if blocks < BLOCKS[0] or bins < 2:
        return Shift(name, index, np.nan, distance, np.nan, BLOCKS[0] * length)
    summed = counts[len(values) - blocks * length :].reshape(blocks, length, bins).sum(axis=1)  # [K, B]
    shares = summed / np.maximum(summed.sum(axis=1, keepdims=True), 1)
    apart = (shares - shares.mean(axis=0)) / np.sqrt(np.maximum(expected, 1.0 / total))
    covariance = apart.T @ apart / (blocks - 1) / blocks  # of the mean, [B, B]
    covariance /= 1.0 - memory / (3.0 * length)  # neighbouring blocks share what a value looks back on
    whole, squares = max(float(np.trace(covariance)), (bins - 1) / total), float((covariance**2).sum())
    freedom = min(bins - 1.0, whole**2 / squares) if squares > 0 else bins - 1.0
    chance = whole * float(f.ppf(1.0 - alpha, freedom, freedom * (blocks - 1)))
    effective = (bins - 1) / whole  # as many independent values say as much
    unsure = chance / (whole * float(chi2.ppf(1.0 - alpha, freedom)) / freedom)
    gap = np.sqrt(-np.log(alpha / 2.0) / (2.0 * effective) * unsure * (bins - 1) / freedom)
    return Shift(name, index, chance, distance, float(gap), BLOCKS[0] * length)


def stability(live: np.ndarray, expected: np.ndarray, count: float) -> float:  # [B], [B]
    """The population stability index; an empty bin counts as half a value."""
    least = 0.5 / max(count, 1.0)
    p, q = np.maximum(live, least), np.maximum(expected, least)
    return float(((p - q) * np.log(p / q)).sum())


def largest_gap(live: np.ndarray, expected: np.ndarray) -> float:  # [B], [B]
    """Kolmogorov-Smirnov, at the bins' edges."""
    return float(np.abs(np.cumsum(live - expected)).max())


def _of_shift(one: Shift) -> Sequence[Finding]:
    if not one.judged:
        return []
    found = []
    kinds = (("psi", one.psi, one.psi_limit, PSI), ("ks", one.ks, one.ks_limit, KS))
    for kind, value, chance, (worth, much) in kinds:
        limit = max(worth, chance)
        if value > limit:
            word = {"psi": "stability index", "ks": "Kolmogorov-Smirnov distance"}[kind]
            text = f"{one.name} has moved from what training saw: {word} {value:.2f}, limit {limit:.2f}"
            level: Level = "critical" if value > max(much, chance) else "warning"
            found.append(Finding(f"{kind}.{one.name}", value, limit, level, text))
    return found
