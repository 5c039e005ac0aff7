"""Asynchronous halving: nobody waits, nobody is lost, and a kill changes only who was promoted too early."""

from __future__ import annotations

from pathlib import Path

import pytest
from small import Killed, leaderboard, random_pick, runner, tournament

from tournament.ledger import Ledger, Record
from tournament.rounds import Tournament
from tournament.score import rungs, survivors
from tournament.trial import Trial, failed

SETTINGS = (
    "search.halving=asynchronous",
    "search.candidates=6",
    "search.keep=1",
    "folds={train: 80, validation: 20, test: 30, holdout: 60, count: 4}",
)


def last_first(there: int) -> int:
    return there - 1


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Tournament:
    made = tournament(tmp_path_factory.mktemp("run"), *SETTINGS, run=runner(random_pick(2)))
    made.run()
    return made


def test_whoever_would_have_survived_waiting_has_gone_on(run: Tournament) -> None:
    alive = run.entrants
    for rung, fold in enumerate(rungs(4)[:-1], 1):
        decided = run.ledger.sealed(1, rung)
        assert decided is not None
        fresh = Tournament(run.config, run.arena, run.ledger, run.folder)
        came = [standing for standing in fresh.standings(alive, fold) if standing.folds == fold]
        waited = {standing.hash for standing in survivors(came, fold, run.arena, run.config.search)}
        assert waited <= set(decided["kept"])
        assert set(decided["kept"]) | set(decided["eliminated"]) == {standing.hash for standing in came}
        alive = [entrant for entrant in alive if entrant.candidate.hash in decided["kept"]]


def test_everybody_ends_and_those_who_did_not_go_on_are_eliminated(run: Tournament) -> None:
    standings = run.standings()
    assert {standing.status for standing in standings} == {"finished", "eliminated"}
    assert all(standing.folds == 4 for standing in standings if standing.status == "finished")
    assert len(list(run.ledger.folder.glob("*.trial"))) < 6 * 4


def test_a_candidate_goes_on_before_all_others_have_come(tmp_path: Path) -> None:
    """With the latest ending first, some do later folds while others have not done their first."""
    with pytest.raises(Killed):
        tournament(tmp_path, *SETTINGS, run=runner(last_first, jobs=5)).run()
    folds = sorted(record.fold for record in Ledger(tmp_path / "ledger").records())
    assert len(folds) == 5 and folds.count(1) < 6 and folds[-1] > 1


def test_of_fewer_than_eta_nobody_is_the_better_part(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        tournament(tmp_path, *SETTINGS, "search.eta=6", run=runner(last_first, jobs=5)).run()
    assert {record.fold for record in Ledger(tmp_path / "ledger").records()} == {1}


@pytest.mark.parametrize("jobs", [3, 7, 9])
def test_a_run_that_was_killed_goes_on_with_those_that_were_promoted(tmp_path: Path, jobs: int) -> None:
    with pytest.raises(Killed):
        tournament(tmp_path, *SETTINGS, run=runner(last_first, jobs)).run()
    before = Ledger(tmp_path / "ledger").records()
    done = tournament(tmp_path, *SETTINGS)
    standings = {standing.hash: standing for standing in done.run()}
    for record in before:
        assert standings[record.key.candidate].folds >= record.fold


def test_a_finished_run_is_gone_on_with_without_training_and_recalled_the_same(run: Tournament) -> None:
    again = Tournament(run.config, run.arena, Ledger(run.ledger.folder), run.folder, execute=runner(jobs=0))
    assert leaderboard(again.run()) == leaderboard(run.standings())
    recalled = Tournament(run.config, run.arena, Ledger(run.ledger.folder), run.folder)
    assert leaderboard(recalled.recall()) == leaderboard(run.standings())


def test_a_candidate_that_fails_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = Trial.finish

    def failing(self: Trial) -> Record | bool:
        broken = self.job.candidate.algorithm.kind == "ppo" and self.job.fold == 2
        return self.ledger.put(failed(self.job, self.arena, "crashed", "for a test")) if broken else finish(self)

    monkeypatch.setattr(Trial, "finish", failing)
    standings = tournament(tmp_path, *SETTINGS, run=runner(last_first)).run()
    statuses = {standing.status for standing in standings}
    assert "crashed" in statuses and "finished" in statuses and "running" not in statuses


def test_progress_counts_the_trials_that_halving_will_leave(tmp_path: Path) -> None:
    run = tournament(tmp_path, *SETTINGS)
    began: list[tuple[str, int]] = []
    run.watcher.began = lambda name, trials: began.append((name, trials))
    run.run()
    assert began == [("round 1 rungs to 3", 6 + 3 + 2 * 2)]  # folds 1 | 2 | 3 and 4: 6, 3 and 2 candidates
