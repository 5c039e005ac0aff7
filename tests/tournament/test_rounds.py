"""Rounds: who enters, who goes, and that neither order nor death changes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small import Killed, arena_of, config_of, leaderboard, random_pick, runner, tournament

from agents.spaces import mutate
from kit.errors import UserError
from tournament.choose import choose
from tournament.ledger import Ledger
from tournament.propose import propose
from tournament.rounds import Tournament
from tournament.score import Entrant, Standing, chain, rungs, survivors
from tournament.trial import draw, key_of

TWO_ROUNDS = ("search.rounds=2", "search.candidates=4", "search.offspring=3")
FOUR_FOLDS = ("folds={train: 80, validation: 20, test: 30, holdout: 60, count: 4}", "search.keep=1")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Tournament:
    """A run that nobody disturbed."""
    run = tournament(tmp_path_factory.mktemp("clean"), *TWO_ROUNDS)
    run.run()
    return run


def test_the_same_seed_gives_the_same_leaderboard_in_whatever_order_trials_end(
    clean: Tournament, tmp_path: Path
) -> None:
    other = tournament(tmp_path, *TWO_ROUNDS, run=runner(random_pick(1)))
    assert leaderboard(other.run()) == leaderboard(clean.standings())


def test_another_seed_gives_another_tournament(clean: Tournament, tmp_path: Path) -> None:
    other = tournament(tmp_path, *TWO_ROUNDS, "seed=1")
    assert {s.hash for s in other.run()} != {s.hash for s in clean.standings()}


@pytest.mark.parametrize("jobs", [0, 5, 13])
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(clean: Tournament, tmp_path: Path, jobs: int) -> None:
    with pytest.raises(Killed):
        tournament(tmp_path, *TWO_ROUNDS, run=runner(random_pick(jobs), jobs)).run()
    before = len(list((tmp_path / "ledger").glob("*.trial")))
    assert before == jobs
    assert leaderboard(tournament(tmp_path, *TWO_ROUNDS).run()) == leaderboard(clean.standings())


def test_what_is_recorded_is_not_run_again(clean: Tournament) -> None:
    again = Tournament(clean.config, clean.arena, clean.ledger, clean.folder, execute=runner(jobs=0))
    assert leaderboard(again.run()) == leaderboard(clean.standings())


def test_the_leaderboard_is_recalled_without_running_anything(clean: Tournament) -> None:
    other = Tournament(clean.config, clean.arena, Ledger(clean.ledger.folder), clean.folder, execute=None)  # type: ignore[arg-type]
    assert leaderboard(other.recall()) == leaderboard(clean.standings())


def test_a_seal_that_no_longer_follows_is_an_error(tmp_path: Path) -> None:
    run = tournament(tmp_path)
    run.run()
    victim = next(file for file in (tmp_path / "ledger").glob("*.seal") if "rung-1" in file.name)
    ledger = Ledger(tmp_path / "ledger")
    content = ledger.sealed(1, 1)
    assert content is not None
    victim.unlink()
    ledger.seal(1, 1, {**content, "kept": [], "eliminated": sorted(content["scores"])})
    with pytest.raises(UserError, match="no longer follow"):
        tournament(tmp_path).run()


def test_offspring_never_starts_from_weights_that_saw_its_test_span(clean: Tournament) -> None:
    offspring = [entrant for entrant in clean.entrants if entrant.parent]
    assert len(offspring) == 3
    first = clean.arena.folds.folds[0].spans
    by_hash = {standing.hash: standing for standing in clean.standings()}
    for entrant in offspring:
        parent = by_hash[entrant.parent]
        assert entrant.starts == tuple(record.checkpoint for record in parent.records[0])
        assert parent.records[0][0].fold == 1
        assert parent.records[0][0].dates[0] > clean.arena.panel.closes[first.validation.stop]
        if by_hash[entrant.candidate.hash].records:
            assert by_hash[entrant.candidate.hash].records[0][0].key.start == entrant.starts[0]


def test_a_fold_starts_from_the_same_trainings_fold_before(clean: Tournament) -> None:
    for standing in clean.standings():
        for before, after in zip(standing.records, standing.records[1:]):
            assert [record.key.start for record in after] == [record.checkpoint for record in before]


def test_every_fold_starts_anew_where_that_is_asked_for(tmp_path: Path) -> None:
    for standing in tournament(tmp_path, "search.warm=0").run():
        assert {record.key.start for seeds in standing.records for record in seeds} == {""}


def test_the_first_round_holds_every_algorithm_at_its_defaults() -> None:
    entrants = propose(1, [], config_of("search.candidates=6").search, 0)
    assert [entrant.candidate.algorithm.kind for entrant in entrants[:4]] == ["ppo", "sac", "td3", "direct"]
    assert len({entrant.candidate.hash for entrant in entrants}) == 6


def test_a_candidate_of_several_seeds_is_judged_by_their_mean(tmp_path: Path) -> None:
    run = tournament(tmp_path, "search.seeds=2", "search.candidates=2", "search.algorithms=[direct]")
    for standing in run.run():
        assert all(len(seeds) == 2 for seeds in standing.records)
        first, second = ([records[k].returns for records in standing.records] for k in range(2))
        expected = (np.concatenate(first) + np.concatenate(second)) / 2
        np.testing.assert_array_equal(standing.returns, expected)


def test_eliminations_come_after_folds_1_2_4_and_the_last_fold_ends_the_round() -> None:
    assert rungs(1) == [1]
    assert rungs(2) == [1, 2]
    assert rungs(6) == [1, 2, 4, 6]
    assert rungs(8) == [1, 2, 4, 8]


def test_half_of_the_candidates_go_at_a_rung_and_never_below_those_to_keep(tmp_path: Path) -> None:
    run = tournament(tmp_path, *FOUR_FOLDS, "search.candidates=8")
    standings = run.run()
    reached = [sum(s.folds >= fold for s in standings) for fold in (1, 2, 3, 4)]
    assert reached[0] == 8
    assert 4 <= reached[1] <= 8  # after the first fold only who is surely behind goes
    assert reached[2] == reached[3] == -(-reached[1] // 2)


def made(run: Tournament, returns: np.ndarray, number: int) -> Standing:
    candidate = propose(1, [], config_of("search.candidates=8").search, 0)[number].candidate
    return Standing(Entrant(candidate, 1), ((),), "running", "", returns, scores=((1, -float(number)),))


def test_after_the_first_fold_who_is_not_surely_behind_the_leader_stays(tmp_path: Path) -> None:
    run = tournament(tmp_path, "search.keep=1")
    noise = np.random.default_rng(0).normal(0, 0.01, (4, 252))
    leader = made(run, noise[0] + 0.002, 0)
    close, also, far = (
        made(run, noise[0] + 0.002 + 0.001 * noise[k] / 0.01 - drop, k) for k, drop in ((1, 0), (2, 0), (3, 0.004))
    )
    kept = survivors([leader, close, also, far], 1, run.arena, run.config.search)
    assert {standing.hash for standing in kept} == {leader.hash, close.hash, also.hash}
    later = survivors([leader, close, also, far], 2, run.arena, run.config.search)
    assert {standing.hash for standing in later} == {leader.hash, close.hash}


def test_perturbing_the_hold_out_changes_no_trial() -> None:
    """A trial's key holds the hash of all bars that it gets, and none of them is held out."""
    arena = arena_of()
    last = arena.folds.folds[-1].spans
    assert len(arena.seen(last)) == last.test.stop + 1 <= arena.folds.holdout.start
    entrant = propose(1, [], config_of().search, 0)[0]
    job = chain(entrant, 0, arena, config_of().search, 0)[0](None)
    assert key_of(job, arena).data == arena.data_hash(arena.folds.folds[0].spans)


