"""The rounds: propose, train fold by fold, eliminate. Computed from the ledger, so that it can be killed anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit.config import build, to_dict
from tournament.arena import Arena
from tournament.config import TournamentConfig
from tournament.execute import execute
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
                    self.gone |= dict.fromkeys(decided["eliminated"], decided["fold"])
        return self.standings()

    def standings(self, only: Sequence[Entrant] | None = None, folds: int | None = None) -> list[Standing]:
        entrants = self.entrants if only is None else only
        return standings(entrants, self.gone, self.arena, self.ledger, self.config.search, self.config.seed, folds)

    def _round(self, number: int) -> None:
        entrants = propose(number, self.standings(), self.config.search, self.config.seed)
        self.ledger.seal(number, PROPOSED, {"entrants": [to_dict(entrant) for entrant in entrants]})
        self.entrants += entrants
        alive, first = entrants, 0
        last = len(self.arena.folds.folds)
        for rung, fold in enumerate(rungs(last), 1):
            self._train(alive, first, fold, f"round-{number}-rung-{rung}")
            reached = [standing for standing in self.standings(alive, fold) if standing.folds == fold]
            kept = reached if fold == last else survivors(reached, fold, self.arena, self.config.search)
            out = sorted({standing.hash for standing in reached} - {standing.hash for standing in kept})
            self.ledger.seal(
                number,
                rung,
                {
                    "fold": fold,
                    "scores": {standing.hash: _plain(standing.scores[-1][1]) for standing in reached},
                    "kept": sorted(standing.hash for standing in kept),
                    "eliminated": out,
                },
            )
            self.gone |= dict.fromkeys(out, fold)
            alive, first = [standing.entrant for standing in kept], fold

    def _train(self, alive: Sequence[Entrant], first: int, fold: int, name: str) -> None:
        search, seed = self.config.search, self.config.seed
        chains = [
            chain(entrant, number, self.arena, search, seed)[:fold]
            for entrant in alive
            for number in range(search.seeds)
        ]
        self.execute(chains, self.arena, self.ledger, self.config.execution, self.folder, name, self.watcher)


def _entrants(sealed: dict[str, Any]) -> list[Entrant]:
    return [build(Entrant, tree, "ledger") for tree in sealed["entrants"]]


def _plain(value: float) -> float | None:
    """JSON has no NaN."""
    return value if value == value else None
