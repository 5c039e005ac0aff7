"""Training beside ElegantRL's agents and Stable-Baselines3 on FinRL, one core: stepping, acting, learning.

python -m benchmarks.train [--quick] [--json FILE]

Stepping is random actions without a network; acting is a rollout with PPO's network; the rest is whole
training, rollouts and updates. Both sides run the same settings where a case names none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from agents.baselines import Oracle
from agents.build import build_agent
from agents.candidate import EXCESS, Candidate, PodConfig
from agents.config import DirectConfig, PPOConfig, SACConfig, TD3Config
from agents.networks import NetworkConfig
from benchmarks import peers
from benchmarks.env import ASSETS, BARS, FEATURES, elapsed, make_panel, peer_rate, rate, tensors
from benchmarks.harness import Result, arguments, interleave
from benchmarks.learning import SKILL, edge, prepared
from envs.flat import FlatEnv, FlatView
from envs.market import MarketTensors
from envs.policy import Actor, Allocated
from envs.trading import TradingEnv
from kit.memory import keep_freed_memory
from podracer.sebulba import NETWORKS, flat
from podracer.spans import Spans
from podracer.training import Training, build_pod

PPO = PPOConfig(num_envs=1024, horizon=32, batch_size=2048, epochs=4)
WIDE = (256, 128)  # ElegantRL's net
UPDATES = 16  # of an off-policy agent in one measurement
SKILL_SEEDS = range(200, 203)
GIVE_UP = 240.0  # seconds of training without half the oracle's edge


def elegantrl_ppo(state_dim: int, action_dim: int, net: tuple[int, ...] = WIDE, **settings: Any) -> Any:
    """With as many gradient steps as true epochs take: its own count leaves environments out."""
    repeat = PPO.epochs * PPO.num_envs
    given = {"num_envs": PPO.num_envs, "batch_size": PPO.batch_size, "repeat_times": repeat, **settings}
    return peers.elegantrl_agent("PPO", state_dim, action_dim, net, **given)


def peer_market() -> tuple[np.ndarray, np.ndarray]:
    """Prices and indicators of the same size as our benchmark market."""
    indicators = np.random.default_rng(1).normal(size=(BARS, ASSETS * FEATURES))
    return make_panel(gaps=False).close, indicators


def per_second(work: Callable[[], object], samples: int, device: torch.device) -> Callable[[], float]:
    return lambda: samples / elapsed(work, device)


def stepping(result: Result, rounds: int, budget: float) -> None:
    vectorised = peers.elegantrl_vec_repaired(*peer_market(), PPO.num_envs)
    arms = {
        "podracer": rate(TradingEnv(tensors(), num_envs=PPO.num_envs), budget),
        "elegantrl": peer_rate(vectorised, ASSETS, budget, PPO.num_envs, tensor=True),
    }
    result.add("stepping-1024", "steps/s", interleave(arms, rounds))


def pod_of(market: MarketTensors, config: Any, network: NetworkConfig | None = None) -> tuple[Any, Any]:
    candidate = Candidate(config, network or NetworkConfig())
    agent = build_agent(candidate, market, 0)
    return build_pod(candidate, agent, market, slice(0, len(market) - 1), 0), agent


def ppo(result: Result, rounds: int, sb3: bool) -> None:
    """Acting and learning, with ElegantRL's net and with our default."""
    market, samples = tensors(), PPO.num_envs * PPO.horizon
    same, same_agent = pod_of(market, PPO, NetworkConfig("flat", hidden=WIDE))
    ours, our_agent = pod_of(market, PPO)
    theirs = peers.elegantrl_vec_repaired(*peer_market(), PPO.num_envs)
    stock = elegantrl_ppo(theirs.state_dim, theirs.action_dim)
    stock.last_state = theirs.reset()

    def explored() -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            return tuple(stock.explore_vec_env(theirs, PPO.horizon))

    acting = {"podracer": ours.collect, "elegantrl": explored}
    arms = {arm: per_second(work, samples, market.device) for arm, work in acting.items()}
    result.add("acting-1024", "samples/s", interleave(arms, rounds))
    learning = {
        "ppo-same-net": lambda: same_agent.learn(same.collect()),
        "ppo-default-net": lambda: our_agent.learn(ours.collect()),
        "elegantrl": lambda: stock.update_net(explored()),
    }
    arms = {arm: per_second(work, samples, market.device) for arm, work in learning.items()}
    values = interleave(arms, rounds)
    for case in ("ppo-same-net", "ppo-default-net"):
        result.add(case, "samples/s", {"podracer": values[case], "elegantrl": values["elegantrl"]})
    if sb3:
        beside_finrl(result, arms["ppo-default-net"], min(rounds, 3))


