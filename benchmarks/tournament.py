"""What a tournament takes beside its training, and what it saves: `configs/demo.yaml`, on this machine.

python -m benchmarks.tournament [--quick] [--json FILE]

`overhead`: all that is neither training nor judging, with one worker, from the first rung to the last seal,
and by how much the self-test takes longer because Ray begins beside it.
`2 workers`: the first rung's training again, all candidates, with one worker and with two, Ray begun before.
`elimination`: what it spares, and what it costs: the edge on the walk forward that nobody eliminated would have
shown, less what those show who were left. The best five are chosen on the days that they are judged on, so for
them it is hardly below 0; the ensemble is chosen fold by fold.
`skill`: seconds of one core until a policy has half the oracle rule's edge on bars that it does not train on.
`devices`: a simulation (benchmarks/simulate.py) of many candidates as long as these, on many devices: of a fixed
number of trials, where a published figure is of the time until a return is reached.
"""

from __future__ import annotations

import importlib.util
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch

from agents.baselines import Oracle
from agents.candidate import EXCESS, Candidate
from agents.config import DirectConfig, PPOConfig
from benchmarks import train
from benchmarks.harness import ROOT, Result, arguments, interleave, number, seconds
from benchmarks.learning import SKILL, edge, prepared
from benchmarks.simulate import Plan, asynchronous, drawn, synchronous
from benchmarks.timeline import parts, play, walk
from benchmarks.verdict import DEMO, tournament
from envs.flat import FlatEnv, FlatView
from envs.gym import TradingVectorEnv
from envs.market import MarketTensors
from envs.policy import Actor
from kit.config import build
from kit.memory import keep_freed_memory
from kit.metrics import sharpe
from podracer.spans import Spans
from podracer.training import Training
from tournament.choose import walk_forward
from tournament.ledger import Record
from tournament.rounds import Tournament
from tournament.score import Standing, rungs
from tournament.trial import Job

QUICK = ("search={candidates: 4, samples: 0.01, warm: 0.5, keep: 2}", "folds.count=3")
WORKERS = "execution.workers={}"
FIRST_RUNG = "folds.count=1"
GIVE_UP = 90.0  # seconds of training without half the oracle's edge
PEER_RATE = 1e-3  # learning rate; at ours, three times that, Stable-Baselines3's learns next to nothing
DEVICES = (1, 10, 16, 50, 80, 200, 1000)
PUBLISHED = "ElegantRL-Podracer reports 1.8 times, measured on GPUs and to a given return"
LONGER = 100  # trials of the simulation: as measured, and so many times as long
SETTINGS = ("as measured", f"{LONGER} times as long")


class Costs(NamedTuple):
    """Of a tournament here, in seconds."""

    opening: float  # until the first trial trains, Ray being there
    handing: float  # of the driver's processor time, for each trial


def overhead(result: Result, make: Callable[..., Tournament], folder: Path) -> Costs:
    """A whole tournament with one worker, and what its wall time went to."""
    spans = play(make, folder, WORKERS.format(1), whole=True)
    records = make(folder).ledger.records()
    walked, fitted = ([r for r in records if bool(r.fold) == walk] for walk in (True, False))
    spent = parts(spans, {name_of(record): record.timing for record in walked})
    whole, own = sum(spent.values()), spent["training and judging"]
    result.add("overhead", "s", {"tournament": [whole]})
    for name, value in spent.items():
        result.add(f"overhead: {name}", "s", {"tournament": [value]})
    result.add("overhead: share", "1", {"tournament": [1 - own / whole]})
    result.add("overhead: of a trial", "s", {"tournament": [(whole - own) / len(walked)]})
    result.add("overhead: trials", "1", {"tournament": [float(len(walked))]})
    result.add("overhead: of a fold", "s", {"tournament": [(whole - own) / max(r.fold for r in walked)]})
    timed = {span.what: span.seconds for span in spans}
    began, ended = walk(spans)
    proposed = began - min(span.began for span in spans if span.what == "run")
    fit = max(span.ended for span in spans if span.what == "execute") - ended
    trained = sum(sum(record.timing.values()) for record in fitted)
    around = {
        "process and imports": seconds(lambda: _command("--help")),
        "bars and folds": timed["bars and folds"],
        "self-test": timed["self-test"],
        "proposals": proposed,
        "final fit: training": trained,
        "final fit: beside it": fit - trained,
        "choice, verdict, bundle": timed["conclude"],
        "report": timed["report"],
    }
    for name, value in around.items():
        result.add(f"beside the rounds: {name}", "s", {"tournament": [value]})
    opening = spent["actors begin"] + spent["making ready, an actor's first trial"]
    return Costs(opening, sum(span.seconds for span in spans if span.what == "driver") / len(walked))


