"""`python -m podracer doctor`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial

from kit.cli import Command
from podracer.doctor import installed
from podracer.doctor.finding import Check, Finding, examine

FAILED = 1
CLOCK = "https://paper-api.alpaca.markets"
EXAMPLES = """examples:
  python -m podracer doctor                               this machine
  python -m podracer doctor --storage /mnt/shared/runs    and where runs will be kept
  python -m podracer doctor --storage s3://bucket/runs    the same, in an object store
  RAY_ADDRESS=auto python -m podracer doctor              and every machine of the cluster that this one belongs to
  ray job submit --working-dir . -- python -m podracer doctor --storage /mnt/shared/runs

ok: as it should be. note: works, and you may want to know. mend: something will fail; the line below says what to do.
Ends with 0 if nothing is to be mended, with 1 otherwise. Keys are looked for, never shown."""


def main(words: Sequence[str]) -> int:
    options = parser().parse_args(words)
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    findings = []
    for finding in examine(_checks(options)):
        findings.append(finding)
        if not options.json:
            print("\n".join(finding.lines(colour)), flush=True)
    troubles = sum(finding.state == "mend" for finding in findings)
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print(f"\n{troubles} to mend" if troubles else "\nready")
    return FAILED if troubles else 0


def parser() -> Command:
    made = Command(
        prog="python -m podracer doctor", description="Is this machine ready, and its cluster?", epilog=EXAMPLES
    )
    runs = "where runs will be kept: a folder, or an object store (default: runs)"
    made.add_argument("--storage", default="runs", metavar="WHERE", help=runs)
    made.add_argument("--clock", default=CLOCK, metavar="URL", help=f"whose time to compare with (default: {CLOCK})")
    made.add_argument("--no-ray", action="store_true", help="leave Ray out, which takes ten seconds to begin")
    made.add_argument("--json", action="store_true", help="the findings for programs")
    return made


def _checks(options: argparse.Namespace) -> Iterator[tuple[str, Check]]:
    """Those of packages first: the others need them."""
    yield "Python", installed.python
    yield "rooms", installed.rooms
    yield "packages", installed.packages
    yield "ElegantRL", installed.elegantrl
    yield "devices", installed.devices
    try:
        from podracer.doctor import reached
    except ImportError as error:
        lacking = f"the rest needs what is not there: {error}"
        yield "packages", lambda: [Finding("packages", "mend", lacking, installed.SETUP)]
        return
    yield "storage", partial(reached.storage, options.storage)
    if not options.no_ray:
        yield "Ray", partial(reached.ray, options.storage)
    yield "W&B", reached.wandb
    yield "Alpaca", reached.alpaca
    yield "clock", partial(reached.clock, options.clock)
