"""On a CUDA device: a whole step as one graph, replayed without Python between its kernels."""

from __future__ import annotations

from typing import Any

import torch

from envs.trading import Account, Step, TradingEnv

WARM_UP = 3  # steps before the capture, so that every lazy initialisation is behind it


class CapturedEnv:
    """The same environment with the same numbers; its outputs are overwritten by the next step."""

    def __init__(self, env: TradingEnv) -> None:
        assert env.device.type == "cuda", "a graph is captured on a CUDA device"
        self.env, self.num_envs, self.device = env, env.num_envs, env.device
        self.action_dim, self.state_dim = env.action_dim, env.state_dim
        self._action = torch.zeros(env.num_envs, env.action_dim, device=env.device, dtype=env.market.dtype)
        self._starts = env.draw()
        self._account = _copy(env.account)
        side = torch.cuda.Stream(env.device)
        side.wait_stream(torch.cuda.current_stream(env.device))
        with torch.no_grad(), torch.cuda.stream(side):
            for _ in range(WARM_UP):
                env.advance(self._account, self._action, self._starts)
        torch.cuda.current_stream(env.device).wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(self._graph):
            self._made: Step = env.advance(self._account, self._action, self._starts)
            _overwrite(self._account, self._made.account)

    def reset(self) -> torch.Tensor:
        observation = self.env.reset()
        _overwrite(self._account, self.env.account)
        return observation

    def step(self, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]:
        self._action.copy_(action)
        self._starts.copy_(self.env.draw())
        self._graph.replay()
        return self._made.observation, self._made.reward, self._made.done, self._made._asdict()


def _tensors(account: Account) -> list[torch.Tensor]:
    return [*account.state, account.age, *(account.sharpe or ())]


def _copy(account: Account) -> Account:
    sharpe = None if account.sharpe is None else type(account.sharpe)(*(t.clone() for t in account.sharpe))
    return Account(type(account.state)(*(t.clone() for t in account.state)), account.age.clone(), sharpe)


def _overwrite(account: Account, new: Account) -> None:
    for old, value in zip(_tensors(account), _tensors(new), strict=True):
        old.copy_(value)
