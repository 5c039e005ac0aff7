"""The report: it says what the tracks say, leaves out what it cannot know, and opens by itself."""

from __future__ import annotations

import html
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import dump_dom, evaluate, needs_chromium
from outcomes import FOLDS, Made, config_of, made

from agents.baselines import BASELINES
from agents.candidate import Candidate
from kit.files import write_json
from kit.metrics import equity, max_drawdown, sharpe
from market.data import DataConfig
from market.page import equal_weight_returns
from market.sources.files import FileSource
from tournament.final import OPENINGS, VERDICT
from tournament.report.candidates import edges
from tournament.report.comparison import monthly
from tournament.report.drawings import Report
from tournament.report.market_states import deepest, regimes
from tournament.report.material import IN_VIEW, Material, gather
from tournament.report.page import write
from tournament.report.search import importance
from tournament.report.trading import at_multiples, break_even
from tournament.report.weights import average_weights, contributions, members
from tournament.score import Standing
from tournament.verdict import HoldOut, Verdict

EVIL = ("<b>X</b>", "A&B", '"Q"', "it's", "</script>")
SECTIONS = (
    "Verdict",
    "Against equal weight and other rules",
    "Candidates",
    "Folds",
    "States of the market",
    "Costs and turnover",
    "Weights and where the return came from",
    "Hyper-parameters",
)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def material(usual: Made) -> Material:
    return gather(usual.outcome, usual.arena)


def page_of(run: Made) -> str:
    file = run.folder / "report.html"
    write(file, run.outcome, run.arena, run.config, run.folder)
    return file.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(usual: Made) -> str:
    return page_of(usual)


def table(text: str, title: str) -> dict[str, dict[str, str]]:
    """Row name -> column -> cell."""
    body = text.split(f"<h3>{title}</h3>")[1].split("</table>")[0]
    rows = [
        [html.unescape(re.sub("<[^>]*>", "", cell)) for cell in re.findall(r"<t[hd][ >].*?</t[hd]>", row)]
        for row in body.split("<tr>")[1:]
    ]
    return {row[0]: dict(zip(rows[0], row)) for row in rows[1:]}


def chart(text: str, title: str) -> dict[str, Any]:
    """What the chart shows under the pointer."""
    data = text.split(f"<h3>{title}</h3>")[1].split('<script type="application/json">')[1].split("</script>")[0]
    return dict(json.loads(data))


def number(cell: str) -> float:
    return float(cell.replace("−", "-").replace("\u00a0%", "").replace(",", ""))


def words(text: str) -> str:
    """What a reader reads, without the footer."""
    return html.unescape(re.sub("<[^>]*>", " ", text.split("<body>")[1].split("<footer>")[0]))


def test_every_section_is_there_and_the_verdict_is_first(usual: Made, text: str) -> None:
    assert tuple(re.findall("<h2>([^<]*)</h2>", text)) == SECTIONS
    assert f"<h1>Tournament: {usual.outcome.verdict.outcome}</h1>" in text
    first = text.split("<h2>Verdict</h2>\n")[1].split("</p>")[0]
    assert html.unescape(first) == f"<p>{usual.outcome.verdict.text}"


def test_each_figure_of_the_verdict_has_a_sentence(usual: Made, text: str) -> None:
    walk = usual.outcome.verdict.walk_forward
    lines = re.findall("<li>(.*?)</li>", text)[:4]
    assert [line.split()[0] for line in lines] == ["SPA", "StepM", "The", "PBO,"]
    assert f"{len(walk.stepm)} of {walk.candidates} are better" in lines[1]
    changed = replace(usual.outcome.verdict, walk_forward=replace(walk, spa_p=0.123, deflated=0.456))
    other = page_of(replace(usual, outcome=replace(usual.outcome, verdict=changed)))
    assert "look this good with probability 0.123" in other and "has probability 0.456" in other


def test_the_ensembles_track_says_what_it_is_and_has_no_p_value(usual: Made, text: str) -> None:
    part = text.split("<h2>Against")[1].split("<h2>Candidates")[0]
    assert IN_VIEW in part.split("</p>")[0]
    for title in ("Equity", "Drawdown", "In figures", "Monthly returns of the ensemble"):
        assert IN_VIEW in part.split(f"<h3>{title}</h3>")[1].split("</p>")[0]
    assert "so it gets no p-value" in part and part.count("p-value") == 1


