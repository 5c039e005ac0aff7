"""Trade an ensemble on paper, watch it, stop it, and prove what it did."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kit.cli import Command, examples_of, file_or_setting
from kit.config import load
from kit.errors import UserError, run_command
from kit.files import write_text
from kit.log import set_up_logging
from paper.chain import Anchor, keys_from, read_entries, read_state
from paper.config import PaperConfig
from paper.guard import KILL, ask_for_reset

EXAMPLES = """examples:
  export PODRACER_TOKEN=...                        # of the endpoint
  export PODRACER_JOURNAL_KEY=$(openssl rand -hex 32) PODRACER_BOARD_TOKEN=$(openssl rand -hex 16)
  python -m paper exchange data.source.kind=synth port=8701 &      # a local Alpaca, in step with the desk
  python -m paper run configs/paper.yaml           # begins, or goes on where it was killed
  python -m paper replay runs/demo/tournament      # all of it on this machine, over the hold-out of `make demo`
  python -m paper report runs/desk --bundle runs/demo/tournament/bundle data.source.path=bars.parquet
  python -m paper status runs/desk
  python -m paper kill runs/desk --reason 'earnings tonight'
  python -m paper reset runs/desk --reason 'looked at it'
  python -m paper verify runs/desk --witness "$(cat kept-anchor.json)"
  python -m paper export runs/desk --out fills.csv --kind fill

