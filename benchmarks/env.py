"""Environment steps per second beside the peers', one thread: what each feature costs, and the memory limit.

python -m benchmarks.env [--quick] [--json FILE]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import peers
from benchmarks.harness import Result, arguments, interleave
from envs.config import AllocationConfig, CostConfig, TradingConfig
from envs.flat import FlatEnv
from envs.market import MarketTensors
from envs.trading import TradingEnv
from kit.memory import keep_freed_memory
from market.clock import TRADING_DAYS
from market.panel import Panel

BARS, ASSETS, FEATURES = 1_000, 30, 8
ACTIONS = 4  # batches of random actions, made beforehand and used in turn


def make_panel(assets: int = ASSETS, gaps: bool = True) -> Panel:
    """Random bars, 1 % of them missing unless told otherwise."""
    random = np.random.default_rng(0)
    close = 50.0 * np.exp(np.cumsum(random.normal(0, 0.02, (BARS, assets)), axis=0))
    open = np.concatenate([close[:1], close[:-1]]) * np.exp(random.normal(0, 0.005, close.shape))
    tradable = random.random(close.shape) > 0.01 if gaps else np.ones(close.shape, bool)
    tradable[0] = True  # every symbol is listed from the start
    times = np.datetime64("2020-01-01", "ns") + np.arange(BARS) * np.timedelta64(1, "D")
    return Panel(
        symbols=tuple(f"S{i:03}" for i in range(assets)),
        times=times,
        closes=times + np.timedelta64(21, "h"),
        open=open,
        high=np.maximum(open, close) * 1.002,
        low=np.minimum(open, close) * 0.998,
        close=close,
        volume=np.full(close.shape, 2e6),
        tradable=tradable,
        bars_per_year=float(TRADING_DAYS),
    )


def tensors(trading: TradingConfig | None = None, assets: int = ASSETS, gaps: bool = True) -> MarketTensors:
    features = np.random.default_rng(1).normal(size=(BARS, assets, FEATURES)).astype(np.float32)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return MarketTensors.build(make_panel(assets, gaps), trading, features, device)


def rate(env: Any, budget: float) -> Callable[[], float]:
    """A measurement of steps per second over about `budget` seconds, one synchronisation at the end."""
    count, device = env.num_envs, env.device
    generator = torch.Generator(device=device).manual_seed(2)
    actions = torch.rand(ACTIONS, count, env.action_dim, generator=generator, device=device) * 2 - 1
    with torch.no_grad():
        env.reset()
        for action in actions:
            env.step(action)
        steps = max(3, round(budget / elapsed(lambda: env.step(actions[0]), device)))

    def measure() -> float:
        def run() -> None:
            for k in range(steps):
                env.step(actions[k % ACTIONS])

        with torch.no_grad():
            return steps * count / elapsed(run, device)

    return measure


def peer_rate(env: Any, dimension: int, budget: float, count: int = 1, tensor: bool = False) -> Callable[[], float]:
    """The same for a peer; `reset` is theirs to be called at the end of an episode when they do not."""
    random = np.random.default_rng(2)
    made = random.uniform(-1, 1, (ACTIONS, count, dimension) if tensor else (ACTIONS, dimension)).astype(np.float32)
    actions: Any = torch.from_numpy(made) if tensor else made
    env.reset()

    def measure() -> float:
        steps, start = 0, time.perf_counter()
        with torch.no_grad():
            while time.perf_counter() - start < budget:
                done = env.step(actions[steps % ACTIONS])[2]
                steps += 1
                if not tensor and done:
                    env.reset()
        return steps * count / (time.perf_counter() - start)

    return measure


def beside_peers(result: Result, rounds: int, budget: float, compiled: bool) -> None:
    market = tensors()
    prices = make_panel(gaps=False).close
    indicators = np.random.default_rng(1).normal(size=(BARS, ASSETS * FEATURES))
    vectorised = peers.elegantrl_vec_repaired(prices, indicators, 4096)
    arms = {"podracer": rate(TradingEnv(market, num_envs=4096), budget)}
    if compiled:
        arms["podracer-compiled"] = rate(TradingEnv(market, num_envs=4096, compile=True), budget)
    arms["elegantrl-vec-repaired"] = peer_rate(vectorised, ASSETS, budget, 4096, tensor=True)
    arms["elegantrl-numpy"] = peer_rate(peers.elegantrl_numpy(prices, indicators), ASSETS, budget)
    if peers.has_finrl():
        arms["finrl"] = peer_rate(peers.finrl_pandas(prices, indicators), ASSETS, budget)
        arms["finrl-numpy"] = peer_rate(peers.finrl_numpy(prices, indicators), ASSETS, budget)
    else:
        print("FinRL is not installed (extra `bench`): its arms are left out")
    result.add("default-4096", "steps/s", interleave(arms, rounds))
    flat = {
        "podracer": rate(FlatEnv(market, num_envs=4096), budget),
        "elegantrl-vec-repaired": peer_rate(vectorised, ASSETS, budget, 4096, tensor=True),
    }
    result.add("flat-4096", "steps/s", interleave(flat, rounds))


def what_features_cost(result: Result, rounds: int, budget: float) -> None:
    """The default against itself with one feature switched off."""
    base = TradingConfig()
    free = CostConfig(commission_bp=0, half_spread_bp=0, impact=0, no_volume_bp=0)
    variants: dict[str, tuple[TradingConfig, bool, bool]] = {
        "default": (base, True, True),
        "without tradable mask": (base, False, True),
        "without impact": (replace(base, costs=replace(base.costs, impact=0)), True, True),
        "without any cost": (replace(base, costs=free), True, True),
        "without random start": (base, True, False),
        "fill at close": (replace(base, fill="close"), True, True),
        "tilt": (replace(base, allocation=AllocationConfig("tilt")), True, True),
        "long_short": (replace(base, allocation=AllocationConfig("long_short")), True, True),
        "shares": (replace(base, allocation=AllocationConfig("shares")), True, True),
    }
    arms = {}
    for name, (trading, gaps, random_start) in variants.items():
        env = TradingEnv(tensors(trading, gaps=gaps), num_envs=4096, random_start=random_start)
        arms[name] = rate(env, budget)
    result.add("features-4096", "steps/s", interleave(arms, rounds))


def sizes(result: Result, rounds: int, budget: float, quick: bool) -> None:
    large = [1_048_576] if torch.cuda.is_available() else []
    market = tensors()
    counts = [1, 64, 1_024, 4_096] + ([] if quick else [65_536, *large])
    arms = {f"podracer N={n}": rate(TradingEnv(market, num_envs=n), budget) for n in counts}
    result.add("environments, A=30", "steps/s", interleave(arms, rounds), compare=False)
    arms = {f"podracer A={a}": rate(TradingEnv(tensors(assets=a), num_envs=4_096), budget) for a in (1, 30, 500)}
    result.add("assets, N=4096", "steps/s", interleave(arms, rounds), compare=False)


class _Traffic(TorchDispatchMode):
    """Counts the bytes that tensor operations read and write; views move nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.is_view:
            return out
        self.operations += 1
        gathers = func is torch.ops.aten.index_select.default
        for value in (*args, *(out if isinstance(out, tuple | list) else (out,))):
            if isinstance(value, list):
                self.bytes += sum(v.nbytes for v in value if isinstance(v, torch.Tensor))
            elif isinstance(value, torch.Tensor):
                looked_up = gathers and value is args[0]  # of the table only the rows asked for are read
                self.bytes += out.nbytes if looked_up else value.nbytes
        return out


