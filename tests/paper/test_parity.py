"""What trades is what was trained: a desk that replays ends where the backtest over the same bars ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import PANEL
from desks import START, world
from endpoint import CAPITAL

from envs.backtest import backtest
from envs.market import MarketTensors
from paper.desk import Desk

UNLIMITED = ("limits.gross=null", "limits.net_low=null", "limits.net_high=null", "limits.leverage=null")


@pytest.mark.parametrize("kind", ["softmax", "tilt", "long_short"])
def test_a_replay_equals_the_backtest_at_every_bar(kind: str, tmp_path: Path):
    rows: list[np.ndarray] = []

    def seen(desk: Desk, seconds: float) -> None:
        assert desk.seen is not None
        held = desk.seen.book.positions
        values = [float(held.get(symbol, 0)) * desk.seen.prices[symbol] for symbol in PANEL.symbols]
        rows.append(np.append(np.nan_to_num(values), desk.seen.book.cash) / desk.seen.equity)

    with world(tmp_path, kind) as there, there.desk(*UNLIMITED, handled=seen) as desk:
        market, policy = there.bundle.market(PANEL), there.bundle.policy

        def decided(_: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
            """Networks have single precision; the books do not."""
            return policy(market, bar, portfolio.float()).double()

        track = backtest([decided], market, slice(START, None), torch.float64)[0]
        desk.run()
        account = desk.keeper.agree()
    assert [text for _, _, text in there.alerts] == []
    assert len(rows) == len(track.returns) == len(PANEL) - 1 - START
    assert rows[0].tolist() == [0.0] * len(PANEL.symbols) + [1.0]
    for bar, row in enumerate(rows[1:]):
        np.testing.assert_allclose(row, track.weights[bar], rtol=0, atol=1e-6, err_msg=f"bar {bar}")
    assert float(account.equity) / CAPITAL == pytest.approx(np.prod(1 + track.returns), rel=1e-5)
    assert np.abs(np.diff(track.weights, axis=0)).sum() > 1, "it hardly traded"