def name_of(record: Record) -> str:
    """As its job was called."""
    candidate = build(Candidate, record.candidate, "ledger")
    return Job(candidate, record.fold, record.key.seed).name


def _command(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "tournament", *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def workers(result: Result, make: Callable[..., Tournament], folder: Path, rounds: int) -> None:
    """The first rung's training with one worker and with two, anew each time; and whether they come to the same."""
    found: set[bytes] = set()
    jobs: list[float] = []

    def rung(count: int) -> float:
        there = folder / f"{count}-{len(list(folder.glob('*')))}"
        spans = play(make, there, FIRST_RUNG, WORKERS.format(count))
        run = make(there, FIRST_RUNG)
        found.add(_leaderboard(run.recall()))
        if count == 1:
            jobs[:] = [_trained(record) for record in _in_order(run)]
        return sum(span.seconds for span in spans if span.what == "execute")

    folder.mkdir()
    times = interleave({"1 worker": lambda: rung(1), "2 workers": lambda: rung(2)}, rounds, warmup=0)
    result.add("2 workers: the first rung", "s", times)
    whole = Plan((1,), ())
    most = synchronous(np.array(jobs)[:, None], np.zeros((len(jobs), 1)), 2, whole).seconds
    result.add("2 workers: such trials allow", "times", {"tournament": [sum(jobs) / most]})
    result.add("2 workers: leaderboards that differ", "1", {"tournament": [float(len(found) - 1)]})


def _in_order(run: Tournament) -> list[Record]:
    """The first fold's, as they were begun."""
    by_candidate = {record.key.candidate: record for record in run.ledger.records() if record.fold == 1}
    return [by_candidate[entrant.candidate.hash] for entrant in run.entrants]


def _leaderboard(standings: Iterable[Standing]) -> bytes:
    return repr([(s.hash, s.status, s.reason, s.folds, s.scores, s.returns.tobytes()) for s in standings]).encode()


def elimination(result: Result, make: Callable[..., Tournament], folder: Path, without: Path) -> Tournament:
    """The same tournament from which nobody goes; what the first has trained is in its ledger already."""
    everybody = f"search.keep={make(folder).config.search.candidates}"
    (without / "ledger").mkdir(parents=True)
    for pattern in ("*.trial", "*.pt"):
        for file in (folder / "ledger").glob(pattern):
            os.link(file, without / "ledger" / file.name)
    play(make, without, everybody, WORKERS.format(1))
    runs = {"eliminating": make(folder), "nobody goes": make(without, everybody)}
    figures: dict[str, dict[str, list[float]]] = {"samples": {}, "training": {}, "ensemble": {}}
    edges: dict[str, list[float]] = {}
    for arm, run in runs.items():
        standings = run.recall()
        records = [record for standing in standings for fold in standing.records for record in fold]
        figures["samples"][arm] = [float(sum(record.trained for record in records))]
        figures["training"][arm] = [sum(map(_trained, records))]
        figures["ensemble"][arm] = [_walked(run, standings)]
        edges[arm] = [standing.edge for standing in standings if standing.status == "finished"]
    size = min(runs["eliminating"].config.ensemble.size, *map(len, edges.values()))
    best = {arm: [statistics.mean(values[:size])] for arm, values in edges.items()}
    result.add("elimination: trained", "samples", figures["samples"])
    result.add("elimination: training and judging", "s", figures["training"])
    result.add("elimination: edge of the best five", "Sharpe", best, compare=False)
    result.add("elimination: edge of the ensemble", "Sharpe", figures["ensemble"], compare=False)
    return runs["nobody goes"]


def _trained(record: Record) -> float:
    """Seconds of training and judging, made ready already: an actor's first trial loads modules."""
    return record.timing["train"] + record.timing["finish"]


def _walked(run: Tournament, standings: Sequence[Standing]) -> float:
    """The ensemble's edge from the second fold on, its members chosen fold by fold."""
    track = walk_forward(standings, run.config.ensemble, run.arena, run.ledger)
    assert track is not None
    equal = np.concatenate([run.arena.benchmark(fold.spans).returns for fold in run.arena.folds.folds[1:]])
    return float(sharpe(track.returns, track.bars_per_year) - sharpe(equal, track.bars_per_year))


def skill(result: Result, seeds: Iterable[int], limit: float) -> None:
    """A policy that has not got there after the limit counts with the limit, as if it had."""
    spent: dict[str, list[float]] = {"direct": [], "ppo": [], "sb3": []}
    for seed in seeds:
        market, spans, signal = prepared(SKILL, seed)
        enough = edge(Oracle(signal), market, spans.test) / 2
        for arm, candidate in {"direct": Candidate(DirectConfig()), "ppo": Candidate(PPOConfig())}.items():
            training = Training(candidate, market, spans, seed)
            spent[arm].append(train.until(training.advance, training.agent.policy, market, spans, enough, limit))
        if importlib.util.find_spec("stable_baselines3"):
            spent["sb3"].append(train.until(*sb3_learner(market, spans, seed), market, spans, enough, limit))
    arms = {arm: values for arm, values in spent.items() if values}
    result.add("skill: half the oracle's edge", "s", arms, compare=False)
    missed = {arm: [float(sum(value >= limit for value in values))] for arm, values in arms.items()}
    result.add(f"skill: given up after {limit:g} s", f"of {len(arms['ppo'])}", missed, compare=False)


def sb3_learner(market: MarketTensors, spans: Spans, seed: int) -> tuple[Callable[[], object], Actor]:
    """Stable-Baselines3's PPO on our environment, with the settings that ours has, but for the learning rate.

    At its own defaults, with 8 environments, it learns several times as slowly here.
    """
    from stable_baselines3 import PPO

    from benchmarks.stable import StableVecEnv

    config, view = PPOConfig(), FlatView(market)
    env = TradingVectorEnv(FlatEnv(market, EXCESS, config.num_envs, spans.train, seed))
    learner = PPO(
        "MlpPolicy",
        StableVecEnv(env, config.reward_scale),
        learning_rate=PEER_RATE,
        n_steps=config.horizon,
        batch_size=config.batch_size,
        n_epochs=config.epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.ratio_clip,
        ent_coef=config.entropy,
        max_grad_norm=config.clip_grad_norm,
        policy_kwargs={"net_arch": [64, 32], "log_std_init": math.log(config.noise)},
        seed=seed,
        device="cpu",
    )

    def actor(market: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
        seen = view(torch.cat([bar.unsqueeze(1).to(market.dtype), portfolio], dim=1))
        return learner.policy.get_distribution(seen).mode()

    def advance() -> None:
        learner.learn(config.horizon * config.num_envs, reset_num_timesteps=False)

    return advance, actor


def devices(result: Result, eliminating: Tournament, everybody: Tournament, costs: Costs, count: int) -> None:
    """The wall time of so many candidates on more and more devices, from what was measured here."""
    measured = _durations(everybody)
    plan = _plan(eliminating, costs)
    result.add("devices: until the first trial trains", "s", {"measured": [plan.opening]})
    result.add("devices: of the driver, a trial", "s", {"measured": [plan.handing]})
    result.add("devices: a trial", "s", {"measured": [*measured.ravel()]})
    result.add("devices: go on after the first fold", "1", {"measured": [plan.shares[0]]})
    for setting, longer in zip(SETTINGS, (1, LONGER)):
        durations, scores = drawn(measured * longer, count, plan.rungs, seed=0)
        for many in DEVICES:
            arms = {arm.__name__: arm(durations, scores, many, plan) for arm in (synchronous, asynchronous)}
            case = _case(count, setting, many)
            result.add(case, "s", {name: [ran.seconds] for name, ran in arms.items()})
            idle = {name: [ran.idle(many)] for name, ran in arms.items()}
            result.add(f"{case}, idle", "1", idle, compare=False)


def _case(count: int, setting: str, many: int) -> str:
    return f"devices: {count:,} candidates, trials {setting}, on {many:,}"


def _durations(run: Tournament) -> np.ndarray:  # [M, F]
    """Seconds of every fold of those who did them all."""
    finished = [standing for standing in run.standings() if standing.status == "finished"]
    return np.array([[sum(map(_trained, records)) for records in standing.records] for standing in finished])


def _plan(run: Tournament, costs: Costs) -> Plan:
    """With its share of those who go on after the first fold, where the rule spares many; later 1 in `eta`."""
    *eliminations, last = rungs(len(run.arena.folds.folds))
    first = run.ledger.sealed(1, 1)
    assert first is not None
    shares = [len(first["kept"]) / (len(first["kept"]) + len(first["eliminated"]))]
    shares += [1 / run.config.search.eta] * (len(eliminations) - 1)
    return Plan((*eliminations, last), tuple(shares), *costs)


def brief(result: Result) -> str:
    """The README's tables: what is beside the training, and the devices."""
    values = {(row.case, row.arm): row for row in result.rows}
    ratios = {ratio.case: ratio for ratio in result.ratios}

    def value(case: str, arm: str = "tournament") -> float:
        return values[case, arm].value

    def split(group: str, *but: str) -> str:
        found = [(row.case.removeprefix(group), row.value) for row in result.rows if row.case.startswith(group)]
        largest = sorted((pair for pair in found if pair[0] not in but), key=lambda pair: -pair[1])
        return ", ".join(f"{name} {number(seconds)}" for name, seconds in largest if round(seconds, 1) > 0)

    trials, pair = value("overhead: trials"), ratios["2 workers: the first rung"]
    differ = value("2 workers: leaderboards that differ")
    regret = {}
    for what in ("best five", "ensemble"):
        case = f"elimination: edge of the {what}"
        regret[what] = value(case, "nobody goes") - value(case, "eliminating")
    spared = {what: 1 - ratios[f"elimination: {what}"].median for what in ("trained", "training and judging")}
    not_parts = ("share", "of a trial", "of a fold", "trials", "training and judging")
    lines = [
        "| | measured | |",
        "|---|---|---|",
        f"| overhead, 1 worker, {trials:.0f} trials | {value('overhead: share'):.1%} of {value('overhead'):.0f} s; "
        f"{value('overhead: of a trial'):.2f} s a trial, {value('overhead: of a fold'):.1f} s a fold | seconds: "
        f"{split('overhead: ', *not_parts)} |",
        f"| beside the rounds | | seconds: {split('beside the rounds: ')} |",
        f"| first rung, 1 worker / 2 workers | {pair.median:.2f} times ({pair.min:.2f} to {pair.max:.2f}) | such "
        f"trials allow {value('2 workers: such trials allow'):.2f}; leaderboards "
        f"{'differ' if differ else 'equal to the last bit'} |",
        f"| elimination spares | {spared['trained']:.0%} of the samples, {spared['training and judging']:.0%} of the "
        f"training time | regret, in Sharpe ratios of edge: {regret['best five']:+.2f} for the best five, "
        f"{regret['ensemble']:+.2f} for the ensemble |",
    ]
    lines += _skill_lines(result)
    return "\n".join([*lines, "", *_device_lines(result)])


def _skill_lines(result: Result) -> list[str]:
    rows = [row for row in result.rows if row.case == "skill: half the oracle's edge"]
    missed = {row.arm: row for row in result.rows if row.case.startswith("skill: given up")}
    names = {"direct": "`direct`", "ppo": "`ppo`", "sb3": "Stable-Baselines3's PPO"}
    lines = []
    for row in rows:
        given_up = missed[row.arm]
        note = f"{given_up.case.removeprefix('skill: ')}: {given_up.value:.0f} {given_up.unit}; at least that long"
        at_least = "at least " if given_up.value * 2 > row.runs else ""
        lines.append(
            f"| half the oracle's edge: {names[row.arm]} | {at_least}{number(row.value)} s "
            f"({number(row.min)} to {number(row.max)}) | {note if given_up.value else ''} |"
        )
    return lines


def _device_lines(result: Result) -> list[str]:
    """A line a number of devices: seconds, and how many times as fast as one device."""
    values = {(row.case, row.arm): row.value for row in result.rows}
    counted = next(row.case for row in result.rows if " candidates, " in row.case)
    count = int(counted.removeprefix("devices: ").split()[0].replace(",", ""))
    columns = [(setting, kind) for setting in SETTINGS for kind in ("synchronous", "asynchronous")]

    def taken(setting: str, kind: str, many: int) -> float:
        return values[_case(count, setting, many), kind]

    def cell(setting: str, kind: str, many: int) -> str:
        spent, idle = taken(setting, kind, many), values[f"{_case(count, setting, many)}, idle", kind]
        return f"{number(spent)} s, {taken(setting, 'synchronous', 1) / spent:.3g}x, {idle:.0%} idle"

    titles = " | ".join(f"{setting}: {kind}" for setting, kind in columns)
    lines = [f"| simulated: {count:,} candidates, trials | {titles} |", "|---|" + "---:|" * len(columns)]
    for many in DEVICES:
        cells = " | ".join(cell(setting, kind, many) for setting, kind in columns)
        lines.append(f"| {many:,} device{'' if many == 1 else 's'} | {cells} |")
    gains = " | ".join(f"{taken(*column, 16) / taken(*column, 80):.2f}x" for column in columns)
    return [*lines, f"| 80 beside 16 devices; {PUBLISHED} | {gains} |"]


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    torch.set_num_threads(1)
    keep_freed_memory()
    settings = ("wandb=disabled", *(QUICK if options.quick else ()))
    result = Result("tournament")
    with TemporaryDirectory() as temporary:
        make, folder = partial(_made, settings), Path(temporary)
        costs = overhead(result, make, folder / "whole")
        workers(result, make, folder / "rungs", rounds=1 if options.quick else 3)
        everybody = elimination(result, make, folder / "whole", folder / "everybody")
        eliminating = make(folder / "whole")
        devices(result, eliminating, everybody, costs, 64 if options.quick else 1024)
    skill(result, train.SKILL_SEEDS[:1] if options.quick else train.SKILL_SEEDS, 5.0 if options.quick else GIVE_UP)
    result.finish(options.json)


def _made(settings: Sequence[str], folder: Path, *more: str) -> Tournament:
    return tournament(DEMO, folder, *settings, *more)


if __name__ == "__main__":
    main()
