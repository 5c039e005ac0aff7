"""Run every benchmark and write its table into the README: `python -m benchmarks [--quick] [NAME ...]`.

Results land in benchmarks/results/NAME.json. The README's tables stand between markers
`<!-- benchmark NAME -->` and `<!-- end -->`, and are rendered from those files alone.
"""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import ROOT, Result, load
from kit.errors import UserError, run_command
from kit.files import write_text

RESULTS = ROOT / "benchmarks" / "results"
HOURS = {"verdict"}  # left out unless they are named
NOT_BENCHMARKS = {"__init__", "__main__", "clock", "harness", "peers", "simulate", "stable", "timeline"}
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
    parser.add_argument("--quick", action="store_true", help="smaller cases; the README is left as it is")
    parser.add_argument("--render", action="store_true", help="only render the README from the last results")
    options = parser.parse_args()
    names = options.names or [name for name in known if name not in HOURS]
    for name in names:
        if name not in known:
            raise UserError(f"no benchmark {name!r}; expected one of {', '.join(known)}")
    failed = [] if options.render else [name for name in names if not measured(name, options.quick)]
    if not options.quick:
        render(ROOT / "README.md")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def measured(name: str, quick: bool) -> bool:
    """Run one script in a process of its own, so that its memory figures are its own."""
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    command += ["--quick"] if quick else ["--json", str(RESULTS / f"{name}.json")]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def render(readme: Path) -> None:
    def table(match: re.Match[str]) -> str:
        file = RESULTS / f"{match[2]}.json"
        if not file.exists():
            return match[0]
        result = load(file)
        module = importlib.import_module(f"benchmarks.{match[2]}")
        brief = getattr(module, "brief", Result.brief)
        command = f"`python -m benchmarks {match[2]}`"
        return f"{match[1]}{brief(result)}\n\n{command}; {result.machine}; commit {result.commit}\n{match[3]}"

    write_text(readme, MARKED.sub(table, readme.read_text()))


if __name__ == "__main__":
    run_command(main)
