"""Train many candidates, eliminate the weak, and say whether the winners are better than equal weight."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from kit.cli import Command
from kit.config import describe, differences, load, to_dict
from kit.errors import INTERRUPTED, UserError, run_command
from kit.log import set_up_logging
from kit.memory import keep_freed_memory
from podracer.folder import CONFIG, dated, refuse_unless_vacant, resumed
from podracer.run import absolute
from tournament import leaderboard
from tournament.config import WHERE, TournamentConfig
from tournament.extend import extend
from tournament.final import identity, openings
from tournament.leak import LEAK
from tournament.remote import fetch, has_ended
from tournament.run import REPORT, final, recalled, report, run

RUN_EXAMPLES = f"""examples:
  python -m tournament run configs/demo.yaml --out runs/demo
  python -m tournament run configs/demo.yaml search.candidates=32 --seed 3
  python -m tournament run bars.csv search.rounds=2          bars of your own
  python -m tournament run --resume runs/demo                after Ctrl-C, a crash or a power cut
  python -m tournament run --resume runs/demo execution.workers=4

Ctrl-C ends the trials that run and says how to go on; a second one ends everything at once. A run that goes on ends
as if it had never been stopped. Exit codes: 0; 2: bad input; {LEAK}: too good to be true; 130: stopped."""
LEADERBOARD_EXAMPLES = """examples:
  python -m tournament leaderboard runs/demo                 while it runs, or later
  python -m tournament leaderboard runs/demo --watch
  python -m tournament leaderboard runs/demo --json | jq '.[0]'
  python -m tournament leaderboard runs/demo --csv board.csv --parquet board.parquet

edge: Sharpe ratio minus equal weight's on the same days (1/N), after costs; at least: its 20 % lower bound.
deflated: the probability that it is better than the luckiest of as many worthless tries."""
EXTEND_EXAMPLES = """examples:
  python -m tournament extend runs/demo --bars bars.parquet  the run's own bars, and later ones
  python -m tournament extend runs/demo --bars bars/ folds.holdout=252 execution.workers=4
  in a crontab:  0 22 * * FRI  cd /srv/desk && python -m tournament extend runs/demo --bars bars.parquet
  on a cluster:  ray job submit --working-dir . -- python -m tournament extend /shared/demo --bars /shared/new.parquet

Whoever had finished trains the new folds from the last checkpoint of its own; who was eliminated stays out. The
verdict and the bundle are made anew, over all folds; the former ones are in RUN/earlier. The hold-out moves to the new
end, and one that was opened is never a hold-out again. Stopped, it is gone on with by the same command or by
run --resume. Exit codes as those of run; 2 also where the new bars are too few for another fold."""
FETCH_EXAMPLES = """examples:
  python -m tournament fetch s3://bucket/runs/first runs/first
  python -m tournament leaderboard runs/first --watch        while it goes on elsewhere
  python -m tournament run --resume runs/first               where the machine that ran it is lost

The address is the run's execution.storage. Looking disturbs nobody; only one may go on with a run at a time."""
REPORT_EXAMPLES = """examples:
  python -m tournament report runs/demo                      writes runs/demo/report.html again"""
FINAL_EXAMPLES = """examples:
  python -m tournament final runs/demo                       once, when everything is decided

Every look at the hold-out is counted, and the report tells of it: only the first one is a fair test."""
EXAMPLES = """examples:
  python -m tournament run configs/demo.yaml --out runs/demo 12 candidates, 6 folds, a few minutes
  python -m tournament leaderboard runs/demo --watch         from a second terminal
  python -m tournament run --resume runs/demo                after Ctrl-C, or kill -9
  python -m tournament final runs/demo                       open the hold-out: once, when everything is decided
  python -m tournament extend runs/demo --bars newer.parquet
  python -m tournament report runs/demo

COMMAND --help says more, and for run every setting."""
PAUSE, SHARE = 2.0, 0.1  # seconds between two looks; the most of the time that looking may take
TERMINATED = 128 + signal.SIGTERM
CLEAR = "\x1b[H\x1b[J"


def main(words: Sequence[str] | None = None) -> int:
    parser = Command(prog="python -m tournament", description=__doc__, epilog=EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(commands)
    _add_extend(commands)
    _add_leaderboard(commands)
    for name, text, epilog in (
        ("report", "write the report of a finished run again", REPORT_EXAMPLES),
        ("final", "open the hold-out, count it, and say what the verdict is", FINAL_EXAMPLES),
    ):
        added = commands.add_parser(name, help=text, description=text, epilog=epilog)
        added.add_argument("run", type=Path, metavar="RUN", help="the folder of a run that has ended")
    _add_fetch(commands)
    options = parser.parse_args(words)
    set_up_logging("WARNING")
    keep_freed_memory()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)  # the matrices are small: on a busy machine more threads are far slower
    actions = {"run": begin, "extend": go_on, "fetch": bring, "leaderboard": show, "report": write_again}
    actions["final"] = open_it
    return actions[options.command](options)


def begin(options: argparse.Namespace) -> int:
    return _run(*(_resumed(options) if options.resume else _begun(options)))


def go_on(options: argparse.Namespace) -> int:
    config, notes = extend(options.run, options.bars, options.settings)
    print("\n".join(notes), file=sys.stderr)
    return _run(config, options.run)


