"""Whatever is sent, a bad request is refused as such: never a fault, never a leak, and the endpoint answers on."""

from __future__ import annotations

import copy
import gc
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from endpoint import ADMIN, JSON, TOKEN, Endpoint, problem, serving_one
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
MEGABYTES = 20
POISON: list[Any] = [
    None, True, False, 0, -1, 1, 1.5, -0.0, 1e-300, 1e300, 1 << 63, 10**400, float("nan"), float("inf"), "", "S000",
    "1", "\x00", "\n", "\u202e", "é" * 100, "2019-06-21T20:00:00Z", "0001-01-01T00:00:00+14:00", "x" * 5000,
    [], [[]], [None], [[1.0]], {}, {"S000": 1.0}, {"": {}}, [[[[]]]], list(range(100)),
]  # fmt: skip


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with serving_one(tmp_path_factory.mktemp("served"), timeout=30, docs=True) as running:
        yield running


def places(tree: Any) -> list[tuple[Any, ...]]:
    """The way to every node but the root."""
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [way for key, part in parts for way in [(key,), *((key, *more) for more in places(part))]]


def spoilt(draw: random.Random, tree: Any) -> Any:
    """The tree with one node dropped, given twice, exchanged, wrapped or poisoned; lists of numbers are not all."""
    ways = places(tree)
    few = [way for way in ways if len(way) < 3 or draw.random() < 0.05]
    *way, key = draw.choice(few)
    part = tree
    for step in way:
        part = part[step]
    kind = draw.choice(["drop", "twice", "swap", "wrap", "text", "poison", "poison", "poison"])
    if kind == "drop":
        del part[key]
    elif kind == "twice" and isinstance(part, list):
        part.insert(key, copy.deepcopy(part[key]))
    elif kind == "twice":
        part[f"{key}2"] = copy.deepcopy(part[key])
    elif kind == "swap":
        other = draw.choice([*part] if isinstance(part, dict) else range(len(part)))
        part[key], part[other] = part[other], part[key]
    elif kind == "wrap":
        part[key] = draw.choice([[part[key]], {"x": part[key]}])
    elif kind == "text":
        part[key] = str(part[key])
    else:
        part[key] = copy.deepcopy(draw.choice(POISON))
    return tree


def garbled(draw: random.Random, body: bytes) -> bytes:
    """Bytes cut, changed, repeated or put in."""
    data = bytearray(body)
    for _ in range(draw.randint(1, 3)):
        at, other = sorted(draw.randrange(len(data) + 1) for _ in range(2))
        kind = draw.choice(["cut", "change", "repeat", "insert", "end"])
        if kind == "cut":
            del data[at : at + draw.randint(1, 20)]
        elif kind == "change" and at < len(data):
            data[at] = draw.randrange(256)
        elif kind == "repeat":
            data[at:at] = data[at : min(other, at + 500)]
        elif kind == "insert":
            data[at:at] = draw.choice([b"\x00", b"\xff", b"NaN", b"1e999", b"[" * 300, b'"', b"{}", b",", b"\\ud800"])
        else:
            del data[max(at, 1) :]
    return bytes(data)


def harmless(endpoint: Endpoint, path: str, body: bytes) -> None:
    response = endpoint.ask(body, path)
    assert "Traceback" not in response.text
    assert TOKEN not in response.text
    if response.status_code == 200:
        answer = json.loads(response.text, parse_constant=pytest.fail)
        assert all(isinstance(weight, float) for weight in answer["weights"].values())
    else:
        assert 400 <= response.status_code < 500, response.text
        problem(response, response.status_code)


def lives(endpoint: Endpoint) -> None:
    response = endpoint.ask(endpoint.good())
    assert response.status_code == 200
    assert endpoint.service.waiting == 0


