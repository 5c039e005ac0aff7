"""Sebulba: remote actors, each with environments of its own, feed one learner through Ray's object store.

Every rollout is ordered with the weights that it is to be made with. `staleness` orders are out while
the learner learns, so that a rollout's weights are exactly so many updates old (fewer at first),
however fast anybody is: the same seed gives the same policy, and no rollout is ever too old. PPO
corrects for the age by itself: its ratio is to the log-probabilities that come with the rollout.
Each reply carries the actor's whole state, so that the replacement of one that died goes on from there.
"""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections import deque
from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from agents.build import Agent, build_agent
from agents.candidate import Candidate
from envs.market import MarketTensors
from envs.trading import TradingEnv
from kit.errors import UserError
from podracer.anakin import Anakin
from podracer.cluster import attach

log = logging.getLogger(__name__)

NETWORKS = {"ppo": ("act", "cri"), "sac": ("act",), "td3": ("act",)}  # what a rollout is made with
ATTEMPTS = 3  # at one rollout, before an actor that dies of it is given up
PATIENCE = 60.0  # seconds until a warning that an actor is slow, or finds no room in the cluster


class ActorFailed(RuntimeError):
    """What went wrong in a remote actor, in one line; its traceback is the cause."""


class Order(NamedTuple):
    """A rollout to be made, by every actor."""

    version: int  # of the weights: how many updates they have seen
    weights: Any  # their place in the object store


class Reply(NamedTuple):
    """A rollout as it comes back: NumPy arrays."""

    version: int  # of the weights that it was made with
    rollout: Any
    state: dict[str, Any]  # from which the actor's next rollout follows


class Worker:
    """What runs in an actor's process: an Anakin that never learns."""

    def __init__(
        self,
        candidate: Candidate,
        market: dict[str, Any],
        span: slice,
        num_envs: int,
        seed: int,
        state: dict[str, Any] | None,
    ) -> None:
        torch.set_num_threads(max(1, int(candidate.pod.actor_cpus)))
        self.device = torch.device("cuda" if candidate.pod.actor_gpus else "cpu")
        config: Any = replace(candidate.algorithm, num_envs=num_envs)
        together = getattr(config, "together", 1)
        if hasattr(config, "buffer"):
            config = replace(config, buffer=together)  # it keeps nothing
        shown = unpacked(market).to(self.device)
        self.agent = build_agent(replace(candidate, algorithm=config), shown, seed)
        env = TradingEnv(shown, candidate.env, num_envs, span, seed, together=together)
        self.pod = Anakin(self.agent, env, config.horizon)
        self.networks = NETWORKS[config.kind]
        if state:
            self._continue(to_tensors(state, self.device))

    def collect(self, version: int, weights: np.ndarray) -> Reply:
        spread(weights, self.agent, self.networks)
        rollout = self.pod.collect()
        state = {
            "env": self.pod.state_dict(),
            "explorer": self.agent.explorer.get_state(),
            "last_state": self.agent.last_state,
        }
        return Reply(version, type(rollout)(*map(to_arrays, rollout)), to_arrays(state))

    def _continue(self, state: dict[str, Any]) -> None:
        self.pod.load_state_dict(state["env"])
        self.agent.explorer.set_state(state["explorer"].cpu())
        self.agent.last_state = state["last_state"]


