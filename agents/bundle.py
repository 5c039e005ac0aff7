"""The bundle: a trained policy on disk, whole or absent, and verified before any of it is used.

    BUNDLE/manifest.json            what it is; holds the SHA-256 of every other file
    BUNDLE/reference.json           what was normal, to measure drift against
    BUNDLE/member-0.safetensors     one network per member

Loading executes nothing: two files are JSON, the others are tensors behind a header of JSON. The
hash of a bundle is that of its manifest. It proves that the files belong together, not who wrote them.
"""

from __future__ import annotations

import hashlib
import math
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import safetensors.torch
import torch

from agents.candidate import Candidate
from agents.ensemble import Ensemble
from agents.heads import ActorNet
from agents.lens import Lens
from agents.manifest import FORMAT, Manifest, MemberEntry, Provenance, parse_json, read_manifest
from agents.reference import Reference
from envs.config import TradingConfig
from envs.market import MarketTensors
from envs.policy import Allocated
from kit.config import build, to_dict
from kit.errors import UserError
from kit.files import hash_file, replacing, sync_folder, write_json
from market.features import FeatureSpec, Scaler
from market.panel import Panel

MANIFEST, REFERENCE = "manifest.json", "reference.json"
TEXT_LIMIT = 16 << 20  # bytes of a JSON file
HEADER_LIMIT = 1 << 20  # bytes of a network's file beyond its tensors


@dataclass(frozen=True)
class Member:
    """A trained network that is to become part of a bundle."""

    name: str
    actor: ActorNet
    weight: float
    candidate: Candidate
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Bundle:
    """A policy with all that it needs to trade."""

    manifest: Manifest
    reference: Reference
    policy: Ensemble  # of one member, if there is but one
    hash: str

    @property
    def members(self) -> tuple[MemberEntry, ...]:
        return self.manifest.members

    @property
    def lens(self) -> Lens:
        return self.manifest.lens

    @property
    def symbols(self) -> tuple[str, ...]:
        return self.lens.symbols

    @property
    def observed(self) -> tuple[str, ...]:
        return self.lens.observed

    @property
    def features(self) -> FeatureSpec:
        return self.lens.features

    @property
    def scaler(self) -> Scaler:
        return self.lens.scaler

    @property
    def trading(self) -> TradingConfig:
        return self.lens.trading

    @cached_property
    def bars_needed(self) -> int:
        """Bars that one decision takes, its own included: the features' warm-up and the longest look-back."""
        return self.features.warmup + max(member.network.lookback for member in self.members)

    def market(self, panel: Panel) -> MarketTensors:
        """The panel as the members were trained to see it; refuses one that they were not trained for."""
        if len(panel) < self.bars_needed:
            raise UserError(f"panel: {len(panel)} bars: expected at least {self.bars_needed}, to know the last of them")
        return self.lens.market(panel)


