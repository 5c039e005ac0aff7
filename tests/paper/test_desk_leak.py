"""What a desk decides at a close does not depend on what comes after it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import PANEL
from desks import START
from stands import Stand, entries, standing

from market.panel import PRICES, Observed, Panel

BARS, LAST = 6, 3  # the last bar that is as it was, counted from the first that is decided at


@pytest.fixture
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(tmp_path_factory.mktemp("ensemble")) as stand:
        yield stand


def _another_future(panel: Panel, after: int) -> Panel:
    """Every number behind that bar is another, its volume, its gaps and its observed column too."""
    rng = np.random.default_rng(9)
    later = slice(after + 1, None)

    def shaken(values: np.ndarray) -> np.ndarray:  # [T, A]
        changed = values.copy()
        changed[later] *= rng.uniform(0.5, 2.0, (1, values.shape[1]))
        return changed

    factor = np.ones(panel.close.shape)
    factor[later] = rng.uniform(0.5, 2.0, (len(panel) - after - 1, len(panel.symbols)))
    columns = {name: getattr(panel, name) * factor for name in PRICES}
    observed = {name: Observed(shaken(column.values), column.known_at) for name, column in panel.observed.items()}
    return replace(panel, **columns, volume=shaken(panel.volume), observed=observed)


def _decisions(stand: Stand, panel: Panel, folder: Path) -> list[Any]:
    folder.mkdir()
    with stand.world(folder, bars=BARS, panel=panel) as there, there.desk() as desk:
        desk.run()
    return entries(folder, "decision")


def test_a_decision_does_not_see_the_future(stand: Stand, tmp_path: Path):
    known = _decisions(stand, PANEL, tmp_path / "known")
    other = _decisions(stand, _another_future(PANEL, START + LAST), tmp_path / "other")
    assert known[: LAST + 1] == other[: LAST + 1]
    assert len(known[LAST]["orders"]) > 0
    for before, after in zip(known[LAST + 1 :], other[LAST + 1 :]):
        assert before["ordered"] != after["ordered"], "the other future is not another"
