"""A run in an object store: what was put there outlives every machine. Addresses are fsspec's: s3://bucket/runs/first.

An object is put whole or not at all, so nothing there is ever half-written. Who may reach the store is said by
the environment or by the machine's role, as its provider has it, and never by an address.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import fsspec

from kit.errors import UserError
from kit.files import replacing

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
        with self._spoken_to():
            try:
                found = self.files.find(self.root)
            except FileNotFoundError:
                return set()
        return {path.removeprefix(self.root).lstrip("/") for path in found}

    def claim(self, name: str, data: bytes) -> bool:
        """Put an object where none is; False: there is one already, which stays."""
        with self._spoken_to():
            try:
                self.files.pipe_file(self._path(name), data, mode="create")
            except FileExistsError:
                return False
        return True

    def write(self, name: str, data: bytes) -> None:
        """Put an object, in the place of what was there."""
        with self._spoken_to():
            self.files.pipe_file(self._path(name), data)

    def read(self, name: str) -> bytes | None:
        """None: there is no such object."""
        with self._spoken_to():
            try:
                return bytes(self.files.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

    def remove(self, name: str) -> None:
        with self._spoken_to():
            self.files.rm_file(self._path(name))

    def fetch(self, name: str, path: Path) -> bool:
        """Copy an object to a file; False: there is no such object."""
        data = self.read(name)
        if data is not None:
            with replacing(path) as temporary:
                temporary.write_bytes(data)
        return data is not None

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    @contextmanager
    def _spoken_to(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each library has its own for a bucket that is not there or a key that is not right
            why = f"{type(error).__name__}: {error}"
            raise StoreError(f"{self.address}: {why}; expected a store that can be read and written here") from error


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
