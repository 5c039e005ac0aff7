"""Train many candidates, eliminate the weak, and say whether the winners are better than equal weight."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from kit.cli import Command
from kit.config import describe, load
from kit.errors import INTERRUPTED, UserError, run_command
from kit.log import set_up_logging
from kit.memory import keep_freed_memory
from podracer.folder import CONFIG, refuse_unless_run, refuse_unless_vacant
from tournament import leaderboard
from tournament.config import TournamentConfig
from tournament.run import final, recalled, run

EXAMPLES = """examples:
  python -m tournament run configs/demo.yaml --out runs/demo
  python -m tournament run configs/demo.yaml search.candidates=32 seed=3
  python -m tournament run --resume runs/demo                after Ctrl-C, a crash or a power cut
  python -m tournament leaderboard runs/demo                 while it runs, or later
  python -m tournament final runs/demo                       open the hold-out: once, when everything is decided"""


def main(words: Sequence[str] | None = None) -> int:
    parser = Command(prog="python -m tournament", description=__doc__, epilog=EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    epilog = "\n  ".join([f"{EXAMPLES}\n\nsettings:", *describe(TournamentConfig)])
    add = commands.add_parser("run", help="the whole of it", description="run a tournament", epilog=epilog)
    add.add_argument("target", type=Path, nargs="?", metavar="CONFIG", help="a YAML configuration")
    add.add_argument("settings", nargs="*", metavar="key=value", help="settings that win over the configuration's")
    add.add_argument("--out", type=Path, metavar="RUN", help="the run's folder (default: runs/NAME-DATE-TIME)")
    add.add_argument("--resume", type=Path, metavar="RUN", help="go on with the run in this folder")
    add = commands.add_parser("leaderboard", help="everybody ever scored", description="everybody ever scored")
    add.add_argument("run", type=Path, metavar="RUN")
    add.add_argument("--json", action="store_true", help="rows for a program")
    add = commands.add_parser("final", help="open the hold-out", description="open the hold-out, and count it")
    add.add_argument("run", type=Path, metavar="RUN")
    options = parser.parse_args(words)
    set_up_logging("WARNING")
    keep_freed_memory()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return {"run": begin, "leaderboard": show, "final": open_it}[options.command](options)


def begin(options: argparse.Namespace) -> int:
    if options.resume:
        if options.target or options.out:
            raise UserError(f"--resume = {str(options.resume)!r}: expected no other settings beside it")
        refuse_unless_run(options.resume)
        config, folder = load(TournamentConfig, options.resume / CONFIG), options.resume
    else:
        if options.target is None:
            raise UserError("CONFIG: none is named; expected a YAML configuration, such as configs/demo.yaml")
        folder = options.out or Path("runs", f"{options.target.stem}-{datetime.now():%Y%m%d-%H%M%S}")
        refuse_unless_vacant(folder)
        config = load(TournamentConfig, options.target, options.settings)
    try:
        return run(config, folder)
    except KeyboardInterrupt:
        again = f"go on with: python -m tournament run --resume {folder}"
        print(f"stopped; {again if (folder / CONFIG).is_file() else 'nothing was written'}", file=sys.stderr)
        return INTERRUPTED


def show(options: argparse.Namespace) -> int:
    tournament = recalled(options.run)
    standings = tournament.standings()
    if options.json:
        print(json.dumps(leaderboard.rows(standings, tournament.arena), indent=2))
    else:
        print("\n".join(leaderboard.table(standings, tournament.arena)))
    return 0


def open_it(options: argparse.Namespace) -> int:
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    print(final(options.run, f"tournament final {options.run.name}", moment).text)
    return 0


if __name__ == "__main__":
    run_command(main)