def test_every_baseline_is_compared_on_the_same_days(usual: Made, text: str, material: Material) -> None:
    shown = table(text, "In figures")
    assert len(shown) == len(BASELINES) + 1  # the ensemble; equal weight is the zero action
    assert list(shown)[:2] == ["ensemble", "equal weight"]
    days = usual.outcome.track
    assert days is not None
    for name, track in material.tracks.items():
        np.testing.assert_array_equal(track.dates, days.dates)
        if name != "cash":
            assert number(shown[name]["Sharpe"]) == pytest.approx(float(sharpe(track.returns)), abs=0.006)
        assert number(shown[name]["Drawdown"]) / 100 == pytest.approx(float(max_drawdown(track.returns)), abs=6e-4)
    assert np.array_equal(material.theirs.returns, usual.outcome.benchmark.returns[-len(days.returns) :])


def test_baselines_begin_each_fold_in_cash(material: Material) -> None:
    for days in material.days():
        assert material.baselines["equal weight held"].traded[days.start] > 0.3  # 40 % of the way
        assert material.theirs.weights[days.start, -1] == pytest.approx(0.6, abs=0.01)


def test_equity_is_that_of_the_tracks(usual: Made, text: str) -> None:
    track = usual.outcome.track
    assert track is not None
    drawn = chart(text, "Equity")
    assert drawn["names"][:2] == ["ensemble", "equal weight"]
    np.testing.assert_allclose(drawn["v"][0], equity(track.returns)[1:], rtol=1e-5)


def test_months_compound_to_the_total_return(usual: Made, text: str) -> None:
    track = usual.outcome.track
    assert track is not None
    shown = chart(text, "Monthly returns of the ensemble")
    cells = np.array(shown["v"], float)  # None becomes NaN
    total = np.prod(1 + track.returns)
    assert np.nanprod(1 + cells[:, :12]) == pytest.approx(total, rel=1e-4)
    assert np.nanprod(1 + cells[:, 12]) == pytest.approx(total, rel=1e-4)
    assert shown["rows"] == [str(year) for year in np.unique(track.dates.astype("datetime64[Y]"))]


def test_a_month_holds_its_own_days(material: Material) -> None:
    dates = np.array(["2019-12-30", "2019-12-31", "2020-01-02", "2020-03-02"], "M8[ns]")
    track = replace(material.theirs, dates=dates, returns=np.array([0.1, 0.1, -0.5, 0.2]))
    years, cells = monthly(track)
    assert years == ["2019", "2020"]
    assert cells[0, 11] == pytest.approx(0.21) and cells[0, 12] == pytest.approx(0.21)
    assert cells[1, [0, 2, 12]] == pytest.approx([-0.5, 0.2, -0.4])
    assert np.isnan(cells).sum() == 26 - 5


def test_the_leaderboard_has_everybody_with_bounds_and_reasons(usual: Made, text: str) -> None:
    shown = table(text, "Leaderboard")
    assert list(shown) == [standing.name for standing in usual.outcome.standings]
    fates = [row["Fate"] for row in shown.values()]
    assert fates.count("eliminated after fold 1") == 2 and fates[-1] == "diverged: its loss was <NaN>"
    for standing in usual.outcome.standings:
        row = shown[standing.name]
        if not standing.folds:
            assert row["Lower"] == row["Upper"] == row["StepM p"] == "–"
            continue
        lower, edge, upper = (number(row[name]) for name in ("Lower", "Edge", "Upper"))
        assert lower < edge < upper
        assert lower == pytest.approx(standing.bound, abs=0.006) and edge == pytest.approx(standing.edge, abs=0.006)


def test_the_leaderboard_agrees_with_the_verdict(usual: Made, text: str) -> None:
    walk, shown = usual.outcome.verdict.walk_forward, table(text, "Leaderboard")
    p_values = [number(row["StepM p"]) for row in shown.values() if row["StepM p"] != "–"]
    assert len(p_values) == walk.candidates and sum(p <= 0.05 for p in p_values) == len(walk.stepm) > 0
    deflated = [number(row["Deflated"]) for row in shown.values() if row["Deflated"] != "–"]
    assert max(deflated) == pytest.approx(walk.deflated, abs=6e-3)
    weights = [number(row["Weight"]) for row in shown.values() if row["Weight"] != "–"]
    assert sum(weights) == pytest.approx(100, abs=0.2) and len(weights) == len(usual.outcome.choices)


