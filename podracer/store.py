"""A run in an object store: what was put there outlives every machine. Addresses are fsspec's: s3://bucket/runs/first.

An object is put whole or not at all, so nothing there is ever half-written. Who may reach the store is said by
the environment or by the machine's role, as its provider has it, and never by an address.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec

from kit.errors import UserError
from kit.files import replacing

PAUSES = (1.0, 4.0, 15.0)  # seconds between tries, beside those that the libraries make
EXAMPLE = "expected an object store's, such as s3://bucket/runs/first"


class StoreError(UserError, OSError):
    """It cannot be reached, or refuses: no fault of what was to be put there."""


class Store:
    """Objects by name below an address. What fails is a `StoreError`, whichever library it came from."""

    def __init__(self, address: str) -> None:
        refuse_unless_address(address)
        self.address = address.rstrip("/")
        try:
            self.files, self.root = fsspec.core.url_to_fs(self.address, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise UserError(f"{address}: {error}") from None

    def names(self) -> set[str]:
        """Of all objects, with strokes where they lie deeper."""
        try:
            found = self._asked(lambda: self.files.find(self.root))
        except FileNotFoundError:
            return set()
        return {path.removeprefix(self.root).lstrip("/") for path in found}

    def __contains__(self, name: str) -> bool:
        return bool(self._asked(lambda: self.files.exists(self._path(name))))

    def claim(self, name: str, data: bytes) -> bool:
        """Put an object where none is; False: there is one already, which stays."""
        try:
            self._told(lambda: self.files.pipe_file(self._path(name), data, mode="create"))
        except FileExistsError:
            return False
        return True

    def write(self, name: str, data: bytes) -> None:
        """Put an object, in the place of what was there."""
        self._told(lambda: self.files.pipe_file(self._path(name), data))

    def read(self, name: str) -> bytes | None:
        """None: there is no such object."""
        try:
            return bytes(self._asked(lambda: self.files.cat_file(self._path(name))))
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        self._told(lambda: self.files.rm_file(self._path(name)))

    def fetch(self, name: str, path: Path) -> bool:
        """Copy an object to a file; False: there is no such object."""
        data = self.read(name)
        if data is not None:
            with replacing(path) as temporary:
                temporary.write_bytes(data)
        return data is not None

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _told(self, what: Callable[[], Any]) -> None:
        try:
            self._asked(what)
        except FileNotFoundError as error:  # the bucket
            raise self._trouble(error) from error

    def _asked(self, what: Callable[[], Any]) -> Any:
        """Its answer. Whatever is asked here may be asked again, when a network comes back."""
        for pause in (*PAUSES, None):
            try:
                return what()
            except (FileNotFoundError, FileExistsError):
                raise
            except Exception as error:  # each library has its own for a wrong key and a lost network
                if pause is None or isinstance(error, PermissionError):
                    raise self._trouble(error) from error
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _trouble(self, error: Exception) -> StoreError:
        why = f"{type(error).__name__}: {error}"
        return StoreError(f"{self.address}: {why}; expected a store that can be read and written here")


def is_address(text: str) -> bool:
    return "://" in text


def refuse_unless_address(address: str) -> None:
    parts = urlsplit(address)
    if parts.username or parts.password:
        raise UserError(f"{parts.scheme}://…@…: holds a key; {EXAMPLE}, and the key in the environment")
    if not is_address(address) or parts.scheme in ("file", "local"):
        raise UserError(f"{address!r}: is no address; {EXAMPLE}; a folder that all machines share needs none")
    if not parts.netloc or not parts.path.strip("/"):
        raise UserError(f"{address!r}: names no folder in a bucket; {EXAMPLE}")
