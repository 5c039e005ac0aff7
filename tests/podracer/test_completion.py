"""Tab after `python -m ROOM`: what a real shell offers."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import pytest

from podracer.completion import script

ASK = """
source /dev/stdin <<< "$SCRIPT"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
COMPREPLY=()
_podracer
printf '%s\\n' "${COMPREPLY[@]}"
"""
made = cache(script)


def offered(*words: str) -> list[str]:
    command = ["bash", "--norc", "-c", ASK, "bash", *words]
    done = subprocess.run(command, env={"SCRIPT": made()}, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("-m", ""), ["market", "paper", "podracer", "serve", "tournament"]),
        (("-m", "tour"), ["tournament"]),
        (("-m", "tournament", "f"), ["fetch", "final"]),
        (("-m", "podracer", "doc"), ["doctor"]),
        (("-m", "podracer", "doctor", "--st"), ["--storage"]),
        (("-m", "tournament", "run", "configs/demo.yaml", "--res"), ["--resume"]),
        (("-m", "tournament", "run", "search.off"), ["search.offspring="]),
        (("-m", "market", "check", "bars.csv", "data.quality.dup"), ["data.quality.duplicate="]),
        (("-m", "serve", "prom"), ["promote"]),
        (("-m", "pip", "install"), []),
        (("script.py",), []),
    ],
)
def test_tab_offers(words: tuple[str, ...], expected: list[str]) -> None:
    assert offered("python", *words) == expected


def test_every_command_has_its_options() -> None:
    for room, name in (("market", "plot"), ("serve", "run"), ("paper", "run"), ("podracer", "train")):
        assert "--help" in offered("python", "-m", room, name, "--"), (room, name)


def test_the_script_is_one_that_bash_takes(tmp_path: Path) -> None:
    (tmp_path / "script").write_text(made())
    done = subprocess.run(["bash", "-n", tmp_path / "script"], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")
