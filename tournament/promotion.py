"""Asynchronous halving: whoever is among the better of those that came to a rung goes on at once, and nobody waits.

What the ledger holds decides, so that a run that was killed goes on with those that were promoted; but who is
promoted early depends on who comes first, and that on the machine: another run may promote others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tournament.ledger import Record
from tournament.queue import Chain, Link, MaybeLink
from tournament.score import Entrant, Standing, rungs, survivors
from tournament.trial import Job

if TYPE_CHECKING:
    from tournament.rounds import Tournament


class Promotion:
    """Who of a round's entrants may go on beyond each of its rungs."""

    def __init__(self, run: Tournament, entrants: Sequence[Entrant]) -> None:
        self.run, self.entrants = run, entrants
        *self.rungs, _ = rungs(run.arena.folds.ends[0])
        self.known = -1  # trials in the ledger when this was last worked out
        self.promoted: dict[int, set[str]] = {}  # by rung

    def goes_on(self, name: str, fold: int) -> bool:
        """May this candidate do folds beyond this rung, as things stand?"""
        if (trials := len(self.run.ledger.records())) != self.known:
            self.promoted = self._worked_out()
            self.known = trials
        return name in self.promoted[fold]

    def kept(self, reached: Sequence[Standing], fold: int) -> list[Standing]:
        """Of those that came to a rung, the ones that went on, the leader first."""
        return [standing for standing in reached if self.goes_on(standing.hash, fold)]

    def chain(self, entrant: Entrant, links: Sequence[Link]) -> Chain:
        """A chain that waits at each rung until its entrant is promoted."""
        return [self._waiting(link, entrant, done) for done, link in enumerate(links)]

    def _waiting(self, link: Link, entrant: Entrant, done: int) -> MaybeLink:
        if done not in self.rungs:
            return link

        def once_promoted(before: Record | None) -> Job | None:
            return link(before) if self.goes_on(entrant.candidate.hash, done) else None

        return once_promoted

    def _worked_out(self) -> dict[int, set[str]]:
        run, search = self.run, self.run.config.search
        there, closed = list(self.entrants), True  # who may come to the rung, and whether that is settled
        far = {standing.hash: standing for standing in run.standings(self.entrants)}
        promoted: dict[int, set[str]] = {}
        for fold in self.rungs:
            came = [standing for standing in run.standings(there, fold) if standing.folds == fold]
            lost = [entrant for entrant in there if far[entrant.candidate.hash].status in ("crashed", "diverged")]
            lost = [entrant for entrant in lost if far[entrant.candidate.hash].folds < fold]
            closed = closed and len(came) + len(lost) == len(there)
            places = int(len(came) / search.eta)
            better = survivors(came, fold, run.arena, search) if closed else came[:places]
            promoted[fold] = {standing.hash for standing in better}
            promoted[fold] |= {standing.hash for standing in came if far[standing.hash].folds > fold}
            there = [entrant for entrant in there if entrant.candidate.hash in promoted[fold]]
        return promoted
