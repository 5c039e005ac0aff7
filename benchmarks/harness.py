"""What every benchmark shares: interleaved arms, ratios with their spread, a table and one JSON form.

A case is measured by running its arms in turns, round after round, so that a machine whose speed
drifts slows all of them alike; a ratio is taken round by round. Warm-up is never counted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from kit.files import write_json

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Row:
    case: str
    arm: str
    value: float  # the median of the runs
    unit: str
    min: float
    max: float
    runs: int


@dataclass(frozen=True)
class Ratio:
    case: str
    of: str
    to: str
    median: float
    min: float
    max: float


@dataclass
class Result:
    """What a script measured; `add` one case at a time."""

    benchmark: str
    machine: str = field(default_factory=lambda: machine())
    commit: str = field(default_factory=lambda: commit())
    rows: list[Row] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)

    def add(self, case: str, unit: str, runs: Mapping[str, list[float]], compare: bool = True) -> None:
        """`runs` holds each arm's values, a value a round; the first arm is compared with the others."""
        for arm, values in runs.items():
            self.rows.append(Row(case, arm, statistics.median(values), unit, min(values), max(values), len(values)))
        first, *others = runs
        for other in others if compare else ():
            pairs = [a / b for a, b in zip(runs[first], runs[other]) if b]
            if pairs:
                self.ratios.append(Ratio(case, first, other, statistics.median(pairs), min(pairs), max(pairs)))

    def table(self) -> str:
        """A Markdown table of all rows, then of the ratios."""
        lines = ["| case | arm | median | min | max | unit | runs |", "|---|---|---:|---:|---:|---|---:|"]
        for row in self.rows:
            values = " | ".join(number(v) for v in (row.value, row.min, row.max))
            lines.append(f"| {row.case} | {row.arm} | {values} | {row.unit} | {row.runs} |")
        if self.ratios:
            lines += ["", "| case | ratio | median | min | max |", "|---|---|---:|---:|---:|"]
        for ratio in self.ratios:
            values = " | ".join(f"{v:.3g}x" for v in (ratio.median, ratio.min, ratio.max))
            lines.append(f"| {ratio.case} | {ratio.of} / {ratio.to} | {values} |")
        return "\n".join(lines)

    def brief(self) -> str:
        """A Markdown table of one line a comparison, for the README."""
        found = {(row.case, row.arm): row for row in self.rows}
        compared = {(ratio.case, ratio.of) for ratio in self.ratios} | {(ratio.case, ratio.to) for ratio in self.ratios}
        lines = ["| case | | beside | | ratio (lowest to highest) |", "|---|---:|---|---:|---:|"]
        for row in self.rows:
            if (row.case, row.arm) not in compared:
                lines.append(f"| {row.case} | {row.arm} {number(row.value)} {row.unit} | | | |")
            for ratio in self.ratios:
                if (ratio.case, ratio.of) == (row.case, row.arm):
                    other = found[ratio.case, ratio.to]
                    spread = f"{ratio.median:.3g} ({ratio.min:.3g} to {ratio.max:.3g})"
                    lines.append(
                        f"| {row.case} | {row.arm} {number(row.value)} {row.unit} "
                        f"| {other.arm} | {number(other.value)} {other.unit} | {spread} |"
                    )
        return "\n".join(lines)

    def finish(self, file: Path | None) -> None:
        print(f"{self.benchmark} on {self.machine}, commit {self.commit}\n\n{self.table()}\n", flush=True)
        if file:
            write_json(file, asdict(self))
            print(f"Written: {file}")


def load(file: Path) -> Result:
    data = json.loads(file.read_text())
    rows, ratios = [Row(**r) for r in data["rows"]], [Ratio(**r) for r in data["ratios"]]
    return Result(data["benchmark"], data["machine"], data["commit"], rows, ratios)


def interleave(arms: Mapping[str, Callable[[], float]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Each arm's values over `rounds`, arms in turn, after `warmup` rounds that are thrown away."""
    values: dict[str, list[float]] = {arm: [] for arm in arms}
    for turn in range(warmup + rounds):
        for arm, measure in arms.items():
            value = measure()
            if turn >= warmup:
                values[arm].append(value)
    return values


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class Spent(NamedTuple):
    seconds: float
    megabytes: float  # the peak above what the process held before the work began


def in_child(prepare: Callable[[str], Any], work: Callable[[Any], object], given: str) -> Spent:
    """Run `work(prepare(given))` in a fresh process, so that its memory is its own; only `work` is counted."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_spend, (prepare, work, given))


def _spend(prepare: Callable[[str], Any], work: Callable[[Any], object], given: str) -> Spent:
    ready = prepare(given)
    before, _ = _memory()
    start = time.perf_counter()
    made = work(ready)
    taken = time.perf_counter() - start
    _, peak = _memory()
    del made
    return Spent(taken, peak - before)


def _memory() -> tuple[float, float]:
    """Megabytes held now, and their peak, which is reset where the system can (Linux)."""
    status = Path("/proc/self/status")
    if not status.exists():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
        return peak, peak
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    held, peak = (float(lines[name].split()[0]) / 1e3 for name in ("VmRSS", "VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")
    return held, peak


def arguments(description: str) -> argparse.Namespace:
    """The options that every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result to FILE too")
    parser.add_argument("--quick", action="store_true", help="smaller cases, under a minute")
    return parser.parse_args()


def number(value: float) -> str:
    """A number as people read it: 3 significant digits, thousands as k, M, G."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            scale = 1e3 if letter == "k" else size
            return f"{value / scale:.3g}{letter}" if abs(value) / scale < 1000 else f"{value / scale:.0f}{letter}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def machine() -> str:
    """The processor and what of it this process may use."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, Python {platform.python_version()}"


def commit() -> str:
    """The short commit, with + where the tree differs from it; "unknown" outside a checkout."""
    try:
        git = ["git", "-C", str(ROOT)]
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
