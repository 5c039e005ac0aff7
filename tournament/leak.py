"""Too good to be true: a test of the whole path before training, and an alarm on scores after it.

The self-test changes every bar after some bar t and makes everything anew: features, scaler, market, decisions,
returns. What belongs to t or before must stay to the last bit. It also sends an order at t and lets all prices jump
before it can fill: such an order earns nothing of the jump. This finds what looks ahead in a fold, a scaler that was
fitted on more than its train span, and a fill at the close that decided. It starts with the panel: what came wrong
out of a file is for the checks of quality.

The alarm sees only scores, so that it finds what the self-test cannot, such as bars that were wrong to begin with,
but only where it pays: it is silent about a leak that earns little.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from scipy.special import stdtr

from agents.baselines import Oracle
from agents.build import build_agent
from agents.candidate import Candidate
from agents.networks import ENCODERS, NetworkConfig
from envs.backtest import backtest
from envs.market import MarketTensors, Quote
from envs.policy import Allocated, Policy, equal_weight, portfolio_width
from envs.transition import cash_only, transition
from kit.errors import UserError
from kit.metrics import sharpe
from market.oracle import OracleRule
from market.panel import FIELDS, PRICES, Observed, Panel
from market.synth import SIGNAL
from podracer.spans import Spans
from tournament.arena import Arena, longest_lookback
from tournament.config import LeakConfig
from tournament.score import Standing, benchmark
from tournament.statistics.bootstrap import BLOCK, day_counts, sharpes
from tournament.statistics.sharpe import probabilistic_sharpe, shape
from tournament.trial import spans_of

LEAK = 3  # exit code
WALK = 16  # decisions before t that are also traded
JUMP = 1.25  # of all prices, before an order fills
EARNED = 1e-4  # share of wealth that rounding does not explain
TRIFLE = 1e-6  # daily deviation from equal weight, or from the oracle, that is rounding
CHANCE = 0.05  # of one false alarm among all candidates, were all of them just at the limit of the information ratio
CLEVERER = 1.25  # times the best of these rules' information ratio: one that also reads volatility earns 1.12 times
BOLD = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # tilts of oracle rules, in equal weights

Stage = tuple[str, np.ndarray, int]  # what it is, [T, ...], the first row that may know of later bars


class LeakFound(UserError):
    """Something knew what it could not know."""

    code = LEAK


def self_test(arena: Arena) -> None:
    """Raises LeakFound that names what looks ahead; changes nothing."""
    networks = itertools.cycle(_networks(arena))  # one at each point: no fold has a network of its own
    for number in (*range(1, len(arena.folds.folds) + 1), 0):
        spans = spans_of(arena, number)
        if number:
            points = [spans.train.stop - 1, spans.validation.stop - 1, _middle(spans.test), spans.test.stop]
            name = arena.folds.folds[number - 1].name
        else:  # the final fit ends before the hold-out, and its scale is that of the hold-out
            points = [spans.test.stop, _middle(arena.folds.holdout)]
            name = "final fit"
        for last in sorted({point for point in points if spans.train.stop - 1 <= point < len(arena.panel) - 1}):
            _compare(arena, number, last, name, next(networks))
        _fills_after(arena, number, min(points[-2:]), name)


def _compare(arena: Arena, number: int, last: int, name: str, network: tuple[str, Policy]) -> None:
    """What is made of the bars, and of those that are the same up to `last` and others after it."""
    other = replace(arena, panel=with_other_future(arena.panel, last), _made={})
    policies: dict[str, Policy] = {"equal weight": equal_weight, **dict([network])}
    both = (_stages(each, number, last, policies) for each in (arena, other))
    for (stage, one, end), (_, two, _) in zip(*both, strict=True):
        differs = (one[:end] != two[:end]) & ~((one[:end] != one[:end]) & (two[:end] != two[:end]))  # NaN is NaN
        moved = np.flatnonzero(differs.reshape(len(differs), -1).any(axis=1))
        if len(moved):
            where = "" if stage.startswith("scaler") else f" at {_bar(arena, int(moved[0]))}"
            raise LeakFound(
                f"leak: {name}: {stage}{where} looks ahead: it moved when only bars after {_bar(arena, last)} changed"
            )


def _stages(arena: Arena, number: int, last: int, policies: dict[str, Policy]) -> Iterator[Stage]:
    """Everything on the way from bars to decisions and returns, in order, so that the first to move is the cause."""
    spans = spans_of(arena, number)
    panel = arena.seen(spans) if number else arena.panel
    known = last + 1
    for field in (*FIELDS, "tradable"):
        yield f"panel column {field}", getattr(panel, field), known
    for field, observed in panel.observed.items():
        yield f"panel column {field}", observed.values, known
    features = arena.features.for_panel(panel).compute(panel)
    for column, feature in enumerate(features.names):
        yield f"feature {feature}", features.values[:, :, column], known
    lens = arena.lens(spans)
    for column, feature in enumerate(lens.scaler.names):
        yield f"scaler of {feature}", np.array([[lens.scaler.mean[column], lens.scaler.std[column]]]), 1
    market = arena.market(spans) if number else lens.market(panel, arena.device)
    for column, feature in enumerate(lens.scaler.names):
        yield f"market tensor features ({feature})", _array(market.features[:, :, column]), known
    shape = (len(market), market.assets + 1)
    for field, absent in (("open_now", 1.0), ("extra", 0.0), ("lot", 0.0)):
        tensor = getattr(market, field)
        yield f"market tensor {field}", np.full(shape, absent) if tensor is None else _array(tensor), known
    for field, tensor in zip(Quote._fields, market.table):  # all but impact say how the next bar came out
        yield f"market tensor {field}", _array(tensor), known if field == "impact" else last
    bars, portfolio = torch.arange(len(market), device=market.device), _portfolios(market)
    for policy_name, policy in policies.items():
        with torch.no_grad():  # never across a yield: who stops listening would leave it switched on
            decided = _array(policy(market, bars, portfolio))
        yield f"decision of {policy_name}", decided, known
    yield from _walked(policies, market, max(spans.train.start, last - WALK), min(known, len(market) - 1))


def _walked(policies: dict[str, Policy], market: MarketTensors, first: int, stop: int) -> Iterator[Stage]:
    """Decisions one by one, each from the portfolio that the ones before it made."""
    recorders = [_Recorder(policy) for policy in policies.values()]
    tracks = backtest(recorders, market, slice(first, stop))
    for name, recorder, track in zip(policies, recorders, tracks):
        decided, returns = np.zeros((stop, market.assets + 1)), np.zeros(stop)
        decided[first:], returns[first:] = np.concatenate(recorder.wanted), track.returns
        yield f"decision of {name}, in its turn,", decided, stop
        yield f"return of {name} decided", returns, stop - 1


class _Recorder:
    """A policy that writes down what it wanted."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.wanted: list[np.ndarray] = []

    def __call__(self, market: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
        wanted = self.policy(market, bar, portfolio)
        self.wanted.append(_array(wanted))
        return wanted


def _networks(arena: Arena) -> Iterator[tuple[str, Policy]]:
    """Of every kind, looking back as far as any, with the weights of an untrained one."""
    for encoder in ENCODERS:
        candidate = Candidate(network=NetworkConfig(encoder, lookback=longest_lookback()))  # type: ignore[arg-type]
        agent = build_agent(candidate, arena.market(spans_of(arena, 1)), 0)
        yield f"a network ({encoder})", Allocated(agent.policy)


def _portfolios(market: MarketTensors) -> torch.Tensor:  # [T, P]
    """A different portfolio at every bar: weights, a drawdown, and 1 for what else is shown."""
    draws = np.random.default_rng(0)
    rows = np.ones((len(market), portfolio_width(market)))
    rows[:, : market.assets + 1] = draws.dirichlet(np.ones(market.assets + 1), len(market))
    rows[:, market.assets + 1] = -0.3 * draws.random(len(market))
    return torch.as_tensor(rows, dtype=market.dtype).to(market.device)


def _fills_after(arena: Arena, number: int, last: int, name: str) -> None:
    """An order of bar `last`, sent from cash, while every later price is the last close times `JUMP`."""
    panel = arena.panel
    arrays = {field: getattr(panel, field).copy() for field in (*PRICES, "tradable")}
    for field in PRICES:
        arrays[field][last + 1 :] = panel.close[last] * JUMP
    arrays["tradable"][last + 1 :] = panel.listed[last]
    jumped = replace(arena, panel=replace(panel, **arrays), _made={})
    spans = spans_of(arena, number)
    market = jumped.market(spans) if number else jumped.lens(spans).market(jumped.panel, arena.device)
    state = cash_only(market, torch.tensor([last], device=market.device))
    order = torch.full_like(state.weights, 0.5 / market.assets)
    order[:, -1] = 0.5
    after, _, costs = transition(market, state, order)
    paid = {kind: float(amount) for kind, amount in costs.by_kind().items()}
    gain = float(after.wealth) - 1.0 - paid.pop("interest") + sum(paid.values())
    if abs(gain) > EARNED:
        raise LeakFound(
            f"leak: {name}: the fill of an order sent at {_bar(arena, last)} looks back: prices rose by "
            f"{JUMP - 1:.0%} before the order could fill, and it earned {gain:.1%} of wealth; expected 0"
        )


def with_other_future(panel: Panel, last: int) -> Panel:
    """The same up to bar `last`; after it every price, volume and observed value is another."""
    draws = np.random.default_rng(last)
    after = slice(last + 1, None)
    shape = panel.close[after].shape
    arrays = {name: getattr(panel, name).copy() for name in (*FIELDS, "tradable")}

    def otherwise(values: np.ndarray, spread: float) -> np.ndarray:  # what was missing is there now
        there = np.where(np.isfinite(values) & (values > 0), values, 1.0)
        return there * draws.lognormal(0.0, spread, shape)

    first, final = (otherwise(arrays[name][after], 0.2) for name in ("open", "close"))
    high, low = (draws.lognormal(0.0, 0.05, shape) for _ in range(2))
    arrays["open"][after], arrays["close"][after] = first, final
    arrays["high"][after] = np.maximum(first, final) * np.maximum(high, 1.0)
    arrays["low"][after] = np.minimum(first, final) * np.minimum(low, 1.0)
    arrays["volume"][after] = otherwise(arrays["volume"][after], 1.0)
    if not panel.tradable.all():  # else the mask is left out, and another way rounds otherwise
        arrays["tradable"][after] = draws.random(shape) < 0.7
        arrays["tradable"][-1, 0] = False
    observed = {}
    for name, column in panel.observed.items():
        values, known_at = column.values.copy(), column.known_at.copy()
        scale = float(np.nanstd(values)) if np.isfinite(values).any() else 1.0
        values[after] = np.nan_to_num(values[after]) + (scale or 1.0) * draws.standard_normal(shape)
        known_at[after] = panel.closes[after, None]
        observed[name] = Observed(values, known_at)
    return replace(panel, **arrays, observed=observed)


def alarms(standings: Sequence[Standing], arena: Arena, config: LeakConfig, known: bool = False) -> dict[str, str]:
    """Candidates too good to be true, by hash, and why.

    `known` says that the panel's signal is all there is to know, as on the built-in market: then nobody surely beats
    the rules that read it. Long-short is exempt from that: these rules do not bound it.
    """
    scored = [standing for standing in standings if len(standing.returns) > 1]
    known = known and SIGNAL in arena.panel.observed and arena.trading.allocation.kind != "long_short"
    found: dict[str, str] = {}
    for folds in sorted({standing.folds for standing in scored}):
        group = [standing for standing in scored if standing.folds == folds]
        returns = np.column_stack([standing.returns for standing in group]) - _interest(arena)
        against = benchmark(arena, folds) - _interest(arena)
        rules = _oracles(arena, folds) - _interest(arena) if known else None
        reasons = too_good(returns, against, rules, config, len(scored), arena.panel.bars_per_year)
        found |= {group[number].hash: reason for number, reason in reasons.items()}
    return found


def too_good(
    returns: np.ndarray,  # [T, N] in excess of cash, as below
    against: np.ndarray,  # [T] equal weight
    rules: np.ndarray | None,  # [T, R] that know all there is to know, where there are such
    config: LeakConfig,
    tries: int,
    year: float,
) -> dict[int, str]:
    """Columns that raise an alarm, and why. With few days only a great excess is sure."""
    found: dict[int, str] = {}
    days = len(returns)
    excess = returns - against[:, None]
    ratios = np.nan_to_num(sharpe(excess, 1.0))
    limit = config.information_ratio / math.sqrt(year)
    if rules is not None:  # where much can be known, much is honest
        limit = max(limit, CLEVERER * float(np.nan_to_num(sharpe(rules - against[:, None], 1.0)).max()))
    by_luck = 1.0 - probabilistic_sharpe(ratios, days, *shape(excess), threshold=limit)
    for number in np.flatnonzero((by_luck * tries < CHANCE) & (excess.std(axis=0) > TRIFLE)):
        ours, most = (value * math.sqrt(year) for value in (ratios[number], limit))
        reason = f"its information ratio over equal weight is {ours:.1f} a year over {days} days"
        found[int(number)] = f"{reason}; expected at most {most:.1f}"
    if rules is None or days < 2 * BLOCK:
        return found
    honest = np.column_stack([against, rules])
    best = honest[:, int(np.argmax(np.nan_to_num(sharpe(honest), nan=-np.inf)))]
    resampled = sharpes(np.column_stack([returns, best]), day_counts(days))  # [1 + B, N + 1]
    edges = resampled[:, :-1] - resampled[:, -1:]
    errors = np.std(edges[1:], axis=0)
    differs = ((returns - best[:, None]).std(axis=0) > TRIFLE) & (errors > 0)  # errors may be NaN
    scores = np.where(differs, edges[0] / np.where(differs, errors, 1.0), 0.0)
    # Student's t, with as many independent pieces as blocks: the tails of resamples of few blocks are too thin.
    p_values = stdtr(days / BLOCK - 1.0, -scores) * tries
    for number in np.flatnonzero(p_values < config.p_value):
        ours, most = (float(resampled[0, column]) * math.sqrt(year) for column in (number, -1))
        reason = f"its Sharpe ratio is {ours:.2f} over {days} days; what can be known earns {most:.2f}"
        found.setdefault(int(number), f"{reason} (p = {p_values[number]:.1g} after {tries} tries)")
    return found


def _oracles(arena: Arena, folds: int) -> np.ndarray:  # [T, R]
    """What rules that read the signal earn on the test days, cautious ones and bold ones."""
    tested = [fold.spans for fold in arena.folds.folds[:folds]]
    return np.concatenate([arena.once("oracles", spans, partial(_on_test_days, arena, spans)) for spans in tested])


def _on_test_days(arena: Arena, spans: Spans) -> np.ndarray:  # [T, R]
    signal, market = arena.panel.observed[SIGNAL].values, arena.market(spans)
    tilts = {OracleRule.tilt, *(bold / len(arena.panel.symbols) for bold in BOLD)}
    rules = [Oracle(signal[: len(market)], tilt) for tilt in sorted(tilts)]
    return np.column_stack([track.returns for track in backtest(rules, market, spans.test)])


def _interest(arena: Arena) -> float:
    return arena.market(arena.folds.folds[0].spans).interest


def _middle(span: slice) -> int:
    return (span.start + span.stop) // 2


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _bar(arena: Arena, bar: int) -> str:
    return f"bar {bar} ({np.datetime_as_string(arena.panel.closes[bar], 'm')})"
