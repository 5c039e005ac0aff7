"""Weights & Biases: a run for the desk, a step for each bar, and the journal's anchors, which are safer elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TextIO

from kit import tracking
from kit.tracking import open_run, run_tracker
from paper.chain import Anchor


class Tracker(tracking.Tracker):
    module = "paper.tracking"

    def bar(self, figures: Mapping[str, float | str]) -> None:
        self.messages.put({"bar": dict(figures)})

    def anchor(self, anchor: Anchor) -> None:
        self.messages.put({"anchor": asdict(anchor)})


# -- the other process


def log(wandb: Any, to: Mapping[str, Any], source: TextIO) -> None:
    """Log what comes, line by line, until there is no more."""
    run = open_run(wandb, to, "desk", to["group"], "desk", {}, resume=True)
    try:
        for line in source:
            told = json.loads(line)
            if "bar" in told:
                run.log(told["bar"])
            else:
                run.summary.update({f"anchor/{name}": value for name, value in told["anchor"].items()})
    finally:
        run.finish()


if __name__ == "__main__":
    run_tracker(log)
