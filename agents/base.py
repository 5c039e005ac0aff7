"""What ElegantRL's agents lack on a market shared by many environments, in one place."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from elegantrl.train.config import Config
from torch import nn

from agents.heads import ActorNet
from agents.networks import NetworkConfig
from envs.market import MarketTensors
from envs.policy import portfolio_width

_EXPLORER = 2**32  # added to a seed, so that no two generators of a run share one


def split(state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """state [N, S] -> bar [N] int64, portfolio [N, P]."""
    return state[:, 0].long(), state[:, 1:]


class StateNet(nn.Module):
    """A network in ElegantRL's shape, `cls(net_dims, state_dim, action_dim)`, that knows its market."""

    net: Any
    together = 1  # neighbours in a batch that stand at the same bar, as a rule

    def __init__(self, market: MarketTensors) -> None:
        super().__init__()
        self.market = market

    def look_up(self, bar: torch.Tensor) -> torch.Tensor:
        """bar [B] -> what the network makes of it: a row for each, or for each group at the same bar."""
        host = bar.device.type == "cpu"  # elsewhere, to find out who shares a bar would be to wait for the device
        if host and self.together > 1 and len(bar) % self.together == 0:
            groups = bar.view(-1, self.together)
            if torch.equal(groups, groups[:, :1].expand_as(groups)):  # but for those that were ruined
                return self.net.prepare(self.market, groups[:, 0])
        if len(bar) >= len(self.market):
            return self.net.prepare(self.market).index_select(0, bar)
        if not host:
            return self.net.prepare(self.market, bar)
        distinct, place = bar.unique(return_inverse=True)
        return self.net.prepare(self.market, distinct).index_select(0, place)


class MarketAgent:
    """Mixed in before one of ElegantRL's agents.

    States are compact, [bar, portfolio]; networks look the market up. It seeds generators of its own,
    one for what it tries and one for what it learns from, so that the same seed gives the same agent
    on the same device wherever the trying is done, and nothing else is disturbed.
    """

    actor_class: Callable[..., nn.Module]
    critic_class: Callable[..., nn.Module] | None
    device: torch.device
    act: Any
    cri: Any
    last_state: torch.Tensor
    state_dim: int
    action_dim: int
    batch_size: int
    gamma: float
    reward_scale: float
    soft_update_tau: float
    update_net: Callable[[Any], dict[str, torch.Tensor]]

    def __init__(self, market: MarketTensors, config: Any, network: NetworkConfig | None = None, seed: int = 0) -> None:
        network = network or NetworkConfig()
        self.market, self.settings = market, config
        shape = {"market": market, "network": network, "config": config}
        self.act_class = partial(self.actor_class, **shape)
        self.cri_class = partial(self.critic_class, **shape) if self.critic_class else None
        gpu = -1 if market.device.type == "cpu" else market.device.index or 0
        with torch.random.fork_rng(devices=[] if gpu < 0 else [gpu]):
            torch.manual_seed(seed)
            super().__init__(  # type: ignore[call-arg]
                list(network.hidden), 1 + portfolio_width(market), market.assets + 1, gpu, _arguments(config)
            )
        self.generator = torch.Generator(device=market.device).manual_seed(seed)
        self.explorer = torch.Generator(device=market.device).manual_seed(seed + _EXPLORER)
        self.act_optimizer = self._optimizer(self.act)
        self.cri_optimizer = self._optimizer(self.cri) if self.critic_class else self.act_optimizer

    @property
    def policy(self) -> ActorNet:
        """The network that decides; an envs.Actor."""
        return self.act.net

    def anneal(self, share: float) -> None:
        """Lower the learning rate; `share` of the training is done."""
        for optimizer in self._optimizers():
            for group in optimizer.param_groups:
                group["lr"] = self.settings.learning_rate * max(0.0, 1.0 - share)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on."""
        nets = {name: getattr(self, name).state_dict() for name in self._networks()}
        optimizers = [optimizer.state_dict() for optimizer in self._optimizers()]
        draws = {"generator": self.generator.get_state(), "explorer": self.explorer.get_state()}
        return nets | draws | {"optimizers": optimizers, "last_state": self.last_state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self._networks():
            getattr(self, name).load_state_dict(state[name])
        for optimizer, values in zip(self._optimizers(), state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        self.generator.set_state(state["generator"].cpu())
        self.explorer.set_state(state["explorer"].cpu())
        self.last_state = state["last_state"]

    def take_over(self, state: dict[str, Any]) -> None:
        """Another agent's networks and the momentum of its optimizers, under this one's settings."""
        for name in self._networks():
            getattr(self, name).load_state_dict(state[name])
        for optimizer, values in zip(self._optimizers(), state["optimizers"], strict=True):
            optimizer.load_state_dict({**values, "param_groups": optimizer.state_dict()["param_groups"]})

    def align_targets(self) -> None:
        """Let target networks be what they follow."""
        for name in self._networks():
            if name.endswith("_target"):
                getattr(self, name).load_state_dict(getattr(self, name.removesuffix("_target")).state_dict())

    def learn(self, rollout: Any) -> dict[str, torch.Tensor]:
        """What a rollout teaches; the losses."""
        return self.update_net(rollout)

    def _networks(self) -> tuple[str, ...]:
        return ("act", "cri")

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return [self.act_optimizer, self.cri_optimizer]

    def _optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        settings = self.settings
        return torch.optim.AdamW(
            net.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )

    def _descend(self, loss: torch.Tensor, *optimizers: torch.optim.Optimizer) -> None:
        """One step of each optimizer down one loss."""
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                nn.utils.clip_grad_norm_(group["params"], self.settings.clip_grad_norm)
            optimizer.step()

    @staticmethod
    def soft_update(target_net: nn.Module, current_net: nn.Module, tau: float) -> None:
        with torch.no_grad():
            torch._foreach_lerp_(list(target_net.parameters()), list(current_net.parameters()), tau)

    def _noise(self, generator: torch.Generator, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=self.device, dtype=self.market.dtype)


def _arguments(config: Any) -> Config:
    """What ElegantRL's constructors read."""
    args = Config()
    args.repeat_times, args.state_value_tau = 1.0, 0.0  # its normalisation would act on the bar index
    for name in ("num_envs", "batch_size", "gamma", "reward_scale", "learning_rate", "clip_grad_norm"):
        setattr(args, name, getattr(config, name, None))
    args.soft_update_tau = getattr(config, "tau", None)
    return args