def memory(result: Result, rounds: int, budget: float) -> None:
    """Bytes moved a step against what the machine moves, and against what cannot be avoided."""
    env = TradingEnv(tensors(), num_envs=4096)
    action = torch.rand(4096, env.action_dim, device=env.device) * 2 - 1
    env.reset()
    with torch.no_grad(), _Traffic() as traffic:
        env.step(action)
    market = env.market
    looked_up = len(market.table) + (market.open_now is not None) + (market.extra is not None)
    width = ASSETS + 1
    compulsory = 4 * (width * (looked_up + 4) + env.state_dim + 8)  # rows, action, old, final and new weights
    steps = interleave({"steps": rate(env, budget)}, rounds)["steps"]
    moved = traffic.bytes / 4096

    def bandwidth(floats: int) -> Callable[[], float]:
        a, b = torch.ones(floats, device=env.device), torch.empty(floats, device=env.device)
        repeat = max(1, 2**27 // floats)

        def copy() -> None:
            for _ in range(repeat):
                b.copy_(a)

        return lambda: 8 * floats * repeat / elapsed(copy, env.device) / 1e9

    copies = {"copy of 2 x 256 MB": bandwidth(2**26), "copy of 2 x 512 KB": bandwidth(2**17)}
    achieved = {"podracer": [s * moved / 1e9 for s in steps]}
    result.add("memory: operations per step", "calls", {"podracer": [float(traffic.operations)]})
    result.add("memory: moved per environment step", "B", {"podracer": [moved], "compulsory": [float(compulsory)]})
    result.add("memory: rate", "GB/s", achieved | interleave(copies, rounds))


def captured(result: Result, rounds: int, budget: float) -> None:
    """On a CUDA device: the step as one graph, against eager."""
    from envs.capture import CapturedEnv

    market = tensors()
    for count in (4_096, 65_536, 1_048_576):
        arms = {
            "captured": rate(CapturedEnv(TradingEnv(market, num_envs=count)), budget),
            "eager": rate(TradingEnv(market, num_envs=count), budget),
        }
        result.add(f"captured N={count}", "steps/s", interleave(arms, rounds))


def elapsed(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    torch.set_num_threads(1)
    keep_freed_memory()  # for every arm alike
    rounds, budget = (3, 0.15) if options.quick else (7, 0.5)
    result = Result("env")
    beside_peers(result, rounds, budget, compiled=not options.quick)
    what_features_cost(result, rounds, budget)
    sizes(result, rounds, budget, options.quick)
    memory(result, rounds, budget)
    if torch.cuda.is_available():
        captured(result, rounds, budget)
    result.finish(options.json)


if __name__ == "__main__":
    main()
