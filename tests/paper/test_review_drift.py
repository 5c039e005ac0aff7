"""Drift: known answers, and how often it is wrong where nothing has changed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundles import PANEL, saved
from scipy.stats import norm

from agents.reference import Histogram
from market.panel import Panel
from paper.review.drift import ALARM, Drift, drift, largest_gap, shift, stability, write
from paper.review.record import Record

NORMAL = Histogram(tuple(norm.ppf(np.arange(1, 10) / 10).tolist()), (0.1,) * 10)


def moving(rng: np.random.Generator, bars: int, symbols: int, memory: int, together: float) -> np.ndarray:
    """[T, A] standard normal: means over `memory` bars, with a part that all symbols share."""

    def smooth(width: int) -> np.ndarray:
        walked = np.cumsum(rng.standard_normal((bars + memory + 1, width)), axis=0)
        return ((walked[memory:] - walked[:-memory]) / np.sqrt(memory))[:bars]

    return np.sqrt(together) * smooth(1) + np.sqrt(1 - together) * smooth(symbols)


def test_the_stability_index_by_hand() -> None:
    live, expected = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    assert stability(live, expected, 100) == pytest.approx(0.25 * np.log(2) - 0.25 * np.log(2 / 3))
    assert stability(expected, expected, 100) == 0.0
    assert stability(np.array([0.0, 1.0]), live, 100) == pytest.approx(-0.495 * np.log(0.01) + 0.5 * np.log(2))


def test_the_largest_gap_by_hand() -> None:
    assert largest_gap(np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])) == pytest.approx(0.3)
    assert largest_gap(np.array([0.2, 0.6, 0.2]), np.array([0.4, 0.2, 0.4])) == pytest.approx(0.2)


def test_a_mean_that_moved_by_a_standard_deviation_has_an_index_of_nearly_one() -> None:
    values = np.random.default_rng(1).standard_normal((400, 250)) + 1.0
    found = shift("x", values, np.ones(values.shape, bool), NORMAL, 1, ALARM)
    shares = np.diff(norm.cdf([-np.inf, *NORMAL.edges, np.inf], loc=1.0))
    assert found.psi == pytest.approx(((shares - 0.1) * np.log(shares / 0.1)).sum(), rel=0.02)
    assert found.ks == pytest.approx(np.abs(np.cumsum(shares - 0.1)).max(), rel=0.02)
    assert 0.9 < found.psi < 1.0
    assert found.psi > 10 * found.psi_limit
    assert found.ks > 10 * found.ks_limit


@pytest.mark.parametrize(
    ("bars", "symbols", "memory", "together"), [(60, 10, 1, 0.0), (250, 10, 1, 0.5), (250, 10, 10, 0.5)]
)
def test_chance_alone_alarms_about_as_often_as_stated_and_a_shift_is_found(
    bars: int, symbols: int, memory: int, together: float
) -> None:
    rng, tries, alpha = np.random.default_rng(2), 200, 0.02
    listed = np.ones((bars, symbols), bool)
    alarms, found = np.zeros(2), np.zeros(2)
    for _ in range(tries):
        values = moving(rng, bars, symbols, memory, together)
        for counts, moved in ((alarms, 0.0), (found, 1.0)):
            one = shift("x", values + moved, listed, NORMAL, memory, alpha)
            counts += [one.psi > one.psi_limit, one.ks > one.ks_limit]
    assert (alarms / tries).max() <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / tries)
    assert (found / tries).min() > 0.8


def test_what_is_not_listed_does_not_count() -> None:
    values = np.random.default_rng(3).standard_normal((100, 6))
    listed = np.ones(values.shape, bool)
    listed[:50, :2] = False
    spoilt = np.where(listed, values, 99.0)
    assert shift("x", spoilt, listed, NORMAL, 1, ALARM) == shift("x", values, listed, NORMAL, 1, ALARM)


def test_a_feature_that_changes_slowly_needs_more_bars() -> None:
    values = np.random.default_rng(4).standard_normal((100, 3))
    slow, fast = (shift("x", values, np.ones(values.shape, bool), NORMAL, memory, ALARM) for memory in (50, 1))
    assert not slow.judged
    assert slow.bars_needed == 400
    assert fast.judged
    assert fast.psi == slow.psi


def test_a_constant_feature_is_not_judged() -> None:
    constant = Histogram((0.0,), (0.0, 1.0))
    values = np.zeros((100, 3))
    found = shift("x", values, np.ones(values.shape, bool), constant, 1, ALARM)
    assert found.psi == 0.0


def record_of(panel: Panel, first: int, dispersion: float, fall: float = 0.0) -> Record:
    """A desk that handled every bar from `first` on; what drift does not look at is empty."""
    bars = len(panel) - first
    equity = np.full(bars, 100.0)
    equity[bars // 2 :] -= 100.0 * fall
    made = {name: np.zeros(bars) for name in Record.__dataclass_fields__}
    made |= {"symbols": panel.symbols, "closes": panel.closes[first:], "members": {}, "incidents": ()}
    return Record(**made | {"equity": equity, "dispersion": np.full(bars, dispersion)})  # type: ignore[arg-type]


def measured(folder: Path, dispersion: float = 1.0, fall: float = 0.0, signal: float = 0.0) -> Drift:
    """`dispersion` over the usual one, `fall` beyond the deepest drawdown; `signal` is added to the column."""
    bundle = saved(folder / "bundle")
    column = PANEL.observed["signal"]
    panel = replace(PANEL, observed={"signal": replace(column, values=column.values + signal)})
    deepest = -bundle.reference.walk_forward.drawdown + fall
    return drift(record_of(panel, 60, dispersion * bundle.reference.dispersion, deepest), bundle, panel)


def test_nothing_is_told_of_bars_like_those_of_training(tmp_path: Path) -> None:
    found = measured(tmp_path, fall=-0.01)
    assert [finding.name for finding in found.findings] == ["bars"], "volume looks back 16 bars, and there are 60"
    assert found.dispersion == pytest.approx(1.0)


def test_a_column_that_moved_members_that_part_and_a_deep_fall_are_told(tmp_path: Path) -> None:
    found = measured(tmp_path, dispersion=2.5, fall=0.05, signal=2.0)
    told = {finding.name: finding.level for finding in found.findings}
    assert told["psi.signal"] == "critical"
    assert told["ks.signal"] == "critical"
    assert told["dispersion"] == "warning"
    assert told["drawdown"] == "warning"
    assert not any(name.startswith("psi.log_return") for name in told)


def test_the_desk_gets_plain_json(tmp_path: Path) -> None:
    found = measured(tmp_path, dispersion=4.0)
    tree = json.loads(write(tmp_path, found).read_text())
    assert tree["at"] == f"{np.datetime_as_string(PANEL.closes[-1], 's')}Z"
    assert tree["bars"] == 60
    levels = {finding["name"]: finding["level"] for finding in tree["findings"]}
    assert levels["dispersion"] == "critical"
    assert all(set(finding) == {"name", "value", "limit", "level", "text"} for finding in tree["findings"])