SEEDS = st.integers(0, 1 << 32)
MANY = settings(max_examples=220, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
SOME = settings(MANY, max_examples=60)


@given(seed=SEEDS, faults=st.integers(1, 3))
@MANY
def test_a_spoilt_request_is_refused_or_answered(endpoint: Endpoint, seed: int, faults: int) -> None:
    draw, tree = random.Random(seed), copy.deepcopy(endpoint.good())
    for _ in range(faults):
        tree = spoilt(draw, tree)
    harmless(endpoint, "/v1/actions", json.dumps(tree).encode())


@given(seed=SEEDS)
@MANY
def test_garbled_bytes_are_refused_or_answered(endpoint: Endpoint, seed: int) -> None:
    harmless(endpoint, "/v1/actions", garbled(random.Random(seed), json.dumps(endpoint.good()).encode()))


@given(seed=SEEDS)
@SOME
def test_a_spoilt_request_is_not_explained(endpoint: Endpoint, seed: int) -> None:
    draw = random.Random(seed)
    harmless(endpoint, "/v1/explain", json.dumps(spoilt(draw, copy.deepcopy(endpoint.good()))).encode())


@given(seed=SEEDS)
@SOME
def test_a_spoilt_paper_record_is_refused(endpoint: Endpoint, seed: int) -> None:
    draw = random.Random(seed)
    record = {"id": "a", "started": "2024-01-01T00:00:00Z", "ended": "2024-01-08T00:00:00Z", "bars": 5, "orders": 7,
              "total_return": 0.01, "benchmark_return": 0.005, "max_drawdown": -0.02, "halts": 0}  # fmt: skip
    tree = spoilt(draw, {"version": endpoint.service.now.champion.version, "record": record})
    body = json.dumps(tree).encode()
    response = endpoint.ask(body, "/v1/admin/record", Authorization=f"Bearer {ADMIN}")
    if response.status_code != 200:
        problem(response, 422)


def test_the_mutations_are_various(endpoint: Endpoint) -> None:
    """So that the tests above are about more than one way of being wrong."""
    told = set()
    for seed in range(150):
        tree = spoilt(random.Random(seed), copy.deepcopy(endpoint.good()))
        response = endpoint.ask(json.dumps(tree).encode())
        told.add(response.json()["reason"].split(":")[0] if response.status_code == 422 else response.status_code)
    assert len(told) > 20
    assert 200 in told


def test_after_all_that_it_answers_as_before_and_has_not_grown(endpoint: Endpoint) -> None:
    good = json.dumps(endpoint.good()).encode()
    before = endpoint.ask(good).json()

    def strain(seeds: range) -> None:
        for seed in seeds:
            draw = random.Random(seed)
            body = json.dumps(spoilt(draw, json.loads(good))).encode() if seed % 2 else garbled(draw, good)
            harmless(endpoint, "/v1/actions", body if seed % 5 else good)

    strain(range(100))  # so that what is made once has been made
    grown = resident()
    strain(range(1000, 1500))
    assert resident() - grown < MEGABYTES
    assert dict(endpoint.ask(good).json(), milliseconds=0) == before | {"milliseconds": 0}
    lives(endpoint)


def resident() -> float:
    """Megabytes of this process, which is the server too."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def test_what_its_description_allows_and_forbids_is_answered_as_described(endpoint: Endpoint) -> None:
    schema = schemathesis.openapi.from_url(f"{endpoint.url}/openapi.json", headers=JSON)
    found = []
    for made in schema.get_all_operations():
        operation = made.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            statuses = described(endpoint, operation, mode)
            found.append((operation.method, operation.path, statuses))
    assert {path for _, path, _ in found} >= {"/v1/actions", "/v1/explain", "/v1/ensemble", "/healthz", "/readyz"}
    assert 422 in set().union(*(statuses for _, _, statuses in found))
    lives(endpoint)


def described(endpoint: Endpoint, operation: Any, mode: GenerationMode) -> set[int]:
    statuses: set[int] = set()
    if mode is GenerationMode.NEGATIVE and operation.method == "get" and not operation.query:
        return statuses  # nothing can be wrong
    token = ADMIN if "admin" in operation.path else TOKEN

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=10, phases=[Phase.generate], suppress_health_check=list(HealthCheck), deadline=None)
    def ask(case: Any) -> None:
        response = case.call(headers={"Authorization": f"Bearer {token}"})
        statuses.add(response.status_code)
        case.validate_response(response, checks=CHECKS)

    ask()
    return statuses
