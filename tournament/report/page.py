"""The page, from top to bottom: the verdict first, then what it rests on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

from podracer.provenance import created_by
from tournament.arena import Arena
from tournament.config import TournamentConfig
from tournament.final import Outcome, identity
from tournament.report import candidates, comparison, judgement, market_states, search, trading, weights
from tournament.report.drawings import Report
from tournament.report.material import gather
from tournament.trial import code

LIBRARIES = ("numpy", "torch", "optuna", "ray")


def write(file: Path, outcome: Outcome, arena: Arena, config: TournamentConfig, folder: Path) -> None:
    """Write the report of a run; `folder` is the run's own, in which a hold-out leaves its traces when it is opened."""
    material = gather(outcome, arena)
    dates = outcome.benchmark.dates.astype("datetime64[D]")
    count = len(outcome.standings)
    page = Report(
        f"Tournament: {judgement.stated(outcome, folder)}",
        f"{count:,} candidate{'' if count == 1 else 's'}, {len(arena.panel.symbols):,} symbols, "
        f"{len(arena.folds.folds)} folds; test days from {dates[0]} to {dates[-1]}",
    )
    judgement.add(page, outcome, material, folder)
    comparison.add(page, outcome, material)
    candidates.add(page, outcome, arena, material)
    market_states.add(page, config, arena, material)
    trading.add(page, arena, material)
    weights.add(page, outcome, material)
    search.add(page, outcome)
    page.provenance(_origin(outcome, arena, config, folder))
    page.write(file)


def _origin(outcome: Outcome, arena: Arena, config: TournamentConfig, folder: Path) -> dict[str, str]:
    trained = {record.key.code for s in outcome.standings for records in s.records for record in records}
    others = len(trained - {code()})
    differs = f" ({others} other version{'s' if others > 1 else ''} trained what is in the ledger)" if others else ""
    return {
        "Code": f"sha256 {code()}{differs}",
        "Data": f"sha256 {arena.panel.hash}",
        "Configuration": f"sha256 {identity(config)}",
        "Seed": f"{config.seed}",
        "Repeat": f"python -m tournament run {os.fspath(folder / 'config.yaml')}",
        "Written by": created_by(),
        "With": ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in LIBRARIES)]),
    }
