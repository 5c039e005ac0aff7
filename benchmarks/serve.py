"""Decisions a second and how long they take: the endpoint, plain uvicorn, and a call without HTTP.

python -m benchmarks.serve [--quick] [--json FILE]

Eight members, 30 names, requests with full bodies (as many bars as the features need, all columns), features
computed for each. `podracer-http` is `python -m serve run` as it stands: two replicas behind HAProxy.
`uvicorn` is the same in one process, `serve run --plain`; `podracer-handle` a call of the deployment's handle.
The callers share the machine with what answers them.
"""

from __future__ import annotations

import http.client
import multiprocessing
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from agents import bundle
from agents.build import build_agent
from agents.candidate import Candidate
from agents.ensemble import Ensemble
from agents.lens import Lens
from agents.manifest import Provenance
from agents.reference import measure
from benchmarks.harness import ROOT, Result, arguments, number
from envs.backtest import backtest
from envs.config import TradingConfig
from envs.policy import Allocated, equal_weight
from market import data
from market.features import FeatureSpec, Scaler
from market.synth import SynthSource
from serve.client import Portfolio
from serve.config import ADMIN_TOKEN, TOKEN
from serve.deploy import free_port
from serve.wire import body

MEMBERS, NAMES, BARS = 8, 30, 1000
PATIENCE = 120.0  # seconds until something answers
RATE = 100.0  # requests a second
CASH = 1e6
QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
CALLERS = (1, 8, 64)


