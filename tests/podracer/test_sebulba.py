"""Remote actors give what Anakin gives, in whatever order, however old, and whoever dies."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Timer
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pods import EVERYTHING, SPANS, candidate, market, market_of, panel, run, same, weights_of

from agents.build import build_agent
from agents.candidate import Candidate, PodConfig
from envs.backtest import backtest
from envs.policy import Allocated, equal_weight
from kit.config import load
from kit.errors import UserError
from podracer import checkpoint, cluster, sebulba
from podracer.sebulba import ActorFailed, Sebulba, packed, seed_of, shares, unpacked
from podracer.spans import SpanConfig, Spans
from podracer.training import Training, train

ROOT = Path(__file__).parents[2]
FOLDERS = ("tests", "tests/market", "tests/envs", "tests/agents", "tests/podracer")
SEED = 3
ONE = PodConfig("sebulba", actors=1, staleness=0)
TWO_AHEAD = PodConfig("sebulba", actors=2, staleness=2)


@pytest.fixture(scope="module")
def _ray() -> Iterator[None]:
    found = "ray" in sys.modules and sys.modules["ray"].is_initialized()
    cluster.attach(num_cpus=2, object_store_memory=100_000_000)
    yield
    if not found:
        sys.modules["ray"].shutdown()


@pytest.fixture
def started(_ray: None) -> Iterator[Any]:
    """Start trainings that are closed at the end, whatever happens."""
    made: list[Training] = []

    def start(what: Candidate) -> Training:
        made.append(Training(what, market(), SPANS, SEED))
        return made[-1]

    yield start
    for training in made:
        training.close()


def with_pod(pod: PodConfig, kind: str = "ppo", **settings: Any) -> Candidate:
    return replace(candidate(kind, EVERYTHING, **settings), pod=pod)


def pod_of(training: Training) -> Sebulba:
    assert isinstance(training.pod, Sebulba)
    return training.pod


def ask(pod: Sebulba, number: int, question: Any) -> Any:
    """Call a function with an actor's Worker, in its process."""
    import ray

    return ray.get(pod.workers[number].__ray_call__.remote(question))


def process(pod: Sebulba, number: int) -> int:
    return ask(pod, number, lambda worker: os.getpid())


def gone(pid: int, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.05)
    return False


@cache
def anakins(kind: str) -> dict[str, torch.Tensor]:
    """Every weight at the end of the same training in one process."""
    return weights_of(run(Training(candidate(kind, EVERYTHING), market(), SPANS, SEED)))


class Calm(NamedTuple):
    """A training with two actors that run ahead, which nobody disturbs."""

    first: Any  # rollout
    halfway: dict[str, Any]  # what a checkpoint would hold
    weights: dict[str, torch.Tensor]  # at the end


@pytest.fixture(scope="module")
def calm(_ray: None) -> Calm:
    with closing(Training(with_pod(TWO_AHEAD), market(), SPANS, SEED)) as training:
        collect, rollouts = training.pod.collect, []
        training.pod.collect = lambda: rollouts.append(collect()) or rollouts[-1]  # type: ignore[method-assign]
        for _ in range(4):
            training.advance()
        halfway = copy.deepcopy(training.state_dict())
        return Calm(rollouts[0], halfway, weights_of(run(training)))


@pytest.fixture(scope="module")
def ahead(_ray: None) -> Iterator[Training]:
    """A training that is under way, its one actor two updates ahead."""
    with closing(Training(with_pod(replace(TWO_AHEAD, actors=1)), market(), SPANS, SEED)) as training:
        for _ in range(3):
            training.advance()
        yield training


@pytest.mark.parametrize(
    "kind", ["ppo", pytest.param("sac", marks=pytest.mark.slow), pytest.param("td3", marks=pytest.mark.slow)]
)
def test_one_actor_without_staleness_is_anakin_to_the_last_bit(started: Any, kind: str) -> None:
    assert same(weights_of(run(started(with_pod(ONE, kind)))), anakins(kind))


def test_two_actors_give_the_same_again_whatever_the_timing(started: Any, calm: Calm) -> None:
    training = started(with_pod(TWO_AHEAD))
    training.advance()
    slow = process(pod_of(training), 0)
    while not training.done:
        os.kill(slow, signal.SIGSTOP)
        waker = Timer(0.1, os.kill, (slow, signal.SIGCONT))
        waker.start()
        training.advance()
        waker.join()
    assert same(weights_of(training), calm.weights)


