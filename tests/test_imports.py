"""The house has floors: a room imports only from floors below it, and the lower ones stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("kit", "market", "envs", "agents", "podracer", "tournament", "serve", "paper")
ROOMS = [room for room in FLOORS if (ROOT / room / "__init__.py").exists()]
# What a room must not load at import, so that training runs on a bare PyTorch machine and the
# trading driver on one without PyTorch.
HEAVY = {"ray", "wandb", "pydantic", "alpaca"}
LIGHT = {"envs": HEAVY, "agents": HEAVY, "podracer": HEAVY}  # Sebulba loads Ray when it collects
FORBIDDEN = {"kit": HEAVY | {"torch"}, "market": HEAVY | {"torch"}} | LIGHT
MINIMAL = [room for room in ROOMS if room in FORBIDDEN]


def imported_rooms(source: str) -> set[str]:
    """The rooms that a file imports, at its top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "rooms import by full name"
            names.add(node.module or "")
    return {name.split(".")[0] for name in names} & set(FLOORS)


def upward(room: str, source: str) -> set[str]:
    return {other for other in imported_rooms(source) if FLOORS.index(other) > FLOORS.index(room)}


def modules(room: str) -> list[str]:
    files = sorted((ROOT / room).rglob("*.py"))
    parts = [file.relative_to(ROOT).with_suffix("").parts for file in files]
    return [".".join(p[:-1] if p[-1] == "__init__" else p) for p in parts if p[-1] != "__main__"]


def test_the_check_sees_an_upward_import():
    assert upward("kit", "import numpy\nfrom market.panel import Panel\n") == {"market"}
    assert upward("market", "def f():\n    import envs.step\n") == {"envs"}
    assert upward("market", "from kit.files import hash_json\n") == set()


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_only_from_floors_below(room):
    found = {str(file.relative_to(ROOT)): upward(room, file.read_text()) for file in (ROOT / room).rglob("*.py")}
    assert {file: rooms for file, rooms in found.items() if rooms} == {}


def test_every_package_has_a_floor():
    assert {file.parent.name for file in ROOT.glob("*/__init__.py")} <= {*FLOORS, "benchmarks"}


@pytest.mark.parametrize("room", MINIMAL)
def test_room_loads_nothing_heavy_at_import(room):
    names = modules(room)
    assert names
    script = f"import sys, importlib\nfor name in {names!r}: importlib.import_module(name)\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in run.stdout.split()}
    assert set(names) and room in loaded
    assert loaded & FORBIDDEN[room] == set()


def test_the_driver_loads_no_torch():
    """What trades runs on a machine without PyTorch; the exchange, the review and the rehearsal do not."""
    apart = {"paper.exchange", "paper.review", "paper.replay"}
    names = [name for name in modules("paper") if not any(name.startswith(one) for one in apart)]
    assert "paper.run" in names
    script = f"import sys, importlib\nfor name in {names!r}: importlib.import_module(name)\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in run.stdout.split()}
    assert loaded & (HEAVY | {"torch", "agents", "envs", "tournament"}) == set()
