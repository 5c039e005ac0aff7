"""A run beside its folder, in an object store: a lost machine loses nothing, and any other one can go on.

    ADDRESS/ledger/      put by whoever runs a trial, as soon as it has ended
    ADDRESS/config.yaml  and the folder's other files, put by the driver whenever it has written them

Ray Tune's files and W&B's stay in the folder: nothing depends on them.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from kit.config import load
from kit.errors import UserError
from podracer.folder import CONFIG, RESULT
from podracer.store import Store, refuse_unless_address
from tournament.config import TournamentConfig

LEDGER = "ledger"
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
    if address and Store(address).read(CONFIG) is not None:
        raise UserError(
            f"execution.storage = {address!r}: holds a run; expected an empty place, "
            f"or go on with that one: python -m tournament fetch {address} RUN, then run --resume RUN"
        )


def push(folder: Path) -> None:
    """What the folder holds now, but for the ledger, which is there already. Without an address: nothing."""
    file = folder / CONFIG
    address = load(TournamentConfig, file).execution.storage if file.is_file() else ""
    if not address:
        return
    store = Store(address)
    here = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    here = {name: file for name, file in here.items() if not _stays(name) and not file.name.startswith(".")}
    for name in sorted(here, key=lambda name: (name == RESULT, name)):  # the last one says that all is there
        store.write(name, here[name].read_bytes())
    for name in store.names() - {*here}:
        if not _stays(name):
            store.remove(name)


def fetch(address: str, folder: Path) -> None:
    """Make the folder: whole, or not at all."""
    store = Store(address)
    names = sorted(store.names())
    if CONFIG not in names:
        raise UserError(f"{address}: holds no {CONFIG}; expected the address of a run, its execution.storage")
    copy = folder.with_name(f".{folder.name}.fetched")
    shutil.rmtree(copy, ignore_errors=True)  # of an attempt that was stopped
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        done = pool.map(lambda name: store.fetch(name, copy / name), names)
        for _ in tqdm(done, desc="fetched", total=len(names), unit=" files", leave=False, disable=None):
            continue
    copy.rename(folder)


def _stays(name: str) -> bool:
    return name.partition("/")[0] in STAY