def test_a_checkpoint_continues_to_the_same_end(started: Any, calm: Calm, tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "checkpoint.pt", calm.halfway)
    training = started(with_pod(TWO_AHEAD))
    training.load_state_dict(checkpoint.read(tmp_path / "checkpoint.pt"))
    assert same(weights_of(run(training)), calm.weights)


@pytest.mark.usefixtures("_ray")
def test_a_checkpoint_before_the_first_rollout_asks_for_no_actor(tmp_path: Path) -> None:
    training = Training(with_pod(TWO_AHEAD), market(), SPANS, SEED)
    checkpoint.write(tmp_path / "checkpoint.pt", training.state_dict())
    training.load_state_dict(checkpoint.read(tmp_path / "checkpoint.pt"))
    assert (pod_of(training).version, pod_of(training).workers) == (0, [])


def test_a_killed_actor_is_replaced_and_the_end_is_the_same(started: Any) -> None:
    training = started(with_pod(ONE))
    for _ in range(4):
        training.advance()
    killed = process(pod_of(training), 0)
    os.kill(killed, signal.SIGKILL)
    assert same(weights_of(run(training)), anakins("ppo"))
    assert pod_of(training).replaced == 1
    assert process(pod_of(training), 0) != killed


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ppo", "sac"])
def test_actors_killed_again_and_again_while_they_run_ahead_change_nothing(started: Any, kind: str) -> None:
    quiet, training = run(started(with_pod(TWO_AHEAD, kind))), started(with_pod(TWO_AHEAD, kind))
    quiet.close()
    training.advance()
    training.close()  # what is closed may go on
    for number in range(2):
        training.advance()
        training.advance()
        os.kill(process(pod_of(training), number), signal.SIGKILL)
    run(training)
    assert pod_of(training).replaced == 2
    assert same(weights_of(training), weights_of(quiet))


def test_a_rollout_is_as_old_as_allowed_and_made_with_the_weights_of_that_age(started: Any) -> None:
    training = started(with_pod(replace(TWO_AHEAD, actors=1)))
    pod, agent, act = pod_of(training), training.agent, build_agent(training.candidate, market(), 0).act
    history = []
    for turn in range(6):
        history.append({name: value.clone() for name, value in agent.act.state_dict().items()})
        rollout: Any = pod.collect()
        assert pod.age == min(turn, 2)
        errors = []
        for weights in history:
            act.load_state_dict(weights)
            found = act.get_logprob_entropy(rollout.states.flatten(0, 1), rollout.actions.flatten(0, 1))[0]
            errors.append(float((found - rollout.logprobs.flatten()).detach().abs().max()))
        assert np.argmin(errors) == turn - pod.age
        assert errors[turn - pod.age] < 1e-3
        agent.learn(rollout)


def test_actors_work_while_the_learner_learns_if_they_may(ahead: Training) -> None:
    import ray

    pod = pod_of(ahead)
    for _ in range(2):
        assert [order.version for order in pod.orders] == [pod.version - 2, pod.version - 1]
        ready, _ = ray.wait(list(pod.replies[0]), num_returns=2, timeout=30)  # nobody asks for them
        assert len(ready) == 2
        pod.collect()


def test_each_actor_tries_something_else_from_somewhere_else(calm: Calm) -> None:
    states, actions = calm.first.states, calm.first.actions
    algorithm = with_pod(TWO_AHEAD).algorithm
    assert states.shape[:2] == (algorithm.horizon, algorithm.num_envs)
    assert torch.equal(states[1:, :, 0], states[:-1, :, 0] + 1)  # each in its own column
    for part in (states[:, :, 0], actions):
        first, second = part.chunk(2, dim=1)
        assert not torch.equal(first, second)


