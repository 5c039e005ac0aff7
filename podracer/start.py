"""Where a training starts from: nothing, a baseline to imitate, or another training's checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agents.baselines import BASELINES
from agents.build import Agent
from agents.imitate import imitate
from envs.market import MarketTensors
from kit.errors import UserError
from kit.files import hash_file
from podracer import checkpoint
from podracer.spans import Spans

IMITATE = "imitate:"


@dataclass(frozen=True)
class Start:
    """`text` is empty, `imitate:BASELINE` or the path of a checkpoint; `hash` stands for it in a ledger."""

    text: str = ""

    @property
    def hash(self) -> str:
        if not self.text or self.text.startswith(IMITATE):
            return self.text
        return hash_file(checkpoint.existing(Path(self.text)))

    def into(self, agent: Agent, market: MarketTensors, spans: Spans, seed: int) -> None:
        """Give the agent its first weights."""
        if self.text.startswith(IMITATE):
            name = self.text.removeprefix(IMITATE)
            if name not in BASELINES:
                raise UserError(f"start = {self.text!r}: unknown baseline; expected one of {', '.join(BASELINES)}")
            imitate(agent.policy, market, spans.train, BASELINES[name](), seed)
            agent.align_targets()
        elif self.text:
            self._resume(agent, market, spans)

    def _resume(self, agent: Agent, market: MarketTensors, spans: Spans) -> None:
        state = checkpoint.read(Path(self.text), agent.device)
        for part in ("ends", "agent"):
            if part not in state:
                raise UserError(
                    f"start = {self.text!r}: has no {part!r}; expected a checkpoint.pt of an earlier training"
                )
        seen, ours = np.datetime64(state["ends"], "ns"), spans.ends(market)
        if seen > ours:
            raise UserError(
                f"start = {self.text!r}: it has seen bars up to {seen}, this span ends at {ours}; "
                "expected a checkpoint that ends no later, or results would leak"
            )
        try:
            agent.take_over(state["agent"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(f"start = {self.text!r}: its networks do not fit this candidate's: {error}") from None
