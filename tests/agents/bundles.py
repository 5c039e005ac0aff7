"""Bundles for tests: small random networks on a random market."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from panels import random_panel

from agents.bundle import Bundle, Member, save
from agents.candidate import Candidate
from agents.ensemble import Ensemble
from agents.heads import ActorNet
from agents.lens import Lens
from agents.manifest import Provenance
from agents.networks import NetworkConfig
from agents.reference import Reference, measure
from envs.backtest import backtest
from envs.config import TradingConfig
from envs.policy import Allocated
from market.features import FeatureSpec, Scaler
from market.panel import Panel

PANEL = random_panel(3, 120, 4)
SPEC = FeatureSpec.from_config([{"log_return": {"horizons": [1, 5]}}, {"volume_zscore": {"window": 16}}, "observed"])
TRAIN = slice(20, 80)
PROVENANCE = Provenance("c0de", "c0f1", "da7a", "podracer 0.1.0")
SHARED = NetworkConfig(hidden=(8, 4))
NETWORKS = (SHARED, SHARED, NetworkConfig("attention", "late", (8, 4), 4))
EVERY_NETWORK = [
    NetworkConfig(encoder, head, (8, 4), lookback)
    for encoder in ("shared", "flat", "attention")
    for head in ("bilinear", "late", "joint")
    for lookback in (1, 4)
]


def lens_of(panel: Panel = PANEL, trading: TradingConfig | None = None) -> Lens:
    features = SPEC.compute(panel)
    return Lens.of(panel, SPEC, Scaler.fit(features, TRAIN), trading or TradingConfig())


LENS = lens_of()


def actor_of(network: NetworkConfig, seed: int, lens: Lens = LENS) -> ActorNet:
    """As far from zero actions as training leads."""
    torch.manual_seed(seed)
    actor = ActorNet(network, len(lens.symbols), len(lens.scaler.names), lens.portfolio_width)
    for values in actor.parameters():
        torch.nn.init.normal_(values, std=0.5)
    return actor


def members_of(networks: tuple[NetworkConfig, ...], lens: Lens = LENS) -> list[Member]:
    weights = np.arange(1, len(networks) + 1) / sum(range(1, len(networks) + 1))
    return [
        Member(f"m{k}", actor_of(network, k, lens), weights[k], Candidate(network=network), {"sharpe": 0.5 + k})
        for k, network in enumerate(networks)
    ]


def ensemble_of(members: list[Member]) -> Ensemble:
    return Ensemble([Allocated(member.actor) for member in members], [member.weight for member in members])


def measured(members: list[Member], lens: Lens = LENS) -> Reference:
    ensemble, market = ensemble_of(members), lens.market(PANEL)
    return measure(lens, PANEL, TRAIN, ensemble, backtest([ensemble], market, slice(80, None))[0])


def saved(folder: Path, networks: tuple[NetworkConfig, ...] = NETWORKS, lens: Lens = LENS, **more: Any) -> Bundle:
    members = members_of(networks, lens)
    return save(folder, members, lens, measured(members, lens), PROVENANCE, {"sharpe": 1.0}, **more)
