"""From a candidate to its agent, or to its policy alone."""

from __future__ import annotations

from agents.candidate import Candidate
from agents.direct import AgentDirect
from agents.heads import ActorNet
from agents.ppo import AgentPPO
from agents.sac import AgentSAC
from agents.td3 import AgentTD3
from envs.market import MarketTensors
from envs.policy import portfolio_width

Agent = AgentPPO | AgentSAC | AgentTD3 | AgentDirect
AGENTS: dict[str, type[Agent]] = {
    "ppo": AgentPPO,
    "sac": AgentSAC,
    "td3": AgentTD3,
    "direct": AgentDirect,
}


def build_agent(candidate: Candidate, market: MarketTensors, seed: int) -> Agent:
    return AGENTS[candidate.algorithm.kind](market, candidate.algorithm, candidate.network, seed)  # type: ignore[arg-type]


def build_policy(candidate: Candidate, market: MarketTensors) -> ActorNet:
    """The network that such an agent decides by, for weights from elsewhere: without critics and optimizers."""
    config, features = candidate.network, market.features.shape[2]
    return ActorNet(config, market.assets, features, portfolio_width(market)).to(market.device)
