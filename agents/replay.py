"""A replay buffer of compact states: a bar index and a portfolio instead of the features at that bar."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch


class Transitions(NamedTuple):
    """What happened, [B] or [H, N] in front; `next_states` is where the step led before any reset."""

    states: torch.Tensor  # [..., S]
    actions: torch.Tensor  # [..., A+1]
    rewards: torch.Tensor  # [...]
    undones: torch.Tensor  # [...] 0 where the episode terminated; a time limit is not an end
    next_states: torch.Tensor  # [..., S]


class ReplayBuffer:
    """A ring of transitions, a row each, so that a sample is one gather.

    Environments that started `together` stand at the same bar, side by side in a rollout: they are
    drawn together, so that a network reads a bar once for all of them.
    """

    def __init__(
        self,
        max_size: int,
        state_dim: int,
        action_dim: int,
        device: torch.device,
        dtype: torch.dtype,
        together: int = 1,
    ) -> None:
        self.widths = [state_dim, action_dim, 1, 1, state_dim]
        self.together = together
        self.max_size = max_size - max_size % together
        self.rows = torch.empty(self.max_size, sum(self.widths), device=device, dtype=dtype)
        self.p, self.cur_size = 0, 0  # where the next row goes, and how many there are
        self.add_size = 0  # of the last update

    def update(self, items: Transitions) -> None:
        """Add a rollout; of one that is longer than the buffer, its last rows."""
        columns = [items.states, items.actions, items.rewards.unsqueeze(-1), items.undones.unsqueeze(-1)]
        added = torch.cat([*columns, items.next_states], dim=-1).flatten(0, -2)
        self.add_size = len(added)
        added = added[-self.max_size :]
        first = min(len(added), self.max_size - self.p)
        self.rows[self.p : self.p + first] = added[:first]
        self.rows[: len(added) - first] = added[first:]
        self.p = (self.p + len(added)) % self.max_size
        self.cur_size = min(self.cur_size + len(added), self.max_size)

    def sample(self, batch_size: int, generator: torch.Generator) -> Transitions:
        groups, size = self.cur_size // self.together, batch_size // self.together
        picked = torch.randint(groups, (size,), generator=generator, device=self.rows.device)
        rows = self.rows.view(-1, self.together * self.rows.shape[1]).index_select(0, picked)
        columns = rows.view(-1, self.rows.shape[1]).split(self.widths, dim=1)
        states, actions, rewards, undones, next_states = columns
        return Transitions(states, actions, rewards.squeeze(1), undones.squeeze(1), next_states)

    @property
    def bytes_per_transition(self) -> int:
        return self.rows.shape[1] * self.rows.element_size()

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows[: self.cur_size].clone(), "p": self.p, "cur_size": self.cur_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.p, self.cur_size = state["p"], state["cur_size"]
        self.rows[: self.cur_size] = state["rows"]
