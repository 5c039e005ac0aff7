"""From a candidate to its agent."""

from __future__ import annotations

from agents.candidate import Candidate
from agents.direct import AgentDirect
from agents.ppo import AgentPPO
from agents.sac import AgentSAC
from agents.td3 import AgentTD3
from envs.market import MarketTensors

Agent = AgentPPO | AgentSAC | AgentTD3 | AgentDirect
AGENTS: dict[str, type[Agent]] = {
    "ppo": AgentPPO,
    "sac": AgentSAC,
    "td3": AgentTD3,
    "direct": AgentDirect,
}


def build_agent(candidate: Candidate, market: MarketTensors, seed: int) -> Agent:
    return AGENTS[candidate.algorithm.kind](market, candidate.algorithm, candidate.network, seed)  # type: ignore[arg-type]
