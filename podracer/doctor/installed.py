"""What is installed: Python, packages, ElegantRL, our own rooms, and what PyTorch computes on."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from podracer.doctor.finding import Finding

HOME = Path(__file__).parents[2]
ROOMS = ("kit", "market", "envs", "agents", "podracer", "tournament", "serve", "paper")
ELEGANTRL = "0.3.6"
SETUP = "make setup, or: pip install -c constraints.txt -e ."


def python() -> Iterator[Finding]:
    yield Finding("Python", "ok", f"{sys.version.split()[0]}, {sys.executable}")


def packages() -> Iterator[Finding]:
    """Every dependency that pyproject.toml names, in a version that it allows; then, whether it is the tested one."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in _project()["dependencies"]]
    present = {need.name: version for need in wanted if (version := _version(need.name))}
    wrong = [need for need in wanted if not need.specifier.contains(present.get(need.name, "0"), prereleases=True)]
    for need in wrong:
        yield Finding(need.name, "mend", f"{present.get(need.name, 'none')}; expected {need.specifier}", SETUP)
    if not wrong:
        main = ", ".join(f"{name} {present[name]}" for name in ("torch", "ray", "optuna"))
        yield Finding("packages", "ok", f"all {len(wanted)}: {main}")
    tested = _tested()
    others = [
        f"{name} {version} ({tested[name]})"
        for name, version in present.items()
        if name in tested and version.split("+")[0] != tested[name]
    ]
    if others:
        yield Finding(
            "packages", "note", f"other versions than the tested ones (in brackets): {', '.join(others)}", SETUP
        )


def elegantrl() -> Iterator[Finding]:
    install = f"pip install --no-deps elegantrl=={ELEGANTRL}"
    version = _version("elegantrl")
    if version is None:
        yield Finding("ElegantRL", "mend", "is not installed", install)
    elif version != ELEGANTRL:
        yield Finding("ElegantRL", "mend", f"{version}; expected {ELEGANTRL}, whose defects are known", install)
    else:
        from elegantrl.agents import AgentPPO, AgentSAC, AgentTD3

        names = ", ".join(agent.__name__ for agent in (AgentPPO, AgentSAC, AgentTD3))
        yield Finding("ElegantRL", "ok", f"{version}: {names}")


def rooms() -> Iterator[Finding]:
    """The rooms are top-level packages with common names: another `envs` may be found before ours."""
    foreign = {name: origin for name in ROOMS if (origin := _origin(name)).parent.parent != HOME}
    for name, origin in foreign.items():
        found = f"{name} is {origin}; expected {HOME / name}"
        yield Finding("rooms", "mend", found, f"run from {HOME}, and take the other one off PYTHONPATH")
    if not foreign:
        yield Finding("rooms", "ok", f"{len(ROOMS)} of Podracer {_project()['version']} in {HOME}")


def devices() -> Iterator[Finding]:
    """What PyTorch computes on."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for number in range(count):
        card = torch.cuda.get_device_properties(number)
        yield Finding("GPU", "ok", f"{number}: {card.name}, {card.total_memory / 2**30:.0f} GiB")
    cards = [] if count else _cards()
    if cards:
        cuda = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "for CPUs only"
        found = f"{', '.join(cards)} here, but this PyTorch, {torch.__version__}, is {cuda} and sees none"
        yield Finding("GPU", "mend", found, "install the build that pytorch.org names for your driver")
    elif not count:
        yield Finding("GPU", "ok", "none; everything runs on the CPU")
    threads, cores = os.environ.get("OMP_NUM_THREADS"), os.cpu_count() or 1
    yield Finding("CPU", "ok", f"{cores} cores; {threads or 1} thread a process")
    if threads and threads != "1":
        found = f"OMP_NUM_THREADS = {threads}: the matrices are small, and processes would take each other's cores"
        yield Finding("CPU", "note", found, "unset OMP_NUM_THREADS")


def _project() -> dict[str, Any]:
    return tomllib.loads((HOME / "pyproject.toml").read_text())["project"]


def _tested() -> dict[str, str]:
    lines = (HOME / "constraints.txt").read_text().splitlines()
    return dict(line.split("==", 1) for line in lines if "==" in line and not line.startswith("#"))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _origin(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin) if spec and spec.origin else Path("nowhere")


def _cards() -> list[str]:
    """As the driver names them."""
    tool = shutil.which("nvidia-smi")
    if not tool:
        return []
    words = [tool, "--query-gpu=name", "--format=csv,noheader"]
    answer = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    return answer.stdout.split("\n")[:-1] if answer.returncode == 0 else []
