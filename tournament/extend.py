"""Bars that came since: a run that has ended gets more folds, and its champions train on.

The ledger stays as it is. The run remembers after which fold it had ended (`folds.extended`), so that its rungs, and
with them the seals, are where they were; then it is gone on with as any run that was stopped. The new config.yaml is
what makes it an extended run: killed before that is written, it is still the run that it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kit.config import differences, load, to_dict, to_yaml
from kit.errors import UserError
from kit.files import replacing, write_text
from market import data
from market.panel import FIELDS, Panel
from market.sources.alpaca import AlpacaSource
from market.sources.files import FileSource
from podracer.folder import CONFIG, RESULT, held, refuse_unless_run
from tournament.arena import Arena
from tournament.config import WHERE, TournamentConfig
from tournament.final import BUNDLE, EARLIER, VERDICT, identity, last_opened, openings
from tournament.folds import Folds
from tournament.remote import OPENINGS
from tournament.run import ORIGIN, REPORT, has_not_ended, origin, refuse_another
from tournament.trial import code

BOARDS = ("leaderboard.csv", "leaderboard.parquet", "leaderboard.json")
KEPT = (CONFIG, ORIGIN, RESULT, BUNDLE, VERDICT, OPENINGS, REPORT, *BOARDS)
MAY_CHANGE = ("folds.count", "folds.holdout")


def extend(folder: Path, bars: Path, settings: Sequence[str] = ()) -> tuple[TournamentConfig, list[str]]:
    """Make an extended run of one that has ended: what to go on with, and what there is to say about it."""
    refuse_unless_run(folder)
    with held(folder):
        stored = load(TournamentConfig, folder / CONFIG)
        kept = folder / EARLIER / str(len(stored.folds.extended) + 1)
        if not (folder / RESULT).is_file() and not kept.is_dir():
            return _begun_before(folder, bars, settings, stored), ["going on with what was begun before"]
        config, notes = _extended(folder, bars, settings, stored)
        if config.execution.storage != stored.execution.storage:
            raise UserError(
                f"execution.storage = {config.execution.storage!r}: this run's is {stored.execution.storage!r}; "
                "expected the same, or first: python -m tournament run --resume RUN execution.storage=ADDRESS"
            )
        if (folder / RESULT).is_file():
            _keep(folder, kept)
            (folder / RESULT).unlink()
        write_text(folder / CONFIG, to_yaml(config))
    return config, notes


def _begun_before(folder: Path, bars: Path, settings: Sequence[str], stored: TournamentConfig) -> TournamentConfig:
    """The same extension, which was stopped on its way."""
    asked, source = load(TournamentConfig, folder / CONFIG, settings), stored.data.source
    same = isinstance(source, FileSource) and source.path == bars.absolute() and identity(asked) == identity(stored)
    if not (stored.folds.extended and same):
        raise has_not_ended(folder)
    return asked


def _extended(
    folder: Path, bars: Path, settings: Sequence[str], stored: TournamentConfig
) -> tuple[TournamentConfig, list[str]]:
    asked = load(TournamentConfig, folder / CONFIG, ["folds.count=null", *settings])  # null: as many as fit
    for key, value, ours in differences(to_dict(asked), to_dict(stored), WHERE):
        if key not in MAY_CHANGE:
            raise UserError(
                f"{key} = {value!r}: this run's is {ours!r}; expected no other settings than "
                f"{', '.join(MAY_CHANGE)}, execution and wandb, or a new run"
            )
    there = origin(folder)
    refuse_another(folder, there, code=code())
    source = stored.data.source if isinstance(stored.data.source, FileSource) else FileSource(bars)
    source = replace(source, path=bars.absolute())
    config = replace(asked, data=replace(asked.data, source=source, end=None))
    panel, _ = data.load(config.data)
    began = panel[: there["bars"]]
    if began.hash != there["data"]:
        raise UserError(f"--bars = {str(bars)!r}: {_fault(stored, there, panel)}; expected the run's bars, and more")

    new, times = len(panel) - len(began), len(stored.folds.extended)
    before = Arena.build(began, stored.features, stored.trading, stored.folds, last_opened(folder, times)).folds
    done = len(before.folds)
    folds = replace(asked.folds, extended=(*stored.folds.extended, done))
    missing = Folds.needed(before.final.train.start, folds, done + 1) - len(panel)
    if missing > 0:
        raise UserError(f"--bars = {str(bars)!r}: has {new} new bars; expected {missing} more, for another fold")
    looks = openings(folder)
    looked = len(began) - 1 if looks else last_opened(folder, times)
    after = Arena.build(panel, asked.features, asked.trading, folds, looked).folds
    if stored.folds.count is not None:
        folds = replace(folds, count=len(after.folds))

    notes = [f"{new:,} new bars: {len(after.folds)} folds instead of {done}"]
    if before.holdout.start < before.holdout.stop:
        first, last = (str(began.closes[bar])[:10] for bar in (before.holdout.start, before.holdout.stop))
        fate = "it is never one again" if looks else "what the new one leaves behind is ordinary data"
        notes.append(f"the former hold-out, {first} to {last}, was {'' if looks else 'never '}opened: {fate}")
    return replace(config, folds=folds), notes


def _keep(folder: Path, kept: Path) -> None:
    """Copy what the run came to: whole or absent."""
    copy = kept.with_name(f".{kept.name}")
    shutil.rmtree(copy, ignore_errors=True)  # of an attempt that was killed
    for path in (folder / name for name in KEPT):
        for file in sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []:
            with replacing(copy / file.relative_to(folder)) as temporary:
                shutil.copyfile(file, temporary)
    shutil.rmtree(kept, ignore_errors=True)
    copy.rename(kept)


# -- what is wrong with bars that are not the run's


def _fault(stored: TournamentConfig, there: dict[str, Any], panel: Panel) -> str:
    """The first thing in which they differ from the run's, where those can still be read."""
    nameless = f"its first {there['bars']} bars are not those that the run has"
    if isinstance(stored.data.source, AlpacaSource):  # takes long, and may have been corrected
        return nameless
    try:
        ours, _ = data.load(stored.data)
    except UserError:  # they are gone, or are these; the complaint is about these
        return nameless
    ours = ours[: there["bars"]]
    return next(_faults(ours, panel), nameless) if ours.hash == there["data"] else nameless


