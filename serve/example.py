"""A request that fits a bundle, for trying an endpoint out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agents import bundle
from kit.errors import UserError
from market import data
from market.sources.files import FileSource
from market.synth import SIGNAL, SynthSource
from serve.client import Portfolio
from serve.wire import body

CASH = 1e6


def example(folder: Path, bars: Path | None) -> dict[str, Any]:
    """The last bars of a file, or of the built-in market under the bundle's symbols; all in cash."""
    loaded = bundle.load(folder)
    if bars is None:
        if unknown := [name for name in loaded.observed if name != SIGNAL]:
            raise UserError(f"{folder}: reads {', '.join(unknown)}, which the built-in market has not; expected --bars")
        source: Any = SynthSource(symbols=len(loaded.symbols), bars=loaded.bars_needed + 300)
        panel, _ = data.load(data.DataConfig(source))
    else:
        panel, _ = data.load(data.DataConfig(FileSource(bars), symbols=[*loaded.symbols]))
    if len(panel) < loaded.bars_needed:
        raise UserError(f"{bars}: {len(panel)} bars; expected at least {loaded.bars_needed}")
    made = json.loads(body(panel[-loaded.bars_needed :], Portfolio(CASH, {}, CASH)))
    return made | {"symbols": [*loaded.symbols], "asked_at": made["closes"][-1]}