def test_every_part_of_a_run_draws_a_seed_of_its_own() -> None:
    assert len({draw(0, k) for k in range(100)} | {draw(1, k) for k in range(100)}) == 200


def test_optuna_learns_from_those_that_were_eliminated(clean: Tournament) -> None:
    from tournament.propose import _study

    known = clean.standings()
    study = _study(3, known, clean.config.search, 0)
    states = [trial.state.name for trial in study.get_trials()]
    assert states.count("COMPLETE") == sum(s.status == "finished" for s in known)
    assert states.count("PRUNED") == sum(s.status == "eliminated" for s in known) > 0
    for trial, standing in zip(study.get_trials(), sorted(known, key=lambda s: s.hash)):
        assert trial.intermediate_values == dict(standing.scores)


def test_mutation_keeps_weights_usable(clean: Tournament) -> None:
    parent = clean.entrants[0].candidate
    child = mutate(parent, np.random.default_rng(0))
    assert child.network == parent.network
    assert child != parent


def test_who_is_too_good_to_be_true_is_held_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean: Tournament
) -> None:
    """The alarm itself is tested elsewhere; here it goes off for the leader after the first fold."""

    def alarm(standings: list[Standing], *rest: object) -> dict[str, str]:
        return {standings[0].hash: "too good"} if standings[0].folds == 1 else {}

    monkeypatch.setattr("tournament.rounds.alarms", alarm)
    run = tournament(tmp_path, "search.candidates=4")
    standings = run.run()
    (held,) = [standing for standing in standings if standing.status == "leaked"]
    assert held.reason == "too good"
    assert held.folds == 1
    assert sum(standing.status == "finished" for standing in standings) == 2
    assert held.hash not in {choice.standing.hash for choice in choose(standings, run.config.ensemble, run.arena)}
    other = Tournament(run.config, run.arena, Ledger(run.ledger.folder), run.folder, execute=None)  # type: ignore[arg-type]
    assert leaderboard(other.recall()) == leaderboard(standings)
    assert leaderboard(tournament(tmp_path, "search.candidates=4").run()) == leaderboard(standings)
