"""Run every benchmark and write its table into the pages: `python -m benchmarks [--quick] [NAME ...]`.

Results land in benchmarks/results/NAME.json. The tables of README.md and docs/speed.md stand between markers
`<!-- benchmark NAME -->` and `<!-- end -->`, and are rendered from those files alone; `summary` is a line of each.
"""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
from pathlib import Path

from benchmarks import summary
from benchmarks.harness import ROOT, Result, load
from kit.errors import UserError, run_command
from kit.files import write_text

RESULTS = ROOT / "benchmarks" / "results"
HOURS = {"verdict"}  # left out unless they are named
NOT_BENCHMARKS = {"__init__", "__main__", "clock", "harness", "peers", "simulate", "stable", "summary", "timeline"}
PAGES = (ROOT / "README.md", ROOT / "docs" / "speed.md")
MARKED = re.compile(r"(<!-- benchmark (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    known = sorted(p.stem for p in (ROOT / "benchmarks").glob("*.py") if p.stem not in NOT_BENCHMARKS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"which to run, of {', '.join(known)} (default: all but {', '.join(HOURS)})",
    )
    parser.add_argument("--quick", action="store_true", help="smaller cases; the pages are left as they are")
    parser.add_argument("--render", action="store_true", help="only render the pages from the last results")
    options = parser.parse_args()
    names = options.names or [name for name in known if name not in HOURS]
    for name in names:
        if name not in known:
            raise UserError(f"no benchmark {name!r}; expected one of {', '.join(known)}")
    failed = [] if options.render else [name for name in names if not measured(name, options.quick)]
    if not options.quick:
        for page in PAGES:
            render(page)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def measured(name: str, quick: bool) -> bool:
    """Run one script in a process of its own, so that its memory figures are its own."""
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    command += ["--quick"] if quick else ["--json", str(RESULTS / f"{name}.json")]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def render(page: Path) -> None:
    def table(match: re.Match[str]) -> str:
        if match[2] == "summary":
            return f"{match[1]}{summary.table()}\n{match[3]}"
        file = RESULTS / f"{match[2]}.json"
        if not file.exists():
            return match[0]
        result = load(file)
        module = importlib.import_module(f"benchmarks.{match[2]}")
        brief = getattr(module, "brief", Result.brief)
        command = f"`python -m benchmarks {match[2]}`"
        return f"{match[1]}{brief(result)}\n\n{command}; {result.machine}; commit {result.commit}\n{match[3]}"

    write_text(page, MARKED.sub(table, page.read_text()))


if __name__ == "__main__":
    run_command(main)