def made(folder: Path, names: int = NAMES) -> tuple[Path, bytes]:
    """A bundle of untrained members, and a request for it."""
    panel, _ = data.load(data.DataConfig(SynthSource(symbols=names, bars=BARS)))
    spec = FeatureSpec.default()
    train = slice(0, BARS // 2)
    scaler = Scaler.fit(spec.for_panel(panel).compute(panel), train)
    lens = Lens.of(panel, spec, scaler, TradingConfig())
    market, candidate = lens.market(panel), Candidate()
    members = []
    for k in range(MEMBERS):
        actor = build_agent(candidate, market, k).policy
        members.append(bundle.Member(f"member-{k}", actor, 1 / MEMBERS, candidate))
    policy = Ensemble([Allocated(member.actor) for member in members], [member.weight for member in members])
    track = backtest([equal_weight], market, slice(BARS // 2, BARS))[0]
    saved = bundle.save(
        folder / "bundle",
        members,
        lens,
        measure(lens, panel, train, policy, track),
        Provenance("", "", "", "benchmark"),
    )
    asked = panel[-saved.bars_needed :]
    moment = asked.closes[-1].astype("datetime64[us]").item().replace(tzinfo=UTC)
    return folder / "bundle", body(asked, Portfolio(CASH, {}, CASH), moment)


class Caller:
    """One connection that is kept open."""

    def __init__(self, port: int, request: bytes) -> None:
        self.port, self.request = port, request
        self.headers = {"Authorization": f"Bearer {os.environ[TOKEN]}", "Content-Type": "application/json"}
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def __call__(self) -> float:
        """Seconds until the answer."""
        began = time.perf_counter()
        self.connection.request("POST", "/v1/actions", self.request, self.headers)
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {content[:300]!r}")
        return time.perf_counter() - began


def in_turn(port: int, request: bytes, seconds: float) -> list[float]:
    """One caller, who asks again as soon as it is answered."""
    caller, until, spent = Caller(port, request), time.perf_counter() + seconds, []
    while time.perf_counter() < until:
        spent.append(caller())
    return spent


def at_rate(port: int, request: bytes, seconds: float, rate: float = RATE, callers: int = 8) -> list[float]:
    """Requests that do not wait for each other; each counts from when it was due."""
    began, due = time.perf_counter() + 0.1, np.arange(round(seconds * rate)) / rate

    def ask(number: int) -> list[float]:
        caller, spent = Caller(port, request), []
        for moment in due[number::callers] + began:
            time.sleep(max(0.0, moment - time.perf_counter()))
            caller()
            spent.append(time.perf_counter() - moment)
        return spent

    with ThreadPoolExecutor(callers) as pool:
        return [value for values in pool.map(ask, range(callers)) for value in values]


def all_at_once(port: int, request: bytes, seconds: float, callers: int) -> float:
    """Answers a second to so many callers, each of whom waits for its own."""
    with ThreadPoolExecutor(callers) as pool:
        began = time.perf_counter()
        counts = pool.map(lambda _: len(in_turn(port, request, seconds)), range(callers))
        return sum(counts) / (time.perf_counter() - began)


def apart(work: Callable[..., Any], *given: object) -> Any:
    """In a process of its own: threads of the callers do not hold up what is measured."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, given)


@contextmanager
def endpoint(folder: Path, request: bytes, *words: str) -> Iterator[tuple[int, float]]:
    """`python -m serve run`, and how long it took to answer."""
    port = free_port()
    settings = [f"port={port}", f"endpoint.registry={folder / f'registry-{port}'}", "endpoint.freshness=request"]
    command = [sys.executable, "-m", "serve", "run", str(folder / "bundle"), *settings, "endpoint.max_age=1e9", *words]
    with running(command, port, request) as seconds:
        yield port, seconds


@contextmanager
def running(command: list[str], port: int, request: bytes) -> Iterator[float]:
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                Caller(port, request)()
                break
            except (OSError, RuntimeError, http.client.HTTPException):
                if process.poll() is not None or time.perf_counter() - began > PATIENCE:
                    raise
                time.sleep(0.05)
        yield time.perf_counter() - began
    finally:
        process.terminate()
        process.wait(PATIENCE)


def by_handle(folder: str, request: bytes, seconds: float) -> list[float]:
    """One caller that is on the cluster itself."""
    from ray import serve

    from podracer.cluster import attach
    from serve.app import application
    from serve.registry import Registry

    attach(include_dashboard=False)
    registry = Registry(Path(folder) / "registry-handle")
    version = registry.register(Path(folder) / "bundle", "benchmark").version
    registry.move(version, "champion", "benchmark", "to be measured")
    settings = {"registry": str(registry.folder), "freshness": "request", "max_age": 1e9}
    handle = serve.run(application(settings), route_prefix=None)
    spent = []
    handle.decide.remote(request).result()
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        handle.decide.remote(request).result()
        spent.append(time.perf_counter() - began)
    serve.shutdown()  # type: ignore[no-untyped-call]
    return spent


def brief(result: Result) -> str:
    """The README's table: a line a load, a column an arm."""
    values = {(row.case, row.arm): row.value for row in result.rows}
    arms = ("podracer-http", "uvicorn", "podracer-handle")
    loads = ("1 caller", f"{RATE:g} requests a second")

    def cell(arm: str, *cases: str) -> str:
        found = [values.get((case, arm)) for case in cases]
        return " / ".join("" if value is None else number(value) for value in found).strip(" /")

    lines = [f"| | {' | '.join(arms)} |", "|---" + "|---:" * len(arms) + "|"]
    for load in loads:
        cases = [f"{name} at {load}" for name in QUANTILES]
        cells = " | ".join(cell(arm, *cases) for arm in arms)
        lines.append(f"| {load}: {', '.join(QUANTILES)}, ms | {cells} |")
    for title, case in (("8 callers: answers a second", "rps at 8 callers"), ("cold start, s", "cold start")):
        lines.append(f"| {title} | {' | '.join(cell(arm, case) for arm in arms)} |")
    cases = [f"batching: rps at {callers} callers" for callers in CALLERS]
    callers = ", ".join(map(str, CALLERS))
    told = "; ".join(f"{arm} {cell(arm, *cases)}" for arm in ("each alone", "batches of 8"))
    return "\n".join([*lines, f"| batching, {callers} callers: answers a second | {told} | | |"])


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    torch.set_num_threads(1)
    os.environ[TOKEN], os.environ[ADMIN_TOKEN] = secrets.token_hex(), secrets.token_hex()
    os.environ["PYTHONPATH"] = str(ROOT)
    rounds, seconds = (1, 2.0) if options.quick else (3, 10.0)
    result = Result("serve")
    with TemporaryDirectory(prefix="podracer-") as temporary:
        folder = Path(temporary)
        _, request = made(folder)
        result.add("a request", "kB", {"body": [len(request) / 1e3]})
        with endpoint(folder, request) as (ours, cold), endpoint(folder, request, "--plain") as (theirs, plainly):
            result.add("cold start", "s", {"podracer-http": [cold], "uvicorn": [plainly]}, compare=False)
            ports = {"podracer-http": ours, "uvicorn": theirs}

            def measured(work: Callable[..., Any], *more: object) -> dict[str, list[Any]]:
                turns = [
                    {arm: apart(work, port, request, seconds, *more) for arm, port in ports.items()}
                    for _ in range(rounds)
                ]
                return {arm: [turn[arm] for turn in turns] for arm in ports}

            alone, loaded, most = measured(in_turn), measured(at_rate), measured(all_at_once, 8)
        alone["podracer-handle"] = [apart(by_handle, str(folder), request, seconds)]
        for load, spent in (("1 caller", alone), (f"{RATE:g} requests a second", loaded)):
            for name, share in QUANTILES.items():
                found = {arm: [float(np.quantile(run, share)) * 1e3 for run in runs] for arm, runs in spent.items()}
                result.add(f"{name} at {load}", "ms", found)
        result.add("rps at 8 callers", "1/s", most)
        waits = {"each alone": "endpoint.batch=1", "batches of 8": "endpoint.batch=8"}
        figures: dict[int, dict[str, list[float]]] = {callers: {} for callers in CALLERS}
        for arm, setting in waits.items():
            with endpoint(folder, request, setting) as (port, _):
                for callers in CALLERS:
                    figures[callers][arm] = [apart(all_at_once, port, request, seconds, callers)]
        for callers, arms in figures.items():
            result.add(f"batching: rps at {callers} callers", "1/s", arms)
    result.finish(options.json)


if __name__ == "__main__":
    main()
