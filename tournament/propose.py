"""Who enters a round: what Optuna asks for, knowing how the earlier ones did, and the leaders' offspring.

The study is not kept: it is made anew for every round from what the ledger says, in the order of
candidate hashes, with a seed of its own. So a run that was killed proposes the same again.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optuna

from agents.candidate import Candidate
from agents.spaces import SPACES, candidate_from, mutate, parameters, sample
from tournament.config import SearchConfig
from tournament.score import Entrant, Standing
from tournament.trial import draw

TRIES = 100  # to propose a candidate that is not there yet
STARTUP = 10  # finished candidates before Optuna's sampler models them
ALGORITHM = "algorithm"


def propose(round: int, known: Sequence[Standing], config: SearchConfig, seed: int) -> list[Entrant]:
    """The round's entrants. `known` are all candidates of earlier rounds."""
    taken = {standing.hash for standing in known}
    entrants: list[Entrant] = []
    if round > 1:
        entrants += _offspring(round, known, config, seed, taken)
    wanted = [_entered(candidate_from(name, {}), config) for name in config.algorithms]
    entrants += [Entrant(c, round) for c in wanted[: config.candidates] if round == 1 and config.defaults]
    taken |= {entrant.candidate.hash for entrant in entrants}
    study = _study(round, known, config, seed)
    asked = config.candidates - (len(entrants) if round == 1 else 0)
    for _ in range(asked):
        for _ in range(TRIES):
            trial = study.ask()
            name = trial.suggest_categorical(ALGORITHM, list(config.algorithms))
            candidate = _entered(candidate_from(name, sample(SPACES[name], trial)), config)
            if candidate.hash not in taken:
                break
        taken.add(candidate.hash)
        entrants.append(Entrant(candidate, round))
    return entrants


def _study(round: int, known: Sequence[Standing], config: SearchConfig, seed: int) -> optuna.Study:
    """Finished candidates as Optuna's: eliminated ones are pruned, with what they had at every rung."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():  # joint models of each algorithm's own space are still called experimental
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=draw(seed, round), n_startup_trials=STARTUP, multivariate=True, group=True, constant_liar=True
        )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for standing in sorted(known, key=lambda standing: standing.hash):
        chosen = _chosen(standing.entrant.candidate, config)
        if chosen is None:
            continue
        steps = {fold: value for fold, value in standing.scores if np.isfinite(value)}
        state = optuna.trial.TrialState.COMPLETE if standing.status == "finished" else optuna.trial.TrialState.PRUNED
        if not steps:
            state = optuna.trial.TrialState.FAIL
        study.add_trial(
            optuna.trial.create_trial(
                state=state,
                params=chosen.params,
                distributions=chosen.distributions,
                intermediate_values=steps,
                value=list(steps.values())[-1] if state == optuna.trial.TrialState.COMPLETE else None,
            )
        )
    return study


def _chosen(candidate: Candidate, config: SearchConfig) -> optuna.trial.FixedTrial | None:
    """The choices that make this candidate, with their distributions; None where no search could make them."""
    chosen = parameters(candidate)
    if None in chosen.values():
        return None
    fixed = optuna.trial.FixedTrial({ALGORITHM: candidate.algorithm.kind, **chosen})
    fixed.suggest_categorical(ALGORITHM, list(config.algorithms))
    try:
        sample(SPACES[candidate.algorithm.kind], fixed)
    except ValueError:  # out of range
        return None
    return fixed


def _offspring(
    round: int, known: Sequence[Standing], config: SearchConfig, seed: int, taken: set[str]
) -> list[Entrant]:
    """The leaders in turn, each with other hyper-parameters, from its own first fold: later ones saw later days."""
    leaders = [standing for standing in known if standing.status == "finished"]
    made: list[Entrant] = []
    for number in range(config.offspring if leaders else 0):
        parent = leaders[number % len(leaders)]
        generator = np.random.default_rng([seed, round, number])
        candidate = mutate(parent.entrant.candidate, generator)
        while candidate.hash in taken:
            candidate = mutate(parent.entrant.candidate, generator)
        taken.add(candidate.hash)
        starts = tuple(record.checkpoint for record in parent.records[0])
        made.append(Entrant(candidate, round, parent.entrant.candidate.hash, starts))
    return made


def _entered(candidate: Candidate, config: SearchConfig) -> Candidate:
    """As long and where this search trains it."""
    algorithm = candidate.algorithm
    changed: Any = replace(algorithm, samples=max(1, round(algorithm.samples * config.samples)))
    return replace(candidate, algorithm=changed, pod=config.pods.get(algorithm.kind, candidate.pod))
