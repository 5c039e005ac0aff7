"""The rules of trading once more: one portfolio in money and shares, in plain Python, slow and obvious."""

from __future__ import annotations

import math
from typing import NamedTuple

from envs.config import EnvConfig, TradingConfig
from market.panel import Panel

LEAST = 1e-6  # of a bar's wealth is left at ruin, in cash


class Outcome(NamedTuple):
    """What one bar did to the portfolio; the amounts of money are shares of wealth at close t."""

    reward: float
    growth: float  # log growth of wealth
    wealth: float  # over the capital
    drawdown: float
    weights: list[float]  # at close t+1, cash last
    traded: float
    paid: dict[str, float]  # by kind; interest is a gain
    terminated: bool
    truncated: bool


class Reference:
    """One environment. `begin` puts the capital in cash at a bar; `step` takes an action [A+1]."""

    def __init__(self, panel: Panel, trading: TradingConfig, config: EnvConfig) -> None:
        self.config, self.trading, self.costs = config, trading, trading.costs
        self.open, self.high, self.low = panel.open.tolist(), panel.high.tolist(), panel.low.tolist()
        self.close, self.volume, self.tradable = panel.close.tolist(), panel.volume.tolist(), panel.tradable.tolist()
        self.bars_per_year = panel.bars_per_year
        self.assets = range(len(panel.symbols))
        self.known: dict[tuple[int, int], tuple[float, float]] = {}
        self.equal_weight: list[float] = []
        if config.reward.excess:
            standard = Reference(panel, trading, EnvConfig(episode=len(panel), ruin=0.0))
            standard.begin(0)
            self.equal_weight = [standard.step([0.0] * (len(self.assets) + 1)).growth for _ in range(len(panel) - 1)]
        self.begin(0)

    def begin(self, bar: int) -> None:
        self.bar, self.age = bar, 0
        self.shares = [0.0 for _ in self.assets]
        self.cash = self.peak = self.trading.capital
        self.mean = self.square = 0.0  # Moody and Saffell's A and B

    def worth(self, asset: int) -> float:
        """Money in an asset at this bar's close; one that was never listed has no price and no shares."""
        return self.shares[asset] * self.close[self.bar][asset] if self.shares[asset] else 0.0

    def wealth(self) -> float:
        return self.cash + sum(self.worth(i) for i in self.assets)

    def weights(self) -> list[float]:
        wealth = self.wealth()
        return [self.worth(i) / wealth for i in self.assets] + [self.cash / wealth]

    # What is ordered

    def open_now(self) -> list[int]:
        return [i for i in self.assets if self.tradable[self.bar][i]]

    def orders(self, action: list[float]) -> list[float]:
        """Shares to buy (or, below 0, to sell), fixed at this close; those that cannot be sent are 0."""
        if self.trading.allocation.kind == "shares":
            return [self.whole_shares(action[i], self.shares[i]) if i in self.open_now() else 0.0 for i in self.assets]
        rule, wealth, weights, wanted = self.trading.allocation, self.wealth(), self.weights(), self.wanted(action)
        orders = [0.0 for _ in self.assets]
        for i in self.open_now():
            change = rule.rate * (wanted[i] - weights[i])
            if abs(change) >= rule.band:
                orders[i] = change * wealth / self.close[self.bar][i]
        return orders

    def whole_shares(self, action: float, held: float) -> float:
        count = math.trunc(action * self.trading.allocation.max_stock) if abs(action) >= 0.1 else 0
        return float(max(count, -held))

    def wanted(self, action: list[float]) -> dict[int, float]:
        """The weight that the action asks for, of every asset that trades now."""
        rule, weights, open_now = self.trading.allocation, self.weights(), self.open_now()
        stuck = [weights[i] for i in self.assets if i not in open_now]
        if not open_now:
            return {}
        if rule.kind == "long_short":
            asked = {i: rule.name_cap * action[i] for i in open_now}
            gross = sum(abs(weight) for weight in asked.values())
            room = max(0.0, rule.gross_cap - sum(abs(weight) for weight in stuck))
            return {i: weight if gross <= room else weight * room / gross for i, weight in asked.items()}
        invested = (1.0 - sum(stuck)) * (1.0 - max(0.0, action[-1]))
        if rule.kind == "softmax":
            odds = {i: math.exp(rule.kappa * action[i]) for i in open_now}
        else:
            odds = nearest_on_simplex({i: 1.0 / len(open_now) + rule.strength * action[i] for i in open_now})
        return {i: odds[i] / sum(odds.values()) * invested for i in open_now}

    # What it costs

    def volatility_and_volume(self, bar: int, asset: int) -> tuple[float, float]:
        """A day's standard deviation and money traded, over the trailing window; 0 where unknown."""
        bars_per_day = max(1.0, self.bars_per_year / 252)
        window = max(2, round(self.costs.window_days * bars_per_day))
        squares = money = days = 0.0
        for row in range(max(0, bar - window + 1), bar + 1):
            close, before = self.close[row][asset], self.close[row - 1][asset] if row else math.nan
            if not math.isnan(before):
                squares += (close / before - 1.0) ** 2
            elif not math.isnan(close):  # Parkinson: of the range, where there is no close before
                squares += math.log(self.high[row][asset] / self.low[row][asset]) ** 2 / (4.0 * math.log(2.0))
            if self.tradable[row][asset]:
                days += 1.0 / bars_per_day
                money += 0.0 if math.isnan(self.volume[row][asset]) else close * self.volume[row][asset]
        return (math.sqrt(squares / days), money / days) if days else (0.0, 0.0)

    def beyond(self, asset: int, value: float) -> float:
        """What a trade of this much money costs beyond commission and spread, known at this close."""
        if (self.bar, asset) not in self.known:
            self.known[self.bar, asset] = self.volatility_and_volume(self.bar, asset)
        (volatility, volume), costs = self.known[self.bar, asset], self.costs
        if costs.impact == 0 or value == 0:
            return 0.0
        if volatility == 0 or volume == 0:
            flat = max(0.0, costs.no_volume_bp - costs.commission_bp - costs.half_spread_bp)
            return costs.multiple * flat * 1e-4 * value
        return costs.multiple * costs.impact * volatility * math.sqrt(value / volume) * value

    # One bar

    def step(self, action: list[float]) -> Outcome:
        costs, before, t = self.costs, self.wealth(), self.bar
        fell = 1.0 - before / self.peak
        prices = self.open[t + 1] if self.trading.fill == "open" else self.close[t + 1]
        orders = [order if self.tradable[t + 1][i] else 0.0 for i, order in enumerate(self.orders(action))]
        rate = (costs.commission_bp + costs.half_spread_bp) * costs.multiple * 1e-4

        traded = beyond = 0.0
        for i in self.assets:  # sells come first
            if orders[i] < 0:
                value = -orders[i] * prices[i]
                cost = self.beyond(i, value)
                self.shares[i] += orders[i]
                self.cash += value - rate * value - cost
                traded, beyond = traded + value, beyond + cost

        buys = {i: orders[i] * prices[i] for i in self.assets if orders[i] > 0}
        needed = sum(value + rate * value + self.beyond(i, value) for i, value in buys.items())
        scale = min(1.0, max(0.0, self.cash / needed)) if needed else 1.0
        for i in buys:
            count = orders[i] * scale
            if self.trading.allocation.kind == "shares":
                count = float(math.floor(count))
            value = count * prices[i]
            cost = self.beyond(i, value)
            self.shares[i] += count
            self.cash -= value + rate * value + cost
            traded, beyond = traded + value, beyond + cost

        interest = self.cash * ((1.0 + costs.cash_rate) ** (1.0 / self.bars_per_year) - 1.0)
        short = sum(-self.shares[i] * prices[i] for i in self.assets if self.shares[i] < 0)
        borrow = short * costs.borrow_rate / self.bars_per_year
        self.cash += interest - borrow
        self.bar, self.age = t + 1, self.age + 1

        if self.wealth() < LEAST * before:
            self.shares, self.cash = [0.0 for _ in self.assets], LEAST * before
        after = self.wealth()
        self.peak = max(self.peak, after)
        fallen = 1.0 - after / self.peak
        growth = math.log(after / before)
        reward = self.reward(t, growth, max(0.0, fallen - fell), traded / before)
        terminated = after / self.trading.capital <= self.config.ruin
        paid = {
            "commission": costs.commission_bp * costs.multiple * 1e-4 * traded,
            "spread": costs.half_spread_bp * costs.multiple * 1e-4 * traded,
            "impact": beyond,
            "borrow": borrow,
            "interest": interest,
        }
        return Outcome(
            reward=reward,
            growth=growth,
            wealth=after / self.trading.capital,
            drawdown=-fallen,
            weights=self.weights(),
            traded=traded / before,
            paid={kind: amount / before for kind, amount in paid.items()},
            terminated=terminated,
            truncated=self.age >= self.config.episode and not terminated,
        )

    def reward(self, t: int, growth: float, new_drawdown: float, traded: float) -> float:
        terms = self.config.reward
        total = terms.log_growth * growth - terms.drawdown * new_drawdown - terms.turnover * traded
        if terms.excess:
            total += terms.excess * (growth - self.equal_weight[t])
        variance = self.square - self.mean**2
        d_mean, d_square = growth - self.mean, growth**2 - self.square
        if variance > 1e-10:  # Moody and Saffell's D, times the standard deviation
            sharpe = (self.square * d_mean - 0.5 * self.mean * d_square) / variance**1.5
            total += terms.differential_sharpe * sharpe * math.sqrt(variance)
        self.mean += terms.sharpe_decay * d_mean
        self.square += terms.sharpe_decay * d_square
        return total


def nearest_on_simplex(points: dict[int, float]) -> dict[int, float]:
    """max(point - level, 0), with the level that makes the sum 1, found by bisection."""
    low, high = min(points.values()) - 1.0, max(points.values())
    for _ in range(200):
        level = (low + high) / 2
        if sum(max(point - level, 0.0) for point in points.values()) > 1.0:
            low = level
        else:
            high = level
    return {i: max(point - low, 0.0) for i, point in points.items()}
