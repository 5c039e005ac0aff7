"""The documentation holds: tutorials run as they stand, links lead somewhere, the reference names every key."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import typing
from collections.abc import Iterator
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.peers import finrl_pandas, has_finrl
from kit.config import build
from podracer.run import TrainConfig

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
GENERATED = {"reference/configuration.md", "reference/commands.md"}
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FOLDERS = "agents|benchmarks|configs|deploy|docs|envs|examples|kit|market|paper|podracer|serve|tests|tournament"
NAMED = re.compile(rf"`((?:{FOLDERS})/[\w./-]+)`")
VARIES = re.compile(r"[-+]?\b[0-9a-f]{8,}\b|[-+]?\d[\d.,]*")  # hashes and numbers
PORTS = ("8000", "8702")  # what the pages listen on
TIMEOUT = 600.0  # seconds of a page, on a machine that has other things to do


def load_hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("documentation_hooks", DOCS / "hooks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOOKS = load_hooks()


# -- the tutorials


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def run_page(name: str, folder: Path) -> None:
    """Its `sh` blocks as one script; what its `text` blocks show is printed, with other numbers perhaps."""
    blocks = FENCED.findall((DOCS / "tutorials" / f"{name}.md").read_text())
    script = "\n".join(code for language, code in blocks if language == "sh")
    for port in PORTS:  # others may listen there on this machine
        script = script.replace(port, str(free_port()))
    if not (folder / "configs").exists():
        (folder / "configs").symlink_to(ROOT / "configs")
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PODRACER_")} | {
        "PYTHONPATH": str(ROOT),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "COLUMNS": "100",
    }
    with open(folder / f"{name}.out", "w+") as file:
        words = ["bash", "-euo", "pipefail", "-c", script]
        page = subprocess.Popen(
            words, cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
        try:
            code = page.wait(TIMEOUT)
            assert code or ended(page.pid), f"{name} leaves a process running"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(page.pid, signal.SIGKILL)
        file.seek(0)
        output = file.read()
    assert code == 0, f"{name}: {output}"
    printed = {alike(line) for line in output.splitlines()}
    shown = [line for language, text in blocks if language == "text" for line in text.splitlines() if line != "..."]
    assert [line for line in shown if alike(line) not in printed] == [], output


def ended(group: int) -> bool:
    """Whether every process of a group has ended, or does so soon."""
    until = time.monotonic() + 20.0
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def alike(line: str) -> str:
    """What two lines have in common that differ in numbers, hashes and spaces alone."""
    return " ".join(VARIES.sub("N", line).split())


@pytest.mark.timeout(600)
def test_your_own_bars_are_checked_trained_on_and_traded(tmp_path: Path) -> None:
    run_page("own-data", tmp_path)


@pytest.mark.timeout(1200)
@pytest.mark.skipif(not shutil.which("curl"), reason="the tutorial asks the endpoint by curl, which is not here")
def test_a_tournament_is_run_stopped_opened_served_and_traded(tmp_path: Path) -> None:
    for name in ("tournament", "endpoint", "desk"):
        run_page(name, tmp_path)


def test_the_configuration_beside_elegantrls_and_finrls_is_one() -> None:
    blocks = dict(FENCED.findall((DOCS / "coming-from.md").read_text()))
    assert build(TrainConfig, yaml.safe_load(blocks["yaml"])).trading.costs.linear == pytest.approx(0.001)


@pytest.mark.skipif(not has_finrl(), reason="FinRL is not installed (make bench brings it)")
def test_finrl_fills_at_the_close_that_its_state_shows() -> None:
    env: Any = finrl_pandas(np.array([[10.0, 20.0], [15.0, 20.0], [15.0, 20.0]]), np.zeros((3, 2)))
    before = list(env.reset()[0])
    after, reward, *_ = env.step(np.array([0.5, 0.0]))
    bought = after[3] - before[3]
    assert before[1] == 10.0
    assert bought > 0
    assert before[0] - after[0] == pytest.approx(bought * 10.0, rel=0.01)  # the fee is less
    assert reward > 0  # of the step to 15 that the order did not have to wait for


# -- links and names


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_every_named_file_exists(page: Path) -> None:
    text = FENCED.sub("", page.read_text())
    for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        target = (page.parent / link).resolve()
        generated = target.is_relative_to(DOCS) and str(target.relative_to(DOCS)) in GENERATED
        assert generated or target.exists(), f"links to {link}"
    for name in NAMED.findall(text):
        assert (ROOT / name).exists(), f"names {name}"


class Asked(HTMLParser):
    """What a browser asks for when it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in ("script", "img", "iframe", "source"):
            self.addresses.append(values.get("src") or "")
        elif tag == "link" and values.get("rel") not in ("canonical", "prev", "next"):
            self.addresses.append(values.get("href") or "")


