"""What a feature is: a frozen dataclass, registered under the name that configurations use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np

from market.features.window import Window
from market.panel import Panel


@dataclass(frozen=True)
class Transform(ABC):
    """A causal transform of finite memory. Its fields are its parameters, with bounds from `kit.config.setting`."""

    name: ClassVar[str]
    across: ClassVar[bool] = False  # whether it needs all symbols at once, or gives the same value to all

    @property
    @abstractmethod
    def warmup(self) -> int:
        """Bars needed before the one that a value is for."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """One name per value, with the parameters that tell two of a kind apart."""

    @abstractmethod
    def compute(self, window: Window) -> Iterable[np.ndarray]:
        """Per name one array [n, A], or [n, 1] for all symbols alike; what it says of the unlisted is not used."""

    def for_panel(self, panel: Panel) -> tuple[Transform, ...]:
        """What it stands for on this panel; UserError if the panel cannot provide it."""
        return (self,)


REGISTRY: dict[str, type[Transform]] = {}
T = TypeVar("T", bound=type[Transform])


def feature(name: str) -> Callable[[T], T]:
    """Register a transform under `name`."""

    def register(cls: T) -> T:
        assert name not in REGISTRY, f"two features are called {name}"
        cls.name = name
        REGISTRY[name] = cls
        return cls

    return register
