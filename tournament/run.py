"""A tournament in a folder: begun, stopped anywhere, gone on with, and concluded.

RUN/config.yaml          every setting, so that the run can be gone on with
RUN/ledger/              finished trials, the only truth; everything else can be made again from it
RUN/tune/                Ray Tune's files, TensorBoard's among them
RUN/bundle/              the ensemble
RUN/leaderboard.*        as CSV, Parquet and JSON
RUN/report.html          all of it, to be read
RUN/openings.json        every look at the hold-out
"""

from __future__ import annotations

from pathlib import Path

from kit.config import load, to_yaml
from kit.errors import UserError
from kit.files import write_text
from market import data
from podracer.folder import CONFIG, held, refuse_unless_run
from podracer.run import absolute
from tournament import leaderboard
from tournament.arena import Arena
from tournament.config import TournamentConfig
from tournament.final import OPENINGS, VERDICT, Outcome, conclude, open_hold_out, outcome_of
from tournament.leak import LEAK, self_test
from tournament.ledger import Ledger
from tournament.live import Live
from tournament.report import page
from tournament.rounds import Tournament
from tournament.verdict import Verdict

REPORT, SHOWN = "report.html", 10


def assemble(config: TournamentConfig, folder: Path) -> Tournament:
    """What the folder holds, or will hold."""
    panel, _ = data.load(config.data)
    arena = Arena.build(panel, config.features, config.trading, config.folds)
    return Tournament(config, arena, Ledger(folder / "ledger"), folder / "tune")


def run(config: TournamentConfig, folder: Path) -> int:
    """To the end: the exit code. What is in the ledger already is not run again."""
    config = absolute(config)
    tournament = assemble(config, folder)
    if config.leak.self_test:
        self_test(tournament.arena)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / CONFIG).exists():
        write_text(folder / CONFIG, to_yaml(config))
    live = Live()
    tournament.watcher = live
    with held(folder):
        try:
            tournament.run()
            outcome = conclude(tournament, folder)
        finally:
            live.close()
        _publish(tournament, outcome, folder)
    print("\n".join(summary(tournament, outcome, folder)))
    return LEAK if tournament.held else 0


def recalled(folder: Path) -> Tournament:
    """A run as its ledger has it now, without training anything."""
    refuse_unless_run(folder)
    tournament = assemble(load(TournamentConfig, folder / CONFIG), folder)
    tournament.recall()
    return tournament


def final(folder: Path, command: str, moment: str) -> Verdict:
    """Open the hold-out, and write the report again with what was in it."""
    tournament = recalled(folder)
    if not (folder / "bundle").is_dir():
        raise UserError(f"{folder}: has no bundle yet; expected a run that has ended")
    verdict = open_hold_out(tournament, folder, command, moment)
    outcome = outcome_of(tournament, folder)
    page.write(folder / REPORT, outcome, tournament.arena, tournament.config, folder)
    return verdict


def summary(tournament: Tournament, outcome: Outcome, folder: Path) -> list[str]:
    lines = leaderboard.table(outcome.standings, tournament.arena, SHOWN)
    if outcome.choices:
        members = ", ".join(f"{choice.weight:.0%} {choice.standing.name}" for choice in outcome.choices)
        lines += ["", f"ensemble: {members}"]
    else:
        lines += ["", "ensemble: nobody is surely above equal weight, so it is equal weight"]
    for name, reason in tournament.held.items():
        lines.append(f"held: {name[:8]}: {reason}")
    lines += ["", outcome.verdict.text, "", f"report:   {folder / REPORT}", f"bundle:   {outcome.bundle}"]
    looked = (folder / OPENINGS).is_file()
    again = f"verdict:  {folder / VERDICT}" if looked else f"next:     python -m tournament final {folder}"
    return [*lines, again]


def _publish(tournament: Tournament, outcome: Outcome, folder: Path) -> None:
    leaderboard.write(folder, outcome.standings, tournament.arena)
    page.write(folder / REPORT, outcome, tournament.arena, tournament.config, folder)