def _run(config: TournamentConfig, folder: Path) -> int:
    code = run(config, folder)
    if code in (INTERRUPTED, TERMINATED):
        again = f"go on with: python -m tournament run --resume {shlex.quote(str(folder))}"
        print(f"stopped; {again if (folder / CONFIG).is_file() else 'nothing was written'}", file=sys.stderr)
    return code


def show(options: argparse.Namespace) -> int:
    if options.watch and options.json:
        raise UserError("--json = true: expected no --watch beside it")
    found, shown = recalled(options.run), ""
    while True:
        began = time.monotonic()
        ended = has_ended(options.run, found.config.execution.storage)  # before the ledger is read
        found = recalled(options.run, found)
        standings = found.standings()
        for file, write in ((options.csv, leaderboard.write_csv), (options.parquet, leaderboard.write_parquet)):
            if file:
                write(file, leaderboard.rows(standings, found.arena))
        if options.json:
            text = json.dumps(leaderboard.rows(standings, found.arena), indent=2, allow_nan=False)
        else:
            text = "\n".join(leaderboard.table(standings, found.arena))
        if text != shown:
            clear = CLEAR if options.watch and sys.stdout.isatty() else ""
            print(f"{clear}{text}", flush=True)
            shown = text
        if ended or not options.watch:
            return 0
        time.sleep(max(PAUSE, (time.monotonic() - began) / SHARE))


def write_again(options: argparse.Namespace) -> int:
    print(report(options.run))
    return 0


def open_it(options: argparse.Namespace) -> int:
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    print(final(options.run, f"python -m tournament final {options.run}", moment))
    looks = len(openings(options.run))
    if looks > 1:
        print(f"this was look {looks} at the hold-out: only the first one is a fair test", file=sys.stderr)
    print(f"report: {options.run / REPORT}", file=sys.stderr)
    return 0


def bring(options: argparse.Namespace) -> int:
    refuse_unless_vacant(options.run, "RUN")
    fetch(options.address, options.run)
    print(options.run)
    return 0


def _begun(options: argparse.Namespace) -> tuple[TournamentConfig, Path]:
    folder = options.out or dated(options.target.stem if options.target else "tournament", datetime.now())
    refuse_unless_vacant(folder)
    return absolute(_config(options)), folder


def _resumed(options: argparse.Namespace) -> tuple[TournamentConfig, Path]:
    """The settings of the run; where trials run may change, what they depend on may not."""
    folder = resumed(options.resume, options.out)
    stored = load(TournamentConfig, folder / CONFIG)
    if options.target is None:
        asked = absolute(load(TournamentConfig, folder / CONFIG, options.settings))
    else:
        asked = absolute(_config(options))
    if identity(asked) != identity(stored):
        key, value, ours = next(differences(to_dict(asked), to_dict(stored), WHERE))
        raise UserError(
            f"--resume = {str(folder)!r}: {key} = {value!r}: this run's is {ours!r}; "
            "expected no other settings than execution and wandb, or a new run without --resume"
        )
    return asked, folder


def _config(options: argparse.Namespace) -> TournamentConfig:
    """From a YAML configuration, or from bars and the defaults."""
    target, settings = options.target, options.settings
    if target is None:
        raise UserError("CONFIG: none is named; expected a YAML configuration, such as configs/demo.yaml, or bars")
    if target.suffix in (".yaml", ".yml"):
        return load(TournamentConfig, target, settings)
    return load(TournamentConfig, overrides=[f"data.source={{kind: file, path: {str(target)!r}}}", *settings])


def _add_run(commands: argparse._SubParsersAction[Command]) -> None:
    epilog = "\n  ".join([f"{RUN_EXAMPLES}\n\nsettings:", *describe(TournamentConfig)])
    text = "run a tournament to its verdict; write its leaderboard, its report and its bundle"
    parser = commands.add_parser("run", help=text, description=text, epilog=epilog)
    target = "a YAML configuration, or a file or folder of bars"
    parser.add_run_arguments(target, "CONFIG", "RUN", "runs/NAME-DATE-TIME")


def _add_extend(commands: argparse._SubParsersAction[Command]) -> None:
    text = "train a run that has ended on bars that came since; write its verdict and its bundle anew"
    parser = commands.add_parser("extend", help=text, description=text, epilog=EXTEND_EXAMPLES)
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run that has ended")
    settings = "folds.count, folds.holdout, and where trials run: execution and wandb"
    parser.add_argument("settings", nargs="*", metavar="key=value", help=settings)
    bars = "a file or a folder: all bars that the run has, and more"
    parser.add_argument("--bars", type=Path, metavar="NEW", required=True, help=bars)


def _add_leaderboard(commands: argparse._SubParsersAction[Command]) -> None:
    text = "everybody who ever entered, the leader first; reads the ledger alone, also while the run goes on"
    parser = commands.add_parser("leaderboard", help=text, description=text, epilog=LEADERBOARD_EXAMPLES)
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument("--json", action="store_true", help="rows for a program; null: not defined")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument("--parquet", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument("--watch", action="store_true", help="show it again as it changes, until the run has ended")


def _add_fetch(commands: argparse._SubParsersAction[Command]) -> None:
    text = "copy a run from the object store that keeps it"
    parser = commands.add_parser("fetch", help=text, description=text, epilog=FETCH_EXAMPLES)
    parser.add_argument(
        "address", metavar="ADDRESS", help="the run's execution.storage, such as s3://bucket/runs/first"
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a folder that is not there yet, or empty")


if __name__ == "__main__":
    run_command(main)
