"""Puts a desk together, from its configuration and the environment, and lets it trade."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from tqdm import tqdm

from kit.config import to_dict
from kit.errors import INTERRUPTED, UserError
from kit.files import write_json
from kit.tracking import mode_of
from market.sources.alpaca import SIZES
from paper.alpaca import AlpacaBroker, LocalBroker, LocalConfig
from paper.broker import BrokerError
from paper.chain import Anchor, keys_from
from paper.config import BOARD_TOKEN, PaperConfig
from paper.deciding import Ensemble
from paper.desk import Desk
from paper.guard import Guard, ask_for_reset
from paper.journal import Journal
from paper.look import Look
from paper.observed import source_of
from paper.pace import Calendar, Lockstep, Pace
from paper.risk import State
from paper.tracking import Tracker
from paper.watch.alerts import Alerts, webhook_url
from paper.watch.board import SILENCE, Board
from paper.watch.findings import Findings
from paper.watch.metrics import Metrics
from paper.watch.witness import Witness
from serve.client import Client, ServeError, Unavailable

log = logging.getLogger(__name__)

JOURNAL, CONFIG = "desk.db", "config.json"
TOKEN, ADMIN_TOKEN = "PODRACER_TOKEN", "PODRACER_ADMIN_TOKEN"  # of the endpoint
STARTS = 60.0  # seconds that an endpoint may take until it is ready


def trade(config: PaperConfig, folder: Path, bars: int | None = None) -> int:
    """Until the market ends or somebody stops it: the exit code. Called again, it goes on."""
    keys, token = keys_from(os.environ), os.environ.get(TOKEN, "").strip()
    if not token:
        raise UserError(f"{TOKEN}: is not set; expected the token of the endpoint at {config.ensemble.url}")
    with ExitStack() as stack:
        journal = stack.enter_context(Journal(folder / JOURNAL, keys[0], _now, old=keys[1:]))
        write_json(folder / CONFIG, to_dict(config))
        client = Client(config.ensemble.url, token, config.ensemble.deadline, config.ensemble.attempts)
        ensemble = _ready(client, config)
        local = isinstance(config.broker, LocalConfig)
        if ensemble.fill != "open" and not local:
            raise UserError(f"{ensemble.version}: trades at the next close; at Alpaca a desk can trade the open only")
        broker = LocalBroker(config.broker) if isinstance(config.broker, LocalConfig) else AlpacaBroker(config.broker)
        stack.callback(broker.close)
        alerts = Alerts(config.alerts, _now)
        stack.callback(alerts.close)
        guard = Guard(journal, folder, alerts.alert)
        bar = SIZES[config.broker.bar]
        pace: Pace = Calendar(broker, bar, config.data.patience)
        total = None
        if isinstance(broker, LocalBroker) and config.broker.lockstep:  # type: ignore[union-attr]
            pace = Lockstep(broker.local_clock, broker.advance)
            clock = broker.local_clock()
            total = clock.bars - 1 - clock.bar
        metrics, look = Metrics(alerts), Look(journal, ensemble, alerts)
        line = stack.enter_context(tqdm(total=total, desc=config.name, unit="bar", disable=None, leave=False))
        button = os.environ.get(BOARD_TOKEN, "").strip()
        board = Board(
            config.host,
            config.port,
            button or secrets.token_urlsafe(),
            on_kill=lambda why: guard.ask_to_kill(f"kill switch: {why}"),
            on_reset=lambda why: ask_for_reset(folder, "dashboard", why),
            metrics=metrics,
            silence=max(SILENCE, 3.0 * config.watch),
        )
        stack.callback(board.close)
        findings = Findings(folder)
        tracker = None
        if mode := mode_of(config.wandb):
            tracker = Tracker(mode, folder, f"{config.name}-{folder.name}")
            stack.callback(tracker.close)
        ask = broker.observed if isinstance(broker, LocalBroker) else None

        def shown(desk: Desk) -> None:
            board.show(look.view(desk))

        def handled(desk: Desk, seconds: float) -> None:
            metrics.handled(seconds)
            if desk.told is not None:
                look.decided(desk.told)
                metrics.decided(desk.decider.decided_in)
            for order in desk.keeper.now().orders.values():
                metrics.ended(order.status)
            if tracker is not None and desk.told is not None:
                equity, equal = float(desk.told["equity"]), float(desk.told["equal"])
                state: dict[str, float | str] = {"state": desk.guard.state.value, "close": desk.told["close"]}
                state["decision_seconds"] = desk.decider.decided_in
                tracker.bar({"equity": equity, "equal_weight": equal, **state})
            for finding in findings.new():
                alerts.alert("drift", finding.level, f"{finding.name}: {finding.text}")
                if config.drift == "reduce" and finding.level == "critical":
                    guard.restrict(State.REDUCING, f"drift: {finding.text}")
            line.update()
            shown(desk)

        witness = None
        if url := webhook_url():
            witness = Witness(url, f"{config.name}-{folder.name}", config.alerts.timeout)
            stack.callback(witness.close)

        def anchored(anchor: Anchor) -> None:
            if tracker is not None:
                tracker.anchor(anchor)
            if witness is not None:
                witness.put(anchor)

        desk = Desk(
            config,
            ensemble,
            broker,
            client,
            pace,
            journal,
            guard,
            source_of(config.data, ask),
            bar,
            alerts.alert,
            shown=shown,
            handled=handled,
            anchored=anchored,
            admin=os.environ.get(ADMIN_TOKEN, "").strip(),
            **({"asked_at": lambda close: close.at} if local else {}),
        )
        tqdm.write(f"dashboard {board.url}; journal {folder / JOURNAL}; Ctrl-C stops, the same command goes on")
        if not button:
            tqdm.write(f"{BOARD_TOKEN} is not set: the dashboard's buttons are off; python -m paper kill works")
        with _stopped_by_signals(desk, guard):
            try:
                done = desk.run(bars)
            except BrokerError as error:
                raise UserError(f"broker: {error}; the same command goes on") from None
        books = desk.keeper.now()
        tqdm.write(
            f"{done} bars handled; cash {float(books.cash):,.2f}, {len(books.positions)} positions, {guard.state}"
        )
        return INTERRUPTED if desk.stopping.is_set() else 0


def _ready(client: Client, config: PaperConfig) -> Ensemble:
    """What answers there; waits a while for it to start."""
    until = time.monotonic() + STARTS
    while True:
        try:
            return Ensemble.of(client.ensemble(config.ensemble.version))
        except Unavailable as error:
            if time.monotonic() > until:
                raise UserError(f"ensemble.url = {config.ensemble.url}: {error}; is the endpoint running?") from None
            log.info("waiting for the endpoint: %s", error)
            time.sleep(1.0)
        except ServeError as error:
            raise UserError(f"ensemble.url = {config.ensemble.url}: {error}") from None


@contextmanager
def _stopped_by_signals(desk: Desk, guard: Guard) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends it in good order, the second at once; SIGUSR1 is the kill switch."""

    def stop(number: int, frame: FrameType | None) -> None:
        if desk.stopping.is_set():
            raise KeyboardInterrupt
        desk.stopping.set()
        desk.changed.set()

    def kill(number: int, frame: FrameType | None) -> None:
        guard.ask_to_kill("kill switch: SIGUSR1")
        desk.changed.set()

    former = {
        signal.SIGINT: signal.signal(signal.SIGINT, stop),
        signal.SIGTERM: signal.signal(signal.SIGTERM, stop),
        signal.SIGUSR1: signal.signal(signal.SIGUSR1, kill),
    }
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _now() -> datetime:
    return datetime.now(UTC)
