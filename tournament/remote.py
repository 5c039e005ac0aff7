"""A run beside its folder, in an object store: a lost machine loses nothing, and any other one can go on.

    ADDRESS/ledger/      put by whoever runs a trial, as soon as it has ended
    ADDRESS/config.yaml  and the folder's other files, put by the driver whenever it has written them

Ray Tune's files and W&B's stay in the folder: nothing depends on them.
"""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml
from tqdm import tqdm

from kit.config import load
from kit.errors import UserError
from podracer.folder import CONFIG, RESULT
from podracer.store import Store, refuse_unless_address
from tournament.config import TournamentConfig

LEDGER, OPENINGS = "ledger", "openings.json"
STAY = (LEDGER, "tune", "wandb")
AT_A_TIME = 16


def ledger_of(address: str) -> str:
    """Of a run that is kept at this address; empty: nowhere but in its folder."""
    if not address:
        return ""
    try:
        refuse_unless_address(address)
    except UserError as error:
        raise UserError(f"execution.storage: {error}") from None
    return f"{address.rstrip('/')}/{LEDGER}"


def refuse_if_taken(address: str) -> None:
    """Before a run begins."""
    if address and CONFIG in Store(address):
        raise UserError(
            f"execution.storage = {address!r}: holds a run; expected an empty place, "
            f"or go on with that one: python -m tournament fetch {address} RUN, then run --resume RUN"
        )


def push(folder: Path) -> None:
    """What the folder holds now, but for the ledger, which is there already. Without an address: nothing."""
    store = store_of(folder)
    if store is None:
        return
    refuse_if_behind(folder)
    paths = {file.relative_to(folder): file for file in folder.rglob("*") if file.is_file()}
    here = {path.as_posix(): file for path, file in paths.items() if path.parts[0] not in STAY and not _hidden(path)}
    if RESULT not in here and RESULT in store:
        store.remove(RESULT)  # first: with it, what is half there would look whole
    for name in sorted(here, key=lambda name: (name == RESULT, name)):
        store.write(name, here[name].read_bytes())
    for name in store.names() - {*here}:
        if Path(name).parts[0] not in STAY:
            store.remove(name)


def refuse_if_behind(folder: Path) -> None:
    """Somebody went on with the run elsewhere: what they did is not undone."""
    store = store_of(folder)
    config = store.read(CONFIG) if store else None
    if store is None or config is None:
        return
    looks = store.read(OPENINGS)
    there = _progress(config, RESULT in store, looks)
    file = folder / OPENINGS
    ours = _progress(
        (folder / CONFIG).read_bytes(), (folder / RESULT).is_file(), file.read_bytes() if file.is_file() else None
    )
    if there > ours:
        raise UserError(
            f"{folder}: {store.address} is further on (extended, ended, looks at the hold-out: {there}, here {ours}); "
            f"expected a fresh copy: python -m tournament fetch {store.address} RUN"
        )


def gather(folder: Path) -> None:
    """All trials and checkpoints that are in the store, before the run is kept elsewhere."""
    store = store_of(folder)
    if store is not None:
        ledger = Store(ledger_of(store.address))
        for name in sorted(ledger.names()):
            if not (folder / LEDGER / name).exists():
                ledger.fetch(name, folder / LEDGER / name)


def fetch(address: str, folder: Path) -> None:
    """Make the folder: whole, or not at all."""
    store, folder = Store(address), folder.absolute()
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty; expected a new or empty folder")
    names = sorted(store.names())
    if CONFIG not in names:
        raise UserError(f"{address}: holds no {CONFIG}; expected the address of a run, its execution.storage")
    if outside := [name for name in names if ".." in Path(name).parts]:
        raise UserError(f"{address}: {outside[0]!r}: leads out of the folder; expected the objects of a run")
    copy = folder.with_name(f".{folder.name}.fetched")
    shutil.rmtree(copy, ignore_errors=True)  # of an attempt that was stopped
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        done = pool.map(lambda name: store.fetch(name, copy / name), names)
        for name, there in zip(
            names, tqdm(done, "fetched", total=len(names), unit=" files", leave=False, disable=None)
        ):
            if not there:
                raise UserError(
                    f"{address}: {name} was taken away meanwhile; expected a store that nobody writes; again"
                )
    copy.rename(folder)


def has_ended(folder: Path, address: str) -> bool:
    """By what is in the folder or, where that was fetched while the run went on, in the store."""
    return (folder / RESULT).is_file() or bool(address and RESULT in Store(address))


def store_of(folder: Path) -> Store | None:
    """Where the run in the folder is kept besides; None: nowhere."""
    file = folder / CONFIG
    address = load(TournamentConfig, file).execution.storage if file.is_file() else ""
    return Store(address) if address else None


def _progress(config: bytes, ended: bool, looks: bytes | None) -> tuple[int, bool, int]:
    """How far a run is: times extended, ended, looks at the hold-out."""
    extended = (yaml.safe_load(config).get("folds") or {}).get("extended") or []
    return len(extended), ended, len(json.loads(looks)["openings"]) if looks else 0


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
