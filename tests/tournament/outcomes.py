"""Tournaments that nobody trained: made-up trials in a ledger, and what a run would conclude from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from agents.baselines import Oracle
from envs.backtest import Track, backtest
from envs.config import TradingConfig
from kit.config import build, to_dict
from market.data import DataConfig
from market.features import FeatureSpec
from market.panel import Panel
from market.synth import SIGNAL, SynthSource, generate
from tournament.arena import Arena
from tournament.choose import choose, concatenated
from tournament.config import EnsembleConfig, SearchConfig, TournamentConfig
from tournament.final import Outcome, judged
from tournament.folds import FoldConfig
from tournament.ledger import Ledger, Record
from tournament.propose import propose
from tournament.score import chain, standings
from tournament.trial import key_of

FEATURES = build(FeatureSpec, [{"log_return": {"horizons": [1, 5]}}, "observed"])
FOLDS = FoldConfig(train=260, validation=40, test=100, count=3, gap=5, holdout=100)
SOURCE = SynthSource(symbols=5, bars=800, ic=0.3)


@dataclass(frozen=True, eq=False)
class Made:
    outcome: Outcome
    arena: Arena
    config: TournamentConfig
    folder: Path


@cache
def built_in(source: SynthSource = SOURCE) -> Panel:
    return generate(source)


def config_of(candidates: int = 6, source: SynthSource = SOURCE, folds: FoldConfig = FOLDS) -> TournamentConfig:
    search = SearchConfig(candidates=candidates)
    return TournamentConfig(
        DataConfig(source), FEATURES, TradingConfig(), folds, search, EnsembleConfig(size=3), wandb="disabled"
    )


def made(
    folder: Path,
    config: TournamentConfig | None = None,
    symbols: tuple[str, ...] = (),
    skill: float = 0.002,
    panel: Panel | None = None,
) -> Made:
    """Of the candidates the first diverges, the next two leave after fold 1; the others earn `skill` a day more."""
    config = config or config_of()
    if panel is None:
        assert isinstance(config.data.source, SynthSource)
        panel = built_in(config.data.source)
    panel = replace(panel, symbols=symbols or panel.symbols)
    arena = Arena.build(panel, config.features, config.trading, config.folds)
    ledger, rng = Ledger(folder / "ledger"), np.random.default_rng(0)
    entrants = propose(1, [], config.search, config.seed)
    for number, entrant in enumerate(entrants):
        before: Record | None = None
        for fold, link in zip(arena.folds.folds, chain(entrant, 0, arena, config.search, config.seed)):
            job, track = link(before), arena.benchmark(fold.spans)
            key, plain = key_of(job, arena), to_dict(entrant.candidate)
            if number == 0:
                ledger.put(Record(key, plain, "diverged", 1, fold.number, reason="its loss was <NaN>"))
                break
            luck = rng.normal(skill if number > 2 else -abs(skill), 0.004, len(track.returns))
            before = Record(
                key,
                plain,
                "done",
                1,
                fold.number,
                chosen=10,
                trained=20,
                checkpoint="e" * 64,
                dates=track.dates,
                returns=track.returns + luck,
                traded=track.traded,
                weights=track.weights,
            )
            ledger.put(before)
            if number in (1, 2):
                break
    gone = {entrant.candidate.hash: 1 for entrant in entrants[1:3]}
    found = standings(entrants, gone, {}, arena, ledger, config.search, config.seed)
    benchmark = concatenated([arena.benchmark(fold.spans) for fold in arena.folds.folds])
    choices = choose(found, config.ensemble, arena)
    outcome = Outcome(found, choices, oracle(arena), benchmark, judged(found, arena), folder / "bundle")
    return Made(outcome, arena, config, folder)


def oracle(arena: Arena) -> Track | None:
    """What stands for the ensemble: the rule that knows the built-in market's signal, from fold 2 on."""
    policy = Oracle(arena.panel.observed[SIGNAL].values)
    rows = policy.signal
    assert isinstance(rows, np.ndarray)
    tracks = []
    for fold in arena.folds.folds[1:]:
        market = arena.market(fold.spans)
        tracks.append(backtest([Oracle(rows[: len(market)])], market, fold.spans.test)[0])
    return concatenated(tracks) if tracks else None
