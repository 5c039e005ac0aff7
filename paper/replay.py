"""A rehearsal on one machine: an ensemble's endpoint, a local exchange and a desk, over bars that were held out.

Each is a process of its own, as when trading; here all of them end together.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import requests

from kit.config import load, to_dict, to_yaml
from kit.errors import UserError
from kit.files import write_text
from market import data
from paper.chain import KEY
from paper.config import BOARD_TOKEN
from podracer.folder import CONFIG, dated, refuse_unless_run, refuse_unless_vacant
from serve.config import TOKEN
from serve.deploy import free_port
from tournament.arena import Arena
from tournament.config import TournamentConfig
from tournament.final import BUNDLE, count_opening, openings

ROOT = Path(__file__).parents[1]
STARTS = 60.0  # seconds that a server may take
ENDS = 15.0  # seconds that a process gets to end in good order
PUBLIC_KEY = "a-replay-proves-nothing"  # signs its journal where the environment has no key


def replay(run: Path, settings: Sequence[str], out: Path | None, bars: int | None, pause: float) -> int:
    """The exit code of the desk."""
    refuse_unless_run(run)
    config = load(TournamentConfig, run / CONFIG)
    if not openings(run):
        raise UserError(f"{run}: its hold-out is unopened; open it first: python -m tournament final {run}")
    panel, _ = data.load(config.data)
    arena = Arena.build(panel, config.features, config.trading, config.folds)
    folder = out or dated("replay", datetime.now(UTC))
    refuse_unless_vacant(folder)
    folder.mkdir(parents=True, exist_ok=True)
    count_opening(run, panel, "paper replay", datetime.now(UTC).isoformat(timespec="seconds"))
    exchange = {"data": to_dict(config.data), "trading": to_dict(config.trading), "bar": arena.folds.holdout.start}
    write_text(folder / "review.yaml", to_yaml({"data": exchange["data"], "charges": exchange["trading"]["costs"]}))
    write_text(folder / "exchange.yaml", to_yaml({**exchange, "cash": config.trading.capital}))
    tokens = environment()
    if BOARD_TOKEN not in os.environ:
        print(f"the dashboard's buttons ask for a token; for this rehearsal it is {tokens[BOARD_TOKEN]}", flush=True)
    where, market = free_port(), free_port()
    url = f"http://127.0.0.1:{where}"
    served = [f"port={where}", f"endpoint.registry={folder / 'registry'}", "endpoint.freshness=request"]
    columns = ["data.observed.kind=broker"] if panel.observed else []
    desk = [f"ensemble.url={url}", f"broker.url=http://127.0.0.1:{market}", f"pause={pause:g}", *columns]
    limit = ["--bars", str(bars)] if bars is not None else []
    with ExitStack() as stack:
        begin = ["serve", "run", str(run / BUNDLE), "--plain", *served, "endpoint.max_age=1e9"]
        servers = [
            stack.enter_context(process(begin, tokens, folder / "endpoint.log")),
            stack.enter_context(
                process(
                    ["paper", "exchange", str(folder / "exchange.yaml"), f"port={market}"],
                    tokens,
                    folder / "exchange.log",
                )
            ),
        ]
        wait_for(servers, [f"{url}/readyz", f"http://127.0.0.1:{market}/local/clock"])
        trading = stack.enter_context(
            process(["paper", "run", *desk, *settings, "--out", str(folder / "desk"), *limit], tokens, None)
        )
        code = trading.wait()
    reviewed = ["report", str(folder / "desk"), str(folder / "review.yaml"), "--bundle", str(run / BUNDLE)]
    with process(["paper", *reviewed], tokens, None) as reporting:
        return code or reporting.wait()


def environment() -> dict[str, str]:
    """Tokens that live as long as the replay, where none are given."""
    made = {TOKEN: secrets.token_urlsafe(), BOARD_TOKEN: secrets.token_hex(8), KEY: PUBLIC_KEY}
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**made, **os.environ, "PYTHONPATH": paths}


@contextmanager
def process(words: Sequence[str], variables: Mapping[str, str], log: Path | None) -> Iterator[subprocess.Popen[bytes]]:
    with ExitStack() as stack:
        file: IO[bytes] | None = None if log is None else stack.enter_context(open(log, "wb"))
        begun = subprocess.Popen([sys.executable, "-m", *words], env=variables, stdout=file, stderr=file)
        try:
            yield begun
        finally:
            begun.terminate()
            try:
                begun.wait(ENDS)
            except subprocess.TimeoutExpired:
                begun.kill()
                begun.wait()


def wait_for(servers: Sequence[subprocess.Popen[bytes]], urls: Sequence[str]) -> None:
    until = time.monotonic() + STARTS
    for server, url in zip(servers, urls):
        while True:
            try:
                requests.get(url, timeout=1)
                break
            except requests.RequestException:
                if server.poll() is not None or time.monotonic() > until:
                    words = " ".join(map(str, server.args[2:4]))  # type: ignore[index]
                    raise UserError(f"python -m {words}: did not start; its log is in the replay's folder") from None
                time.sleep(0.1)
