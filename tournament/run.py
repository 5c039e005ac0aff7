"""A tournament in a folder: begun, stopped anywhere, gone on with, and concluded.

RUN/config.yaml          every setting, so that the run can be gone on with
RUN/origin.json          hashes of the code, the data and the settings that it was begun with, and how many bars
RUN/ledger/              finished trials, the only truth; everything else can be made again from it
RUN/tune/                Ray Tune's files, TensorBoard's among them
RUN/bundle/              the ensemble; beside it bundle.verdict.json
RUN/leaderboard.*        as CSV, Parquet and JSON
RUN/report.html          all of it, to be read
RUN/result.json          what it came to, in short; written last
RUN/openings.json        every look at the hold-out
RUN/earlier/1, 2, ...    what it had come to, each time before bars were added
RUN/wandb/               Weights & Biases' files, where it is asked for
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from agents import bundle
from agents.manifest import Provenance, parse_json
from kit.config import load, to_dict, to_yaml
from kit.errors import INTERRUPTED, UserError
from kit.files import write_json, write_text
from market import data
from market.panel import Panel
from podracer.folder import CONFIG, RESULT, held, refuse_unless_run
from podracer.provenance import created_by
from podracer.run import absolute
from tournament import leaderboard
from tournament.arena import Arena
from tournament.config import TournamentConfig
from tournament.execute import begin_beside, refuse_unless_room
from tournament.final import (
    EARLIER,
    VERDICT,
    Outcome,
    conclude,
    identity,
    last_opened,
    last_stage,
    open_hold_out,
    openings,
    outcome_of,
)
from tournament.leak import LEAK, self_test
from tournament.ledger import Ledger, Record
from tournament.live import Live
from tournament.queue import Watcher
from tournament.remote import LEDGER, OPENINGS, gather, ledger_of, push, refuse_if_taken
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


def run(config: TournamentConfig, folder: Path) -> int:
    """To the end: the exit code. What is in the ledger already is not run again."""
    config = absolute(config)
    with Asked() as asked:
        try:
            tournament = assemble(config, folder)
            if (folder / RESULT).is_file():
                print(f"{folder}: finished already")
                _write_config(config, folder)
                with held(folder):  # it may have been killed before all was put, or is to be kept from now on
                    Ledger(folder / LEDGER, ledger_of(config.execution.storage)).entrust()
                    push(folder)
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
    panel = _begun_with(folder, config, panel)
    looked = last_opened(folder, len(config.folds.extended))
    arena = Arena.build(panel, config.features, config.trading, config.folds, looked)
    store = "" if (folder / RESULT).is_file() else ledger_of(config.execution.storage)  # all of it is here by then
    return Tournament(config, arena, Ledger(folder / LEDGER, store), folder / "tune")


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
        push(folder)
    return folder / REPORT


def final(folder: Path, command: str, moment: str) -> str:
    """Open the hold-out, and write the report again with what was in it: the verdict."""
    tournament = _ended(folder)
    with held(folder):
        verdict = open_hold_out(tournament, folder, command, moment)
        write_json(folder / RESULT, _publish(tournament, outcome_of(tournament, folder), folder))
        push(folder)
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
        begin_beside(lambda: self_test(tournament.arena))
    refuse_unless_room(config)
    _write_config(config, folder)
    with held(folder):
        if origin(folder).get("configuration") != identity(config):
            panel, before = tournament.arena.panel, folder / EARLIER / str(len(config.folds.extended))
            if openings(folder) == openings(before):
                (folder / OPENINGS).unlink(missing_ok=True)  # of the hold-out before this one
            made = Provenance(code(), identity(config), panel.hash, created_by())
            write_json(folder / ORIGIN, {**to_dict(made), "bars": len(panel)})
        tournament.ledger.entrust()
        push(folder)
        with _watched(tournament, folder, asked) as tracker:
            tournament.run(last_stage)
            outcome = conclude(tournament, folder)
            result = _publish(tournament, outcome, folder)
            if tracker:
                tracker.conclude(leaderboard.rows(outcome.standings, tournament.arena), result, outcome.bundle)
        write_json(folder / RESULT, result)
        push(folder)
    return outcome


def _write_config(config: TournamentConfig, folder: Path) -> None:
    """Once; where the run is kept may change later."""
    file, storage = folder / CONFIG, config.execution.storage
    stored = load(TournamentConfig, file) if file.is_file() else None
    if stored is None or stored.execution.storage != storage:
        refuse_if_taken(storage)
        gather(folder)
        write_text(file, to_yaml(config if stored is None else replace(stored, execution=config.execution)))


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

    tournament.watcher = Watcher(started, live.progressed, finished, live.began)
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
        raise has_not_ended(folder)
    return recalled(folder)


def has_not_ended(folder: Path) -> UserError:
    return UserError(
        f"{folder}: has no {RESULT}, so it has not ended; go on with: python -m tournament run --resume {folder}"
    )


def origin(folder: Path) -> dict[str, Any]:
    """What the run was begun with; empty: nothing yet."""
    file = folder / ORIGIN
    return parse_json(file.read_bytes(), str(file)) if file.is_file() else {}


def refuse_another(folder: Path, there: Mapping[str, Any], **here: str) -> None:
    """A trial depends on all of these: with others, none in the ledger would be this run's."""
    right = {
        "code": f"that of {there.get('created_by')}; expected the version that began this run, or a new run",
        "data": "that of other bars; expected those that this run was begun with, or a new run",
        "configuration": f"that of other settings; expected a {CONFIG} that nobody changed, or a new run",
    }
    for name, ours in here.items():
        if there.get(name) != ours:
            raise UserError(
                f"{folder / ORIGIN}: {name} = {str(there.get(name))[:12]!r}: is {right[name]}; here it is {ours[:12]!r}"
            )


def _begun_with(folder: Path, config: TournamentConfig, panel: Panel) -> Panel:
    """The bars of the run: those that came to its source later are not among them, before it is extended."""
    there = origin(folder)
    if not there:
        return panel
    began = panel[: there.get("bars")]
    refuse_another(folder, there, code=code(), data=began.hash)
    if config.folds.extended and there == origin(folder / EARLIER / str(len(config.folds.extended))):
        return panel  # an extension, of which nothing is trained yet
    refuse_another(folder, there, configuration=identity(config))
    return began


def _held_out(arena: Arena) -> bool:
    return arena.folds.holdout.start < arena.folds.holdout.stop
