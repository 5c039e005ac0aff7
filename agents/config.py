"""The four algorithms' settings. Every default is one that already works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kit.config import setting

CONTRAST = "what the critic's error in telling apart environments at the same bar weighs; their common error weighs 1"
REWARD_SCALE = "rewards are multiplied by this for the critic, which likes numbers near one"


@dataclass(frozen=True)
class PPOConfig:
    """Proximal policy optimisation: on-policy, robust."""

    kind: Literal["ppo"] = "ppo"
    samples: int = setting(1_000_000, low=1, help="environment steps to train for")
    num_envs: int = setting(1024, low=1, help="portfolios side by side")
    horizon: int = setting(16, low=1, help="steps of each between updates")
    batch_size: int = setting(4096, low=1, help="samples per gradient step; they are drawn as whole bars")
    epochs: int = setting(4, low=1, help="passes over every sample")
    learning_rate: float = setting(3e-3, above=0, help="at first; it falls to 0 over the training")
    gamma: float = setting(0.9, low=0, below=1, help="discount per bar")
    gae_lambda: float = setting(0.5, low=0, high=1, help="how far advantages look ahead")
    ratio_clip: float = setting(0.25, above=0, help="how far the policy may move per update")
    entropy: float = setting(0.0, low=0, help="bonus for randomness")
    noise: float = setting(1.0, above=0, help="standard deviation of the first actions, before tanh")
    reward_scale: float = setting(100.0, above=0, help=REWARD_SCALE)
    weight_decay: float = setting(0.0, low=0, help="of the networks' weights")
    clip_grad_norm: float = setting(1.0, above=0, help="the largest norm of a gradient")


@dataclass(frozen=True)
class SACConfig:
    """Soft actor-critic: off-policy, explores by entropy."""

    kind: Literal["sac"] = "sac"
    samples: int = setting(500_000, low=1, help="environment steps to train for")
    num_envs: int = setting(256, low=1, help="portfolios side by side")
    together: int = setting(16, low=1, help="of which so many start at the same bar, to read it once")
    horizon: int = setting(8, low=1, help="steps of each between updates")
    batch_size: int = setting(2048, low=1, help="transitions per gradient step")
    reuse: float = setting(8.0, above=0, help="how often each transition is drawn, on average")
    buffer: int = setting(200_000, low=1, help="transitions kept")
    learning_rate: float = setting(3e-3, above=0, help="at first; it falls to 0 over the training")
    gamma: float = setting(0.9, low=0, below=1, help="discount per bar")
    tau: float = setting(0.01, above=0, high=1, help="how fast target networks follow")
    contrast: float = setting(8.0, above=0, help=CONTRAST)
    noise: float = setting(0.4, above=0, help="standard deviation of the first actions, before tanh")
    temperature: float = setting(0.01, above=0, help="what entropy is worth at first; it is learnt")
    entropy_per_action: float = setting(-1.0, help="the entropy that exploration is held at, per entry of an action")
    reward_scale: float = setting(100.0, above=0, help=REWARD_SCALE)
    weight_decay: float = setting(0.0, low=0, help="of the networks' weights")
    clip_grad_norm: float = setting(1.0, above=0, help="the largest norm of a gradient")

    def __post_init__(self) -> None:
        if self.num_envs % self.together:
            raise ValueError(f"num_envs must be a multiple of together, {self.together}")


@dataclass(frozen=True)
class TD3Config:
    """Twin delayed deterministic policy gradient: off-policy."""

    kind: Literal["td3"] = "td3"
    samples: int = setting(500_000, low=1, help="environment steps to train for")
    num_envs: int = setting(256, low=1, help="portfolios side by side")
    together: int = setting(16, low=1, help="of which so many start at the same bar, to read it once")
    horizon: int = setting(8, low=1, help="steps of each between updates")
    batch_size: int = setting(2048, low=1, help="transitions per gradient step")
    reuse: float = setting(8.0, above=0, help="how often each transition is drawn, on average")
    buffer: int = setting(200_000, low=1, help="transitions kept")
    learning_rate: float = setting(3e-3, above=0, help="at first; it falls to 0 over the training")
    gamma: float = setting(0.9, low=0, below=1, help="discount per bar")
    tau: float = setting(0.01, above=0, high=1, help="how fast target networks follow")
    contrast: float = setting(8.0, above=0, help=CONTRAST)
    noise: float = setting(0.3, above=0, help="standard deviation of exploration, on the action")
    target_noise: float = setting(0.1, low=0, help="standard deviation of the noise on the target's action")
    policy_delay: int = setting(2, low=1, help="critic updates per actor update")
    reward_scale: float = setting(100.0, above=0, help=REWARD_SCALE)
    weight_decay: float = setting(0.0, low=0, help="of the networks' weights")
    clip_grad_norm: float = setting(1.0, above=0, help="the largest norm of a gradient")

    def __post_init__(self) -> None:
        if self.num_envs % self.together:
            raise ValueError(f"num_envs must be a multiple of together, {self.together}")


@dataclass(frozen=True)
class DirectConfig:
    """Climbs the gradient of its own reward through the market."""

    kind: Literal["direct"] = "direct"
    samples: int = setting(409_600, low=1, help="environment steps to train for")
    num_envs: int = setting(256, low=1, help="portfolios side by side")
    horizon: int = setting(32, low=1, help="steps unrolled per gradient")
    learning_rate: float = setting(3e-3, above=0, help="at first; it falls to 0 over the training")
    reward_scale: float = setting(100.0, above=0, help="rewards are multiplied by this before the gradient is clipped")
    weight_decay: float = setting(0.0, low=0, help="of the network's weights")
    clip_grad_norm: float = setting(1.0, above=0, help="the largest norm of a gradient")


AlgorithmConfig = PPOConfig | SACConfig | TD3Config | DirectConfig
