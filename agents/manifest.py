"""What a bundle says of itself, as strict JSON: every value is checked, and nothing is assumed."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, NoReturn

from agents.lens import Lens
from agents.networks import NetworkConfig
from kit.config import build, setting, to_dict
from kit.errors import UserError
from kit.files import hash_json

FORMAT = 1
WHOLE_DIGITS = 18
FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors")  # a plain name: leads out of no folder
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class MemberEntry:
    """One member: which file, what network it holds, how it came about and how well it did."""

    name: str
    file: str
    sha256: str
    network: NetworkConfig
    assets: int
    features: int
    portfolio: int  # how many numbers it sees of one
    candidate: dict[str, Any]  # a record; nothing here depends on it
    scores: dict[str, float | None]  # null: not defined
    weight: float = setting(above=0, high=1)

    def __post_init__(self) -> None:
        if not FILE.fullmatch(self.file):
            raise ValueError(f"file = {self.file!r}: expected a plain name that ends in .safetensors")
        if not SHA256.fullmatch(self.sha256):
            raise ValueError(f"sha256 = {self.sha256!r}: expected 64 hexadecimal digits")


@dataclass(frozen=True)
class Provenance:
    """Where a bundle comes from: hashes of code, configuration and data, and the version that wrote it."""

    code: str
    configuration: str
    data: str
    created_by: str


@dataclass(frozen=True)
class Manifest:
    """Everything about a bundle but the numbers in its other files, whose hashes it holds."""

    format: int
    lens: Lens
    members: tuple[MemberEntry, ...]
    scores: dict[str, float | None]  # of the whole
    provenance: Provenance
    reference_sha256: str

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("members must be at least one")
        for key in ("name", "file"):
            value, count = Counter(getattr(member, key) for member in self.members).most_common(1)[0]
            if count > 1:
                raise ValueError(f"members: the {key} {value} is given twice")
        whole = sum(member.weight for member in self.members)
        if abs(whole - 1.0) > 1e-6:
            raise ValueError(f"members: their weights sum to {whole:.9g}; expected 1")
        if not SHA256.fullmatch(self.reference_sha256):
            raise ValueError(f"reference_sha256 = {self.reference_sha256!r}: expected 64 hexadecimal digits")

    def sealed(self) -> dict[str, Any]:
        """As JSON, with the hash of all of it: that is the hash of the bundle."""
        tree = to_dict(self)
        return {"hash": hash_json(tree), **tree}


def read_manifest(data: bytes, source: str) -> tuple[Manifest, str]:
    """The manifest and the bundle's hash; refuses one that is not as it was written, to the byte."""
    tree = parse_json(data, source)
    if tree.get("format") != FORMAT:
        raise UserError(f"{source}: format = {tree.get('format')!r}: expected {FORMAT}; another version wrote it")
    stated = tree.pop("hash", None)
    manifest = build(Manifest, tree, source)
    found = hash_json(tree)
    if stated != found:
        raise UserError(f"{source}: hash = {stated!r}: the content's is {found}; expected a bundle that nobody edited")
    if data.decode() != json.dumps({"hash": stated, **tree}, indent=2) + "\n":
        raise UserError(f"{source}: is not written as a bundle's manifest is; expected one that nobody edited")
    return manifest, found


def parse_json(data: bytes, source: str) -> dict[str, Any]:
    """Keys with values; no NaN or Infinity, nothing nested without end."""
    try:
        tree = json.loads(data.decode(), parse_constant=_refuse, parse_int=_whole, parse_float=_finite)
        json.dumps(tree, indent=2)  # so that writing it again cannot fail later
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: is not valid JSON: {error}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{source}: holds a {type(tree).__name__}; expected keys with values")
    return tree


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _whole(text: str) -> int:
    return int(text) if len(text) <= WHOLE_DIGITS else _refuse(f"{text[:WHOLE_DIGITS]}...")


def _finite(text: str) -> float:
    number = float(text)
    return number if abs(number) < float("inf") else _refuse(text)