def test_excess_is_the_verdicts_and_nothing_after_an_elimination(usual: Made, material: Material) -> None:
    ratios = np.nan_to_num(sharpe(material.excess))
    assert ratios.max() == pytest.approx(usual.outcome.verdict.walk_forward.leader_sharpe)
    for column, standing in zip(material.excess.T, material.scored):
        days = len(standing.returns)
        assert column[20:days].all() and not column[days:].any()


def test_the_picture_of_eliminations_ends_where_a_candidate_did(usual: Made, text: str, material: Material) -> None:
    cells = edges(material.scored, usual.arena)
    assert [int(np.isfinite(row).sum()) for row in cells] == [standing.folds for standing in material.scored]
    fold = usual.arena.folds.folds[1]
    own = material.scored[0].records[1][0].returns
    theirs = usual.arena.benchmark(fold.spans).returns
    assert cells[0, 1] == pytest.approx(float(sharpe(own) - sharpe(theirs)))
    gone = [standing.name for standing in usual.outcome.standings if standing.status == "eliminated"]
    line = next(line for line in re.findall("<li>(.*?)</li>", text) if line.startswith("Eliminated after fold 1"))
    assert all(name in line for name in gone) and len(gone) == 2


def test_the_timeline_has_every_stretch(usual: Made, text: str) -> None:
    drawn = text.split("<h3>Folds over time</h3>")[1].split("</figure>")[0]
    stretches = usual.arena.folds.picture(usual.arena.panel.closes)
    assert drawn.count("<rect x=") == len(stretches)
    for stretch in stretches:
        assert f"{stretch.name}, {stretch.kind}: {stretch.start.astype('datetime64[D]')}" in drawn


def test_no_regime_knows_its_own_bar_or_later_ones() -> None:
    returns = np.random.default_rng(0).normal(0.0003, 0.01, 500)
    changed = returns.copy()
    changed[400:] *= -5
    before, after = regimes(returns), regimes(changed)
    assert np.array_equal(before[:401], after[:401])
    assert not np.array_equal(before[401:], after[401:])


def test_regimes_of_a_market_that_turns_wild_and_falls() -> None:
    rng = np.random.default_rng(0)
    returns = np.concatenate([0.002 + rng.normal(0, 0.002, 300), -0.004 + rng.normal(0, 0.02, 300)])
    labels = regimes(returns)
    assert set(labels[:200]) == {""} and "" not in labels[200:]
    assert all(label.endswith("rising") for label in labels[200:300])
    assert set(labels[340:400]) == {"turbulent, falling"}


def test_every_day_is_in_one_regime(usual: Made, text: str) -> None:
    rows = table(text, "Regimes")
    assert usual.outcome.track is not None
    assert sum(number(row["Bars"]) for row in rows.values()) == len(usual.outcome.track.returns)
    seen = usual.arena.panel[: usual.arena.folds.folds[-1].spans.test.stop + 1]
    labels = regimes(equal_weight_returns(seen))[-len(usual.outcome.track.returns) :]
    name, row = max(rows.items(), key=lambda item: number(item[1]["Bars"]))
    own = usual.outcome.track.returns[labels == name]
    assert number(row["Bars"]) == len(own)
    assert number(row["Sharpe, ensemble"]) == pytest.approx(float(sharpe(own)), abs=0.006)


def test_the_deepest_fall_is_from_the_peak_to_the_bottom() -> None:
    assert deepest(np.array([0.1, -0.2, 0.1, -0.3, 0.5, -0.1])) == slice(1, 4)
    assert deepest(np.array([-0.1, 0.5])) == slice(0, 1)
    assert deepest(np.array([0.1, 0.2])) == slice(0, 0)