A desk is one folder (default: runs/NAME). At Alpaca the keys are APCA_API_KEY_ID and APCA_API_SECRET_KEY."""
PROBLEMS = 1  # exit code of a journal that was altered


def main() -> int:
    options = _parser().parse_args()
    set_up_logging("DEBUG" if getattr(options, "debug", False) else "WARNING")
    return int(options.do(options) or 0)


def run(options: argparse.Namespace) -> int:
    """Trade until the market ends or somebody stops it."""
    from paper.run import trade

    config = load(PaperConfig, options.target, options.settings)
    return trade(config, options.out or Path("runs") / config.name, options.bars)


def exchange(options: argparse.Namespace) -> None:
    """A local Alpaca, until Ctrl-C."""
    from paper.exchange.config import ExchangeConfig
    from paper.exchange.run import serve_exchange
    from paper.watch.alerts import LOOPBACK

    config = load(ExchangeConfig, options.target, options.settings)
    if config.host not in LOOPBACK:
        print(
            f"warning: {config.host} is reached from elsewhere, and the local exchange's keys are no secret",
            file=sys.stderr,
        )
    serve_exchange(config)


def replay(options: argparse.Namespace) -> int:
    """A rehearsal: endpoint, local exchange and desk over the hold-out of a tournament, all on this machine."""
    from paper.replay import replay as replayed

    return replayed(options.run, options.settings, options.out, options.bars, options.pause)


def report(options: argparse.Namespace) -> None:
    """Hold a desk against the backtest of the same bars: writes FOLDER/report.html and FOLDER/drift.json."""
    from paper.review.commands import ReviewConfig
    from paper.review.commands import report as reported

    config = load(ReviewConfig, options.target, options.settings)
    print(reported(_folder(options), options.bundle, config.data, config.charges))


def status(options: argparse.Namespace) -> None:
    """How a desk stands, by its journal; it may run meanwhile."""
    state = read_state(_journal(options))
    risk, bar = state.get("risk", {"state": "active", "why": ""}), state.get("bar")
    last = next(iter(reversed(list(read_entries(_journal(options), kinds=("decision",))))), None)
    print(f"state      {risk['state']}{': ' + risk['why'] if risk['why'] else ''}")
    print(f"bar        {bar['close']}, {bar['phase']}" if bar else "bar        none yet")
    if last is not None:
        equity, equal = float(last.body["equity"]), float(last.body["equal"])
        print(f"equity     {equity:,.2f} (equal weight without costs {equal:,.2f})")
    books = state.get("books")
    if books:
        print(f"cash       {float(books['cash']):,.2f}")
        for symbol, held in books["positions"].items():
            print(f"{symbol:10} {float(held):,.6f}".rstrip("0").rstrip("."))


def kill(options: argparse.Namespace) -> None:
    """Halt a desk: it cancels what is open and proposes nothing until a person resets it."""
    folder = _folder(options)
    write_text(folder / KILL, f"{_who()}: {options.reason}\n")
    print(f"{folder / KILL} is there: the desk halts at its next look")


def reset(options: argparse.Namespace) -> None:
    """Take a halt back."""
    ask_for_reset(_folder(options), _who(), options.reason)
    print("the desk is reset at its next look, or when it starts")


def verify(options: argparse.Namespace) -> int:
    """Has anybody altered the journal?"""
    from paper.verify import verify as verified

    keys = keys_from(os.environ)
    witnesses = [_witness(line, keys) for line in options.witness]
    report = verified(_journal(options), keys, anchors=options.anchors, witnesses=witnesses)
    print(f"{report.entries:,} entries, {report.anchors:,} anchors, head {report.head[:16]}")
    for problem in report.problems:
        print(f"  {problem}")
    if report.more:
        print(f"  and {report.more:,} more")
    print("as it was written" if report.ok else "altered")
    print("This cannot show:")
    for what in report.cannot:
        print(f"  {what}")
    return 0 if report.ok else PROBLEMS


def export(options: argparse.Namespace) -> None:
    """The journal as a table."""
    from paper.export import export as exported

    count = exported(_journal(options), options.out, options.kind)
    print(f"{count:,} entries in {options.out}")


def _folder(options: argparse.Namespace) -> Path:
    folder: Path = options.folder
    if not (folder / "desk.db").is_file():
        raise UserError(f"{folder}: holds no desk.db; expected the folder of a desk, such as runs/desk")
    return folder


def _journal(options: argparse.Namespace) -> Path:
    return _folder(options) / "desk.db"


def _witness(line: str, keys: Sequence[bytes]) -> tuple[int, str]:
    """Count and head of an anchor that was kept elsewhere, as the webhook or Weights & Biases has it."""
    anchor = Anchor.parse(line)
    if anchor is None or not anchor.genuine(keys):
        raise UserError(f'--witness = {line!r}: expected an anchor of this desk, a line such as {{"at": ...}}')
    return anchor.count, anchor.head


def _who() -> str:
    return getpass.getuser()


def _parser() -> Command:
    parser = Command(prog="python -m paper", description=__doc__, epilog=EXAMPLES)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(do: Any, name: str, help: str) -> Command:
        made: Command = commands.add_parser(
            name, help=help, description=do.__doc__, epilog=examples_of(f"paper {name}", EXAMPLES)
        )
        made.set_defaults(do=do)
        return made

    def configured(made: Command) -> None:
        file = "YAML with settings (default: none)"
        made.add_argument("target", type=file_or_setting, nargs="?", metavar="FILE", help=file)
        made.add_argument("settings", nargs="*", metavar="key=value", help="settings that win over the file's")

    made = command(run, "run", "trade, from wherever it was left")
    made.add_argument(
        "target", type=file_or_setting, nargs="?", metavar="FILE", help="YAML with settings (default: none)"
    )
    made.add_argument("settings", nargs="*", metavar="key=value", help="settings that win over the file's")
    made.add_argument("--out", type=Path, metavar="FOLDER", help="the desk's folder (default: runs/NAME)")
    made.add_argument("--bars", type=int, metavar="N", help="stop after so many bars")
    made.add_argument("--debug", action="store_true", help="log everything that is asked and answered")
    made = command(exchange, "exchange", "a local Alpaca that replays bars")
    made.add_argument(
        "target", type=file_or_setting, nargs="?", metavar="FILE", help="YAML with settings (default: none)"
    )
    made.add_argument("settings", nargs="*", metavar="key=value", help="settings that win over the file's")
    made = command(replay, "replay", "a rehearsal over a tournament's hold-out")
    made.add_argument("run", type=Path, metavar="RUN", help="the folder of a tournament whose hold-out is open")
    made.add_argument("settings", nargs="*", metavar="key=value", help="settings of the desk")
    made.add_argument("--out", type=Path, metavar="FOLDER", help="(default: runs/replay-TIME)")
    made.add_argument("--bars", type=int, metavar="N", help="stop after so many bars")
    made.add_argument("--pause", type=float, default=0.0, metavar="S", help="seconds between bars, to watch")
    made = command(report, "report", "what a desk earned, and whether that is what was promised")
    made.add_argument("folder", type=Path, metavar="FOLDER", help="of the desk")
    made.add_argument("--bundle", type=Path, required=True, metavar="BUNDLE", help="the ensemble that it traded")
    configured(made)
    for do, name, help in (
        (status, "status", "how a desk stands"),
        (kill, "kill", "halt it"),
        (reset, "reset", "take a halt back"),
        (verify, "verify", "has anybody altered its journal?"),
        (export, "export", "its journal as JSON lines, CSV or Parquet"),
    ):
        made = command(do, name, help)
        made.add_argument("folder", type=Path, metavar="FOLDER")
        if name in ("kill", "reset"):
            made.add_argument("--reason", required=True, help="why; it is kept")
        if name == "verify":
            made.add_argument("--anchors", type=Path, metavar="FILE", help="(default: the file beside the journal)")
            kept = "an anchor that was kept elsewhere, as the webhook was told; may be given again"
            made.add_argument("--witness", action="append", default=[], metavar="LINE", help=kept)
        if name == "export":
            made.add_argument("--out", type=Path, required=True, metavar="FILE", help=".jsonl, .csv or .parquet")
            made.add_argument("--kind", default="", help="entries of one kind, as a flat table (default: all)")
    return parser


if __name__ == "__main__":
    run_command(main)
