"""The endpoint as a user runs it, on a real Ray Serve: what a swap, a kill and a damaged bundle do to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml
from bundles import NETWORKS, PANEL, SHARED, saved

from agents import bundle
from serve.client import Client, Portfolio, ServeError
from serve.config import ADMIN_TOKEN, TOKEN
from serve.deploy import free_port
from serve.record import CHAMPION, PaperRecord
from serve.registry import Registry
from serve.wire import body

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0
RATE = 50.0  # requests a second
SECRETS = {TOKEN: "of-callers-0123456789", ADMIN_TOKEN: "of-admins-0123456789"}
PORTFOLIO = Portfolio(1e6, {}, 1e6)
REPLICA, CONTROLLER = "ray::ServeReplica", "ray::ServeController"


@dataclass
class Endpoint:
    """`python -m serve run`, and what one may do to it."""

    process: subprocess.Popen[str]
    registry: Path
    port: int
    said: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> Client:
        return Client(self.url, SECRETS[TOKEN])

    def command(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        settings = [f"port={self.port}", f"endpoint.registry={self.registry}"]
        return run("serve", *words, *settings)

    def processes(self, name: str) -> list[psutil.Process]:
        there = psutil.Process(self.process.pid).children(recursive=True)
        return [p for p in there if p.is_running() and " ".join(p.cmdline()).startswith(name)]


def run(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    given = environment() | variables
    return subprocess.run(
        [sys.executable, "-m", *map(str, words)], env=given, text=True, capture_output=True, timeout=PATIENCE
    )


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | SECRETS


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    for name, networks in {"one": NETWORKS, "two": (SHARED,), "three": (SHARED, SHARED)}.items():
        saved(folder / name, networks)
    return {name: folder / name for name in ("one", "two", "three")}


@pytest.fixture(scope="module")
def endpoint(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with started(bundles["one"], tmp_path_factory.mktemp("registry")) as made:
        yield made


@contextmanager
def started(folder: Path, registry: Path, **variables: str) -> Iterator[Endpoint]:
    port = free_port()
    words = ["run", folder, f"port={port}", f"endpoint.registry={registry}"]
    words += ["endpoint.freshness=request", "endpoint.max_age=1e9"]
    process = subprocess.Popen(
        [sys.executable, "-m", "serve", *map(str, words)],
        env=environment() | variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    made = Endpoint(process, registry, port)
    reader = threading.Thread(target=lambda: made.said.extend(process.stdout or ()), daemon=True)
    reader.start()
    until = time.monotonic() + PATIENCE
    while not any(line.startswith("dashboard") for line in made.said):
        assert process.poll() is None, "".join(made.said)
        assert time.monotonic() < until, "".join(made.said)
        time.sleep(0.1)
    yield made
    process.terminate()
    assert process.wait(PATIENCE) == 0


def version(folder: Path) -> str:
    return bundle.load(folder).hash[:12]


def moment() -> datetime:
    found: datetime = PANEL.closes[-1].astype("datetime64[us]").item()
    return found.replace(tzinfo=UTC)


@dataclass
class Load:
    """Callers at a fixed rate; every decision is counted by its version, every failure kept."""

    versions: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    raw: Counter[Any] = field(default_factory=Counter)


@contextmanager
def load(endpoint: Endpoint, seconds_after: float = 0.0) -> Iterator[Load]:
    """Three callers through the client, one without its retry."""
    found, stop, callers = Load(), threading.Event(), 4
    plain = body(PANEL, PORTFOLIO, moment())

    def ask(number: int) -> None:
        client, session, began = endpoint.client(), requests.Session(), time.monotonic()
        headers = {"Authorization": f"Bearer {SECRETS[TOKEN]}", "Content-Type": "application/json"}
        for turn in range(10**6):
            if stop.wait(max(0.0, began + (turn + number / callers) * callers / RATE - time.monotonic())):
                return
            try:
                if number:
                    found.versions[client.actions(PANEL, PORTFOLIO, moment()).version] += 1
                else:
                    answer = session.post(f"{endpoint.url}/v1/actions", plain, headers=headers, timeout=10)
                    found.raw[answer.status_code] += 1
            except ServeError as error:
                found.failures.append(str(error))
            except requests.RequestException as error:
                found.raw[type(error).__name__] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield found
        time.sleep(seconds_after)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def champion(endpoint: Endpoint) -> str:
    found = Registry(endpoint.registry).champion
    assert found is not None
    return found.version


def test_it_answers_and_says_so(endpoint: Endpoint, bundles: dict[str, Path]) -> None:
    answer = endpoint.client().actions(PANEL, PORTFOLIO, moment())
    assert answer.version == version(bundles["one"]) == champion(endpoint)
    assert requests.post(f"{endpoint.url}/v1/actions", b"{}").status_code == 401
    assert any(line.startswith(f"serving {answer.version} at {endpoint.url}") for line in endpoint.said)


def test_every_socket_is_on_loopback(endpoint: Endpoint) -> None:
    listening: set[tuple[str, str, int]] = set()
    until = time.monotonic() + PATIENCE
    while endpoint.port not in {port for _, _, port in listening}:  # a proxy may just be replaced
        assert time.monotonic() < until
        for process in [psutil.Process(endpoint.process.pid), *endpoint.processes("")]:
            with suppress(psutil.NoSuchProcess):  # some last only a moment
                found = [c for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
                listening |= {(process.name(), c.laddr.ip, c.laddr.port) for c in found}
    assert {one for one in listening if one[1] not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")} == set()


def test_a_swap_and_its_rollback_fail_no_request(endpoint: Endpoint, bundles: dict[str, Path]) -> None:
    before, after = champion(endpoint), version(bundles["two"])
    with load(endpoint, 1.0) as found:
        time.sleep(1.0)
        made = endpoint.command("promote", bundles["two"], "--force", "--reason", "a test")
        assert made.returncode == 0, made.stderr
        assert f"{after} is served at" in made.stdout
        seen = dict(found.versions)
        back = endpoint.command("rollback", "--reason", "the test goes on")
        assert back.returncode == 0, back.stderr
    assert seen[before] > 0 and seen[after] > 0
    assert set(found.versions) == {before, after}
    assert found.failures == []
    assert set(found.raw) == {200}
    assert endpoint.client().actions(PANEL, PORTFOLIO, moment()).version == before == champion(endpoint)


def test_a_bundle_that_cannot_be_loaded_leaves_the_old_version_serving(
    endpoint: Endpoint, bundles: dict[str, Path]
) -> None:
    """It is damaged after the registry has verified it."""
    registry, before = Registry(endpoint.registry), champion(endpoint)
    entry = registry.register(bundles["three"], "test")
    weights = registry.bundle_of(entry.version) / "member-0.safetensors"
    whole = weights.read_bytes()
    registry._verify = lambda _: weights.write_bytes(whole[:-1] + b"\0")  # type: ignore[assignment,return-value]
    registry.move(entry.version, CHAMPION, "test", "a test", force=True)
    until = time.monotonic() + PATIENCE
    while not (told := endpoint.client().ensemble())["trouble"]:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert "member-0.safetensors" in told["trouble"] and told["version"] == before
    assert endpoint.client().actions(PANEL, PORTFOLIO, moment()).version == before
    failed = endpoint.command("promote", entry.version)
    assert failed.returncode == 1 and "member-0.safetensors" in failed.stderr
    assert endpoint.command("rollback", "--reason", "it is damaged").returncode == 0
    assert endpoint.client().ensemble()["trouble"] == ""


def test_a_replica_that_is_killed_costs_no_decision(endpoint: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    until = time.monotonic() + PATIENCE
    while len(replicas := endpoint.processes(REPLICA)) < 2:
        assert time.monotonic() < until
        time.sleep(0.2)
    with load(endpoint, 4.0) as found:
        time.sleep(1.0)
        replicas[0].send_signal(signal.SIGKILL)
    assert found.failures == []
    assert set(found.versions) == {champion(endpoint)}
    assert found.versions.total() > 3 * RATE / 2
    dropped = {what: count for what, count in found.raw.items() if what != 200}
    assert sum(dropped.values()) <= 2
    with capsys.disabled():
        print(f"\n  a killed replica: {found.versions.total()} decisions, none failed; without retries {dropped}")


def test_without_its_controller_requests_go_on(endpoint: Endpoint) -> None:
    (controller,) = endpoint.processes(CONTROLLER)
    with load(endpoint, 3.0) as found:
        time.sleep(0.5)
        controller.send_signal(signal.SIGKILL)
    assert found.failures == []
    assert found.versions.total() > RATE


def test_a_shadow_sees_the_traffic_and_a_canary_answers_where_it_is_named(
    endpoint: Endpoint, bundles: dict[str, Path]
) -> None:
    served, candidate, client = champion(endpoint), version(bundles["two"]), endpoint.client()
    with pytest.raises(ServeError, match=candidate):
        client.actions(PANEL, PORTFOLIO, moment(), candidate)
    made = endpoint.command("promote", bundles["two"], "--to", "shadow", "--reason", "a test")
    assert made.returncode == 0, made.stderr

    def until(true: Callable[[], bool]) -> None:
        ends = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < ends
            assert client.actions(PANEL, PORTFOLIO, moment()).version == served
            time.sleep(0.1)

    def logged() -> list[Any]:
        files = (endpoint.registry / "shadow").glob("*.jsonl")
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def answers() -> bool:
        with suppress(ServeError):
            return client.actions(PANEL, PORTFOLIO, moment(), candidate).version == candidate
        return False

    until(lambda: candidate in json.dumps(logged()))
    assert endpoint.command("promote", candidate, "--to", "canary", "--reason", "a test").returncode == 0
    until(answers)
    assert endpoint.command("retire", candidate, "--reason", "the test is over").returncode == 0
    until(lambda: not answers())


def test_the_desks_record_opens_the_way_to_champion(endpoint: Endpoint, bundles: dict[str, Path]) -> None:
    registry, candidate = Registry(endpoint.registry), version(bundles["two"])
    assert registry.records_of(candidate) == ()
    times = {"started": "2024-01-01T00:00:00Z", "ended": "2024-02-01T00:00:00Z"}
    figures = {"total_return": 0.02, "benchmark_return": 0.01, "max_drawdown": -0.01}
    record = {"id": "paper-1", **times, "bars": 21, **figures, "orders": 40, "halts": 0}
    endpoint.client().record(candidate, record, SECRETS[ADMIN_TOKEN])
    endpoint.client().record(candidate, record, SECRETS[ADMIN_TOKEN])
    assert registry.records_of(candidate) == (PaperRecord(**record),)  # type: ignore[arg-type]
    with pytest.raises(ServeError, match="401"):
        endpoint.client().record(candidate, record, SECRETS[TOKEN])


@pytest.mark.slow
def test_replicas_that_go_and_come_fail_no_request(bundles: dict[str, Path], tmp_path: Path) -> None:
    token = {"RAY_AUTH_TOKEN": "0" * 64}  # the dashboard's
    with started(bundles["one"], tmp_path / "registry", **token) as endpoint:
        (dashboard,) = (line.split()[1].rstrip(";") for line in endpoint.said if line.startswith("dashboard"))
        words = ["serve", "promote", champion(endpoint), "--dashboard", dashboard, f"port={endpoint.port}"]
        words += [f"endpoint.registry={endpoint.registry}", "endpoint.freshness=request", "endpoint.max_age=1e9"]
        with load(endpoint, 2.0) as found:
            for replicas in (3, 1, 3, 1):
                done = run(*words, f"replicas={replicas}", **token)
                assert done.returncode == 0, done.stderr
                until = time.monotonic() + PATIENCE
                while len(endpoint.processes(REPLICA)) != replicas:
                    assert time.monotonic() < until
                    time.sleep(0.2)
        assert found.failures == []
        assert set(found.raw) == {200}
        assert found.versions.total() > RATE


def test_where_no_replica_is_left_callers_are_told_to_come_again(endpoint: Endpoint) -> None:
    plain = body(PANEL, PORTFOLIO, moment())
    headers = {"Authorization": f"Bearer {SECRETS[TOKEN]}", "Content-Type": "application/json"}
    for replica in endpoint.processes(REPLICA):
        replica.send_signal(signal.SIGKILL)
    seen, until = Counter[int](), time.monotonic() + PATIENCE
    while time.monotonic() < until and not seen[200]:
        try:
            answer = requests.post(f"{endpoint.url}/v1/actions", plain, headers=headers, timeout=1)
        except (requests.ConnectionError, requests.Timeout):  # under way when its replica died; or kept for the next
            continue
        seen[answer.status_code] += 1
        if answer.status_code != 200:
            assert answer.status_code in (503, 504)
            assert int(answer.headers["Retry-After"]) >= 1
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.json()["status"] == answer.status_code
    assert seen[200], "replicas came back"


def test_the_proxys_own_answers_are_problems_and_its_ports_on_loopback(tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    file.write_text(
        "defaults\n    errorfile 502 /x/500.http\n    errorfile 503 /x/500.http\nfrontend p\n    bind :9101\n"
    )
    given = {"PODRACER_HAPROXY": "/bin/echo", "PODRACER_BUSY": "/tmp/busy.http"}
    words = [str(ROOT / "serve" / "haproxy.sh"), "-W", "-f", str(file)]
    done = subprocess.run(words, env=os.environ | given, text=True, capture_output=True, check=True)
    assert done.stdout == f"-W -f {file}\n"
    assert file.read_text().split("\n")[1:5] == [
        "    errorfile 502 /tmp/busy.http",
        "    errorfile 503 /tmp/busy.http",
        "frontend p",
        "    bind 127.0.0.1:9101",
    ]


def test_the_proxy_is_found_where_nothing_names_it() -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    given = {"RAY_SERVE_HAPROXY_BINARY_PATH": str(ROOT / "serve" / "haproxy.sh"), "PATH": path}
    words = [str(ROOT / "serve" / "haproxy.sh"), "-v"]
    done = subprocess.run(words, env=os.environ | given, text=True, capture_output=True, timeout=30)
    assert done.stdout.startswith("HAProxy version"), done.stderr


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own
def test_the_file_for_a_cluster_is_what_is_deployed_here() -> None:
    from ray.serve.schema import ServeDeploySchema

    from serve.config import EndpointConfig, ServeConfig
    from serve.deploy import described

    stored = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text())
    ServeDeploySchema.model_validate(stored)
    assert stored == described(ServeConfig(EndpointConfig(Path(stored["applications"][0]["args"]["registry"]))), {})