def test_crises_are_shown_where_the_test_days_hold_them_whole(tmp_path: Path) -> None:
    run = made(tmp_path)
    assert "the built-in market's dates are made up" in words(page_of(run))
    shift = np.datetime64("2020-03-23T21:00", "ns") - oracle_dates(run)[55]  # so that the last day is one of the bars
    panel = replace(run.arena.panel, times=run.arena.panel.times + shift, closes=run.arena.panel.closes + shift)
    panel = replace(
        panel, observed={k: replace(v, known_at=v.known_at + shift) for k, v in run.arena.panel.observed.items()}
    )
    later = made(tmp_path / "later", run.config, panel=panel)
    config = replace(run.config, data=DataConfig(FileSource("bars.csv")))
    file = tmp_path / "later.html"
    write(file, later.outcome, later.arena, config, tmp_path)
    text = file.read_text()
    rows = table(text, "Under stress")
    assert next(iter(rows)) == "2020 pandemic" and len(rows) == 2
    track = later.outcome.track
    assert track is not None
    days = track.dates.astype("datetime64[D]")
    inside = (days >= np.datetime64("2020-02-19")) & (days <= np.datetime64("2020-03-23"))
    assert inside.sum() > 20 and days[inside][-1] == np.datetime64("2020-03-23")
    assert number(rows["2020 pandemic"]["Bars"]) == inside.sum()
    shown = number(rows["2020 pandemic"]["Return, ensemble"]) / 100
    assert shown == pytest.approx(np.prod(1 + track.returns[inside]) - 1, abs=6e-4)


def oracle_dates(run: Made) -> np.ndarray:
    assert run.outcome.track is not None
    return run.outcome.track.dates


def test_targets_followed_at_the_same_costs_are_the_track(usual: Made, material: Material) -> None:
    assert material.ours is not None
    almost = 1.0 + 1e-9  # so that the backtest does run again
    ours, theirs = at_multiples(usual.arena, material, [almost])[almost]
    np.testing.assert_allclose(ours.returns, material.ours.returns, atol=2e-6)
    np.testing.assert_allclose(ours.traded, material.ours.traded, atol=2e-5)
    np.testing.assert_allclose(theirs.returns, material.theirs.returns, atol=1e-7)


def test_other_costs_take_other_amounts(usual: Made, material: Material) -> None:
    assert material.ours is not None
    found = at_multiples(usual.arena, material)
    assert list(found) == [0.0, 1.0, 2.0, 5.0]
    growth = {multiple: np.log1p(ours.returns).sum() for multiple, (ours, _) in found.items()}
    paid = sum(material.ours.costs[kind].sum() for kind in ("commission", "spread", "impact"))
    assert growth[0.0] - growth[1.0] == pytest.approx(paid, rel=0.05)
    assert growth[1.0] - growth[5.0] == pytest.approx(4 * paid, rel=0.1)
    free, _ = found[0.0]
    assert sum(amounts.sum() for kind, amounts in free.costs.items() if kind != "interest") == 0
    np.testing.assert_allclose(free.weights, material.ours.weights, atol=2e-3)


@pytest.mark.parametrize(
    ("edges", "at"),
    [
        ([1.0, 0.5, 0.1, 0.05], np.inf),
        ([1.0, 0.5, -0.5, -2.0], 1.5),
        ([1.0, 0.0, -1.0, -2.0], 1.0),
        ([-0.1, -1, -2, -3], 0.0),
    ],
)
def test_break_even_is_where_the_edge_ends(edges: list[float], at: float) -> None:
    assert break_even(np.array([0.0, 1.0, 2.0, 5.0]), np.array(edges)) == pytest.approx(at)


def test_parts_of_the_return_sum_to_all_of_it(usual: Made, text: str, material: Material) -> None:
    for track in material.tracks.values():
        gains, paid = contributions(track, material.market, material.days())
        assert gains.sum() + sum(paid.values()) == pytest.approx(np.prod(1 + track.returns) - 1, abs=2e-5)
    shown = table(text, "Return by asset")
    assert usual.outcome.track is not None
    total = float(np.prod(1 + usual.outcome.track.returns) - 1)
    assert number(shown["all"]["Return, ensemble"]) / 100 == pytest.approx(total, abs=6e-4)


def test_an_asset_that_was_not_held_added_nothing(usual: Made, material: Material) -> None:
    gains, paid = contributions(material.baselines["cash"], material.market, material.days())
    assert not gains.any() and not any(paid.values())


