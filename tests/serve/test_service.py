"""Rules of time, the queue, batches, versions that change under way, and the shadow."""

from __future__ import annotations

import json
import pickle
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from bundles import LENS, PANEL, PROVENANCE, SHARED, measured, members_of
from endpoint import JSON, LOOKING, Endpoint, Held, bundle_of, later, moment, problem, request_of, serving, steady

from agents.bundle import save
from serve.model import Decision, Model

HOUR = timedelta(hours=1)
LAST = len(PANEL) - 1
AT_LAST_CLOSE = steady(LAST)  # and a bit later
POISON = 13.0  # cash, upon which decisions fail


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bundles")
    bundle_of(root / "one")
    bundle_of(root / "two", networks=(LOOKING, SHARED))
    return {name: root / name for name in ("one", "two")}


@pytest.fixture
def endpoint(folders: dict[str, Path]) -> Iterator[Endpoint]:
    with serving({"champion": [folders["one"]]}) as running:
        yield running


class Gate:
    """Decisions wait at it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.sizes = threading.Event(), list[int]()
        decide = Model.decide_together

        def gated(model: Model, asked: Any) -> list[Decision]:
            self.sizes.append(len(asked))
            assert self.open.wait(20)
            if any(portfolio.cash == POISON for _, portfolio in asked):
                raise RuntimeError("a fault")
            return decide(model, asked)

        monkeypatch.setattr(Model, "decide_together", gated)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(monkeypatch)
    yield made
    made.open.set()


def asked_at_once(endpoint: Endpoint, bodies: list[Any]) -> list[requests.Response]:
    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda body: requests.post(f"{endpoint.url}/v1/actions", json=body, headers=JSON), bodies))


@contextmanager
def under_way(endpoint: Endpoint, count: int) -> Iterator[list[Any]]:
    """So many good requests are waiting; their responses, once they end."""
    with ThreadPoolExecutor(count) as pool:
        body = endpoint.good()
        asks = [pool.submit(requests.post, f"{endpoint.url}/v1/actions", json=body, headers=JSON) for _ in range(count)]
        until(lambda: endpoint.service.waiting == count)
        yield asks


def until(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        time.sleep(0.005)
    raise AssertionError("it did not come about")


def plain(response: requests.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    return dict(response.json(), milliseconds=0)


# Time


def test_strict_freshness_keeps_to_the_servers_clock(folders: dict[str, Path]) -> None:
    def clock() -> Any:
        return AT_LAST_CLOSE() + HOUR

    with serving({"champion": [folders["one"]]}, clock=clock, freshness="strict") as endpoint:
        for seconds in (-59, 0, 59):
            given = later(clock, seconds)
            assert endpoint.ask(endpoint.good(asked_at=given)).status_code == 200
        for seconds in (-61, 61, -86400):
            told = problem(endpoint.ask(endpoint.good(asked_at=later(clock, seconds))), 422, "asked_at")
            assert f"{seconds:+} s from the server's clock" in told
        silent = endpoint.ask(endpoint.good(asked_at=None)).json()
        assert silent["asked_at"] == later(clock, 0).replace("+00:00", "Z")


@pytest.mark.parametrize("freshness", ["strict", "request"])
def test_bars_that_have_not_ended_are_refused(folders: dict[str, Path], freshness: str) -> None:
    with serving({"champion": [folders["one"]]}, clock=steady(LAST - 1), freshness=freshness) as endpoint:
        at = later(steady(LAST - 1), 0)
        told = problem(endpoint.ask(endpoint.good(asked_at=at)), 422, f"closes.{endpoint.needed() - 1}")
        assert "has not ended" in told
        assert endpoint.ask(endpoint.good(LAST - 1, asked_at=at)).status_code == 200


def test_a_bar_that_ends_at_that_very_moment_has_ended(endpoint: Endpoint) -> None:
    assert endpoint.ask(endpoint.good(asked_at=moment(PANEL.closes[-1]))).status_code == 200


@pytest.mark.parametrize("freshness", ["strict", "request"])
def test_old_bars_are_refused(folders: dict[str, Path], freshness: str) -> None:
    def clock() -> Any:
        return AT_LAST_CLOSE() + HOUR

    for hours, status in ((1.1, 200), (0.9, 422)):
        with serving({"champion": [folders["one"]]}, clock=clock, freshness=freshness, max_age=hours) as endpoint:
            response = endpoint.ask(endpoint.good(asked_at=later(clock, 0)))
            assert response.status_code == status
            if status == 422:
                assert "1.0 hours old" in problem(response, 422, f"closes.{endpoint.needed() - 1}")


def test_replays_may_be_about_any_time(folders: dict[str, Path]) -> None:
    with serving({"champion": [folders["one"]]}, clock=lambda: AT_LAST_CLOSE() + 1000 * HOUR) as endpoint:
        assert endpoint.ask(endpoint.good(40)).status_code == 200


# The queue


def test_without_a_version_nothing_is_answered_yet() -> None:
    with serving({}) as endpoint:
        body = request_of(PANEL)
        asks = [
            endpoint.ask(body),
            endpoint.ask(body, "/v1/explain"),
            endpoint.get("/readyz"),
            endpoint.get("/v1/ensemble"),
        ]
        assert {problem(response, 503) for response in asks} == {"no version is loaded yet"}
        assert endpoint.get("/healthz").status_code == 200


def test_a_full_queue_says_come_again_and_gives_its_places_back(folders: dict[str, Path], gate: Gate) -> None:
    with serving({"champion": [folders["one"]]}, queue=2, timeout=20) as endpoint:
        with under_way(endpoint, 2) as asks:
            for path in ("/v1/actions", "/v1/explain"):
                assert "2 requests wait already" in problem(endpoint.ask(endpoint.good(), path), 503)
            assert endpoint.get("/readyz").status_code == 200
            gate.open.set()
        assert [ask.result().status_code for ask in asks] == [200, 200]
        assert endpoint.service.waiting == 0
        assert endpoint.ask(endpoint.good()).status_code == 200


@pytest.mark.parametrize("batch", [1, 4])
def test_who_waits_too_long_is_told_so_and_leaves_the_queue(folders: dict[str, Path], gate: Gate, batch: int) -> None:
    with serving({"champion": [folders["one"]]}, timeout=0.2, batch=batch) as endpoint:
        assert problem(endpoint.ask(endpoint.good()), 504) == "no answer within 0.2 s"
        assert endpoint.service.waiting == 0
        gate.open.set()
        until(lambda: endpoint.ask(endpoint.good()).status_code == 200)


@pytest.mark.parametrize("batch", [1, 4])
def test_who_goes_away_leaves_the_queue(folders: dict[str, Path], gate: Gate, batch: int) -> None:
    with serving({"champion": [folders["one"]]}, queue=1, timeout=20, batch=batch) as endpoint:
        with pytest.raises(requests.Timeout):
            requests.post(f"{endpoint.url}/v1/actions", json=endpoint.good(), headers=JSON, timeout=0.2)
        problem(endpoint.ask(endpoint.good()), 503)
        gate.open.set()
        until(lambda: endpoint.service.waiting == 0)
        assert endpoint.ask(endpoint.good()).status_code == 200


def test_an_explanation_that_takes_long_delays_no_decision(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr("serve.service.explain", lambda *_: {"waited": over.wait(20)})
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(requests.post, f"{endpoint.url}/v1/explain", json=endpoint.good(), headers=JSON)
        until(lambda: endpoint.service.waiting == 1)
        assert endpoint.ask(endpoint.good()).status_code == 200
        over.set()
        assert long.result().json() == {"waited": True}


# Batches


def test_a_batch_answers_as_one_by_one_though_some_of_it_is_refused(folders: dict[str, Path], gate: Gate) -> None:
    gate.open.set()
    with serving({"champion": [folders["one"]]}) as endpoint:
        bars = [40, 55, 70, LAST]
        bodies = [endpoint.good(bar) for bar in bars]
        bad = endpoint.good(held=Held(cash=-1.0))
        alone = [plain(endpoint.ask(body)) for body in bodies]
        wrong = problem(endpoint.ask(bad), 422, "portfolio")
    gate.sizes.clear()
    with serving({"champion": [folders["one"]]}, batch=8, batch_wait=5.0) as endpoint:
        *together, refused = asked_at_once(endpoint, [*bodies, *bodies[:3], bad])
    assert gate.sizes[0] == 8
    assert problem(refused, 422, "portfolio") == wrong
    for response, expected in zip(together, [*alone, *alone[:3]]):
        answer = plain(response)
        for part in ("weights", "ordered"):
            assert answer[part] == pytest.approx(expected[part], abs=1e-6)
        assert answer["as_of"] == expected["as_of"]
        assert answer["dispersion"] == pytest.approx(expected["dispersion"], abs=1e-6)


def test_a_batch_does_not_wait_for_ever_for_others(folders: dict[str, Path]) -> None:
    with serving({"champion": [folders["one"]]}, batch=8, batch_wait=0.01) as endpoint:
        assert endpoint.ask(endpoint.good()).status_code == 200


def test_a_fault_in_a_batch_is_the_fault_of_one(folders: dict[str, Path], gate: Gate) -> None:
    gate.open.set()
    with serving({"champion": [folders["one"]]}, batch=3, batch_wait=5.0) as endpoint:
        good, poison = endpoint.good(), endpoint.good(held=Held(cash=POISON))
        responses = asked_at_once(endpoint, [good, poison, good])
        assert [response.status_code for response in responses] == [200, 500, 200]
        assert "fault of the server" in problem(responses[1], 500)
        assert endpoint.service.waiting == 0


def test_a_batch_may_be_for_several_versions(folders: dict[str, Path]) -> None:
    with serving({"champion": [folders["one"]], "canary": [folders["two"]]}, batch=8, batch_wait=5.0) as endpoint:
        now = endpoint.service.now
        (canary,) = now.others
        body = endpoint.good(LAST)
        bodies = [body, body | {"version": canary}, body | {"version": now.champion.version}, body] * 2
        answers = [plain(response) for response in asked_at_once(endpoint, bodies)]
    one, two = answers[0]["version"], canary
    assert [answer["version"] for answer in answers] == [one, two, one, one] * 2
    for version, folder in ((one, folders["one"]), (two, folders["two"])):
        with serving({"champion": [folder]}) as endpoint:
            alone = plain(endpoint.ask(body))
        for answer in (a for a in answers if a["version"] == version):
            assert answer["weights"] == pytest.approx(alone["weights"], abs=1e-6)


# Versions


def test_a_canary_answers_those_who_ask_for_it(folders: dict[str, Path]) -> None:
    with serving({"champion": [folders["one"]], "canary": [folders["two"]]}) as endpoint:
        (canary,) = endpoint.service.now.others
        plainly, named = endpoint.ask(endpoint.good()).json(), endpoint.ask(endpoint.good(version=canary)).json()
        assert (plainly["version"], named["version"]) == (endpoint.service.now.champion.version, canary)
        assert plainly["weights"] != named["weights"]
        told = problem(endpoint.ask(endpoint.good(version="0123456789ab")), 422, "version")
        assert "is not served" in told
        assert canary in told


def test_versions_change_under_way_and_no_answer_is_of_two(folders: dict[str, Path]) -> None:
    with serving({"champion": [folders["one"]]}) as endpoint:
        body = endpoint.good(LAST)
        expected = {}
        for folder in (folders["two"], folders["one"]):
            assert endpoint.service.load({"champion": [folder]})
            answer = plain(endpoint.ask(body))
            expected[answer["version"]] = answer
        assert len(expected) == 2
        over = threading.Event()

        def keep_asking(_: int) -> list[requests.Response]:
            with requests.Session() as session:
                found = []
                while not over.is_set():
                    found.append(session.post(f"{endpoint.url}/v1/actions", json=body, headers=JSON))
                return found

        with ThreadPoolExecutor(3) as pool:
            asking = [pool.submit(keep_asking, k) for k in range(3)]
            for folder in [folders["two"], folders["one"]] * 5:
                assert endpoint.service.load({"champion": [folder]})
                time.sleep(0.03)
            over.set()
            answers = [plain(response) for ask in asking for response in ask.result()]
        assert {answer["version"] for answer in answers} == set(expected)
        assert all(answer == expected[answer["version"]] for answer in answers)


def one_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def in_the_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"rate": 0.4', '"rate": 0.5'))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte of the weights": (lambda folder: one_byte(folder / "member-1.safetensors"), "member-1.safetensors: its"),
    "a number in the manifest": (in_the_manifest, "manifest.json: hash"),
    "a file is missing": (lambda folder: (folder / "member-0.safetensors").unlink(), "safetensors: is missing"),
    "a file too many": (lambda folder: (folder / "run.py").write_text("print()"), "run.py: is not part"),
    "a pickle": (lambda folder: (folder / "member-0.safetensors").write_bytes(pickle.dumps(Path)), "its SHA-256"),
    "nothing there": (shutil.rmtree, "no such bundle"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_version_is_named_and_the_old_one_serves_on(
    endpoint: Endpoint, folders: dict[str, Path], tmp_path: Path, damage: str
) -> None:
    before = plain(endpoint.ask(endpoint.good(LAST)))
    spoil, told = DAMAGE[damage]
    folder = Path(shutil.copytree(folders["two"], tmp_path / "newer"))
    spoil(folder)
    for state in ("champion", "canary", "shadow"):
        wanted = {"champion": [folders["one"]]} | {state: [folder]}
        assert not endpoint.service.load(wanted)
        assert told in endpoint.service.trouble
        assert endpoint.service.trouble.isprintable()
        ready = endpoint.get("/readyz")
        assert (ready.status_code, ready.json()["version"]) == (200, before["version"])
        assert told in endpoint.get("/v1/ensemble").json()["trouble"]
        assert plain(endpoint.ask(endpoint.good(LAST))) == before
    assert endpoint.service.load({"champion": [folders["two"]]})
    assert endpoint.service.trouble == ""
    assert plain(endpoint.ask(endpoint.good(LAST)))["version"] != before["version"]


def test_what_is_loaded_already_is_verified_again(endpoint: Endpoint, tmp_path: Path, folders: dict[str, Path]) -> None:
    folder = Path(shutil.copytree(folders["one"], tmp_path / "same"))
    assert endpoint.service.load({"champion": [folder]})
    one_byte(folder / "member-0.safetensors")
    assert not endpoint.service.load({"champion": [folder]})


def test_there_is_one_champion(endpoint: Endpoint, folders: dict[str, Path]) -> None:
    for wanted in ({}, {"champion": []}, {"champion": [*folders.values()]}, {"canary": [folders["one"]]}):
        assert not endpoint.service.load(wanted)
        assert "expected one" in endpoint.service.trouble
    assert endpoint.ask(endpoint.good()).status_code == 200


def test_whatever_goes_wrong_with_loading_callers_are_served_on(
    endpoint: Endpoint, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: Path) -> None:
        raise MemoryError

    monkeypatch.setattr("serve.service.Model", failing)
    assert not endpoint.service.load({"champion": [folders["two"]]})
    assert endpoint.service.trouble == "MemoryError"
    assert endpoint.ask(endpoint.good()).status_code == 200


# The shadow


def test_shadows_see_the_traffic_and_nobody_sees_them(folders: dict[str, Path]) -> None:
    with serving({"champion": [folders["one"]]}) as endpoint:
        alone = plain(endpoint.ask(endpoint.good(LAST)))
    with serving({"champion": [folders["two"]]}) as endpoint:
        other = plain(endpoint.ask(endpoint.good(LAST)))
    with serving({"champion": [folders["one"]], "shadow": [folders["two"]]}) as endpoint:
        assert plain(endpoint.ask(endpoint.good(LAST))) == alone
        until(lambda: bool(endpoint.shadowed))
        (line,) = map(json.loads, endpoint.shadowed)
        told = problem(endpoint.ask(endpoint.good(version=other["version"])), 422, "version")
        assert "is not served" in told
    assert (line["version"], line["beside"]) == (other["version"], alone["version"])
    assert line["weights"] == other["weights"]
    assert line["cash"] == other["cash"]


def test_a_busy_replica_skips_its_shadow(folders: dict[str, Path]) -> None:
    with serving({"champion": [folders["one"]], "shadow": [folders["two"]]}) as endpoint:
        endpoint.service.waiting += 1  # somebody
        assert endpoint.ask(endpoint.good()).status_code == 200
        until(lambda: bool(endpoint.shadowed))
        (line,) = map(json.loads, endpoint.shadowed)
        assert line["skipped"] == "the replica was busy"
        assert "weights" not in line


def test_a_shadow_that_cannot_answer_harms_nobody(
    folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lens = replace(LENS, symbols=("X0", "X1", "X2", "X3"))
    save(tmp_path / "others", members_of((SHARED,), lens), lens, measured(members_of((SHARED,))), PROVENANCE)
    with serving({"champion": [folders["one"]], "shadow": [tmp_path / "others", folders["two"]]}) as endpoint:

        def fault(*_: Any) -> None:
            raise RuntimeError("a fault")

        endpoint.service.now.shadows[1].decide = fault  # type: ignore[method-assign,assignment]
        for count in (2, 4, 6):
            assert endpoint.ask(endpoint.good()).status_code == 200
            until(lambda count=count: len(endpoint.shadowed) == count)
    lines = [json.loads(line) for line in endpoint.shadowed]
    assert all("S000 is not one" in line["refused"] for line in lines[::2])
    assert all(line["failed"] == "RuntimeError" for line in lines[1::2])
    assert "a fault" in caplog.text
