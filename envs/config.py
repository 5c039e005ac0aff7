"""How trading works (the tournament's choice) and how an environment trains (a candidate's choice)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kit.config import setting


@dataclass(frozen=True)
class CostConfig:
    """What a trade takes: commission + half-spread + impact · daily volatility · sqrt(traded / daily volume)."""

    commission_bp: float = setting(0.5, low=0, help="commission, basis points of traded value")
    half_spread_bp: float = setting(1.5, low=0, help="half the bid-ask spread, basis points")
    impact: float = setting(1.0, low=0, help="factor of the square-root impact; 0 turns it off")
    no_volume_bp: float = setting(5.0, low=0, help="flat cost where volume or volatility is unknown, basis points")
    window_days: int = setting(20, low=2, help="trailing days of the average volume and volatility")
    borrow_rate: float = setting(0.03, low=0, help="yearly fee on the value held short")
    cash_rate: float = setting(0.0, low=0, help="yearly interest on cash")
    multiple: float = setting(1.0, low=0, help="scales commission, spread and impact alike, for stress tests")

    @property
    def linear(self) -> float:
        """Commission and spread, as a share of what is traded."""
        return (self.commission_bp + self.half_spread_bp) * self.multiple * 1e-4


@dataclass(frozen=True)
class AllocationConfig:
    """How an action in [-1, 1] becomes target weights."""

    kind: Literal["softmax", "tilt", "long_short", "shares"] = "softmax"
    kappa: float = setting(2.0, above=0, help="softmax: how sharply weights follow the action")
    strength: float = setting(0.4, above=0, help="tilt: weight added by a full action before the projection")
    gross_cap: float = setting(1.0, above=0, help="long_short: the most |weights| may sum to")
    name_cap: float = setting(0.2, above=0, help="long_short: the largest |weight| of one asset")
    max_stock: int = setting(100, low=1, help="shares: shares ordered by a full action")
    rate: float = setting(0.4, above=0, high=1, help="share of the way to the target that is traded per bar")
    band: float = setting(0.0, low=0, below=1, help="changes of weight smaller than this are not traded")


@dataclass(frozen=True)
class TradingConfig:
    """Everything that decides what an order does: the same for training, backtest, exchange and desk."""

    allocation: AllocationConfig = setting(AllocationConfig())
    costs: CostConfig = setting(CostConfig())
    fill: Literal["open", "close"] = setting("open", help="fill at the next bar's open or close; never at this close")
    capital: float = setting(1e6, above=0, help="starting wealth in money, for impact and whole shares")


@dataclass(frozen=True)
class RewardConfig:
    """A weighted sum of terms per bar; all are in units of log growth."""

    log_growth: float = setting(1.0, help="weight of the portfolio's log growth")
    excess: float = setting(0.0, help="weight of log growth minus equal weight's through the same environment")
    differential_sharpe: float = setting(0.0, help="weight of the differential Sharpe ratio")
    drawdown: float = setting(0.0, low=0, help="penalty on new drawdown: the fall below the peak since last bar")
    turnover: float = setting(0.0, low=0, help="penalty on traded value as a share of wealth")
    sharpe_decay: float = setting(0.01, above=0, below=1, help="how fast the differential Sharpe forgets")


@dataclass(frozen=True)
class EnvConfig:
    """What an environment rewards, and how long an episode is; how it trades is its market's."""

    reward: RewardConfig = setting(RewardConfig())
    episode: int = setting(252, low=1, help="bars per episode; then it is truncated, not terminated")
    ruin: float = setting(
        0.05, low=0, below=1, help="an episode terminates when wealth falls to this share of its start"
    )
