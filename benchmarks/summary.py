"""The README's short table of speed: a line from each benchmark's last result. Measures nothing itself."""

from __future__ import annotations

from benchmarks.harness import ROOT, Ratio, Result, load, number

RESULTS = ROOT / "benchmarks" / "results"


def table() -> str:
    env, train, serve = (_of(name) for name in ("env", "train", "serve"))
    paper, tournament = _of("paper"), _of("tournament")
    steps = _value(env, "default-4096", "podracer")
    finrl, elegant = (_ratio(env, "default-4096", peer) for peer in ("finrl", "elegantrl-vec-repaired"))
    same, skill = _ratio(train, "ppo-same-net", "elegantrl"), _ratio(train, "ppo-time-to-skill", "elegantrl")
    half = "time to half the oracle's edge"
    p99, uvicorn = (_value(serve, "p99 at 100 requests a second", arm) for arm in ("podracer-http", "uvicorn"))
    workers = _ratio(tournament, "2 workers: the first rung", "2 workers")
    decision, bar = (_value(paper, f"{what} p99", "podracer") for what in ("decision", "bar"))
    small, large = (_value(paper, f"memory after {bars} bars", "podracer") for bars in ("1,000", "10,000"))
    rows = [
        ("environment, 4,096 portfolios of 30 assets, all costs", f"{number(steps)} steps/s",
         f"{_times(elegant)} ElegantRL's (mended), {_times(finrl)} FinRL's"),
        ("PPO training, same network and settings", f"{number(_value(train, 'ppo-same-net', 'podracer'))} samples/s",
         f"{_times(same)} ElegantRL's"),
        ("training until half of what can be known is earned", f"{number(_value(train, half, 'podracer'))} s (PPO), "
         f"{number(_value(train, half, 'podracer-direct'))} s (`direct`)",
         f"ElegantRL {number(_value(train, half, 'elegantrl'))} s: {_times(skill)} for PPO"),
        ("a tournament's overhead, one worker", f"{_value(tournament, 'overhead: share', 'tournament'):.1%}",
         f"two workers: {_times(workers)}"),
        ("endpoint: eight members, 30 names, 100 requests a second", f"p99 {number(p99)} ms",
         f"one process of uvicorn {number(uvicorn)} ms"),
        ("desk: request to target weights; close to last of 30 orders", f"p99 {number(decision)}; {number(bar)} ms",
         f"memory {small:.0f} MB after 1,000 bars, {large:.0f} MB after 10,000"),
    ]  # fmt: skip
    lines = ["| one core, or two for the last three lines | | beside (lowest to highest) |", "|---|---:|---|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def _of(name: str) -> Result:
    return load(RESULTS / f"{name}.json")


def _value(result: Result, case: str, arm: str) -> float:
    return next(row.value for row in result.rows if (row.case, row.arm) == (case, arm))


def _ratio(result: Result, case: str, to: str) -> Ratio:
    return next(ratio for ratio in result.ratios if (ratio.case, ratio.to) == (case, to))


def _times(ratio: Ratio) -> str:
    return f"{number(ratio.median)} times ({number(ratio.min)} to {number(ratio.max)})"
