"""The rounds: propose, train fold by fold, eliminate. Computed from the ledger, so that it can be killed anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from kit.config import build, to_dict
from market.synth import SynthSource
from tournament.arena import Arena
from tournament.config import TournamentConfig
from tournament.execute import execute
from tournament.leak import alarms
from tournament.ledger import Ledger
from tournament.promotion import Promotion
from tournament.propose import propose
from tournament.queue import Chain, Watcher
from tournament.score import Entrant, Standing, chain, rungs, standings, survivors

PROPOSED = 0  # the rung at which a round's entrants are sealed
EXTENSIONS = 0  # the round that stands for none: its rungs are sealed each time that added bars are done
Runner = Callable[..., None]


@dataclass
class Tournament:
    """The state of a run: whoever holds the same ledger comes to the same."""

    config: TournamentConfig
    arena: Arena
    ledger: Ledger
    folder: Path  # for Tune's files
    watcher: Watcher = field(default_factory=Watcher)
    execute: Runner = execute
    entrants: list[Entrant] = field(default_factory=list)
    gone: dict[str, int] = field(default_factory=dict)  # candidate hash -> the fold after which it was eliminated
    held: dict[str, str] = field(default_factory=dict)  # candidate hash -> why it is too good to be true

    def run(self, last: Callable[[Tournament], Sequence[Chain]] = lambda run: ()) -> list[Standing]:
        """To the end of the last round, of the folds that were added since, and of what comes after them."""
        self._execute(self._stages(last), "tournament")
        return self.standings()

    def train(self, chains: Sequence[Chain], name: str) -> None:
        self._execute(iter([chains]), name)

    def _execute(self, stages: Iterator[Sequence[Chain]], name: str) -> None:
        self.execute(stages, self.arena, self.ledger, self.config.execution, self.folder, name, self.watcher)

    def _stages(self, last: Callable[[Tournament], Sequence[Chain]]) -> Iterator[Sequence[Chain]]:
        for number in range(1, self.config.search.rounds + 1):
            yield from self._round(number)
        for number, (before, fold) in enumerate(pairwise(self.arena.folds.ends), 1):
            there = [standing.entrant for standing in self.standings(folds=before) if standing.status == "finished"]
            yield from self._rung(EXTENSIONS, number, there, fold, f"extension {number}")
        yield last(self)

    def recall(self) -> list[Standing]:
        """As far as the seals say, without running anything."""
        for number in range(1, self.config.search.rounds + 1):
            sealed = self.ledger.sealed(number, PROPOSED)
            if sealed is None:
                break
            self.entrants += _entrants(sealed)
            for rung in range(1, len(rungs(self.arena.folds.ends[0])) + 1):
                self._decided(self.ledger.sealed(number, rung))
        for number in range(1, len(self.arena.folds.ends)):
            self._decided(self.ledger.sealed(EXTENSIONS, number))
        return self.standings()

    def standings(self, only: Sequence[Entrant] | None = None, folds: int | None = None) -> list[Standing]:
        entrants = self.entrants if only is None else only
        search, seed = self.config.search, self.config.seed
        return standings(entrants, self.gone, self.held, self.arena, self.ledger, search, seed, folds)

    def _round(self, number: int) -> Iterator[Sequence[Chain]]:
        last = self.arena.folds.ends[0]
        entrants = propose(number, self.standings(folds=last), self.config.search, self.config.seed)
        self.ledger.seal(number, PROPOSED, {"entrants": [to_dict(entrant) for entrant in entrants]})
        self.entrants += entrants
        ends = rungs(last)
        promotion = None
        if self.config.search.halving == "asynchronous":
            promotion = Promotion(self, entrants)
            yield self._chains(entrants, last, f"round {number} rungs to {len(ends)}", promotion)
        alive = entrants
        for rung, fold in enumerate(ends, 1):
            alive = yield from self._rung(number, rung, alive, fold, f"round {number} rung {rung}", promotion)

    def _rung(
        self,
        number: int,
        rung: int,
        alive: Sequence[Entrant],
        fold: int,
        name: str,
        promotion: Promotion | None = None,  # whose entrants have trained already
    ) -> Generator[Sequence[Chain], None, list[Entrant]]:
        """Train up to this fold, and seal who goes on."""
        if promotion is None:
            yield self._chains(alive, fold, name)
        reached = [standing for standing in self.standings(alive, fold) if standing.folds == fold]
        before = self.ledger.sealed(number, rung) if self.arena.folds.extended else None  # perhaps of another source
        leaked = before["leaked"] if before else self._leaked(fold)
        honest = [standing for standing in reached if standing.hash not in leaked]
        over = fold in self.arena.folds.ends
        if over:
            kept = honest
        elif promotion:
            kept = promotion.kept(honest, fold)
        else:
            kept = survivors(honest, fold, self.arena, self.config.search)
        decided = {
            "fold": fold,
            "scores": {standing.hash: _plain(standing.scores[-1][1]) for standing in reached},
            "kept": sorted(standing.hash for standing in kept),
            "eliminated": sorted({standing.hash for standing in honest} - {standing.hash for standing in kept}),
            "leaked": leaked,
        }
        self.ledger.seal(number, rung, decided)
        self._decided(decided)
        return [standing.entrant for standing in kept]

    def _decided(self, sealed: dict[str, Any] | None) -> None:
        if sealed:
            self.held |= sealed["leaked"]
            self.gone |= dict.fromkeys([*sealed["eliminated"], *sealed["leaked"]], sealed["fold"])

    def _leaked(self, fold: int) -> dict[str, str]:
        """Who is too good to be true, among everybody, as they stand now; those held before are not named again."""
        known = isinstance(self.config.data.source, SynthSource)
        found = alarms(self.standings(folds=fold), self.arena, self.config.leak, known)
        return {name: reason for name, reason in sorted(found.items()) if name not in self.held}

    def _chains(
        self, alive: Sequence[Entrant], fold: int, name: str, promotion: Promotion | None = None
    ) -> list[Chain]:
        """Of a stage that begins."""
        search, seed = self.config.search, self.config.seed
        chains: list[Chain] = []
        for entrant in alive:
            for number in range(search.seeds):
                links = chain(entrant, number, self.arena, search, seed)[:fold]
                chains.append(promotion.chain(entrant, links) if promotion else links)
        self.watcher.began(name, self._halved(len(alive)) if promotion else sum(map(len, chains)))
        return chains

    def _halved(self, there: int) -> int:
        """Trials of a round in which so many enter, if each rung leaves as many as waiting would."""
        search, trials, before = self.config.search, 0, 0
        for fold in rungs(self.arena.folds.ends[0]):
            trials += there * (fold - before) * search.seeds
            there, before = min(there, max(search.keep, math.ceil(there / search.eta))), fold
        return trials


def _entrants(sealed: dict[str, Any]) -> list[Entrant]:
    return [build(Entrant, tree, "ledger") for tree in sealed["entrants"]]


def _plain(value: float) -> float | None:
    """JSON has no NaN."""
    return value if value == value else None
