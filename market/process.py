"""The law of the built-in market: returns of which one part, of known size, can be foretold.

    r[i,t+1] = beta_i (lambda v² sigma_m² + v sigma_m z) + v sector + v own_i (ic s[i,t] + sqrt(1 - ic²) eps)

`r` is the simple return from close t to close t+1, `v` one multiplier of every volatility, known at
close t, and `s` the signal observed at close t. The premium is proportional to variance and `v` is
common, so that timing volatility earns nothing: with ic 0 nothing beats equal weight.

A minute is the same law on a faster clock: each variance is a day's over 390, the premium keeps its
Sharpe ratio a year, and persistence, regimes and leverage keep their values *per bar*.

The same to the last bit on every machine: each purpose draws from a stream of its own, bar after
bar, so that another ic moves no shock and more bars extend the same history; shocks are put on a
grid far coarser than the digits in which mathematical libraries differ, and what follows uses only
operations that IEEE 754 rounds exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

SECTORS = 3
MARKET, SECTOR, OWN = 0.145, 0.10, (0.16, 0.30)  # volatilities a year where v is 1; own: uniform between
BETA = (0.8, 1.2)
PREMIUM = 0.58  # Sharpe ratio a year of the market factor
REGIMES = (0.80, 1.25, 2.1)
TRANSITIONS = ((0.995, 0.004, 0.001), (0.015, 0.980, 0.005), (0.010, 0.030, 0.960))
STATIONARY = (65 / 88, 19 / 88, 4 / 88)  # shares of time that follow from the transitions
SLOW, SLOW_SHOCK = 0.99, 0.035  # log-volatility: persistence, standard deviation of its shocks
FAST, FAST_SHOCK, LEVERAGE = 0.90, 0.13, -0.85  # leverage: correlation of the fast shock with z
MEAN_SQUARE_V = 1.17467  # of v; follows from the lines above
MARKET_TAIL, OWN_TAIL = 8, 6  # degrees of freedom of Student's t
PERSISTENCE = 0.95  # of the signal, whose variance is 1

_STREAMS = ("traits", "regime", "slow", "fast", "market", "sector", "own", "signal")
_BRIDGE = ("bridge market", "bridge sector", "bridge own", "high", "low", "volume")
_GRID = 2.0**20
_BLOCK = 1 << 18  # values a block


@dataclass(frozen=True)
class Traits:
    """What tells one symbol from another; volatilities are per bar."""

    beta: np.ndarray  # [A]
    own: np.ndarray  # [A]
    price: np.ndarray  # [A] before the first bar
    turnover: np.ndarray  # [A] between 0 and 1: how much the symbol trades


@dataclass(frozen=True)
class Stretch:
    """Consecutive bars of all symbols."""

    rows: slice
    returns: np.ndarray  # [B, A] simple, close to close
    signal: np.ndarray  # [B, A] known at the bar's close; foretells the next bar's return
    v: np.ndarray  # [B] multiplier of volatility during the bar
    deviation: np.ndarray  # [B, A] standard deviation of the bar's return, given v
    bridge: np.ndarray  # [B, A] noise with the covariance of `returns`, independent of them


class Streams:
    """Independent random numbers, one stream for each purpose, on a grid."""

    def __init__(self, seed: int) -> None:
        names = _STREAMS + _BRIDGE
        seeds = np.random.SeedSequence(seed).spawn(len(names))
        self._of = {name: np.random.Generator(np.random.PCG64(s)) for name, s in zip(names, seeds, strict=True)}

    def normal(self, name: str, *shape: int) -> np.ndarray:
        return _gridded(self._of[name].standard_normal(shape))

    def student(self, name: str, freedom: int, *shape: int) -> np.ndarray:
        """Of unit variance."""
        return _gridded(self._of[name].standard_t(freedom, shape) * math.sqrt((freedom - 2) / freedom))

    def exponential(self, name: str, *shape: int) -> np.ndarray:
        return _gridded(self._of[name].standard_exponential(shape))

    def uniform(self, name: str, *shape: int) -> np.ndarray:
        return _gridded(self._of[name].random(shape))


def _gridded(draws: np.ndarray) -> np.ndarray:
    draws *= _GRID
    np.rint(draws, out=draws)
    draws /= _GRID
    return draws


def draw_traits(streams: Streams, symbols: int, bars_per_year: float) -> Traits:
    beta, own, price, turnover = streams.uniform("traits", 4, symbols)
    return Traits(
        beta=BETA[0] + (BETA[1] - BETA[0]) * beta,
        own=(OWN[0] + (OWN[1] - OWN[0]) * own) / math.sqrt(bars_per_year),
        price=np.round(50.0 + 100.0 * price, 2),
        turnover=turnover,
    )


def simulate(streams: Streams, traits: Traits, bars: int, bars_per_year: float, ic: float) -> Iterator[Stretch]:
    """The market bar by bar, a stretch of bars at a time; how it is cut changes nothing."""
    symbols = len(traits.beta)
    v, z = draw_volatility(streams, bars)
    market, sector = MARKET / math.sqrt(bars_per_year), SECTOR / math.sqrt(bars_per_year)
    risk_price = PREMIUM / (math.sqrt(bars_per_year) * market * math.sqrt(MEAN_SQUARE_V))
    of_sector = np.arange(symbols) % SECTORS
    deviation = np.sqrt((traits.beta * market) ** 2 + sector**2 + traits.own**2)

    def combine(z: np.ndarray, sectors: np.ndarray, own: np.ndarray) -> np.ndarray:  # [B], [B, 3], [B, A]
        return traits.beta * (market * z)[:, None] + (sector * sectors)[:, of_sector] + traits.own * own

    before = streams.normal("signal", symbols)  # the signal known before the first bar
    size = max(1, _BLOCK // symbols)
    for start in range(0, bars, size):
        rows = slice(start, min(start + size, bars))
        count = rows.stop - start
        signal = _signal(before, streams.normal("signal", count, symbols))
        own = math.sqrt(1.0 - ic**2) * streams.student("own", OWN_TAIL, count, symbols) + ic * signal[:-1]
        surprise = combine(z[rows], streams.normal("sector", count, SECTORS), own)
        scale = v[rows, None]
        yield Stretch(
            rows=rows,
            returns=traits.beta * (risk_price * (market * scale) ** 2) + scale * surprise,
            signal=signal[1:],
            v=v[rows],
            deviation=scale * deviation,
            bridge=scale
            * combine(
                streams.normal("bridge market", count),
                streams.normal("bridge sector", count, SECTORS),
                streams.normal("bridge own", count, symbols),
            ),
        )
        before = signal[-1]


def _signal(before: np.ndarray, shocks: np.ndarray) -> np.ndarray:  # [A], [B, A] -> [B + 1, A]
    signal = np.concatenate([before[None], math.sqrt(1.0 - PERSISTENCE**2) * shocks])
    for now, then in zip(signal[1:], signal[:-1], strict=True):
        now += PERSISTENCE * then
    return signal


def draw_volatility(streams: Streams, bars: int) -> tuple[np.ndarray, np.ndarray]:
    """[T] the multiplier during each bar, which the bars before it have set, and [T] the market's shock."""
    z = streams.student("market", MARKET_TAIL, bars)
    to_slow, to_fast = streams.normal("slow", bars + 1).tolist(), streams.normal("fast", bars + 1).tolist()
    chances = streams.uniform("regime", bars + 1).tolist()
    slow_deviation = SLOW_SHOCK / math.sqrt(1.0 - SLOW**2)
    fast_deviation = FAST_SHOCK / math.sqrt(1.0 - FAST**2)
    slow, fast, regime = slow_deviation * to_slow[0], fast_deviation * to_fast[0], _choose(STATIONARY, chances[0])
    rest = math.sqrt(1.0 - LEVERAGE**2)
    log_v, regimes = np.empty(bars), np.empty(bars)
    for t, shock in enumerate(z.tolist()):
        log_v[t], regimes[t] = slow + fast, REGIMES[regime]
        slow = SLOW * slow + SLOW_SHOCK * to_slow[t + 1]
        fast = FAST * fast + FAST_SHOCK * (LEVERAGE * shock + rest * to_fast[t + 1])
        regime = _choose(TRANSITIONS[regime], chances[t + 1])
    variance = slow_deviation**2 + fast_deviation**2
    return _gridded(regimes * np.exp(log_v - 0.5 * variance)), z


def _choose(shares: tuple[float, float, float], chance: float) -> int:
    return 0 if chance < shares[0] else 1 if chance < shares[0] + shares[1] else 2