def test_the_site_builds_without_a_warning_and_asks_nothing_of_other_hosts(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (make docs brings it)")
    pytest.importorskip("material", reason="mkdocs-material is not installed (make docs brings it)")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {str(page.relative_to(DOCS).with_suffix(".html")) for page in PAGES}
    built = {str(page.relative_to(tmp_path)): page.read_text() for page in tmp_path.rglob("*.html")}
    assert pages | {name.replace(".md", ".html") for name in GENERATED} <= set(built)
    for name, page in built.items():
        asked = Asked()
        asked.feed(page)
        assert [address for address in asked.addresses if re.match(r"(?:https?:)?//", address)] == [], name
    assert not list(tmp_path.rglob("*.py"))


# -- the reference


def keys(cls: type, prefix: str) -> Iterator[str]:
    """Every key of a configuration, those of its components too; written apart from what makes the page."""
    hints = typing.get_type_hints(cls)
    for field in (field for field in dataclasses.fields(cls) if field.init):
        yield f"{prefix}{field.name}"
        kind = hints[field.name]
        inside = {list: "[].", tuple: "[].", dict: ".NAME."}.get(typing.get_origin(kind), ".")
        for one in (kind, *typing.get_args(kind)):
            if dataclasses.is_dataclass(one) and not hasattr(one, "from_config"):
                yield from keys(typing.cast(type, one), f"{prefix}{field.name}{inside}")


def section(page: str, anchor: str) -> str:
    found = re.search(rf"^## [^\n]*{{#{anchor}}}$.*?(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found, anchor
    return found[0]


@pytest.mark.parametrize(
    ("anchor", "cls"),
    [
        ("data", HOOKS.DataConfig),
        ("trading", HOOKS.TradingConfig),
        ("training", HOOKS.TrainConfig),
        ("tournament", HOOKS.TournamentConfig),
        ("endpoint", HOOKS.ServeConfig),
        ("desk", HOOKS.PaperConfig),
        ("exchange", HOOKS.ExchangeConfig),
        ("report", HOOKS.ReviewConfig),
    ],
)
def test_the_reference_names_every_key(anchor: str, cls: type) -> None:
    page = HOOKS.configuration()
    shared = anchor in ("data", "trading")
    mine = set(re.findall(r"^\| `([^`]+)`", section(page, anchor), re.MULTILINE))
    there = mine | set(
        re.findall(r"^\| `((?:data|trading)\.[^`]+)`", section(page, "data") + section(page, "trading"), re.M)
    )
    expected = set(keys(cls, f"{anchor}." if shared else ""))
    assert len(expected) >= 8
    assert expected <= there
    assert mine <= expected, "a key that does not exist"


def test_the_reference_names_every_feature_and_its_parameters() -> None:
    named = section(HOOKS.configuration(), "features")
    for name, cls in HOOKS.REGISTRY.items():
        assert f"### `{name}`" in named
        assert all(f"| `{key}` |" in named for key in keys(cls, f"{name}."))


def test_the_reference_tells_types_bounds_defaults_and_meanings() -> None:
    page = HOOKS.configuration()
    rate = (
        "| `trading.allocation.rate` | number above 0 and at most 1 | `0.4` | share of the way to the target that is "
    )
    assert f"{rate}traded per bar |" in page
    assert "| `candidate.env.reward.excess` | number | `1.0` |" in page  # a candidate's default, not the component's
    assert "| `data.source.path` | path | required |" in page
    assert "the most \\|weights\\| may sum to" in page


def test_every_anchor_of_the_reference_is_there_once() -> None:
    page = HOOKS.configuration()
    anchors = re.findall(r"^##.*{#([\w-]+)}$", page, re.MULTILINE)
    assert len(anchors) == len(set(anchors))
    assert set(re.findall(r"\]\(#([\w-]+)\)", page)) <= set(anchors)


@pytest.fixture(scope="module")
def commands() -> str:
    return str(HOOKS.commands())


@pytest.mark.parametrize("room", HOOKS.ROOMS)
def test_every_command_has_its_help_in_the_reference(room: str, commands: str, monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[str] = []
    add_parser = argparse._SubParsersAction.add_parser

    def remember(self: Any, name: str, **options: Any) -> Any:
        added.append(name)
        return add_parser(self, name, **options)

    monkeypatch.setattr(argparse._SubParsersAction, "add_parser", remember)
    monkeypatch.setattr(sys, "argv", [room, "--help"])
    with pytest.raises(SystemExit):
        importlib.import_module(f"{room}.__main__").main()
    assert added or room == "benchmarks"
    for command in (room, *(f"{room} {name}" for name in added)):
        assert f"# `python -m {command}`\n\n```text\nusage: python -m {command} " in commands