class Sebulba:
    """Where the rollouts come from; in place of Anakin."""

    def __init__(self, agent: Agent, candidate: Candidate, market: MarketTensors, span: slice, seed: int) -> None:
        config, pod = candidate.algorithm, candidate.pod
        if config.kind not in NETWORKS:
            raise UserError(
                f"pod.kind = 'sebulba': {config.kind} does not learn from rollouts of others; expected 'anakin'"
            )
        self.shares = shares(config.num_envs, getattr(config, "together", 1), pod.actors)
        self.agent, self.candidate, self.market, self.span, self.seed = agent, candidate, market, span, seed
        self.samples_per_rollout = config.num_envs * config.horizon
        self.version = 0  # updates so far
        self.age = 0  # how many updates old the last rollout's weights were
        self.replaced = 0  # actors that died
        self.orders: deque[Order] = deque()  # out, the oldest first
        self.replies: list[deque[Any]] = []  # of each actor, to those orders
        self.workers: list[Any] = []
        self.states: list[dict[str, Any] | None] = [None] * pod.actors  # after the last reply
        self._packed: Any = None  # the market's place in the object store

    def collect(self) -> Any:
        """Order a rollout with the weights as they are now; hand over the oldest one that is out."""
        ray = self._ray()
        self._start()
        order = Order(self.version, ray.put(flat(self.agent, NETWORKS[self.candidate.algorithm.kind])))
        while len(self.orders) <= self.candidate.pod.staleness:
            self.orders.append(order)
            for worker, replies in zip(self.workers, self.replies):
                replies.append(worker.collect.remote(*order))
        received = [self._receive(number) for number in range(len(self.workers))]
        due = self.orders.popleft()
        assert all(reply.version == due.version for reply in received)
        self.age = self.version - due.version
        self.version += 1
        device = self.agent.device
        self.states = [to_tensors(reply.state) for reply in received]
        self.agent.last_state = torch.cat([state["last_state"] for state in self.states if state]).to(device)
        parts = zip(*(reply.rollout for reply in received))
        joined = (torch.from_numpy(np.concatenate(arrays, axis=1)).to(device) for arrays in parts)
        return type(received[0].rollout)(*joined)

    def state_dict(self) -> dict[str, Any]:
        """The actors' states, and the weights of the orders that are out: they will be made again."""
        ray = self._ray()
        orders = [{"version": order.version, "weights": torch.tensor(ray.get(order.weights))} for order in self.orders]
        return {"version": self.version, "states": self.states, "orders": orders}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.close()
        ray = self._ray()
        self.version, self.states = state["version"], list(state["states"])
        self.orders = deque(Order(o["version"], ray.put(o["weights"].cpu().numpy())) for o in state["orders"])

    def close(self) -> None:
        """End the actors' processes; a later `collect` starts them anew."""
        if not self.workers:
            return
        ray = self._ray()
        for worker in self.workers:
            ray.kill(worker)
        self.workers, self.replies, self._packed = [], [], None

    def _ray(self) -> Any:
        """A Ray of our own has room for our actors, if they have to share a CPU for it."""
        pod = self.candidate.pod
        return attach(num_cpus=max(os.cpu_count() or 1, math.ceil(pod.actors * pod.actor_cpus)))

    def _start(self) -> None:
        if self.workers:
            return
        ray = self._ray()
        self._packed = ray.put(packed(self.market))
        self.workers = [self._worker(number) for number in range(len(self.shares))]
        self.replies = [self._send(worker) for worker in self.workers]

    def _worker(self, number: int) -> Any:
        """Start an actor from its last known state."""
        ray = self._ray()
        pod, state = self.candidate.pod, self.states[number]
        remote = ray.remote(num_cpus=pod.actor_cpus, num_gpus=pod.actor_gpus)(Worker)
        told = (self.shares[number], seed_of(self.seed, number), state and to_arrays(state))
        return remote.remote(self.candidate, self._packed, self.span, *told)

    def _send(self, worker: Any) -> deque[Any]:
        """Every order that is out, to a new actor."""
        return deque(worker.collect.remote(*order) for order in self.orders)

    def _receive(self, number: int) -> Reply:
        """An actor's oldest reply; from its replacement, if it died."""
        ray = self._ray()
        name, died = f"{self.candidate.name}: actor {number}", 0
        while True:
            reply = self.replies[number][0]
            while not ray.wait([reply], timeout=PATIENCE)[0]:
                log.warning("%s is silent; free in the cluster: %s", name, ray.available_resources())
            try:
                answer: Reply = ray.get(reply)
            except ray.exceptions.RayTaskError as error:
                raise ActorFailed(f"{name}: {error.cause!r}") from error
            except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError) as error:
                died += 1
                if died == ATTEMPTS:
                    raise ActorFailed(f"{name} died {ATTEMPTS} times in a row") from error
                log.warning("%s died and is replaced", name)
                ray.kill(self.workers[number])  # it may only be out of reach
                self.workers[number] = self._worker(number)
                self.replies[number] = self._send(self.workers[number])
                self.replaced += 1
            else:
                self.replies[number].popleft()
                return answer


def shares(num_envs: int, together: int, actors: int) -> list[int]:
    """How many environments each actor has; those that start together stay together."""
    groups = num_envs // together
    if groups < actors:
        raise UserError(
            f"pod.actors = {actors}: {num_envs} environments are {groups} groups that start together; "
            f"expected at most {groups} actors"
        )
    return [(groups // actors + (number < groups % actors)) * together for number in range(actors)]


def seed_of(seed: int, number: int) -> int:
    """An actor's own; the first one has Anakin's. It fits 32 bits: a generator on a CPU reads no more."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0]) if number else seed


def flat(agent: Agent, networks: tuple[str, ...]) -> np.ndarray:
    """The weights of these networks as one array."""
    weights = [weight.detach().flatten() for name in networks for weight in getattr(agent, name).parameters()]
    return torch.cat(weights).cpu().numpy()


@torch.no_grad()
def spread(weights: np.ndarray, agent: Agent, networks: tuple[str, ...]) -> None:
    """The reverse: write one array into the networks."""
    places = [weight for name in networks for weight in getattr(agent, name).parameters()]
    parts = torch.tensor(weights).split([place.numel() for place in places])
    for place, part in zip(places, parts):
        place.copy_(part.view_as(place))


def packed(market: MarketTensors) -> dict[str, Any]:
    return {field.name: to_arrays(getattr(market, field.name)) for field in fields(market)}


def unpacked(values: dict[str, Any]) -> MarketTensors:
    """On the arrays as they are: all actors of a node read the same memory."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # and a market is never written
        made: dict[str, Any] = {
            name: torch.from_numpy(value) if isinstance(value, np.ndarray) and name != "dates" else value
            for name, value in values.items()
        }
    return MarketTensors(**made)


def to_arrays(value: Any) -> Any:
    """Nested dictionaries of tensors as the same of NumPy arrays."""
    if isinstance(value, dict):
        return {name: to_arrays(part) for name, part in value.items()}
    return value.cpu().numpy() if isinstance(value, torch.Tensor) else value


def to_tensors(value: Any, device: torch.device | str = "cpu") -> Any:
    """The reverse; always a copy, so that nothing holds on to the object store."""
    if isinstance(value, dict):
        return {name: to_tensors(part, device) for name, part in value.items()}
    return torch.tensor(value, device=device) if isinstance(value, np.ndarray) else value
