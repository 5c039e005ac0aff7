"""A private Ray on a machine that is busy: Ray itself gives up after half a minute."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.errors import UserError
from podracer import cluster

ROOT = Path(__file__).parents[2]
LATE = "The current node timed out during startup. This could happen because ..."
SCRIPT = f"""
import os
from podracer.cluster import PRIVATE, attach

os.environ |= PRIVATE
os.environ["RAY_AUTH_TOKEN"] = "0123456789abcdef" * 4
from ray._private import services

find, asked = services.get_node, []

def late(*given, **named):
    asked.append(1)
    if len(asked) == 1:
        raise Exception({LATE!r})
    return find(*given, **named)

services.get_node = late
ray = attach(num_cpus=1)
print(ray.get(ray.remote(lambda: 6 * 7).remote()), len(asked) > 1)
"""


def members(mark: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " ")[:100])
        except OSError:  # it is gone, or not ours
            continue
    return found


@pytest.mark.slow
def test_a_ray_that_comes_too_late_is_begun_again_and_nothing_is_left_of_either(tmp_path: Path) -> None:
    mark = f"private-ray-{os.getpid()}-{time.time_ns()}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MARK": mark}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["42", "True"]
    until = time.monotonic() + 30
    while left := members(mark):
        assert time.monotonic() < until, left
        time.sleep(0.1)


@pytest.mark.parametrize(("message", "expected"), [(LATE, UserError), ("no such option", ValueError)])
def test_a_ray_that_never_comes_is_one_line_and_another_error_is_not_tried_again(
    message: str, expected: type[Exception]
) -> None:
    tries: list[dict[str, Any]] = []

    def init(**options: Any) -> None:
        tries.append(options)
        raise ValueError(message)

    with pytest.raises(expected, match="did not start within 30 s, 3 times" if expected is UserError else message):
        cluster._begin(SimpleNamespace(init=init), {"num_cpus": 1})
    assert len(tries) == (3 if expected is UserError else 1)
    assert tries[0] == {"address": "local", "num_cpus": 1}
