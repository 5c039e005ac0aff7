"""Checkpoints: killed anywhere, a training ends as if it had never been; a damaged file is one clear line."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pods import (
    EVERYTHING,
    KINDS,
    ROLLOUTS,
    SPANS,
    STEPS,
    candidate,
    finished,
    market,
    policy,
    run,
    same,
    weights_of,
)

from envs.market import MarketTensors
from kit.errors import UserError
from kit.files import hash_json
from podracer import checkpoint
from podracer.start import Start
from podracer.training import Training

PLANTED = "planted.txt"


class Bomb:
    """Unpickled, it writes a file: what a hostile checkpoint would do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.write_text, (self.folder / PLANTED, "executed")


def stopped(kind: str, rollouts: int, file: Path, **more: Any) -> Training:
    """A training that wrote a checkpoint after some rollouts, and went on a little before it was killed."""
    training = Training(candidate(kind, EVERYTHING), market(), SPANS, **more)
    for _ in range(rollouts):
        training.advance()
    checkpoint.write(file, training.state_dict())
    return training


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        checkpoint.read(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


def meaning(state: Any) -> str:
    """What a state says, in short."""
    return hash_json(plain(state))


def plain(value: Any) -> Any:
    """Tensors as lists."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


# -- continuing


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rollouts", [1, 3, ROLLOUTS - 1])
def test_a_training_killed_anywhere_ends_to_the_last_bit_as_if_it_had_not_been(
    kind: str, rollouts: int, tmp_path: Path
) -> None:
    """With every reward term, so that what the differential Sharpe ratio remembers is carried on too."""
    file = tmp_path / "checkpoint.pt"
    first = stopped(kind, rollouts, file)
    if not first.done:
        first.advance()  # what the file does not hold is lost
    again = Training(candidate(kind, EVERYTHING), market(), SPANS)
    again.load_state_dict(checkpoint.read(file))
    whole = finished(kind, EVERYTHING)
    run(again)
    assert again.history == whole.history
    assert (again.samples, again.best_samples) == (whole.samples, whole.best_samples)
    assert same(policy(again), policy(whole))
    assert same(weights_of(again), weights_of(whole))
    assert meaning(again.state_dict()) == meaning(whole.state_dict())


def test_the_sharpe_memory_of_the_tests_above_is_not_empty(tmp_path: Path) -> None:
    stopped("ppo", 1, tmp_path / "checkpoint.pt")
    memory = checkpoint.read(tmp_path / "checkpoint.pt")["pod"]["sharpe"]
    assert float(memory["square"].max()) > 0


def test_a_finished_training_is_continued_to_itself(tmp_path: Path) -> None:
    whole = finished("ppo", EVERYTHING)
    checkpoint.write(tmp_path / "end.pt", whole.state_dict())
    again = Training(candidate("ppo", EVERYTHING), market(), SPANS)
    again.load_state_dict(checkpoint.read(tmp_path / "end.pt"))
    assert again.done
    assert same(policy(again), policy(whole))
    assert again.result().history == whole.result().history


def test_a_training_without_its_generators_would_end_elsewhere(tmp_path: Path) -> None:
    """Or the claim above would hold for any checkpoint."""
    stopped("ppo", 3, tmp_path / "checkpoint.pt")
    for part, name in (("pod", "generator"), ("agent", "generator"), ("agent", "explorer")):
        state = checkpoint.read(tmp_path / "checkpoint.pt")
        state[part][name] = torch.Generator().manual_seed(99).get_state()
        again = Training(candidate("ppo", EVERYTHING), market(), SPANS)
        again.load_state_dict(state)
        assert not same(weights_of(run(again)), weights_of(finished("ppo", EVERYTHING)))


def test_continuing_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    stopped("sac", 1, tmp_path / "checkpoint.pt")
    before = torch.get_rng_state()
    again = Training(candidate("sac", EVERYTHING), market(), SPANS)
    again.load_state_dict(checkpoint.read(tmp_path / "checkpoint.pt"))
    again.advance()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_checkpoint_is_no_larger_than_what_was_collected(tmp_path: Path) -> None:
    """A buffer for a million transitions that holds a few is a few on disk."""
    sizes = []
    for buffer in (256, 500_000):
        training = Training(candidate("td3", buffer=buffer), market(), SPANS)
        training.advance()
        checkpoint.write(tmp_path / "checkpoint.pt", training.state_dict())
        sizes.append((tmp_path / "checkpoint.pt").stat().st_size)
    row = training.agent.buffer.bytes_per_transition
    assert sizes[1] < sizes[0] + row * STEPS


# -- another training's


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["candidate", "seed", "spans", "market", "start"])
def test_a_checkpoint_of_another_training_is_refused_by_what_differs(kind: str, what: str, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"
    stopped(kind, 0, file)
    made, world, spans, seed, start = candidate(kind, EVERYTHING), market(), SPANS, 0, Start()
    if what == "candidate":
        made = candidate(kind, EVERYTHING, weight_decay=0.25)
    elif what == "seed":
        seed = 1
    elif what == "spans":
        spans = replace(SPANS, validation=slice(SPANS.validation.start, SPANS.validation.stop - 1))
    elif what == "market":
        features = world.features.clone()
        features[-1, -1, -1] += 1e-3
        world = replace(world, features=features)
    else:
        start = Start(str(file))
    training = Training(made, world, spans, seed, start)
    before = weights_of(training)
    with pytest.raises(UserError) as caught:
        training.load_state_dict(checkpoint.read(file))
    assert str(caught.value).startswith(f"checkpoint: {what} = ")
    assert "\n" not in str(caught.value)
    assert same(weights_of(training), before)  # nothing was taken from it


@pytest.mark.parametrize("field", ["trading", "extra", "open_now", "interest"])
def test_a_market_that_trades_otherwise_is_another_market(field: str, tmp_path: Path) -> None:
    """Costs, the calendar and interest decide what is learnt as much as prices do."""
    world = market()
    trading = world.trading
    changes: dict[str, Any] = {
        "trading": replace(trading, costs=replace(trading.costs, half_spread_bp=50.0)),
        "extra": torch.full_like(world.table[0], 0.01),
        "open_now": torch.ones_like(world.table[0]),
        "interest": 1e-3,
    }
    stopped("direct", 1, tmp_path / "checkpoint.pt")
    other: MarketTensors = replace(world, **{field: changes[field]})
    with pytest.raises(UserError, match="checkpoint: market"):
        Training(candidate("direct", EVERYTHING), other, SPANS).load_state_dict(
            checkpoint.read(tmp_path / "checkpoint.pt")
        )


# -- damaged


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str]:
    """A checkpoint's bytes and what they mean."""
    file = tmp_path_factory.mktemp("whole") / "checkpoint.pt"
    stopped("ppo", 1, file)
    return file.read_bytes(), meaning(checkpoint.read(file))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_cut_off_checkpoint_is_one_clear_line(whole: tuple[bytes, str], share: float, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(whole[0][: int(share * len(whole[0]))])
    assert "damaged" in refused(file)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_one_clear_line_or_changes_nothing(
    whole: tuple[bytes, str], share: float, bit: int, tmp_path: Path
) -> None:
    """Weights too: a bit of one of them would go on trading unseen."""
    content = bytearray(whole[0])
    content[int(share * len(content))] ^= 1 << bit
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(content)
    try:
        found = meaning(checkpoint.read(file))
    except UserError:
        refused(file)
    else:
        assert found == whole[1]


def test_code_in_a_checkpoint_is_not_executed(tmp_path: Path) -> None:
    bomb, file = Bomb(tmp_path), tmp_path / "checkpoint.pt"
    torch.save({"format": checkpoint.FORMAT, "agent": bomb}, file)
    refused(file)
    torch.save({"format": checkpoint.FORMAT, "agent": bomb}, file, _use_new_zipfile_serialization=False)
    refused(file)
    file.write_bytes(pickle.dumps(bomb))
    refused(file)
    assert not (tmp_path / PLANTED).exists()
    pickle.loads(file.read_bytes())  # this would have been it
    assert (tmp_path / PLANTED).exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", bytes(1000)])
def test_what_is_no_checkpoint_is_one_clear_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(content)
    assert "damaged" in refused(file)


@pytest.mark.parametrize("state", [{"agent": {}}, {"format": 0}, {"format": "1"}, [1, 2], torch.zeros(3)])
def test_another_format_is_one_clear_line(state: Any, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "checkpoint.pt")
    assert f"expected {checkpoint.FORMAT}" in refused(tmp_path / "checkpoint.pt")


def test_a_missing_checkpoint_and_a_folder_are_one_clear_line(tmp_path: Path) -> None:
    assert "no such checkpoint" in refused(tmp_path / "missing.pt")
    assert "checkpoint" in refused(tmp_path)


def test_a_checkpoint_is_whole_or_absent(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"
    checkpoint.write(file, {"weights": torch.ones(3)})
    with pytest.raises(Exception, match=r"pickle|local object"):
        checkpoint.write(file, {"weights": lambda: None})
    assert torch.equal(checkpoint.read(file)["weights"], torch.ones(3))
    assert list(tmp_path.iterdir()) == [file]


def test_a_checkpoint_holds_tensors_and_plain_values_only(tmp_path: Path) -> None:
    def check(value: Any) -> None:
        if isinstance(value, dict):
            assert all(isinstance(key, str | int) for key in value)
            value = list(value.values())
        if isinstance(value, list | tuple):
            for inner in value:
                check(inner)
        else:
            assert value is None or isinstance(value, torch.Tensor | str | int | float | bool)
            assert not isinstance(value, np.generic)

    for kind in KINDS:
        stopped(kind, 1, tmp_path / "checkpoint.pt")
        check(checkpoint.read(tmp_path / "checkpoint.pt"))


def test_the_same_state_is_the_same_bytes_wherever_it_is_written(tmp_path: Path) -> None:
    """A trial that starts from a checkpoint is known by the checkpoint's hash."""
    state = {"weights": torch.arange(9.0), "samples": 4}
    paths = [tmp_path / "a" / "checkpoint.pt", tmp_path / "b" / "checkpoint.pt", tmp_path / "a" / "other.pt"]
    for path in paths:
        checkpoint.write(path, state)
    assert len({path.read_bytes() for path in paths}) == 1