def save(
    folder: str | Path,
    members: Sequence[Member],
    lens: Lens,
    reference: Reference,
    provenance: Provenance,
    scores: Mapping[str, float] | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle, load it for a check, and only then give it its name."""
    folder = Path(folder)
    with _replacing_folder(folder, overwrite) as temporary:
        write_json(temporary / REFERENCE, to_dict(reference))
        features = len(lens.scaler.names)
        entries = tuple(_write_member(temporary, number, member, features) for number, member in enumerate(members))
        try:
            manifest = Manifest(
                FORMAT, lens, entries, _defined(scores or {}), provenance, hash_file(temporary / REFERENCE)
            )
        except ValueError as error:
            raise UserError(f"{folder}: {error}") from None
        write_json(temporary / MANIFEST, manifest.sealed())
        return _load(temporary, folder)


def load(folder: str | Path) -> Bundle:
    """The bundle, every part of it verified; what does not match is named."""
    return _load(Path(folder), Path(folder))


def describe(bundle: Bundle) -> list[str]:
    """What a command prints of a bundle."""
    lens, manifest = bundle.lens, bundle.manifest
    allocation, costs = lens.trading.allocation, lens.trading.costs
    return [
        f"bundle {bundle.hash}",
        f"symbols ({len(lens.symbols)}): {', '.join(lens.symbols)}",
        f"bars: {lens.bars_per_year:g} a year; a decision needs {bundle.bars_needed}",
        f"features ({len(lens.scaler.names)}): {', '.join(lens.scaler.names)}",
        f"observed: {', '.join(lens.observed) or 'none'}",
        f"trading: {allocation.kind}, rate {allocation.rate:g}, band {allocation.band:g}, fill at the next "
        f"{lens.trading.fill}, commission {costs.commission_bp:g} bp, half-spread {costs.half_spread_bp:g} bp, "
        f"impact {costs.impact:g}",
        *(
            f"member {m.name}: weight {m.weight:.3f}, {m.network.encoder}/{m.network.head}, "
            f"look-back {m.network.lookback}{_shown(m.scores)}"
            for m in manifest.members
        ),
        f"ensemble: weight {sum(m.weight for m in manifest.members):.3f} in all{_shown(manifest.scores)}",
        *(f"{name.replace('_', ' ')}: {value}" for name, value in to_dict(manifest.provenance).items()),
    ]


def _shown(scores: Mapping[str, float | None]) -> str:
    return "".join(f", {name} {'undefined' if value is None else f'{value:.3g}'}" for name, value in scores.items())


def _write_member(folder: Path, number: int, member: Member, features: int) -> MemberEntry:
    network = member.actor.net.config
    assert network == member.candidate.network, f"{member.name}: its network is not its candidate's"
    file = f"member-{number}.safetensors"
    tensors = {name: value.detach().cpu().contiguous() for name, value in member.actor.state_dict().items()}
    with replacing(folder / file) as temporary:
        temporary.write_bytes(safetensors.torch.save(tensors))
    return MemberEntry(
        name=member.name,
        file=file,
        sha256=hash_file(folder / file),
        network=network,
        assets=member.actor.assets,
        features=features,
        portfolio=member.actor.assets + member.actor.net.common,
        candidate=to_dict(member.candidate),
        scores=_defined(member.scores),
        weight=float(member.weight),
    )


def _defined(scores: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: float(value) if math.isfinite(value) else None for name, value in scores.items()}


def _load(folder: Path, named: Path) -> Bundle:
    """`named` is what complaints call the folder."""
    if not folder.is_dir():
        raise UserError(f"{named}: no such bundle; expected a folder with {MANIFEST}")
    manifest, hash_ = read_manifest(_read(folder, named, MANIFEST, TEXT_LIMIT), f"{named / MANIFEST}")
    expected = {MANIFEST, REFERENCE, *(member.file for member in manifest.members)}
    for name in sorted(set(os.listdir(folder)) - expected):
        raise UserError(f"{named / name}: is not part of the bundle; expected only {', '.join(sorted(expected))}")
    reference = _load_reference(folder, named, manifest)
    actors = [_load_actor(folder, named, manifest, number) for number in range(len(manifest.members))]
    weights = [member.weight for member in manifest.members]
    return Bundle(manifest, reference, Ensemble([Allocated(actor) for actor in actors], weights), hash_)


def _load_reference(folder: Path, named: Path, manifest: Manifest) -> Reference:
    data = _read(folder, named, REFERENCE, TEXT_LIMIT, manifest.reference_sha256)
    source = f"{named / REFERENCE}"
    reference = build(Reference, parse_json(data, source), source)
    names = manifest.lens.scaler.names
    if sorted(reference.features) != sorted(names):
        there = ", ".join(reference.features) or "none"
        raise UserError(f"{source}: features = {there}: expected those of the manifest, {', '.join(names)}")
    return reference


def _load_actor(folder: Path, named: Path, manifest: Manifest, number: int) -> ActorNet:
    member, lens = manifest.members[number], manifest.lens
    sizes = {"assets": len(lens.symbols), "features": len(lens.scaler.names), "portfolio": lens.portfolio_width}
    for key, size in sizes.items():  # many networks take any number of assets, so their shapes do not tell
        if getattr(member, key) != size:
            stated = f"members.{number}.{key} = {getattr(member, key)}"
            raise UserError(f"{named / MANIFEST}: {stated}: expected {size}, as the lens says")
    try:
        with torch.device("meta"):  # shapes without memory, to know what the file must hold
            actor = ActorNet(member.network, **sizes)
        shapes = {name: tuple(value.shape) for name, value in actor.state_dict().items()}
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{named / MANIFEST}: members.{number}.network: cannot be built: {error}") from None
    limit = HEADER_LIMIT + sum(4 * math.prod(shape) for shape in shapes.values())
    data = _read(folder, named, member.file, limit, member.sha256)
    path = named / member.file
    try:
        tensors = safetensors.torch.load(data)
    except Exception as error:  # the reader of a damaged file raises whatever it stumbles over
        raise UserError(f"{path}: is not a safetensors file: {error}") from None
    for name in [*(shapes.keys() - tensors), *(tensors.keys() - shapes)]:
        word = "is missing" if name in shapes else "is unknown"
        raise UserError(f"{path}: tensor {name} {word}; expected those of the network in {MANIFEST}")
    for name, value in tensors.items():
        if tuple(value.shape) != shapes[name] or value.dtype != torch.float32:
            kind = str(value.dtype).removeprefix("torch.")
            right = f"expected float32 {list(shapes[name])}, as the network in {MANIFEST} says"
            raise UserError(f"{path}: tensor {name} is {kind} {list(value.shape)}: {right}")
        if not value.isfinite().all():
            raise UserError(f"{path}: tensor {name} holds NaN or infinity; expected finite weights")
    actor.load_state_dict({name: value.clone() for name, value in tensors.items()}, assign=True)
    return actor.requires_grad_(False).eval()


def _read(folder: Path, named: Path, name: str, limit: int, sha256: str | None = None) -> bytes:
    """The bytes of a plain file of bounded size, with the hash that they must have."""
    path = named / name
    try:
        status = (folder / name).lstat()
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; expected it in the bundle") from None
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path}: is a link or no file; expected a plain file")
    if status.st_size > limit:
        raise UserError(f"{path}: has {status.st_size:,} bytes; expected at most {limit:,}")
    with open(folder / name, "rb") as file:
        data = file.read(limit)
    found = hashlib.sha256(data).hexdigest()
    if sha256 not in (None, found):
        raise UserError(f"{path}: its SHA-256 is {found}; expected {sha256}, which {MANIFEST} says")
    return data


@contextmanager
def _replacing_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary folder beside `folder` that gets its name when the block ends well, and is removed when not."""
    if os.path.lexists(folder):
        if not overwrite:
            raise UserError(f"{folder}: exists already; expected a new name, or to be told to overwrite")
        if not _looks_like_a_bundle(folder):
            raise UserError(f"{folder}: is not a bundle; expected one to overwrite, or a new name")
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    former = temporary.with_name(f"{temporary.name}.former")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if os.path.lexists(folder) and overwrite:
            folder.rename(former)
        temporary.rename(folder)  # refuses if somebody else has been faster
    except BaseException:
        if former.exists() and not folder.exists():
            former.rename(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(folder.parent)
    shutil.rmtree(former, ignore_errors=True)


def _looks_like_a_bundle(folder: Path) -> bool:
    """Whether no harm is done by removing it."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    names = set(os.listdir(folder))
    return MANIFEST in names and all(name in (MANIFEST, REFERENCE) or name.endswith(".safetensors") for name in names)
