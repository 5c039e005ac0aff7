"""The registry: who may serve, and who said so."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from bundles import SHARED, saved
from hypothesis import given, settings
from hypothesis import strategies as st
from versions import NAMES, STRETCH, clock, crown, everything, judge, refusal, states, told, with_verdict

import tournament.verdict
from agents.bundle import load
from serve.record import STATES, Entry
from serve.registry import BETTER, Registry, utc_now

# -- taking in


def test_a_registered_bundle_is_a_verified_copy(originals: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry", clock())
    source = originals / "alpha" / "bundle"
    hash_ = load(source).hash
    entry = registry.register(source, "ann", "looks good")
    assert entry == Entry(hash_[:12], hash_, "registered", "alpha", "2024-01-01T00:01:00Z")
    assert registry.entries == (entry,) and registry.champion is None
    copy = registry.bundle_of(entry.version)
    assert copy == tmp_path / "registry" / "versions" / hash_[:12] / "bundle"
    assert everything(copy) == everything(source) and load(copy).hash == hash_
    (move,) = registry.history
    assert (move.who, move.version, move.before, move.after) == ("ann", entry.version, None, "registered")
    assert (move.at, move.reason, move.forced) == (entry.at, "looks good", False)
    assert registry.verdict_of(entry.version) is None and registry.records_of(entry.version) == ()


def test_the_copy_does_not_need_the_original(runs: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    entry = registry.register(runs / "alpha" / "bundle", "ann")
    shutil.rmtree(runs)
    assert load(registry.bundle_of(entry.version)).hash == entry.hash


@pytest.mark.parametrize("name", ["manifest.json", "reference.json", "member-0.safetensors"])
def test_a_tampered_bundle_is_refused_by_name_and_nothing_is_left(runs: Path, tmp_path: Path, name: str) -> None:
    file = runs / "alpha" / "bundle" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    line = refusal(Registry(tmp_path / "registry").register, file.parent, "ann")
    assert line.startswith(str(file))
    assert not (tmp_path / "registry").exists()


def test_a_bundle_that_changes_while_it_is_copied_is_refused_and_nothing_is_left(
    runs: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, source = everything(registry.folder), runs / "alpha" / "bundle"
    saved(runs / "new" / "bundle", (SHARED, SHARED, SHARED))
    copy = shutil.copyfile

    def damaged(source: Path, target: Path) -> None:
        copy(source, target)
        target.write_bytes(target.read_bytes()[:-1])

    monkeypatch.setattr(shutil, "copyfile", damaged)
    assert "was changed while it was copied" in refusal(registry.register, runs / "new" / "bundle", "ann")
    assert everything(registry.folder) == before
    assert len(list((registry.folder / "versions").iterdir())) == len(NAMES)
    monkeypatch.undo()
    assert registry.register(source, "ann") == registry.entries[0]


def test_the_same_bundle_again_is_the_same_entry(originals: Path, registry: Registry, versions: list[str]) -> None:
    registry.move(versions[0], "shadow", "bob")
    before = everything(registry.folder)
    assert registry.register(originals / "alpha" / "bundle", "eve", "again") == registry.entries[0]
    assert registry.entries[0].state == "shadow"
    assert everything(registry.folder) == before


def test_a_verdict_is_taken_over_with_the_bundle_and_when_it_comes_later(runs: Path, tmp_path: Path) -> None:
    registry, source = Registry(tmp_path / "registry"), runs / "alpha" / "bundle"
    version = registry.register(source, "ann").version
    judge(source, "promising, hold-out unopened", openings=0)
    registry.register(source, "ann")
    first = registry.verdict_of(version)
    assert first is not None and first["outcome"] == "promising, hold-out unopened"
    path = judge(source, openings=1)
    registry.register(source, "ann")
    assert registry.verdict_of(version) == json.loads(path.read_text())
    assert (
        json.loads((tmp_path / "registry" / "versions" / version / "bundle.verdict.json").read_text())["level"] == 0.05
    )
    judge(source, "promising, hold-out unopened", openings=0)  # an old copy of the run
    registry.register(source, "ann")
    path.unlink()
    registry.register(source, "ann")
    kept = registry.verdict_of(version)
    assert kept is not None and kept["outcome"] == BETTER
    assert [e.state for e in registry.entries] == ["registered"] and len(registry.history) == 1


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"bundle": "0" * 64, "outcome": BETTER, "openings": 1}, "bundle = '0000"),
        ({"outcome": BETTER, "openings": 1}, "bundle: is missing"),
        ({"bundle": "HASH", "openings": 1}, "outcome: is missing"),
        ({"bundle": "HASH", "outcome": 7, "openings": 1}, "outcome = 7"),
        ({"bundle": "HASH", "outcome": BETTER, "openings": "many"}, "openings = 'many'"),
        ([], "holds a list"),
    ],
)
def test_a_verdict_on_something_else_is_refused_and_nothing_is_left(
    runs: Path, tmp_path: Path, tree: Any, words: str
) -> None:
    source = runs / "alpha" / "bundle"
    path = source.with_name("bundle.verdict.json")
    path.write_text(json.dumps(tree).replace("HASH", load(source).hash))
    line = refusal(Registry(tmp_path / "registry").register, source, "ann")
    assert line.startswith(str(path)) and words in line
    assert not (tmp_path / "registry").exists()


def test_two_bundles_of_one_version_are_refused(originals: Path, registry: Registry, versions: list[str]) -> None:
    """Their hashes begin alike: by chance, or because somebody has searched for long."""
    path = registry.folder / "registry.json"
    tree = json.loads(path.read_text())
    hash_ = tree["entries"][0]["hash"]
    tree["entries"][0]["hash"] = hash_[:-1] + ("0" if hash_[-1] != "0" else "1")
    path.write_text(json.dumps(tree))
    before = everything(registry.folder)
    line = refusal(registry.register, originals / "alpha" / "bundle", "ann")
    assert f"its version {versions[0]} is that of another bundle" in line
    assert everything(registry.folder) == before


# -- states


def test_any_state_may_follow_any_other(registry: Registry, versions: list[str]) -> None:
    ways = [way for a, b in combinations(STATES, 2) for way in ((a, b), (b, a))]
    for before, after in ways:
        if registry.entry(versions[0]).state != before:
            registry.move(versions[0], before, "ann", "as wanted", force=True)
        assert registry.move(versions[0], after, "bob", "as wanted", force=True).state == after
        assert told(registry)[-1] == (0, before, after)
    assert ("retired", "registered") in ways and ("registered", "champion") in ways


@pytest.mark.parametrize("state", STATES)
def test_moving_to_where_it_is_is_refused(registry: Registry, versions: list[str], state: str) -> None:
    if state != "registered":
        registry.move(versions[0], state, "ann", "first")
    before = everything(registry.folder)
    assert f"{versions[0]}: is {state} already" in refusal(registry.move, versions[0], state, "ann", "so", force=True)
    assert everything(registry.folder) == before


def test_there_are_many_shadows_and_one_canary(registry: Registry, versions: list[str]) -> None:
    for version in versions:
        registry.move(version, "shadow", "ann")
    registry.move(versions[1], "canary", "ann")
    line = refusal(registry.move, versions[2], "canary", "ann", "please", force=True)
    assert line.startswith(f"{versions[2]}: cannot become canary beside {versions[1]}")
    assert {state: [e.version for e in found] for state, found in registry.active().items()} == {
        "shadow": [versions[0], versions[2]],
        "canary": [versions[1]],
        "champion": [],
    }


def test_a_new_champion_retires_the_former_one_in_a_move_of_its_own(registry: Registry, versions: list[str]) -> None:
    registry.move(versions[0], "champion", "ann", "the first")
    registry.move(versions[1], "canary", "ann")
    registry.move(versions[1], "champion", "bob", "is better", force=True)
    assert states(registry) == ["retired", "champion", "registered"]
    assert registry.champion == registry.entries[1]
    assert told(registry, 5) == [(0, "champion", "retired"), (1, "canary", "champion")]
    retired, crowned = registry.history[5:]
    assert (retired.who, retired.at, retired.reason) == ("bob", crowned.at, f"{versions[1]} followed: is better")
    assert (retired.forced, crowned.forced, crowned.reason) == (False, True, "is better")
    assert registry.entries[0].at == registry.entries[1].at == crowned.at


OUTCOMES = [None, BETTER, tournament.verdict.PROMISING, tournament.verdict.NOT_BETTER]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_champion_has_a_verdict_and_a_record_or_a_reason(
    registry: Registry, versions: list[str], outcome: str | None, recorded: bool, first: bool
) -> None:
    version = versions[0]
    if not first:
        registry.move(versions[1], "champion", "ann", "the first")
        registry.move(versions[1], "retired", "ann")  # that there is none now makes nobody the first
    if outcome:
        with_verdict(registry, version, outcome)
    if recorded:
        registry.record(version, STRETCH)
    earned = outcome == tournament.verdict.BETTER and recorded
    before = everything(registry.folder)
    for reason, force in [("", False), ("", True), ("because", False), ("because", True)]:
        if earned or (reason and (force or first)):
            registry.move(version, "champion", "bob", reason, force)
            assert registry.champion == registry.entry(version)
            assert registry.history[-1].forced == (not earned and not first)
            (registry.folder / "registry.json").write_bytes(before["registry.json"])
            continue
        line = refusal(registry.move, version, "champion", "bob", reason, force)
        assert ("the verdict 'better than equal weight'" in line) == (outcome != BETTER)
        assert ("it has none" in line) == (outcome is None)
        assert (f"it is '{outcome}'" in line) == (outcome not in (None, BETTER))
        assert ("a paper record" in line) == (not recorded)
        assert line.endswith("(--reason TEXT)" if first else "(--force --reason TEXT)")
        assert everything(registry.folder) == before


def test_the_outcome_that_counts_is_the_tournaments_best() -> None:
    assert BETTER == tournament.verdict.BETTER


@pytest.mark.parametrize("state", ["shadow", "canary", "champion"])
def test_a_damaged_copy_is_not_served_until_it_is_registered_again(
    registry: Registry, originals: Path, versions: list[str], state: str
) -> None:
    file = registry.bundle_of(versions[0]) / "member-0.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert refusal(registry.move, versions[0], state, "ann", "so").startswith(str(file))
    assert states(registry) == ["registered"] * 3
    registry.move(versions[0], "retired", "ann")  # nobody is served that
    registry.register(originals / "alpha" / "bundle", "ann")
    assert load(file.parent).hash == registry.entry(versions[0]).hash
    assert registry.move(versions[0], state, "ann", "so").state == state


def test_another_bundle_in_the_place_of_a_version_is_refused(registry: Registry, versions: list[str]) -> None:
    folder = registry.bundle_of(versions[0])
    shutil.rmtree(folder)
    shutil.copytree(registry.bundle_of(versions[1]), folder)
    line = refusal(registry.move, versions[0], "shadow", "ann")
    assert line.startswith(f"{folder}: is the bundle {versions[1]}") and versions[0] in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("SELF", "chief", "ann"), "state = 'chief': expected one of registered, shadow"),
        (("SELF", "shadow", " \n"), "who = ' \\n': expected some text"),
        (("SELF", "shadow", "an\x1b[2Jn"), "who = "),
        (("SELF", "shadow", "ann", "be\x00cause"), "reason = "),
        (("abcdabcdabcd", "shadow", "ann"), "version = 'abcdabcdabcd': is not registered; known versions: "),
        (("", "shadow", "ann"), "version = ''"),
    ],
)
def test_what_makes_no_sense_is_refused(
    registry: Registry, versions: list[str], arguments: tuple[str, ...], words: str
) -> None:
    assert words in refusal(registry.move, *(a.replace("SELF", versions[0]) for a in arguments))
    assert states(registry) == ["registered"] * 3


def test_reasons_are_kept_on_one_line(registry: Registry, versions: list[str]) -> None:
    registry.move(versions[0], "shadow", " Ann\tB. ", "one\n two ")
    assert (registry.history[-1].who, registry.history[-1].reason) == ("Ann B.", "one two")


# -- rolling back


def test_rollbacks_walk_back_one_promotion_each(registry: Registry, versions: list[str]) -> None:
    a, b, c = versions
    crown(registry, a, b, c)
    since = len(registry.history)
    assert registry.rollback("bob", "it loses").version == b
    assert states(registry) == ["retired", "champion", "retired"]
    assert registry.rollback("bob", "that one too").version == a
    assert states(registry) == ["champion", "retired", "retired"]
    assert told(registry, since) == [
        (2, "champion", "retired"),
        (1, "retired", "champion"),
        (1, "champion", "retired"),
        (0, "retired", "champion"),
    ]
    moves = registry.history[since:]
    assert [move.reason for move in moves] == [
        f"{b} followed: it loses",
        "it loses",
        f"{a} followed: that one too",
        "that one too",
    ]
    assert all(move.rollback and not move.forced and move.who == "bob" for move in moves)
    before = everything(registry.folder)
    assert "there is no former champion" in refusal(registry.rollback, "bob", "and on")
    assert everything(registry.folder) == before


def test_there_is_nothing_to_roll_back_to_before_the_second_champion(registry: Registry, versions: list[str]) -> None:
    assert "there is no former champion" in refusal(registry.rollback, "bob", "so")
    crown(registry, versions[0])
    assert "there is no former champion" in refusal(registry.rollback, "bob", "so")
    crown(registry, versions[1])
    assert "reason" in refusal(registry.rollback, "bob", " ")
    assert registry.champion == registry.entries[1]


def test_a_promotion_after_a_rollback_is_undone_first(registry: Registry, versions: list[str]) -> None:
    a, b, c = versions
    crown(registry, a, b)
    registry.rollback("bob", "so")  # a
    crown(registry, c)
    assert [registry.rollback("bob", "so").version] == [a]
    assert "there is no former champion" in refusal(registry.rollback, "bob", "so")


def test_a_champion_crowned_again_by_hand_is_a_promotion_as_any_other(registry: Registry, versions: list[str]) -> None:
    a, b, _ = versions
    crown(registry, a, b, a)
    assert [registry.rollback("bob", "so").version for _ in range(2)] == [b, a]


def test_who_stepped_down_by_hand_is_brought_back(registry: Registry, versions: list[str]) -> None:
    a, b, _ = versions
    crown(registry, a, b)
    registry.move(b, "shadow", "ann")
    assert registry.champion is None
    assert registry.rollback("bob", "we need one").version == b
    assert told(registry)[-1] == (1, "shadow", "champion")
    assert registry.rollback("bob", "not that one").version == a
    registry.move(a, "retired", "ann")
    crown(registry, a)
    assert "there is no former champion" in refusal(registry.rollback, "bob", "so")


def test_a_rollback_to_a_damaged_bundle_is_refused_and_the_champion_stays(
    registry: Registry, versions: list[str]
) -> None:
    crown(registry, *versions[:2])
    (registry.bundle_of(versions[0]) / "reference.json").write_text("{}")
    before = everything(registry.folder)
    assert "reference.json" in refusal(registry.rollback, "bob", "so")
    assert everything(registry.folder) == before


@settings(max_examples=12)
@given(
    st.lists(
        st.one_of(st.tuples(st.integers(0, 2), st.sampled_from(STATES)), st.just("rollback")), min_size=4, max_size=14
    )
)
def test_whatever_is_done_there_is_one_champion_and_the_history_tells_it(template: Path, acts: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as there:
        registry = Registry(shutil.copytree(template, Path(there) / "registry"), clock())
        order = [entry.version for entry in registry.entries]
        found, undo = ["registered"] * 3, list[int]()  # the model: states, and promotions that stand
        for act in acts:
            now = found.index("champion") if "champion" in found else None
            if act == "rollback":
                stands = undo[:-1] if now is not None else undo
                if not stands:
                    refusal(registry.rollback, "bob", "so")
                else:
                    assert registry.rollback("bob", "so").version == order[stands[-1]]
                    if now is not None:
                        found[now] = "retired"
                    undo, found[stands[-1]] = stands, "champion"
            else:
                who, state = act
                if found[who] == state or (state == "canary" and "canary" in found):
                    refusal(registry.move, order[who], state, "ann", "so", force=True)
                else:
                    registry.move(order[who], state, "ann", "so", force=True)
                    if state == "champion":
                        if now is not None:
                            found[now] = "retired"
                        undo += [who] * (undo[-1:] != [who])
                    found[who] = state
            assert states(registry) == found
            assert found.count("champion") <= 1 and found.count("canary") <= 1
            champion = registry.champion
            assert (order.index(champion.version) if champion else None) == (
                found.index("champion") if "champion" in found else None
            )


# -- paper records


def test_a_paper_record_is_kept_once(registry: Registry, versions: list[str]) -> None:
    later = replace(STRETCH, id="week-2", started=STRETCH.ended, ended="2024-01-15T00:00:00+00:00")
    assert registry.record(versions[0], STRETCH) and registry.record(versions[0], later)
    before = everything(registry.folder)
    assert not registry.record(versions[0], replace(STRETCH))
    assert everything(registry.folder) == before
    assert registry.records_of(versions[0]) == (STRETCH, later)
    assert registry.records_of(versions[1]) == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [("bars", 6), ("total_return", 0.0100001), ("benchmark_return", 0.0), ("max_drawdown", 0.0), ("orders", 8),
     ("halts", 1), ("started", "2024-01-02T00:00:00Z"), ("ended", "2024-01-09T00:00:00Z")],
)  # fmt: skip
def test_the_same_id_with_other_content_is_refused(
    registry: Registry, versions: list[str], name: str, value: Any
) -> None:
    registry.record(versions[0], STRETCH)
    line = refusal(registry.record, versions[0], replace(STRETCH, **{name: value}))
    assert line.startswith(f"{versions[0]}: id = 'week-1'")
    assert registry.records_of(versions[0]) == (STRETCH,)
    assert registry.record(versions[1], replace(STRETCH, **{name: value})), "of another version it is another record"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("bars", 0, "bars = 0: must be at least 1"),
        ("orders", -1, "orders = -1: must be at least 0"),
        ("halts", -1, "halts = -1: must be at least 0"),
        ("bars", 2.5, "bars = 2.5: expected a whole number"),
        ("total_return", float("nan"), "total_return = nan: expected a number"),
        ("benchmark_return", float("inf"), "benchmark_return = inf: expected a number"),
        ("max_drawdown", 0.1, "max_drawdown = 0.1: must be at least -1 and at most 0"),
        ("max_drawdown", -1.1, "max_drawdown = -1.1: must be at least -1"),
    ],
)
def test_a_record_that_cannot_be_is_refused(
    registry: Registry, versions: list[str], name: str, value: Any, words: str
) -> None:
    assert words in refusal(registry.record, versions[0], replace(STRETCH, **{name: value}))
    assert registry.records_of(versions[0]) == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"id": " "},
        {"id": "week\n1"},
        {"started": "yesterday"},
        {"started": "2024-01-01T00:00:00"},
        {"ended": "2024-01-08T00:00:00+02:00"},
        {"ended": "2023-12-31T00:00:00Z"},
    ],
)
def test_a_record_has_a_name_and_times_in_utc(changes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="expected"):
        replace(STRETCH, **changes)


# -- reading


def test_an_entry_is_found_by_its_first_digits(registry: Registry, versions: list[str]) -> None:
    for number, version in enumerate(versions):
        entry = registry.entries[number]
        for text in (version, entry.hash, version[:11]):
            assert registry.entry(text) == entry
    assert "expected at least 4 digits" in refusal(registry.entry, versions[0][:3])
    assert f"known versions: {', '.join(versions)}" in refusal(registry.entry, "../../etc/passwd")


def test_first_digits_that_two_share_are_refused(registry: Registry) -> None:
    """Registered for show: these bundles are not there."""
    hashes = ["abcd1" + "0" * 59, "abcd2" + "0" * 59]
    at, path = utc_now(), registry.folder / "registry.json"
    entries = [{"version": h[:12], "hash": h, "state": "registered", "name": "x", "at": at} for h in hashes]
    shared = {"at": at, "who": "ann", "before": None, "after": "registered", "reason": "", "forced": False}
    history = [{**shared, "version": h[:12], "rollback": False} for h in hashes]
    path.write_text(json.dumps({"format": 1, "entries": entries, "history": history}))
    assert "could be abcd10000000, abcd20000000; give more digits" in refusal(registry.entry, "abcd")
    assert registry.entry("abcd2").hash == hashes[1]


def test_reading_where_nothing_is_makes_nothing(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    assert registry.entries == registry.history == ()
    assert registry.champion is None
    assert registry.active() == {"shadow": [], "canary": [], "champion": []}
    assert registry.lines() == ["no bundle is registered yet"]
    assert "known versions: none" in refusal(registry.entry, "abcd")
    assert not (tmp_path / "registry").exists()


def test_a_file_is_no_registry(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is a file; expected the folder of a registry" in refusal(Registry, tmp_path / "file")


def test_the_table_says_who_serves_and_why(registry: Registry, versions: list[str]) -> None:
    registry.move(versions[2], "canary", "cid", "try it")
    registry.move(versions[0], "champion", "ann", "the first")
    registry.move(versions[1], "champion", "bob", "we must", force=True)
    with_verdict(registry, versions[2], BETTER)
    registry.record(versions[2], STRETCH)
    rows = [line.split() for line in registry.lines()]
    assert rows[0] == ["state", "version", "name", "since", "verdict", "records", "who", "and", "why"]
    assert rows[1] == f"champion {versions[1]} beta 2024-01-01T00:03:00Z none 0 bob (forced): we must".split()
    assert rows[2] == f"canary {versions[2]} gamma 2024-01-01T00:01:00Z {BETTER} 1 cid: try it".split()
    assert rows[3][:2] == ["retired", versions[0]] and rows[3][-5:] == ["bob:", versions[1], "followed:", "we", "must"]
    assert len({line.index(word) for line, word in zip(registry.lines(), ("who", "bob", "cid"))}) == 1


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def edit(data: bytes) -> bytes:
        tree = json.loads(data)
        change(tree)
        return json.dumps(tree).encode()

    return edit


DAMAGES: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda data: b"", "is not valid JSON"),
    (lambda data: data[: len(data) // 2], "is not valid JSON"),
    (lambda data: b"[]", "holds a list"),
    (edited(lambda t: t.update(format=2)), "format = 2: expected 1"),
    (edited(lambda t: t.pop("format")), "format = None: expected 1"),
    (edited(lambda t: t.pop("history")), "history: is missing"),
    (edited(lambda t: t.pop("entries")), "entries: is missing"),
    (edited(lambda t: t.update(notes=1)), "notes = 1: unknown key"),
    (edited(lambda t: t["entries"][0].pop("hash")), "entries.0.hash: is missing"),
    (edited(lambda t: t["entries"][1].update(hash="0" * 64)), "expected the hash's first digits, 000000000000"),
    (edited(lambda t: t["entries"][1].update(hash="../../x")), "expected 64 hexadecimal digits"),
    (edited(lambda t: t["entries"][1].update(version="../../x")), "version = '../../x'"),
    (edited(lambda t: t["entries"][2].update(state="boss")), "entries.2.state = 'boss'"),
    (edited(lambda t: t["entries"][2].update(state="canary")), "the history tells that it is registered"),
    (edited(lambda t: t["entries"][2].update(at="2020-01-01T00:00:00Z")), "entries.2 is registered since 2020-01-01"),
    (edited(lambda t: t["entries"].pop()), "the history tells of"),
    (edited(lambda t: t["entries"].append(t["entries"][0])), "the history tells of"),
    (edited(lambda t: t["entries"].reverse()), "the history tells of"),
    (edited(lambda t: t["history"].pop()), "the history tells that it is champion"),
    (edited(lambda t: t["history"].pop(0)), "history.2.before = 'registered': "),
    (edited(lambda t: t["history"][4].pop("forced")), "history.4.forced: is missing"),
    (edited(lambda t: t["history"][4].update(before="shadow")), "history.4.before = 'shadow'"),
    (edited(lambda t: t["history"][4].update(at="noon")), "history.4"),
    (edited(lambda t: t["history"][3].update(rollback=True)), "history.3.rollback = true"),
    (edited(lambda t: t["history"].pop(4)), "history.4.after = 'champion'"),
]


@pytest.fixture(scope="module")
def eventful(template: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a registry in which a champion was followed by another, who stepped down."""
    registry = Registry(shutil.copytree(template, tmp_path_factory.mktemp("eventful") / "registry"), clock())
    versions = [entry.version for entry in registry.entries]
    crown(registry, versions[0], versions[1])
    registry.move(versions[1], "shadow", "ann")
    return (registry.folder / "registry.json").read_bytes()


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_a_damaged_registry_is_refused_by_name(
    registry: Registry, versions: list[str], eventful: bytes, damage: Callable[[bytes], bytes], words: str
) -> None:
    path = registry.folder / "registry.json"
    path.write_bytes(damage(eventful))
    before = everything(registry.folder)
    for act in (lambda: registry.entries, lambda: registry.move(versions[2], "shadow", "ann"), registry.lines):
        line = refusal(act)
        assert line.startswith(str(path)) and words in line
    assert everything(registry.folder) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not valid JSON"),
        ('{"records": [{}]}', "records.0.id: is missing"),
        ('{"records": [1]}', "records.0 = 1"),
        ("{}", "records: is missing"),
        ('{"records": [ONE, ONE]}', "the id 'week-1' is given twice"),
        ('{"records": [ONE], "more": 1}', "more = 1: unknown key"),
    ],
)
def test_damaged_records_are_refused_by_name(registry: Registry, versions: list[str], text: str, words: str) -> None:
    registry.record(versions[0], STRETCH)
    path = registry.folder / "versions" / versions[0] / "records.json"
    one = json.dumps(json.loads(path.read_text())["records"][0])
    path.write_text(text.replace("ONE", one))
    for act in (
        lambda: registry.records_of(versions[0]),
        lambda: registry.move(versions[0], "champion", "ann", "so"),
        lambda: registry.record(versions[0], STRETCH),
    ):
        line = refusal(act)
        assert line.startswith(str(path)) and words in line
