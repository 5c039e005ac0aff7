"""Which settings went with a better score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agents.spaces import SPACES, Choice, Knob, parameters
from tournament.final import Outcome
from tournament.report.drawings import Report
from tournament.score import Standing

LEAST = 4  # candidates of an algorithm: of fewer a correlation says nothing


def add(page: Report, outcome: Outcome) -> None:
    page.section("Hyper-parameters")
    groups: dict[str, list[Standing]] = {}
    for standing in outcome.standings:
        if standing.scores and np.isfinite(standing.scores[0][1]):
            groups.setdefault(standing.entrant.candidate.algorithm.kind, []).append(standing)
    found = {kind: importance(there) for kind, there in sorted(groups.items()) if len(there) >= LEAST}
    names = list(dict.fromkeys(name for values in found.values() for name in values))
    if not names:
        page.text(f"No algorithm has {LEAST} candidates that differ and were scored: too few for correlations.")
        return
    fewest, most = (pick(len(groups[kind]) for kind in found) for pick in (min, max))
    table = np.array([[values.get(name, np.nan) for values in found.values()] for name in names])
    page.heatmap(
        "Rank correlation of settings with the score",
        names,
        list(found),
        table,
        limit=1.0,
        note=f"A correlation over few candidates ({fewest if fewest == most else f'{fewest} to {most}'} an "
        "algorithm), not a cause: most of these are chance. Score: after the first fold, which everybody did.",
    )


def importance(standings: Sequence[Standing]) -> dict[str, float]:
    """Spearman's correlation of each setting that differs; of a choice without an order, that of each label."""
    from scipy.stats import rankdata  # it takes most of a second to load, and only reports need it

    scores = np.array([standing.scores[0][1] for standing in standings])
    chosen = [parameters(standing.entrant.candidate) for standing in standings]
    found: dict[str, float] = {}
    for knob in SPACES[standings[0].entrant.candidate.algorithm.kind]:
        for name, values in _columns(knob, [settings[knob.name] for settings in chosen]).items():
            known = np.isfinite(values) & np.isfinite(scores)
            ranks, scored = rankdata(values[known]), rankdata(scores[known])
            if known.sum() >= LEAST and np.ptp(ranks) > 0 and np.ptp(scored) > 0:
                found[name] = float(np.corrcoef(ranks, scored)[0, 1])
    return found


def _columns(knob: Knob, values: list[object]) -> dict[str, np.ndarray]:
    short = knob.name.removeprefix("algorithm.").removeprefix("env.")
    if not isinstance(knob, Choice):
        return {short: np.array(values, float)}
    if all(label.isdigit() for label in knob.labels):
        return {short: np.array([np.nan if value is None else float(str(value)) for value in values])}
    labels = knob.labels[:1] if len(knob.labels) == 2 else knob.labels
    return {f"{short} = {label}": np.array([float(value == label) for value in values]) for label in labels}
