"""The leaderboard says of everybody what the ledger does, and the same in every format."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from outcomes import Made, made

from kit.metrics import sharpe
from tournament import leaderboard
from tournament.score import Standing, benchmark

YEAR = 252


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(tmp_path_factory.mktemp("usual"))


@pytest.fixture(scope="module")
def rows(usual: Made) -> list[leaderboard.Row]:
    return leaderboard.rows(usual.outcome.standings, usual.arena)


def test_every_figure_is_that_of_the_records(usual: Made, rows: list[leaderboard.Row]) -> None:
    assert [row["place"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for row, standing in zip(rows[:-1], usual.outcome.standings):
        records = [record for (record,) in standing.records]
        returns = np.concatenate([record.returns for record in records])
        against = benchmark(usual.arena, len(records))
        assert (row["candidate"], row["hash"], row["folds"]) == (standing.name, standing.hash, len(records))
        assert row["sharpe"] == pytest.approx(returns.mean() / returns.std(ddof=1) * math.sqrt(YEAR))
        assert row["equal_weight_sharpe"] == pytest.approx(against.mean() / against.std(ddof=1) * math.sqrt(YEAR))
        assert row["edge"] == pytest.approx(row["sharpe"] - row["equal_weight_sharpe"])
        assert row["bound"] == standing.bound < row["edge"]
        assert row["score"] == standing.scores[-1][1]
        assert row["mean_fold_sharpe"] == pytest.approx(np.mean([sharpe(r.returns) for r in records]))
        traded = sum(r.traded.sum() for r in records)
        assert row["turnover"] == pytest.approx(traded / (len(returns) / YEAR))
        assert row["samples"] == 20 * len(records)


def test_who_never_was_scored_is_there_with_its_reason_and_no_figures(rows: list[leaderboard.Row]) -> None:
    last = rows[-1]
    assert (last["status"], last["reason"], last["folds"], last["samples"]) == ("diverged", "its loss was <NaN>", 0, 0)
    names = "score bound edge sharpe equal_weight_sharpe mean_fold_sharpe deflated_sharpe turnover parent"
    assert {last[name] for name in names.split()} == {None}
    assert [row["status"] for row in rows].count("eliminated") == 2


def test_the_deflated_sharpe_ratio_is_the_verdicts(usual: Made, rows: list[leaderboard.Row]) -> None:
    walk = usual.outcome.verdict.walk_forward
    assert walk.leader is not None
    by_hash = {row["hash"]: row["deflated_sharpe"] for row in rows if row["folds"]}
    assert len(by_hash) == walk.candidates
    assert by_hash[sorted(by_hash)[walk.leader]] == pytest.approx(walk.deflated, abs=1e-9)
    assert 0 < walk.deflated < 1


def test_who_is_held_as_a_leak_is_not_judged_with_the_others(usual: Made) -> None:
    leader, *others = usual.outcome.standings
    held = leaderboard.rows([replace(leader, status="leaked", reason="its ratio"), *others], usual.arena)
    assert held[0]["deflated_sharpe"] is None
    left = leaderboard.rows(others, usual.arena)
    assert [row["deflated_sharpe"] for row in held[1:]] == [row["deflated_sharpe"] for row in left]


def test_a_parent_is_named(usual: Made) -> None:
    first, second, *_ = usual.outcome.standings
    child = replace(second, entrant=replace(second.entrant, parent=first.hash))
    assert leaderboard.rows([first, child], usual.arena)[1]["parent"] == first.name


def test_the_table_fits_100_columns_however_long_a_reason_is(usual: Made, rows: list[leaderboard.Row]) -> None:
    *others, last = usual.outcome.standings
    wordy = replace(last, reason="its process said " + "so much " * 40)
    lines = leaderboard.table([*others, wordy], usual.arena)
    assert len(lines) == 1 + len(rows)
    assert max(map(len, lines)) == 100
    assert lines[-1].endswith("…")
    for line, row in zip(lines[1:-1], rows):
        assert line.split()[:2] == [str(row["place"]), row["candidate"]]
        assert f"{row['bound']:+.2f}" in line and f"{row['edge']:+.2f}" in line and row["status"] in line
    assert "–" in lines[-1]
    assert any(line.endswith("eliminated after fold 1") for line in lines)


def test_the_table_may_be_cut_short_and_says_so(usual: Made) -> None:
    lines = leaderboard.table(usual.outcome.standings, usual.arena, 2)
    assert len(lines) == 4 and "4 more" in lines[-1]
    assert leaderboard.table([], usual.arena) == ["no candidate has entered yet"]


def test_csv_parquet_and_json_hold_the_same_rows(usual: Made, rows: list[leaderboard.Row], tmp_path: Path) -> None:
    leaderboard.write(tmp_path, usual.outcome.standings, usual.arena)
    assert json.loads((tmp_path / "leaderboard.json").read_text()) == rows
    table = pyarrow.parquet.read_table(tmp_path / "leaderboard.parquet")
    assert table.to_pylist() == rows
    assert table.schema.field("parent").type == leaderboard.COLUMNS["parent"]  # though there is none
    with open(tmp_path / "leaderboard.csv", newline="", encoding="utf-8") as file:
        texts = list(csv.DictReader(file))
    assert [row["candidate"] for row in texts] == [row["candidate"] for row in rows]
    for text, row in zip(texts, rows):
        assert list(text) == list(row) == list(leaderboard.COLUMNS)
        assert text["sharpe"] == ("" if row["sharpe"] is None else repr(row["sharpe"]))


def test_a_run_that_has_only_begun_has_rows_without_figures(usual: Made) -> None:
    entrant = usual.outcome.standings[0].entrant
    (row,) = leaderboard.rows([Standing(entrant, (), "running", "", np.zeros(0))], usual.arena)
    assert (row["status"], row["sharpe"], row["equal_weight_sharpe"], row["score"]) == ("running", None, None, None)


def test_seeds_share_the_turnover_and_add_up_the_samples(usual: Made, rows: list[leaderboard.Row]) -> None:
    leader = usual.outcome.standings[0]
    twice = replace(leader, records=tuple(seeds * 2 for seeds in leader.records))
    (row,) = leaderboard.rows([twice], usual.arena)
    assert row["turnover"] == pytest.approx(rows[0]["turnover"])
    assert row["mean_fold_sharpe"] == pytest.approx(rows[0]["mean_fold_sharpe"])
    assert row["samples"] == 2 * rows[0]["samples"]