def test_average_weights_are_those_of_the_quarters(material: Material) -> None:
    track = material.ours
    assert track is not None
    names, means = average_weights(track)
    assert means.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    year, quarter = int(names[0][:4]), int(names[0][-1])
    months = track.dates.astype("datetime64[M]").astype(int)
    inside = (months // 12 + 1970 == year) & (months % 12 // 3 + 1 == quarter)
    np.testing.assert_allclose(means[0], track.weights[inside].mean(axis=0), atol=1e-6)


def test_stacked_areas_reach_from_nothing_to_all(material: Material) -> None:
    track = material.ours
    assert track is not None
    page = Report("t")
    page.stacked("Weights", track.dates, track.symbols, track.weights)
    paths = re.findall(r'<path d="M([^"]*)z"', page.html())
    assert len(paths) == len(track.symbols) + 1
    points = [np.array([pair.split() for pair in path.split("L")], float) for path in paths]
    half = len(points[0]) // 2
    assert (points[0][half:, 1] == 10_000).all() and (points[-1][:half, 1] == 0).all()
    for below, above in itertools.pairwise(points):
        assert np.array_equal(below[:half], above[half:][::-1])  # they adjoin


def test_members_are_measured_on_the_ensembles_days(usual: Made, material: Material) -> None:
    names, figures = members(usual.outcome.choices, material)
    best = usual.outcome.choices[0]
    assert names[0] == best.standing.name and material.ours is not None
    own = best.standing.returns[-len(material.ours.returns) :]
    assert figures["Sharpe ratio"][0] == pytest.approx(float(sharpe(own)))
    assert figures["Weight"].sum() == pytest.approx(1.0)


def test_settings_that_raise_the_score_correlate_with_it(usual: Made) -> None:
    standing = usual.outcome.standings[0]
    rates = (0.001, 0.002, 0.004, 0.008)

    def scored(rate: float, hidden: tuple[int, ...], score: float) -> Standing:
        candidate = Candidate(algorithm=replace(Candidate().algorithm, learning_rate=rate))
        candidate = replace(candidate, network=replace(candidate.network, hidden=hidden))
        return replace(standing, entrant=replace(standing.entrant, candidate=candidate), scores=((1, score),))

    widths = ((32,), (32, 32), (32,), (32, 32))
    found = importance([scored(rate, width, -rate) for rate, width in zip(rates, widths)])
    assert found["learning_rate"] == pytest.approx(-1.0)
    assert found["network.hidden = 32"] == pytest.approx(-found["network.hidden = 32x32"]) == pytest.approx(1 / 5**0.5)
    assert "gamma" not in found  # all the same


def test_few_candidates_have_no_correlations(usual: Made, text: str) -> None:
    assert "too few for correlations" in words(text)


def test_many_have_and_it_says_what_they_are(tmp_path: Path) -> None:
    config = replace(config_of(8), search=replace(config_of(8).search, algorithms=("direct",)))
    said = words(page_of(made(tmp_path, config)))
    assert "A correlation over few candidates (7 an algorithm), not a cause" in said


def test_provenance_names_what_made_it(usual: Made, text: str) -> None:
    footer = text.split("<footer>")[1]
    assert usual.arena.panel.hash in footer and f"run {usual.folder / 'config.yaml'}" in footer
    other = page_of(replace(usual, config=replace(usual.config, seed=1)))
    changed = {name: (a, b) for name, a, b in zip(*zip(*lines(footer)), [b for _, b in lines(other)]) if a != b}
    assert set(changed) == {"Configuration", "Seed"}


def lines(text: str) -> list[tuple[str, str]]:
    return re.findall("<dt>([^<]*)</dt><dd>([^<]*)</dd>", text.split("<footer>")[-1])


def test_an_unopened_hold_out_is_said_to_be_unopened(text: str) -> None:
    assert "The hold-out has not been opened" in text and "Hold-out p" not in text


def opened(run: Made, folder: Path, looks: int, bundle: str = "b" * 64) -> Verdict:
    found = replace(run.outcome.verdict, hold_out=HoldOut(98, 1.31, 0.46, 0.85, 0.2, 0.004))
    write_json(run.outcome.bundle / "manifest.json", {"hash": "b" * 64})
    write_json(folder / OPENINGS, {"openings": [{"at": f"2024-05-0{day + 1}"} for day in range(looks)]})
    write_json(folder / VERDICT, {"bundle": bundle, "openings": looks, **found.to_dict()})
    return found


@pytest.mark.parametrize(("looks", "times"), [(1, "once"), (3, "3 times")])
def test_an_opened_hold_out_is_counted_and_leads(tmp_path: Path, looks: int, times: str) -> None:
    run = made(tmp_path)
    run.outcome.bundle.mkdir()
    found = opened(run, tmp_path, looks)
    said = words(page_of(run))
    assert f"The hold-out was opened {times}, last at 2024-05-0{looks}" in said
    assert said.index(found.text) < said.index("SPA") and "Hold-out p" in said
    assert f"Tournament: {found.outcome}" in said and "nothing on this page has seen it" not in said


def test_a_hold_out_opened_for_another_bundle_says_nothing_about_this_one(tmp_path: Path) -> None:
    run = made(tmp_path)
    run.outcome.bundle.mkdir()
    opened(run, tmp_path, 1, bundle="a" * 64)
    said = words(page_of(run))
    assert "opened once" in said and "not this bundle" in said and run.outcome.verdict.text in said
    assert "Hold-out p" not in said


def test_nobody_eligible_is_said(tmp_path: Path) -> None:
    run = made(tmp_path, skill=-0.004)
    assert run.outcome.choices == []
    said = words(page_of(run))
    assert "Nobody was eligible" in said and "Not better than equal weight" in said
    assert "There are no members" in said


def test_one_fold_has_no_ensemble_and_the_page_says_so(tmp_path: Path) -> None:
    run = made(tmp_path, config_of(folds=replace(FOLDS, count=1)))
    assert run.outcome.track is None
    text = page_of(run)
    assert tuple(re.findall("<h2>([^<]*)</h2>", text)) == SECTIONS
    said = words(text)
    assert "The ensemble has no walk-forward" in said and IN_VIEW not in said
    assert "ensemble" not in table(text, "In figures") and "Monthly returns of equal weight" in said


def test_a_short_span_leaves_out_what_it_cannot_show(tmp_path: Path) -> None:
    run = made(tmp_path, config_of(folds=replace(FOLDS, train=60, validation=0, test=15, count=2, holdout=0)))
    said = words(page_of(run))
    assert "it is left out" in said and "too few for regimes" in said and "Turnover a year, " not in said


def test_nobody_scored_is_a_page_too(tmp_path: Path) -> None:
    run = made(tmp_path, config_of(1))
    assert all(standing.status == "diverged" for standing in run.outcome.standings)
    said = words(page_of(run))
    assert "No candidate was ever scored" in said and "diverged: its loss was <NaN>" in said


def test_nothing_is_fetched_and_no_name_can_run(tmp_path: Path) -> None:
    run = made(tmp_path, symbols=EVIL)
    text = page_of(run)
    assert not re.findall(r"(?:https?:)?//[a-z]", text.split("<body>")[1].split("<script>")[0])
    assert not re.findall(r"<(?:link|img|iframe|object)|\bsrc=|\bhref=|url\(|@import", text)
    assert "<b>X" not in text and "</script>" not in text.replace("}</script>", "").replace("})();\n</script>", "")
    markup = re.sub('<script type="application/json">.*?</script>', "", text)
    assert "A&B" not in markup and '"Q"' not in markup
    assert "&lt;b&gt;X&lt;/b&gt;" in text and list(table(text, "Return by asset"))[:5] == list(EVIL)
    assert text.count("<script>") == 1
    assert list(tmp_path.glob("report*")) == [tmp_path / "report.html"]


def test_the_hold_out_leaves_no_trace_before_it_is_opened(tmp_path: Path, usual: Made, text: str) -> None:
    """Other bars after the last test day: the same page but for the hash of the data."""
    panel, last = usual.arena.panel, usual.arena.folds.folds[-1].spans.test.stop
    changed = {name: getattr(panel, name).copy() for name in ("open", "high", "low", "close")}
    for values in changed.values():
        values[last + 1 :] *= 1.7
    other = made(tmp_path, usual.config, panel=replace(panel, **changed))
    assert other.arena.panel.hash != panel.hash
    ours, theirs = (
        page.replace(str(folder), "") for page, folder in ((text, usual.folder), (page_of(other), tmp_path))
    )
    assert ours.replace(panel.hash, "") == theirs.replace(other.arena.panel.hash, "")


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_it_opens_without_error_or_sideways_scroll(tmp_path: Path, width: int) -> None:
    run = made(tmp_path, symbols=tuple(f"LONGNAME{number}.EXCHANGE" for number in range(5)))
    page_of(run)
    file = tmp_path / "report.html"
    dom = dump_dom(file, width)
    assert 'data-ready="yes"' in dom[:200] and "data-error" not in dom[:400]
    inner, content, charts, empty = evaluate(
        file,
        width,
        "const plots = [...document.querySelectorAll('.plot > svg')];"
        "return [innerWidth, document.documentElement.scrollWidth, plots.length,"
        "plots.filter(plot => plot.getBoundingClientRect().height < 20).length]",
    )
    assert inner == width and content <= inner
    assert charts > 8 and empty == 0
