"""N portfolios stepping through one market at once: allocate, transition, reward, reset by mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from envs.allocation import approach, target
from envs.config import EnvConfig
from envs.growth import equal_weight_growth
from envs.market import MarketTensors
from envs.policy import portfolio_columns, portfolio_width
from envs.rewards import SharpeMemory, no_memory, reward
from envs.transition import Costs, State, cash_only, transition

_COMPILED_ENVIRONMENTS = 256  # of one process
_COMPILER: dict[str, str | int | bool | Callable[..., Any]] = {
    "inplace_buffers": False,  # rows are read faster from another buffer than the one written
    "cpp.enable_floating_point_contract_flag": "fast",  # a product and a sum in one, rounded once
}


class Account(NamedTuple):
    """Everything an environment remembers between steps."""

    state: State
    age: torch.Tensor  # [N] int64, bars since the episode began
    sharpe: SharpeMemory | None


class Step(NamedTuple):
    """What one step made."""

    account: Account
    observation: torch.Tensor  # [N, S] of the account
    reward: torch.Tensor  # [N]
    done: torch.Tensor  # [N] bool: terminated or truncated
    terminated: torch.Tensor  # [N] bool: ruined
    truncated: torch.Tensor  # [N] bool: the episode's length is over
    final: State  # the state that the step led to, before any reset
    growth: torch.Tensor  # [N] log growth
    costs: Costs


class TradingEnv:
    """A vectorised environment in the shape that ElegantRL's agents expect.

    An observation is compact: [bar, weights with cash, drawdown]; networks look the market up. Every
    environment starts in cash at a random bar of `span`, or at its first bar when `random_start` is
    off, and after `episode` bars is truncated and starts anew; `together` neighbours start at the same
    bar, which costs variety and lets a network read a bar once for all of them. One generator,
    seeded, makes every draw, so that the same seed gives the same run on the same device.
    """

    def __init__(
        self,
        market: MarketTensors,
        config: EnvConfig | None = None,
        num_envs: int = 1024,
        span: slice | None = None,
        seed: int = 0,
        random_start: bool = True,
        compile: bool = False,
        together: int = 1,
    ) -> None:
        assert num_envs % together == 0, f"{num_envs} environments do not divide into groups of {together}"
        self.market, self.config, self.num_envs = market, config or EnvConfig(), num_envs
        self.together = together
        self.first, self.stop, _ = (span or slice(None)).indices(len(market) - 1)
        self.episode = min(self.config.episode, self.stop - self.first)
        assert self.episode >= 1, f"the span {span} holds no decision of {len(market)} bars"
        self.random_start = random_start
        self.action_dim = market.assets + 1
        self.state_dim = 1 + portfolio_width(market)
        self.device = market.device
        self.generator = torch.Generator(device=market.device).manual_seed(seed)
        self.equal_weight: torch.Tensor | None = None
        if self.config.reward.excess:
            self.equal_weight = equal_weight_growth(market)
        self.looks = self.device.type == "cpu"  # at whether anybody is done; for another device that is a wait
        self._go: Callable[[Account, torch.Tensor], Step] = _compiled(self._onward) if compile else self._onward
        self.cash = torch.zeros_like(market.ones)
        self.cash[-1] = 1.0
        self.account = self._begin()

    def reset(self) -> torch.Tensor:
        """Start every environment anew: the first observation [N, S]."""
        self.account = self._begin()
        return self.observe(self.account.state)

    def step(self, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]:
        """action [N, A+1] in [-1, 1] -> observation [N, S], reward [N], done [N], info.

        `info` says why an episode ended (`terminated`, `truncated`), and holds the state that the step
        led to before any reset (`final`; `observe` turns it into an observation), growth and costs.
        """
        made = self.advance(self.account, action, self.draw())
        self.account = made.account
        return made.observation, made.reward, made.done, made._asdict()

    def observe(self, state: State) -> torch.Tensor:
        """[N, S] a state as one float tensor, the bar first."""
        bar = state.bar.to(state.weights.dtype).unsqueeze(1)
        return torch.cat([bar, *portfolio_columns(self.market, state)], dim=1)

    def draw(self) -> torch.Tensor:
        """[N] int64 bars where the next episodes start, drawn whether or not they are needed."""
        if not self.random_start:
            return torch.full((self.num_envs,), self.first, device=self.device)
        shape, last = (self.num_envs // self.together,), self.stop - self.episode + 1
        drawn = torch.randint(self.first, last, shape, generator=self.generator, device=self.device)
        return drawn if self.together == 1 else drawn.repeat_interleave(self.together)

    def _begin(self) -> Account:
        state = cash_only(self.market, self.draw())
        memory = no_memory(self.num_envs, state.wealth) if self.config.reward.differential_sharpe else None
        return Account(state, torch.zeros_like(state.bar), memory)

    def advance(self, account: Account, action: torch.Tensor, starts: torch.Tensor) -> Step:
        """One step without randomness of its own: what is captured. action [N, A+1], starts [N]."""
        step = self._go(account, action)
        return step if self.looks and not step.done.any() else self._restarted(step, starts)

    def _onward(self, account: Account, action: torch.Tensor) -> Step:  # what is compiled
        """A step in which nobody starts anew: its account and observation are those of its final state."""
        market, before = self.market, account.state
        wanted = target(market, before.bar, before.weights, before.wealth, action)
        orders = approach(before.weights, wanted, market.trading.allocation)
        after, growth, costs = transition(market, before, orders)
        standard = None if self.equal_weight is None else self.equal_weight.index_select(0, before.bar)
        gain, memory = reward(self.config.reward, before, after, growth, costs, standard, account.sharpe)
        age = account.age + 1
        terminated = after.wealth <= self.config.ruin
        truncated = (age >= self.episode) > terminated
        done, terminated, truncated = _stored(terminated | truncated), _stored(terminated), _stored(truncated)
        account = Account(after, age, memory)
        return Step(account, self.observe(after), gain, done, terminated, truncated, after, growth, costs)

    def _restarted(self, step: Step, starts: torch.Tensor) -> Step:  # starts [N]
        """The step, with those that are done put back to cash at a new bar, cut from their history."""
        (bar, weights, wealth, peak), age, memory = step.account
        done, one = step.done, self.cash[-1]
        weights = torch.lerp(weights, self.cash, done.to(weights.dtype).unsqueeze(1))
        bar = torch.where(done, starts, bar)
        state = State(bar, weights, torch.where(done, one, wealth), torch.where(done, one, peak))
        account = Account(state, age.masked_fill(done, 0), _forget(memory, done))
        return step._replace(account=account, observation=self.observe(state))


def _compiled(advance: Callable[..., Step]) -> Callable[..., Step]:
    """Each market and configuration compiles the step anew, and the limit counts them all together."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _COMPILED_ENVIRONMENTS)
    return torch.compile(advance, fullgraph=True, dynamic=False, options=_COMPILER)


def _stored(mask: torch.Tensor) -> torch.Tensor:
    """The same mask, bool. Compiled code stores numbers by the vector but masks one by one, so as a number."""
    return mask.to(torch.float32).to(torch.uint8).view(torch.bool) if torch.compiler.is_compiling() else mask


def _forget(memory: SharpeMemory | None, done: torch.Tensor) -> SharpeMemory | None:
    return None if memory is None else SharpeMemory(*(moment.masked_fill(done, 0.0) for moment in memory))
