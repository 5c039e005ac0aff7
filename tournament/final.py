"""The end of a tournament: the verdict's walk-forward half, the ensemble, the final fit, and the hold-out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from agents import bundle
from agents.build import build_policy
from agents.candidate import Candidate
from agents.ensemble import Ensemble
from agents.heads import ActorNet
from agents.manifest import Provenance, parse_json
from agents.reference import measure
from envs.backtest import Track, backtest
from envs.policy import Allocated, equal_weight
from kit.config import to_dict
from kit.errors import UserError
from kit.files import hash_json, write_json
from market.panel import Panel
from podracer.provenance import created_by
from tournament.arena import Arena
from tournament.choose import Choice, choose, concatenated, walk_forward
from tournament.config import WHERE, TournamentConfig
from tournament.ledger import Ledger, Record
from tournament.queue import Chain, Link
from tournament.remote import OPENINGS, push, refuse_if_behind
from tournament.rounds import Tournament
from tournament.score import Standing
from tournament.trial import Job, code, key_of, policy_of, spans_of
from tournament.verdict import Verdict, verdict

BUNDLE, VERDICT = "bundle", "bundle.verdict.json"
EARLIER = "earlier"
FALL_BACK = "equal-weight"


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    standings: list[Standing]  # everybody, the leader first
    choices: list[Choice]  # none: nobody was eligible, and the bundle is equal weight
    track: Track | None  # the ensemble's on the walk-forward, from fold 2 on; "pool chosen with later folds in view"
    benchmark: Track  # equal weight, from fold 1 on
    verdict: Verdict
    bundle: Path


def outcome_of(run: Tournament, folder: Path) -> Outcome:
    """Choose and judge; nothing is trained, and nothing written."""
    standings, arena, config = run.standings(), run.arena, run.config
    choices = choose(standings, config.ensemble, arena)
    track = walk_forward(standings, config.ensemble, arena, run.ledger)
    benchmark = concatenated([arena.benchmark(fold.spans) for fold in arena.folds.folds])
    return Outcome(standings, choices, track, benchmark, judged(standings, arena), folder / BUNDLE)


def conclude(run: Tournament, folder: Path) -> Outcome:
    """Choose, judge, fit once more on everything before the hold-out, and write the bundle."""
    outcome = outcome_of(run, folder)
    fitted = final_fit(run, outcome.choices)
    track = outcome.track or outcome.benchmark
    _save(outcome.bundle, outcome.choices, fitted, track, run.arena, run.ledger, run.config)
    return outcome


def judged(
    standings: Sequence[Standing], arena: Arena, hold_out: tuple[np.ndarray, np.ndarray] | None = None
) -> Verdict:
    """Over everybody ever scored; a try is a configuration with a seed, whose checkpoints other days chose."""
    scored = sorted((s for s in standings if s.folds and s.status != "leaked"), key=lambda standing: standing.hash)
    benchmark = np.concatenate([arena.benchmark(fold.spans).returns for fold in arena.folds.folds])
    interest = arena.market(arena.folds.folds[0].spans).interest
    returns = np.full((len(benchmark), len(scored)), np.nan)
    for column, standing in enumerate(scored):
        returns[: len(standing.returns), column] = standing.returns - interest
    tries = sum(len(standing.records[0]) for standing in scored)
    return verdict(returns, benchmark - interest, tries, hold_out)


def last_stage(run: Tournament) -> list[Chain]:
    """The final fit of those who will be chosen, where the others have just trained."""
    links = _last_links(run, choose(run.standings(), run.config.ensemble, run.arena))
    return [[link] for per_seed in links for link in per_seed]


def final_fit(run: Tournament, choices: Sequence[Choice]) -> list[list[Record]]:
    """Each member trains once more, on everything before the hold-out."""
    links = _last_links(run, choices)
    run.train([[link] for per_seed in links for link in per_seed], "final-fit")
    fitted = []
    for per_seed in links:
        records = [run.ledger.get(key_of(link(None), run.arena)) for link in per_seed]
        fitted.append([record for record in records if record and record.status == "done"])
    return fitted


def _last_links(run: Tournament, choices: Sequence[Choice]) -> list[list[Link]]:
    """Of every member, one a seed."""
    return [[_last_link(choice.standing, k, run.config) for k in range(run.config.search.seeds)] for choice in choices]


def _last_link(standing: Standing, number: int, config: TournamentConfig) -> Link:
    """From nothing, in one go, as long as the folds took it together, or as its algorithm takes by default.

    What has gone from fold to fold has been interrupted each time, with an empty replay buffer and a learning
    rate that began anew; of its policies the last is not the best that so much training can make.
    """
    records, entrant = [per_seed[number] for per_seed in standing.records], standing.entrant
    chosen = [record.chosen for record in records]
    walked = sum(chosen) if config.search.warm > 0 else median(chosen)
    longest = entrant.candidate.algorithm.samples / config.search.samples
    budget = max(1, round(min(walked, longest)))
    job = Job(entrant.candidate, 0, records[-1].key.seed, "", budget, entrant.round, entrant.parent)
    return lambda before: job


def _save(
    folder: Path,
    choices: Sequence[Choice],
    fitted: Sequence[Sequence[Record]],
    track: Track,
    arena: Arena,
    ledger: Ledger,
    config: TournamentConfig,
) -> None:
    members = []
    whole = sum(choice.weight for choice, records in zip(choices, fitted) if records)
    for choice, records in zip(choices, fitted):
        for number, record in enumerate(records):
            name = choice.standing.name + (f"-{number}" if len(records) > 1 else "")
            weight = choice.weight / whole / len(records)
            actor = policy_of(record, arena, ledger)
            members.append(bundle.Member(name, actor, weight, choice.standing.entrant.candidate, _scores(choice)))
    if not members:
        members = [bundle.Member(FALL_BACK, _fall_back(arena), 1.0, Candidate())]
    spans = spans_of(arena, 0)
    lens, panel = arena.lens(spans), arena.seen(spans)
    policy = Ensemble([Allocated(member.actor) for member in members], [member.weight for member in members])
    bundle.save(
        folder,
        members,
        lens,
        measure(lens, panel, spans.train, policy, track),
        Provenance(code(), identity(config), panel.hash, created_by()),
        {name: float(value) for name, value in track.metrics().items()},
        overwrite=True,
    )


def _fall_back(arena: Arena) -> ActorNet:
    """A network whose answer is always the zero action: equal weight."""
    actor = build_policy(Candidate(), arena.market(spans_of(arena, 0)))
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.zero_()
    return actor


def _scores(choice: Choice) -> dict[str, float]:
    standing = choice.standing
    return {"sharpe": standing.sharpe, "edge": standing.edge, "bound": standing.bound}


def identity(config: TournamentConfig) -> str:
    """A hash of what a result depends on."""
    return hash_json({k: v for k, v in to_dict(config).items() if k not in WHERE})


def open_hold_out(run: Tournament, folder: Path, command: str, moment: str) -> Verdict:
    """The one look at the last bars; it is counted before it is taken."""
    arena = run.arena
    if arena.folds.holdout.start >= arena.folds.holdout.stop:
        raise UserError("folds.holdout = 0: nothing was held out; expected a tournament with a hold-out")
    loaded = count_opening(folder, arena.panel, command, moment)
    market = loaded.market(arena.panel)
    ours, theirs = backtest([loaded.policy, equal_weight], market, arena.folds.holdout)
    found = judged(run.standings(), arena, (ours.returns - market.interest, theirs.returns - market.interest))
    write_json(folder / VERDICT, {"bundle": loaded.hash, "openings": len(openings(folder)), **found.to_dict()})
    return found


def count_opening(folder: Path, panel: Panel, command: str, moment: str) -> bundle.Bundle:
    """Written down, here and in an object store, before anything is computed on the bars that were held out."""
    refuse_if_behind(folder)
    loaded = bundle.load(folder / BUNDLE)
    provenance = loaded.manifest.provenance
    opening = {"at": moment, "command": command, "bundle": loaded.hash, "data": panel.hash}
    opening |= {"code": provenance.code, "configuration": provenance.configuration}
    write_json(folder / OPENINGS, {"openings": [*openings(folder), {**opening, "bars": len(panel)}]})
    push(folder)
    return loaded


def openings(folder: Path) -> list[dict[str, Any]]:
    """Every look at the hold-out so far."""
    file = folder / OPENINGS
    return list(parse_json(file.read_bytes(), str(file))["openings"]) if file.is_file() else []


def last_opened(folder: Path, times: int) -> int:
    """The bar up to which there was a look at a hold-out before bars were added, so many times; 0: there was none."""
    looks = [look for number in range(1, times + 1) for look in openings(folder / EARLIER / str(number))]
    return max((int(look["bars"]) - 1 for look in looks), default=0)
