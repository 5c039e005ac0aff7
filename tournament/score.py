"""How candidates stand: what their test days say, joined over folds and averaged over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, takewhile
from typing import Any, Literal, cast

import numpy as np

from agents.candidate import Candidate
from kit.config import setting
from kit.metrics import sharpe
from tournament.arena import Arena
from tournament.config import SearchConfig
from tournament.ledger import Ledger, Record
from tournament.queue import Link
from tournament.statistics.bootstrap import day_counts, edge_bound
from tournament.trial import Job, draw, key_of

Status = Literal["running", "finished", "eliminated", "diverged", "crashed", "leaked"]
LOWER, UPPER = 0.2, 0.8  # of the bounds that rank and that spare


@dataclass(frozen=True)
class Entrant:
    """A candidate in a round, and where its first fold starts from."""

    candidate: Candidate
    round: int = setting(low=1)
    parent: str = setting("", help="hash of the candidate that it is an offspring of")
    starts: tuple[str, ...] = setting((), help="a checkpoint of the parent's fold 1 for every seed; none: from nothing")


@dataclass(frozen=True, eq=False)
class Standing:
    """A candidate as the ledger has it."""

    entrant: Entrant
    records: tuple[tuple[Record, ...], ...]  # of each fold done, one a seed
    status: Status
    reason: str
    returns: np.ndarray  # [T] simple, per test day, mean of the seeds
    scores: tuple[tuple[int, float], ...] = ()  # after which fold, and the value that it was ranked by
    sharpe: float = math.nan  # annual
    edge: float = math.nan  # over equal weight's on the same days
    bound: float = math.nan  # the edge's lower bound

    @property
    def hash(self) -> str:
        return self.entrant.candidate.hash

    @property
    def name(self) -> str:
        return self.entrant.candidate.name

    @property
    def folds(self) -> int:
        return len(self.records)

    @property
    def score(self) -> float:
        """What it was last ranked by; below every number where it never was."""
        return self.scores[-1][1] if self.scores and np.isfinite(self.scores[-1][1]) else -np.inf

    @property
    def order(self) -> tuple[float, float, str]:
        """The leader first: further folds, higher scores; ties by hash."""
        return (-self.folds, -self.score, self.entrant.candidate.hash)


def chain(entrant: Entrant, number: int, arena: Arena, config: SearchConfig, seed: int) -> list[Link]:
    """The folds of one of an entrant's trainings, each from where the one before ended."""
    candidate, start = entrant.candidate, entrant.starts[number] if entrant.starts else ""
    samples = candidate.algorithm.samples

    def link(fold: int) -> Link:
        def job(before: Record | None) -> Job:
            warm = before is not None and config.warm > 0
            budget = max(1, round(samples * config.warm)) if warm else samples
            begin = before.checkpoint if before and warm else start if fold == 1 else ""
            return Job(candidate, fold, training_seed, begin, budget, entrant.round, entrant.parent)

        return job

    training_seed = draw(seed, number)
    return [link(fold.number) for fold in arena.folds.folds]


def recorded(links: Sequence[Link], arena: Arena, ledger: Ledger) -> list[Record]:
    """What the ledger has of a chain, up to its first gap or failure."""
    records: list[Record] = []
    for link in links:
        record = ledger.get(key_of(link(records[-1] if records else None), arena))
        if record is None:
            break
        records.append(record)
        if record.status != "done":
            break
    return records


def standings(
    entrants: Sequence[Entrant],
    gone: Mapping[str, int],  # candidate hash -> the fold after which it was eliminated
    held: Mapping[str, str],  # candidate hash -> why it is too good to be true
    arena: Arena,
    ledger: Ledger,
    config: SearchConfig,
    seed: int,
    folds: int | None = None,
) -> list[Standing]:
    """Everybody ever entered, the leader first; as they stood after so many folds, if asked."""
    last = len(arena.folds.folds) if folds is None else folds
    found = [_gather(entrant, gone, held, arena, ledger, config, seed, last) for entrant in entrants]
    return sorted(_scored(found, arena, config), key=lambda standing: standing.order)


