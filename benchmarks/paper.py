"""How long the desk takes from a bar to its last order, how fast it replays, and whether its memory grows.

python -m benchmarks.paper [--quick] [--json FILE]

The endpoint (eight members, one process), the local exchange and the desk are processes of their own and speak
HTTP on loopback. `decision`: from the request to target weights; `bar`: from the close to the last order sent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil  # type: ignore[import-untyped]
import torch

from benchmarks.harness import Result, arguments, number
from benchmarks.serve import NAMES, made
from kit.config import to_dict, to_yaml
from kit.files import write_text
from market.data import DataConfig
from market.synth import SynthSource
from paper.chain import read_entries
from paper.replay import environment, process, wait_for
from serve.deploy import free_port

BARS = 400  # that are timed
FIRST, LAST = 1_000, 10_000  # bars after which memory is looked at
FEW = 3  # names of the long replay
WARM = 150  # bars before the first
QUANTILES = {"p50": 0.5, "p99": 0.99, "max": 1.0}
LOOK = 0.5  # seconds


@dataclass
class Replayed:
    decision: list[float]  # seconds
    bar: list[float]
    rate: float  # bars a second
    memory: dict[int, float]  # MB, after so many bars


@contextmanager
def servers(folder: Path, names: int, bars: int, tokens: dict[str, str]) -> Iterator[list[str]]:
    """An endpoint and an exchange; yields the desk's settings."""
    made(folder, names)
    data = to_dict(DataConfig(SynthSource(symbols=names, bars=bars)))
    write_text(folder / "exchange.yaml", to_yaml({"data": data, "bar": WARM}))
    where, market = free_port(), free_port()
    serve = ["serve", "run", str(folder / "bundle"), "--plain", f"port={where}", "endpoint.max_age=1e9"]
    serve += [f"endpoint.registry={folder / 'registry'}", "endpoint.freshness=request"]
    exchange = ["paper", "exchange", str(folder / "exchange.yaml"), f"port={market}"]
    with ExitStack() as stack:
        begun = [stack.enter_context(process(words, tokens, folder / f"{words[0]}.log")) for words in (serve, exchange)]
        wait_for(begun, [f"http://127.0.0.1:{where}/readyz", f"http://127.0.0.1:{market}/local/clock"])
        yield [
            f"ensemble.url=http://127.0.0.1:{where}",
            f"broker.url=http://127.0.0.1:{market}",
            "data.observed.kind=broker",
            "port=0",
        ]


def replayed(folder: Path, names: int, bars: int, looks: tuple[int, ...] = ()) -> Replayed:
    tokens = environment()
    with servers(folder, names, WARM + bars + 2, tokens) as settings:
        words = ["paper", "run", *settings, "--out", str(folder / "desk"), "--bars", str(bars)]
        began = time.perf_counter()
        with process(words, tokens, folder / "desk.log") as desk:
            memory = _watched(desk.pid, folder / "desk" / "desk.db", looks)
            code = desk.wait()
        if code:
            raise RuntimeError((folder / "desk.log").read_text()[-2000:])
        rate = bars / (time.perf_counter() - began)
    entries = read_entries(folder / "desk" / "desk.db", kinds=("phase",))
    took = [entry.body["seconds"] for entry in entries if "seconds" in entry.body]
    return Replayed([one["decision"] for one in took], [one["sent"] for one in took], rate, memory)


def _watched(pid: int, journal: Path, looks: tuple[int, ...]) -> dict[int, float]:
    """Memory of the desk once it has handled so many bars."""
    found: dict[int, float] = {}
    desk, done, seen = psutil.Process(pid), 0, 0
    while (left := [look for look in looks if look not in found]) and desk.is_running():
        time.sleep(LOOK)
        if not journal.is_file() or desk.status() == psutil.STATUS_ZOMBIE:
            continue
        for entry in read_entries(journal, after=seen, kinds=("settled",)):
            done, seen = done + 1, entry.seq
        for look in left:
            if done >= look:
                found[look] = desk.memory_info().rss / 1e6
    return found


def brief(result: Result) -> str:
    values = {row.case: row for row in result.rows}
    lines = ["| | |", "|---|---:|"]
    for case, row in values.items():
        lines.append(f"| {case}, {row.unit} | {number(row.value)} |")
    return "\n".join(lines)


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    result = Result("paper")
    bars = 40 if options.quick else BARS
    first, last = (50, 200) if options.quick else (FIRST, LAST)
    with TemporaryDirectory(prefix="podracer-") as temporary:
        full = replayed(Path(temporary) / "full", NAMES, bars)
        for name, share in QUANTILES.items():
            result.add(f"decision {name}", "ms", {"podracer": [float(np.quantile(full.decision, share)) * 1e3]})
            result.add(f"bar {name}", "ms", {"podracer": [float(np.quantile(full.bar, share)) * 1e3]})
        result.add(f"replay of {NAMES} names", "bars/s", {"podracer": [full.rate]})
        long = replayed(Path(temporary) / "long", FEW, last + 1, (first, last))
        result.add(f"replay of {FEW} names", "bars/s", {"podracer": [long.rate]})
        for look, size in long.memory.items():
            result.add(f"memory after {look:,} bars", "MB", {"podracer": [size]})
    result.finish(options.json)


if __name__ == "__main__":
    main()