def _faults(ours: Panel, theirs: Panel) -> Iterator[str]:
    for what, one, two in (("bars", ours.symbols, theirs.symbols), ("column", ours.observed, theirs.observed)):
        of = " of" if what == "bars" else ""
        yield from (f"has no {what}{of} {name}, which the run has" for name in one if name not in two)
        yield from (f"has {what}{of} {name}, which the run has not" for name in two if name not in one)
    shared = min(len(ours), len(theirs))
    for name in ("times", "closes"):
        differ = np.flatnonzero(getattr(ours, name)[:shared] != getattr(theirs, name)[:shared])
        shared = int(differ[0]) if len(differ) else shared
    cells = {name: (getattr(ours, name), getattr(theirs, name)) for name in (*FIELDS, "tradable")}
    for name, column in ours.observed.items():
        cells[name] = column.values, theirs.observed[name].values
        cells[f"{name}_known_at"] = column.known_at, theirs.observed[name].known_at
    found = []
    for name, (one, two) in cells.items():
        rows, columns = np.nonzero((one[:shared] != two[:shared]) & ~((one != one)[:shared] & (two != two)[:shared]))
        found += [(int(rows[0]), int(columns[0]), name)] if len(rows) else []
    if found:
        bar, symbol, name = min(found)
        one, two = (column[bar, symbol] for column in cells[name])
        yield f"bar {bar} ({_time(ours, bar)}) of {ours.symbols[symbol]} has {name} {two}, the run's has {one}"
    if shared < min(len(ours), len(theirs)):
        moments = [f"{_time(panel, shared)} (closes at {_time(panel, shared, 'closes')})" for panel in (theirs, ours)]
        yield f"bar {shared} is that of {moments[0]}, the run's that of {moments[1]}"
    if len(theirs) < len(ours):
        yield f"ends with the bar of {_time(theirs, -1)}, before the run's do, {_time(ours, -1)}"


def _time(panel: Panel, bar: int, name: str = "times") -> str:
    return str(np.datetime_as_string(getattr(panel, name)[bar], "m"))