def _gather(
    entrant: Entrant,
    gone: Mapping[str, int],
    held: Mapping[str, str],
    arena: Arena,
    ledger: Ledger,
    config: SearchConfig,
    seed: int,
    last: int,
) -> Standing:
    per_seed = [recorded(chain(entrant, k, arena, config, seed)[:last], arena, ledger) for k in range(config.seeds)]
    failed = [records[-1] for records in per_seed if records and records[-1].status != "done"]
    done = min(sum(record.status == "done" for record in records) for records in per_seed)
    out = gone.get(entrant.candidate.hash)
    done = done if out is None else min(done, out)
    status: Status = "running"
    if failed:
        status = cast(Status, failed[0].status)
    elif out is not None:
        status = "eliminated"
    elif done == last and done in arena.folds.ends:
        status = "finished"
    records = tuple(tuple(records[fold] for records in per_seed) for fold in range(done))
    reason = failed[0].reason if failed else f"after fold {out}" if out is not None else ""
    if entrant.candidate.hash in held:
        status, reason = "leaked", held[entrant.candidate.hash]
    return Standing(entrant, records, status, reason, joined(records))


def _scored(found: list[Standing], arena: Arena, config: SearchConfig) -> list[Standing]:
    """With figures at every rung; all candidates that reached it are resampled on the same days."""
    year = arena.panel.bars_per_year
    scores: dict[str, list[tuple[int, float]]] = {standing.hash: [] for standing in found}
    figures: dict[str, dict[str, Any]] = {}
    lengths = [len(arena.benchmark(fold.spans).returns) for fold in arena.folds.folds]
    scoring = rungs(len(lengths), arena.folds.extended)
    for folds in range(1, len(lengths) + 1):
        there = [standing for standing in found if standing.folds >= folds]
        last = [standing for standing in there if standing.folds == folds]
        if not there or not (last or folds in scoring):
            continue
        days = sum(lengths[:folds])
        against = benchmark(arena, folds)
        returns = np.column_stack([standing.returns[:days] for standing in there])
        lower = bounds(returns, against, LOWER, year)
        ratios = np.atleast_1d(sharpe(returns, year))
        ranked = lower if config.rank == "bound" else ratios
        theirs = float(sharpe(against, year))
        for number, standing in enumerate(there):
            if folds in scoring:
                scores[standing.hash].append((folds, float(ranked[number])))
            if standing.folds == folds:
                ratio = float(ratios[number])
                figures[standing.hash] = {"sharpe": ratio, "edge": ratio - theirs, "bound": float(lower[number])}
    return [
        replace(standing, scores=tuple(scores[standing.hash]), **figures.get(standing.hash, {})) for standing in found
    ]


def rungs(folds: int, extended: Sequence[int] = ()) -> list[int]:
    """After which folds there is an elimination: 1, 2, 4, ... and the last, which ends the round.

    Bars that are added later move none of these: each time, all who are there do the new folds, and nobody goes.
    """
    last, *later = (*extended, folds)
    return [*takewhile(lambda fold: fold < last, (2**k for k in count())), last, *later]


def survivors(alive: Sequence[Standing], folds: int, arena: Arena, config: SearchConfig) -> list[Standing]:
    """Who goes on after so many folds; `alive` has done them all. Ties go by hash.

    After the first fold little is known: there only who is also surely behind the leader goes.
    """
    ranked = sorted(alive, key=lambda standing: standing.order)
    places = max(config.keep, math.ceil(len(ranked) / config.eta))
    kept, rest = ranked[:places], ranked[places:]
    if folds == 1 and rest:
        returns = np.column_stack([standing.returns for standing in rest])
        upper = bounds(returns, kept[0].returns, UPPER, arena.panel.bars_per_year)
        kept += [standing for standing, bound in zip(rest, upper) if not bound < 0]
    return kept


def joined(records: Sequence[Sequence[Record]]) -> np.ndarray:  # [T]
    return np.concatenate([np.mean([record.returns for record in seeds], axis=0) for seeds in records] or [np.zeros(0)])


def benchmark(arena: Arena, folds: int) -> np.ndarray:  # [T]
    """Equal weight on the test days of the first folds."""
    tracks = [arena.benchmark(fold.spans).returns for fold in arena.folds.folds[:folds]]
    return np.concatenate(tracks or [np.zeros(0)])


def bounds(returns: np.ndarray, against: np.ndarray, level: float, year: float) -> np.ndarray:  # [T, N], [T] -> [N]
    return edge_bound(returns, against, day_counts(len(returns)), level, year)