def beside_finrl(result: Result, ours: Callable[[], float], rounds: int) -> None:
    """Both at their defaults."""
    if not peers.has_finrl():
        print("FinRL is not installed (extra `bench`): its arm is left out")
        return
    from stable_baselines3 import PPO as StablePPO

    env, _ = peers.finrl_pandas(*peer_market()).get_sb_env()
    learner = StablePPO("MlpPolicy", env, device="cpu", verbose=0)
    samples = learner.n_steps
    theirs = per_second(lambda: learner.learn(samples), samples, torch.device("cpu"))
    result.add("sb3-finrl", "samples/s", interleave({"podracer": ours, "sb3-finrl": theirs}, rounds))


def off_policy(result: Result, rounds: int, kind: str, config: SACConfig | TD3Config) -> None:
    """Gradient steps of equal batch on a full buffer, and what a transition takes in it."""
    market, size = tensors(), 8 * 1024
    config = replace(config, num_envs=1024, buffer=size, reuse=UPDATES * config.batch_size / size)
    pod, agent = pod_of(market, config)
    agent.learn(pod.collect())
    theirs = peers.elegantrl_vec_repaired(*peer_market(), 1024)
    shape = theirs.state_dim, theirs.action_dim
    stock = peers.elegantrl_agent(
        kind, *shape, WIDE, num_envs=1024, batch_size=config.batch_size, repeat_times=UPDATES / config.horizon
    )
    stock.last_state = theirs.reset()
    buffer = peers.elegantrl_buffer(config.horizon + 1, *shape, 1024)
    with torch.no_grad():
        buffer.update(stock.explore_vec_env(theirs, config.horizon))

    def ours() -> None:
        agent.update_net(agent.buffer)

    def updates(work: Callable[[], object]) -> Callable[[], float]:
        return per_second(work, UPDATES, market.device)

    arms = {"podracer": updates(ours), "elegantrl": updates(lambda: stock.update_net(buffer))}
    result.add(f"{kind.lower()}-update-{config.batch_size}", "updates/s", interleave(arms, rounds))
    if kind == "SAC":
        widths = (buffer.states, buffer.actions, buffer.rewards, buffer.undones)
        kept = sum(part[0, 0].nbytes for part in widths)
        stored = {"podracer": [float(agent.buffer.bytes_per_transition)], "elegantrl": [float(kept)]}
        result.add("replayed transition", "B", stored)


def time_to_skill(result: Result, seeds: Iterable[int]) -> None:
    """Seconds of training until the policy has half the oracle's edge on bars that it does not train on."""
    spent: dict[str, list[float]] = {"podracer": [], "podracer-direct": [], "elegantrl": []}
    for seed in seeds:
        market, spans, signal = prepared(SKILL, seed)
        enough = edge(Oracle(signal), market, spans.test) / 2
        for arm, candidate in {"podracer": Candidate(), "podracer-direct": Candidate(DirectConfig())}.items():
            training = Training(candidate, market, spans, seed)
            spent[arm].append(until(training.advance, training.agent.policy, market, spans, enough))
        spent["elegantrl"].append(until(*elegantrl_learner(market, spans, seed), market, spans, enough))
    result.add("time to half the oracle's edge", "s", spent, compare=False)
    speed = {arm: [1 / seconds for seconds in values] for arm, values in spent.items()}
    result.add("ppo-time-to-skill", "1/s", {arm: speed[arm] for arm in ("podracer", "elegantrl")})
    result.add("direct-time-to-skill", "1/s", {arm: speed[arm] for arm in ("podracer-direct", "elegantrl")})


