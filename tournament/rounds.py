"""The rounds: propose, train fold by fold, eliminate. Computed from the ledger, so that it can be killed anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit.config import build, to_dict
from market.synth import SynthSource
from tournament.arena import Arena
from tournament.config import TournamentConfig
from tournament.execute import execute
from tournament.leak import alarms
from tournament.ledger import Ledger
from tournament.propose import propose
from tournament.queue import Watcher
from tournament.score import Entrant, Standing, chain, rungs, standings, survivors

PROPOSED = 0  # the rung at which a round's entrants are sealed
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

    def run(self) -> list[Standing]:
        """To the end of the last round."""
        for number in range(1, self.config.search.rounds + 1):
            self._round(number)
        return self.standings()

    def recall(self) -> list[Standing]:
        """As far as the seals say, without running anything."""
        for number in range(1, self.config.search.rounds + 1):
            sealed = self.ledger.sealed(number, PROPOSED)
            if sealed is None:
                break
            self.entrants += _entrants(sealed)
            for rung in range(1, len(rungs(len(self.arena.folds.folds))) + 1):
                if decided := self.ledger.sealed(number, rung):
                    self.held |= decided["leaked"]
                    self.gone |= dict.fromkeys([*decided["eliminated"], *decided["leaked"]], decided["fold"])
        return self.standings()

    def standings(self, only: Sequence[Entrant] | None = None, folds: int | None = None) -> list[Standing]:
        entrants = self.entrants if only is None else only
        search, seed = self.config.search, self.config.seed
        return standings(entrants, self.gone, self.held, self.arena, self.ledger, search, seed, folds)

    def _round(self, number: int) -> None:
        entrants = propose(number, self.standings(), self.config.search, self.config.seed)
        self.ledger.seal(number, PROPOSED, {"entrants": [to_dict(entrant) for entrant in entrants]})
        self.entrants += entrants
        alive, first = entrants, 0
        last = len(self.arena.folds.folds)
        for rung, fold in enumerate(rungs(last), 1):
            self._train(alive, first, fold, f"round-{number}-rung-{rung}")
            reached = [standing for standing in self.standings(alive, fold) if standing.folds == fold]
            leaked = self._leaked(fold)
            honest = [standing for standing in reached if standing.hash not in leaked]
            kept = honest if fold == last else survivors(honest, fold, self.arena, self.config.search)
            out = sorted({standing.hash for standing in honest} - {standing.hash for standing in kept})
            self.ledger.seal(
                number,
                rung,
                {
                    "fold": fold,
                    "scores": {standing.hash: _plain(standing.scores[-1][1]) for standing in reached},
                    "kept": sorted(standing.hash for standing in kept),
                    "eliminated": out,
                    "leaked": leaked,
                },
            )
            self.held |= leaked
            self.gone |= dict.fromkeys([*out, *leaked], fold)
            alive, first = [standing.entrant for standing in kept], fold

    def _leaked(self, fold: int) -> dict[str, str]:
        """Who is too good to be true, among everybody, as they stand now; those held before are not named again."""
        known = isinstance(self.config.data.source, SynthSource)
        found = alarms(self.standings(folds=fold), self.arena, self.config.leak, known)
        return {name: reason for name, reason in sorted(found.items()) if name not in self.held}

    def _train(self, alive: Sequence[Entrant], first: int, fold: int, name: str) -> None:
        search, seed = self.config.search, self.config.seed
        chains = [
            chain(entrant, number, self.arena, search, seed)[:fold]
            for entrant in alive
            for number in range(search.seeds)
        ]
        self.watcher.began(name.replace("-", " "), sum(map(len, chains)))
        self.execute(chains, self.arena, self.ledger, self.config.execution, self.folder, name, self.watcher)


def _entrants(sealed: dict[str, Any]) -> list[Entrant]:
    return [build(Entrant, tree, "ledger") for tree in sealed["entrants"]]


def _plain(value: float) -> float | None:
    """JSON has no NaN."""
    return value if value == value else None
