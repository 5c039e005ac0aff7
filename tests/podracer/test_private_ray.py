"""A private Ray on a machine that is busy: Ray itself gives up after half a minute."""

from __future__ import annotations

import secrets
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_kills import family

from kit.errors import UserError
from podracer import cluster

SCRIPT = f"""
from ray._private import services
from podracer.cluster import attach

find, asked = services.get_node, []

def late(*given, **named):
    asked.append(1)
    if len(asked) == 1:
        raise Exception({cluster.TOO_LATE!r})
    return find(*given, **named)

services.get_node = late
ray = attach(num_cpus=1)
print(ray.get(ray.remote(lambda: 6 * 7).remote()), len(asked) > 1)
"""


def test_these_are_rays_words() -> None:
    found = find_spec("ray._private.node")
    assert found and found.origin
    assert cluster.TOO_LATE in Path(found.origin).read_text()


@pytest.mark.slow
def test_a_ray_that_comes_too_late_is_begun_again() -> None:
    with family() as ours:
        process = ours.launch("-c", SCRIPT, RAY_AUTH_TOKEN=secrets.token_hex(32), **cluster.PRIVATE)
        printed, complaint = process.communicate(timeout=200)
        assert process.returncode == 0, complaint
        assert printed.split() == ["42", "True"]
        assert "it is begun again" in complaint


@pytest.mark.parametrize(("message", "expected"), [(cluster.TOO_LATE, UserError), ("no such option", ValueError)])
def test_a_ray_that_never_comes_is_one_line_and_another_error_is_not_tried_again(
    message: str, expected: type[Exception]
) -> None:
    tries: list[dict[str, Any]] = []

    def init(**options: Any) -> None:
        tries.append(options)
        raise ValueError(message)

    told = f"did not start within 30 s, {cluster.STARTS} times" if expected is UserError else message
    with pytest.raises(expected, match=told):
        cluster._begin(SimpleNamespace(init=init), {"num_cpus": 1})
    assert len(tries) == (cluster.STARTS if expected is UserError else 1)
    assert tries[0] == {"address": "local", "num_cpus": 1}