def test_weights_leave_as_one_array_per_update(ahead: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    put, sent = ray.put, []
    monkeypatch.setattr(ray, "put", lambda value: sent.append(value) or put(value))
    for _ in range(3):
        ahead.pod.collect()
    size = sum(place.numel() for net in (ahead.agent.act, ahead.agent.cri) for place in net.parameters())
    assert [(array.dtype, array.shape) for array in sent] == [(np.float32, (size,))] * 3


def test_actors_read_the_market_where_it_lies_and_keep_nothing(ahead: Training) -> None:
    def in_the_store(worker: Any) -> list[bool]:
        maps = Path("/proc/self/maps").read_text().splitlines()
        spans = [line.split()[0].split("-") for line in maps if "plasma" in line]
        tensors = (worker.agent.market.features, worker.agent.market.table)
        return [any(int(a, 16) <= t.data_ptr() < int(b, 16) for a, b in spans) for t in tensors]

    pod = pod_of(ahead)
    assert ask(pod, 0, in_the_store) == [True, True]
    assert ask(pod, 0, lambda worker: worker.agent.act.market is worker.pod.env.market)
    assert ask(pod, 0, lambda worker: [len(held.state) for held in worker.agent._optimizers()]) == [0, 0]


def test_a_silent_actor_is_told_of(
    ahead: Training, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sebulba, "PATIENCE", 0.0)
    for _ in range(4):
        ahead.pod.collect()
    assert "actor 0 is silent; free in the cluster: {" in caplog.text


def test_closing_ends_the_processes(started: Any) -> None:
    training = started(with_pod(ONE))
    training.advance()
    assert not pod_of(training).orders  # without staleness, actors wait for the learner
    pid = process(pod_of(training), 0)
    training.close()
    training.close()
    assert gone(pid)


def test_an_error_in_an_actor_arrives_as_one_line(started: Any) -> None:
    training = started(with_pod(ONE))
    training.agent.act = torch.nn.Linear(2, 2)  # weights that fit no actor
    with pytest.raises(ActorFailed, match=r"^ppo-\w+: actor 0: RuntimeError\(.*split") as caught:
        training.pod.collect()
    assert "\n" not in str(caught.value)


def test_an_actor_that_always_dies_is_given_up(started: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    training = started(with_pod(ONE))
    training.advance()
    monkeypatch.setattr(sebulba, "ATTEMPTS", 1)
    os.kill(process(pod_of(training), 0), signal.SIGKILL)
    with pytest.raises(ActorFailed, match=r"^ppo-\w+: actor 0 died 1 times in a row$"):
        training.advance()


def test_direct_is_refused() -> None:
    with pytest.raises(UserError, match=r"^pod\.kind = 'sebulba': direct .*; expected 'anakin'$"):
        Training(with_pod(ONE, "direct"), market(), SPANS)


def test_more_actors_than_groups_of_environments_are_refused() -> None:
    with pytest.raises(UserError, match=r"^pod\.actors = 5: 16 environments are 4 groups.*; expected at most 4"):
        Training(with_pod(PodConfig("sebulba", actors=5), "sac"), market(), SPANS)


def test_no_two_actors_share_a_seed_that_a_generator_tells_apart() -> None:
    seeds = [seed_of(seed, number) for seed in range(20) for number in range(20)]
    assert len({float(torch.rand((), generator=torch.Generator().manual_seed(seed))) for seed in seeds}) == len(seeds)
    assert [seed_of(seed, 0) for seed in range(20)] == list(range(20))


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 40))
def test_environments_are_shared_evenly_and_groups_stay_whole(together: int, groups: int, actors: int) -> None:
    if actors > groups:
        with pytest.raises(UserError, match=r"pod\.actors"):
            shares(groups * together, together, actors)
        return
    parts = shares(groups * together, together, actors)
    assert (len(parts), sum(parts)) == (actors, groups * together)
    assert all(part % together == 0 for part in parts)
    assert max(parts) - min(parts) <= together


