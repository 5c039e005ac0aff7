"""Ray, started or attached to safely: a private one answers this machine alone, and only who knows its token."""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
import sys
from typing import Any

from kit.errors import UserError

PRIVATE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # despite its name: every port on loopback, on Linux too
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
}
KNOCK = 10.0  # seconds
STARTS = 3  # of a private Ray
TOO_LATE = "timed out during startup"  # Ray has no type for it
LOG = logging.getLogger(__name__)


def attach(**options: Any) -> Any:
    """Ray itself, on the cluster that this process has or that RAY_ADDRESS names (`auto`: this machine's).

    Where there is neither, a private one is started with these options; it ends with this process.
    """
    address = os.environ.get("RAY_ADDRESS")
    if not address and "ray" not in sys.modules:  # it reads these when it is imported: attach first
        for name, value in PRIVATE.items():
            os.environ.setdefault(name, value)
        if os.environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN_PATH" not in os.environ:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray writes one that all may read
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "WARNING"}
    if ray.is_initialized():
        return ray
    if not address:
        _begin(ray, {"include_dashboard": False, **quiet, **options})
        return ray
    try:
        _knock(address)
        ray.init(address=address, **quiet)
    except ConnectionError as error:
        raise UserError(
            f"RAY_ADDRESS = {address!r}: no Ray answers there, or it wants another token; "
            "expected the address of a running one, or nothing"
        ) from error
    return ray


def _begin(ray: Any, options: dict[str, Any]) -> None:
    """Ray gives up after half a minute, which a busy machine may need; two of its agents may stay a minute longer."""
    for left in reversed(range(STARTS)):
        try:
            ray.init(address="local", **options)
            return
        except Exception as error:
            if TOO_LATE not in str(error):
                raise
            if not left:
                told = f"Ray did not start within 30 s, {STARTS} times; expected a machine that is less busy"
                raise UserError(told) from error
            LOG.warning("Ray did not start within 30 s; it is begun again")


def _knock(address: str) -> None:
    """Ray itself tries for minutes where nobody listens."""
    place = re.fullmatch(r"\[?([\w.:-]+?)\]?:(\d{1,5})", address)
    if place:
        try:
            socket.create_connection((place[1], int(place[2])), timeout=KNOCK).close()
        except OSError as error:
            raise ConnectionError(str(error)) from error
