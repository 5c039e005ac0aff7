"""What `python -m paper review` and `report` do: in processes of their own, beside the desk or after it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from agents.bundle import Bundle
from agents.bundle import load as load_bundle
from envs.config import CostConfig
from kit.config import setting
from kit.errors import UserError
from market.data import DataConfig
from market.data import load as load_data
from market.panel import Panel
from paper.review import drift as drifts
from paper.review.compare import NO_COSTS, Comparison, compare
from paper.review.drift import Drift
from paper.review.record import Record, read

JOURNAL, CONFIG, PAGE = "desk.db", "config.json", "report.html"


@dataclass(frozen=True)
class ReviewConfig:
    """The bars that a desk saw, and what trading cost there."""

    data: DataConfig = setting(help="the bars of the span that was traded, and before it what features need")
    charges: CostConfig | None = setting(
        None, help="costs that fills contain (default: those of the bundle; none at Alpaca, whose fills are prices)"
    )


@dataclass(frozen=True)
class Review:
    folder: Path
    bundle: Bundle
    panel: Panel
    record: Record
    comparison: Comparison
    drift: Drift


def review(folder: Path, bundle: Path, data: DataConfig, charges: CostConfig | None = None) -> Review:
    """Hold a desk against the backtest of the bars in `data`, and leave its drift where the desk finds it.

    `charges` are the costs that fills contain at the venue. By default those of the bundle, as at the local
    exchange; at Alpaca none: there, what a fill is worse than the open counts as its price.
    """
    loaded, (panel, _) = load_bundle(bundle), load_data(data)
    record = read(folder / JOURNAL, loaded.symbols)
    if charges is None and _broker(folder) == "alpaca":
        charges = NO_COSTS
    compared, drift = compare(record, loaded, panel, charges), drifts.drift(record, loaded, panel)
    drifts.write(folder, drift)
    return Review(folder, loaded, panel, record, compared, drift)


def report(folder: Path, bundle: Path, data: DataConfig, charges: CostConfig | None = None) -> Path:
    """Write the page of a desk: what it earned, and whether that is what was promised."""
    from paper.review.page import write

    return write(review(folder, bundle, data, charges), folder / PAGE)


def _broker(folder: Path) -> str:
    file = folder / CONFIG
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["broker"]["kind"])
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: cannot be read ({error}); expected what the desk wrote there") from None