def test_a_market_survives_the_passage_without_a_copy() -> None:
    world = packed(market())
    there = unpacked(world)
    for name, value in vars(market()).items():
        found = getattr(there, name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(found, value)
            assert found.data_ptr() == world[name].ctypes.data
        else:
            assert np.array_equal(found, value)


@pytest.mark.slow
@pytest.mark.usefixtures("_ray")
@pytest.mark.parametrize("kind", ["ppo", "sac"])
def test_actors_that_run_ahead_learn_what_anakin_learns(kind: str) -> None:
    made = candidate(kind, num_envs=64, horizon=16, batch_size=256, samples=60_000)
    world, span = market_of(panel(3, 1500)), Spans.cut(1500, 20, SpanConfig(validation=100, test=500))

    def edge(pod: PodConfig, seed: int) -> float:
        """Yearly growth beyond equal weight on bars that training did not see."""
        actor = train(replace(made, pod=pod), world, span, seed).actor
        ours, standard = backtest([Allocated(actor), equal_weight], world, span.test)
        return float(np.mean(np.log1p(ours.returns) - np.log1p(standard.returns))) * ours.bars_per_year

    alone = [edge(PodConfig(), seed) for seed in range(4)]
    apart = [edge(PodConfig("sebulba", actors=2, staleness=1), seed) for seed in range(4)]
    assert min(alone + apart) > 0
    assert abs(np.mean(apart) - np.mean(alone)) < 0.2 * np.mean(alone)


def script(text: str, **environment: str) -> str:
    """The last line that a process with a Ray of its own prints."""
    path = os.pathsep.join([str(ROOT), *(str(ROOT / folder) for folder in FOLDERS)])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-c", text]
    done = subprocess.run(
        command, env=kept | {"PYTHONPATH": path} | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().rsplit("\n", 1)[-1]


ALONE = """
import os, sys
from pathlib import Path
from pods import SPANS, market
from podracer.training import train
from test_sebulba import ONE, with_pod

assert "ray" not in sys.modules
made = train(with_pod(ONE), market(), SPANS)
import ray

parents = {}
for stat in Path("/proc").glob("[0-9]*/stat"):
    fields = stat.read_text().rsplit(")", 1)[1].split()
    if fields[0] != "Z":
        parents[int(stat.parent.name)] = int(fields[1])
family = {os.getpid()}
while found := {child for child, parent in parents.items() if parent in family} - family:
    family |= found
sockets = set()
for pid in family:
    for open_file in Path(f"/proc/{pid}/fd").iterdir():
        sockets.add(os.readlink(open_file) if open_file.is_symlink() else "")
listening = set()
for table in ("tcp", "tcp6"):
    for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
        columns = line.split()
        if columns[3] == "0A" and f"socket:[{columns[9]}]" in sockets:
            listening.add(columns[1].split(":")[0])
print(*family - {os.getpid()}, "/", *listening)
"""
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.usefixtures("_ray")
def test_a_tournaments_pod_that_this_ray_has_no_room_for_is_refused() -> None:
    from tournament.config import TournamentConfig
    from tournament.execute import refuse_unless_room

    path = ROOT / "configs" / "smoke.yaml"
    refuse_unless_room(load(TournamentConfig, path))
    config = load(TournamentConfig, path, ["search.pods={ppo: {kind: sebulba, actors: 999}}"])
    told = r"search\.pods\.ppo and execution: a trial takes 1000 CPUs at a time, this machine has 2;"
    with pytest.raises(UserError, match=told):
        refuse_unless_room(config)


@pytest.mark.slow
def test_a_ray_of_ones_own_is_private_and_ends_with_the_process(tmp_path: Path) -> None:
    """Nobody else reaches it: loopback alone, and a token that is written nowhere."""
    made = script(ALONE, HOME=str(tmp_path))
    pids, listening = made.split("/")
    assert len(pids.split()) > 5
    assert set(listening.split()) <= LOOPBACK
    assert listening.split()
    assert all(gone(int(pid)) for pid in pids.split())
    assert not list(tmp_path.rglob("*token*"))


@pytest.mark.slow
@pytest.mark.usefixtures("_ray")
def test_inside_a_placement_group_actors_take_its_places() -> None:
    """The group holds every CPU, so that an actor outside it would wait for ever."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    cpus = int(ray.cluster_resources()["CPU"])  # type: ignore[no-untyped-call]
    group = placement_group([{"CPU": 1}] * cpus)
    inside = PlacementGroupSchedulingStrategy(group, 0, placement_group_capture_child_tasks=True)
    made, world = with_pod(ONE), market()

    @ray.remote(num_cpus=1, scheduling_strategy=inside)
    def learner() -> dict[str, torch.Tensor]:
        return train(made, world, SPANS, SEED).actor.state_dict()

    try:
        found = ray.get(learner.remote(), timeout=120)
    finally:
        remove_placement_group(group)
    assert same(found, train(candidate("ppo", EVERYTHING), world, SPANS, SEED).actor.state_dict())


NODES = """
import json, sys
from dataclasses import replace
from ray.cluster_utils import Cluster
import ray, torch
from pods import SPANS, market, run, same, weights_of
from podracer.spans import SpanConfig, Spans
from podracer.training import Training, train
from test_sebulba import TWO_AHEAD, with_pod, ask

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
ray.init(address=cluster.address, log_to_driver=False)
made = with_pod(TWO_AHEAD)
quiet = run(Training(made, market(), SPANS))
quiet.close()
training = Training(made, market(), SPANS)
training.advance()
homes = [ask(training.pod, n, lambda worker: ray.get_runtime_context().get_node_id()) for n in range(2)]
assert len(set(homes)) == 2, homes
cluster.remove_node(next(node for node in nodes if node.node_id == homes[1]), allow_graceful=False)
cluster.add_node(num_cpus=1)
run(training)
assert training.pod.replaced == 1, training.pod.replaced
assert same(weights_of(training), weights_of(quiet))
training.close()
ray.shutdown()
cluster.shutdown()
print("the same")
"""


@pytest.mark.slow
def test_a_lost_node_changes_nothing() -> None:
    """Two nodes with an actor each; one goes with its actor, another comes."""
    assert script(NODES, RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0") == "the same"
