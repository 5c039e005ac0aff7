"""A tournament in a folder: begun, stopped anywhere, gone on with, and concluded.

RUN/config.yaml          every setting, so that the run can be gone on with
RUN/origin.json          hashes of the code, the data and the settings that it was begun with
RUN/ledger/              finished trials, the only truth; everything else can be made again from it
RUN/tune/                Ray Tune's files, TensorBoard's among them
RUN/bundle/              the ensemble; beside it bundle.verdict.json
RUN/leaderboard.*        as CSV, Parquet and JSON
RUN/report.html          all of it, to be read
RUN/result.json          what it came to, in short; written last
RUN/openings.json        every look at the hold-out
RUN/wandb/               Weights & Biases' files, where it is asked for
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from agents import bundle
from agents.manifest import Provenance, parse_json
from kit.config import load, to_dict, to_yaml
from kit.errors import INTERRUPTED, UserError
from kit.files import write_json, write_text
from market import data
from podracer.folder import CONFIG, RESULT, held, refuse_unless_run
from podracer.provenance import created_by
from podracer.run import absolute
from tournament import leaderboard
from tournament.arena import Arena
from tournament.config import TournamentConfig
from tournament.final import OPENINGS, VERDICT, Outcome, conclude, identity, open_hold_out, openings, outcome_of
from tournament.leak import LEAK, self_test
from tournament.ledger import Ledger, Record
from tournament.live import Live
from tournament.queue import Watcher
from tournament.report import page
from tournament.rounds import Tournament
from tournament.tracking import LIMIT, Tracker, mode_of
from tournament.trial import Job, code

ORIGIN, REPORT = "origin.json", "report.html"
SHOWN = 10  # of the leaderboard
HURRY = 5.0  # seconds that tracking may take after Ctrl-C


class Asked:
    """SIGTERM is taken as Ctrl-C: the first one ends Ray Tune in order, a second one everything at once."""

    def __init__(self) -> None:
        self.code = INTERRUPTED  # of a process that was told so
        self.former = signal.getsignal(signal.SIGTERM)

    def __enter__(self) -> Asked:
        self.listen()
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGTERM, self.former)

    def listen(self) -> None:
        """Again, where Ray has put itself in between."""
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.code = 128 + number
        signal.raise_signal(signal.SIGINT)


class Watched(Watcher):
    """What several watch. Ray Tune pickles all that it is given; nobody reads that."""

    def __reduce__(self) -> tuple[type[Watcher], tuple[()]]:
        return Watcher, ()


def run(config: TournamentConfig, folder: Path) -> int:
    """To the end: the exit code. What is in the ledger already is not run again."""
    config = absolute(config)
    with Asked() as asked:
        try:
            tournament = assemble(config, folder)
            if (folder / RESULT).is_file():
                print(f"{folder}: finished already")
                tournament.recall()
                outcome = outcome_of(tournament, folder)
            else:
                outcome = _to_the_end(tournament, folder, asked)
        except KeyboardInterrupt:
            return asked.code
    print("\n".join(summary(tournament, outcome, folder)))
    return LEAK if tournament.held else 0


def assemble(config: TournamentConfig, folder: Path) -> Tournament:
    """What the folder holds, or will hold."""
    panel, report = data.load(config.data)
    if report.faults:
        print("\n".join(report.lines()), file=sys.stderr)
    arena = Arena.build(panel, config.features, config.trading, config.folds)
    _refuse_another_origin(folder, config, arena)
    return Tournament(config, arena, Ledger(folder / "ledger"), folder / "tune")


def recalled(folder: Path, before: Tournament | None = None) -> Tournament:
    """A run as its ledger has it now, without training anything; `before`: what is known of it already."""
    if before is None:
        refuse_unless_run(folder)
        before = assemble(load(TournamentConfig, folder / CONFIG), folder)
    tournament = Tournament(before.config, before.arena, before.ledger, before.folder)
    tournament.recall()
    return tournament


def report(folder: Path) -> Path:
    """Write the page again."""
    tournament = _ended(folder)
    with held(folder):
        _page(tournament, outcome_of(tournament, folder), folder)
    return folder / REPORT


def final(folder: Path, command: str, moment: str) -> str:
    """Open the hold-out, and write the report again with what was in it: the verdict."""
    tournament = _ended(folder)
    with held(folder):
        verdict = open_hold_out(tournament, folder, command, moment)
        write_json(folder / RESULT, _publish(tournament, outcome_of(tournament, folder), folder))
    return verdict.text


def summary(tournament: Tournament, outcome: Outcome, folder: Path) -> list[str]:
    lines = leaderboard.table(outcome.standings, tournament.arena, SHOWN)
    lines += ["", f"ensemble of {len(outcome.choices)}:" if outcome.choices else "ensemble: equal weight, as nobody is"]
    lines += [f"  {choice.weight:6.1%}  {choice.standing.name}" for choice in outcome.choices]
    if not outcome.choices:
        lines[-1] += " above it even by the lower bound"
    names = {standing.hash: standing.name for standing in outcome.standings}
    lines += [f"held as too good to be true: {names[name]}: {reason}" for name, reason in tournament.held.items()]
    verdict = parse_json((folder / VERDICT).read_bytes(), str(folder / VERDICT))
    lines += ["", verdict["text"], "", f"report:   {folder / REPORT}", f"bundle:   {outcome.bundle}"]
    if (folder / OPENINGS).is_file():
        return [*lines, f"verdict:  {folder / VERDICT}"]
    later = "  opens the hold-out: once, when all is decided"
    return [*lines, f"next:     python -m tournament final {folder}{later}" if _held_out(tournament.arena) else ""]


def _to_the_end(tournament: Tournament, folder: Path, asked: Asked) -> Outcome:
    config = tournament.config
    if config.leak.self_test:
        self_test(tournament.arena)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / CONFIG).exists():
        write_text(folder / CONFIG, to_yaml(config))
    with held(folder):
        if not (folder / ORIGIN).exists():
            write_json(folder / ORIGIN, to_dict(_origin(config, tournament.arena)))
        with _watched(tournament, folder, asked) as tracker:
            tournament.run()
            outcome = conclude(tournament, folder)
            result = _publish(tournament, outcome, folder)
            if tracker:
                tracker.conclude(leaderboard.rows(outcome.standings, tournament.arena), result, outcome.bundle)
        write_json(folder / RESULT, result)
    return outcome


@contextmanager
def _watched(tournament: Tournament, folder: Path, asked: Asked) -> Iterator[Tracker | None]:
    """Show how it goes, and tell Weights & Biases."""
    live, mode = Live(tournament), mode_of(tournament.config.wandb)
    group = re.sub(r"[^\w.-]", "-", f"{folder.absolute().name}-{identity(tournament.config)[:8]}")
    tracker = Tracker(mode, folder, group) if mode else None

    def started(job: Job) -> None:
        asked.listen()
        live.started(job)

    def finished(record: Record) -> None:
        live.finished(record)
        if tracker:
            tracker.record(record)

    tournament.watcher = Watched(started, live.progressed, finished, live.began)
    limit = HURRY
    try:
        yield tracker
        limit = LIMIT
    finally:
        live.close()
        if tracker:
            tracker.close(limit)


def _publish(tournament: Tournament, outcome: Outcome, folder: Path) -> dict[str, Any]:
    """Everything that is made from the ledger; returns the result in short."""
    made = bundle.load(outcome.bundle).hash
    if not openings(folder):
        write_json(folder / VERDICT, {"bundle": made, "openings": 0, **outcome.verdict.to_dict()})
    verdict = parse_json((folder / VERDICT).read_bytes(), str(folder / VERDICT))
    leaderboard.write(folder, outcome.standings, tournament.arena)
    _page(tournament, outcome, folder)
    return {
        "outcome": verdict["outcome"],
        "text": verdict["text"],
        "candidates": len(outcome.standings),
        "ensemble": {choice.standing.name: choice.weight for choice in outcome.choices},
        "held": tournament.held,
        "bundle": made,
    }


def _page(tournament: Tournament, outcome: Outcome, folder: Path) -> None:
    page.write(folder / REPORT, outcome, tournament.arena, tournament.config, folder)


def _ended(folder: Path) -> Tournament:
    refuse_unless_run(folder)
    if not (folder / RESULT).is_file():
        raise UserError(
            f"{folder}: has no {RESULT}, so it has not ended; go on with: python -m tournament run --resume {folder}"
        )
    return recalled(folder)


def _origin(config: TournamentConfig, arena: Arena) -> Provenance:
    return Provenance(code(), identity(config), arena.panel.hash, created_by())


def _refuse_another_origin(folder: Path, config: TournamentConfig, arena: Arena) -> None:
    """A trial depends on all of these: with others, none in the ledger would be this run's."""
    file = folder / ORIGIN
    if not file.is_file():
        return
    there, here = parse_json(file.read_bytes(), str(file)), _origin(config, arena)
    right = {
        "code": f"that of {there.get('created_by')}; expected the version that began this run, or a new run",
        "data": "that of other bars; expected those that this run was begun with, or a new run",
        "configuration": f"that of other settings; expected a {CONFIG} that nobody changed, or a new run",
    }
    for name, expected in right.items():
        if there.get(name) != getattr(here, name):
            raise UserError(
                f"{file}: {name} = {str(there.get(name))[:12]!r}: is {expected}; here it is "
                f"{getattr(here, name)[:12]!r}"
            )


def _held_out(arena: Arena) -> bool:
    return arena.folds.holdout.start < arena.folds.holdout.stop