def elegantrl_learner(market: MarketTensors, spans: Spans, seed: int) -> tuple[Callable[[], object], Actor]:
    """Stock PPO on our environment through the flat observation, with the settings that ours has.

    Its learning rate is what such a net takes; three times that, which ours has, is no faster there.
    """
    torch.manual_seed(seed)
    env, view, config = FlatEnv(market, EXCESS, PPO.num_envs, spans.train, seed), FlatView(market), PPOConfig()
    given = {name: getattr(config, name) for name in ("gamma", "reward_scale", "clip_grad_norm", "ratio_clip")}
    given |= {"lambda_gae_adv": config.gae_lambda, "lambda_entropy": config.entropy, "learning_rate": 1e-3}
    stock = elegantrl_ppo(env.state_dim, env.action_dim, (64, 32), **given)
    stock.last_state = env.reset()

    def actor(market: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
        return stock.act(view(torch.cat([bar.unsqueeze(1).to(market.dtype), portfolio], dim=1)))

    def advance() -> None:
        with torch.no_grad():
            rollout = stock.explore_vec_env(env, PPO.horizon)
        stock.update_net(rollout)

    return advance, actor


def until(
    advance: Callable[[], object],
    actor: Actor,
    market: MarketTensors,
    spans: Spans,
    enough: float,
    limit: float = GIVE_UP,
) -> float:
    """Seconds in `advance`, looking after each; the limit where that did not do."""
    spent = 0.0
    while spent < limit:
        start = time.perf_counter()
        advance()
        spent += time.perf_counter() - start
        if edge(Allocated(actor), market, spans.test) >= enough:
            return spent
    return limit


def remote_actors(result: Result, rounds: int) -> None:
    """Sebulba with 1 and 2 actors against Anakin, and what it takes to send weights."""
    market = tensors()
    pods = {
        "anakin": PodConfig(),
        "1 actor": PodConfig("sebulba", actors=1, actor_cpus=0.5),  # all three are there at once, on two cores
        "2 actors": PodConfig("sebulba", actors=2, actor_cpus=0.5),
    }
    span, learners = Spans(slice(0, BARS - 1), slice(0, 0), slice(0, 0)), {}
    for arm, pod in pods.items():
        learners[arm] = Training(Candidate(replace(PPO, samples=10**9), pod=pod), market, span)
    samples = PPO.num_envs * PPO.horizon
    arms = {arm: per_second(training.advance, samples, market.device) for arm, training in learners.items()}
    values = interleave(arms, rounds)
    for arm in ("1 actor", "2 actors"):
        result.add(f"sebulba, {arm}", "samples/s", {"sebulba": values[arm], "anakin": values["anakin"]})
    agent = learners["2 actors"].agent
    weights = flat(agent, NETWORKS["ppo"])
    import ray

    sent = [1e3 * elapsed(lambda: ray.get(ray.put(flat(agent, NETWORKS["ppo"]))), market.device) for _ in range(rounds)]
    result.add("sebulba: weights sent", "ms", {"sebulba": sent})
    result.add("sebulba: weights", "B", {"sebulba": [float(weights.nbytes)]})
    for training in learners.values():
        training.close()


def on_cuda(result: Result, rounds: int) -> None:
    """PPO end to end, many environments."""
    for count in (4_096, 16_384, 65_536):
        config = PPOConfig(num_envs=count, batch_size=count * 4)
        pod, agent = pod_of(tensors(), config)
        work = per_second(lambda: agent.learn(pod.collect()), count * config.horizon, agent.device)  # noqa: B023
        result.add(f"ppo cuda N={count}", "samples/s", interleave({"podracer": work}, rounds))


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    torch.set_num_threads(1)
    keep_freed_memory()  # for every arm alike
    rounds, budget = (2, 0.15) if options.quick else (7, 0.5)
    result = Result("train")
    stepping(result, rounds, budget)
    ppo(result, rounds, sb3=not options.quick)
    off_policy(result, rounds, "SAC", SACConfig())
    off_policy(result, rounds, "TD3", TD3Config())
    if not options.quick:
        time_to_skill(result, SKILL_SEEDS)
    if torch.cuda.is_available():
        on_cuda(result, rounds)
    else:
        remote_actors(result, rounds)
    result.finish(options.json)


if __name__ == "__main__":
    main()
