"""Networks that look the market up: what depends on the bar alone is computed once per bar.

A network reads the market at a bar and a portfolio. `prepare` does the first, for as many bars as
there are; `join` does the second, for as many portfolios. How late the portfolio joins is the head's:

- `bilinear` (default): the bar gives coefficients, and the output is linear in what the portfolio shows;
- `late`: the bar gives a hidden layer per asset, which the portfolio shifts before its non-linearity;
- `joint`: the portfolio goes through the encoder too, so that nothing can be prepared.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import nn

from envs.market import MarketTensors
from kit.config import setting


@dataclass(frozen=True)
class NetworkConfig:
    """What turns features and portfolio into actions and values."""

    encoder: Literal["shared", "flat", "attention"] = setting(
        "shared", help="shared: one small network for every asset; flat: all assets at once; attention: across assets"
    )
    head: Literal["bilinear", "late", "joint"] = setting("bilinear", help="where the portfolio joins; joint is slowest")
    hidden: tuple[int, ...] = setting((32, 32), help="widths of the encoder's layers")
    lookback: int = setting(1, low=1, high=1024, help="bars that the encoder sees, the current one included")

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden must be widths of at least one layer, e.g. [32, 32], not {list(self.hidden)}")
        if self.encoder == "attention" and self.hidden[0] % Attention.HEADS:
            raise ValueError(f"attention needs a first hidden width divisible by 4, not {self.hidden[0]}")


class Shared(nn.Module):
    """The same small network for every asset; a straight line beside it, so that what is linear is learnt first."""

    def __init__(self, assets: int, inputs: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.line = nn.Linear(inputs, hidden[-1])
        self.curve = mlp(inputs, *hidden)

    def forward(self, seen: torch.Tensor) -> torch.Tensor:  # [B, A, I] -> [B, A, D]
        return self.line(seen) + self.curve(seen)


class Flat(nn.Module):
    """All assets in one vector: can tell them apart, and learns far more slowly."""

    def __init__(self, assets: int, inputs: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.assets = assets
        self.body = mlp(assets * inputs, *hidden)
        self.spread = nn.Linear(hidden[-1], assets * hidden[-1])

    def forward(self, seen: torch.Tensor) -> torch.Tensor:  # [B, A, I] -> [B, A, D]
        return self.spread(self.body(seen.flatten(1))).unflatten(1, (self.assets, -1))


class Attention(nn.Module):
    """Each asset looks at the others of its bar, once."""

    HEADS = 4

    def __init__(self, assets: int, inputs: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        width = hidden[0]
        if width % self.HEADS:
            raise ValueError(f"attention needs a first hidden width divisible by {self.HEADS}, not {width}")
        self.enter = nn.Linear(inputs, width)
        self.queries = nn.Linear(width, 3 * width)
        self.back = nn.Linear(width, width)
        self.curve = mlp(width, *hidden)
        self.line = nn.Linear(width, hidden[-1])

    def forward(self, seen: torch.Tensor) -> torch.Tensor:  # [B, A, I] -> [B, A, D]
        entered = self.enter(seen)
        parts = self.queries(entered).unflatten(2, (3, self.HEADS, -1)).permute(2, 0, 3, 1, 4)  # [3, B, H, A, W]
        looked = nn.functional.scaled_dot_product_attention(*parts.unbind())
        mixed = entered + self.back(looked.transpose(1, 2).flatten(2))
        return self.line(mixed) + self.curve(mixed)


ENCODERS = {"shared": Shared, "flat": Flat, "attention": Attention}


def mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.SiLU(inplace=False)]
    return nn.Sequential(*layers)


class PortfolioNet(nn.Module):
    """(bar, what the portfolio shows) -> `outputs` numbers per asset, and as many for the whole.

    `own` counts what the portfolio shows of each asset, `common` what it shows of itself.
    """

    def __init__(
        self, config: NetworkConfig, assets: int, features: int, own: int, common: int, outputs: int, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.config, self.assets, self.outputs, self.own, self.common = config, assets, outputs, own, common
        inputs = config.lookback * features
        if config.head == "joint":
            inputs += own + common
        self.encoder = ENCODERS[config.encoder](assets, inputs, config.hidden)
        width = config.hidden[-1]
        terms = 1 + own + common if config.head == "bilinear" else 1
        if config.head == "late":
            self.shift = nn.Linear(own + common, width, bias=False)
        self.each = nn.Linear(width, outputs * terms)
        self.whole = nn.Linear(width, outputs * (1 + common if config.head == "bilinear" else 1))
        with torch.no_grad():  # near zero at first: actions near equal weight, values near zero
            for last in (self.each, self.whole):
                last.weight.mul_(scale)
                last.bias.zero_()

    def prepare(self, market: MarketTensors, bars: torch.Tensor | None = None) -> torch.Tensor:
        """What depends on the bar alone, a row per bar: bars [B] (default: every bar) -> [B, ...]."""
        seen = window(market.features, self.config.lookback, bars)
        if self.config.head == "joint":
            return seen
        code = self.encoder(seen)
        if self.config.head == "late":
            return code
        own = self.each(code).transpose(1, 2).flatten(1)  # [B, K * A]
        return torch.cat([own, self.whole(code.mean(1))], dim=1)

    def join(
        self, prepared: torch.Tensor, own: list[torch.Tensor], common: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """own [B, A] each, common [B] each -> [B, R, A] per asset, [B, R] of the whole.

        prepared [G, ...] has a row for each portfolio, or for each of as many groups of neighbours.
        """
        groups = (len(prepared), -1)
        if self.config.head == "bilinear":
            return self._join_bilinear(prepared, own, common)
        shown = torch.stack([*own, *(c.unsqueeze(1).expand(-1, self.assets) for c in common)], dim=2)
        if self.config.head == "late":
            shifted = prepared.unsqueeze(1) + self.shift(shown).unflatten(0, groups)
            code = nn.functional.silu(shifted.flatten(0, 1))
        else:
            shown = shown.unflatten(0, groups)
            seen = prepared.unsqueeze(1).expand(-1, shown.shape[1], -1, -1)
            code = self.encoder(torch.cat([seen, shown], dim=3).flatten(0, 1))
        return self.each(code).transpose(1, 2), self.whole(code.mean(1))

    def pooled(self, prepared: torch.Tensor, own: list[torch.Tensor], common: list[torch.Tensor]) -> torch.Tensor:
        """What `join` answers, its mean over the assets and the whole in one: [B, R]."""
        if self.config.head != "bilinear":
            each, whole = self.join(prepared, own, common)
            return each.mean(2) + whole
        parts, rest, numbers = self._coefficients(prepared, common)
        groups = (len(prepared), -1)
        weights = parts[:, :, 1 : 1 + len(own)].flatten(2) / self.assets  # [G, R, O * A]
        seen = torch.cat(own, dim=1).unflatten(0, groups)  # [G, K, O * A]
        alike = torch.cat([parts[:, :, :1], parts[:, :, 1 + len(own) :]], dim=2).mean(3) + rest  # [G, R, 1 + C]
        return (seen @ weights.mT + numbers @ alike.mT).flatten(0, 1)

    def _join_bilinear(
        self, prepared: torch.Tensor, own: list[torch.Tensor], common: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        parts, rest, numbers = self._coefficients(prepared, common)
        ones = torch.ones_like(own[0])
        columns = [ones, *own, *(number.unsqueeze(1).expand_as(ones) for number in common)]
        shown = torch.stack(columns, dim=1).unflatten(0, (len(prepared), -1))  # [G, K, T, A]
        each = (parts.unsqueeze(1) * shown.unsqueeze(2)).sum(3)  # [G, K, R, A]
        whole = (rest.unsqueeze(1) * numbers.unsqueeze(2)).sum(3)  # [G, K, R]
        return each.flatten(0, 1), whole.flatten(0, 1)

    def _coefficients(
        self, prepared: torch.Tensor, common: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """[G, R, T, A] of each asset, [G, R, 1 + C] of the whole, and what the whole's are for, [G, K, 1 + C]."""
        terms = 1 + self.own + self.common
        parts, rest = prepared.split([self.outputs * terms * self.assets, self.whole.out_features], dim=1)
        numbers = torch.stack([torch.ones_like(common[0]), *common], dim=1)
        shape = (self.outputs, terms, self.assets)
        return parts.unflatten(1, shape), rest.unflatten(1, (self.outputs, -1)), numbers.unflatten(0, (len(parts), -1))


def window(features: torch.Tensor, lookback: int, bars: torch.Tensor | None) -> torch.Tensor:
    """[T, A, F] -> [B, A, lookback * F], oldest bar first; before the first bar the first one is repeated."""
    if lookback == 1:
        return features if bars is None else features.index_select(0, bars)
    if bars is None:
        bars = torch.arange(len(features), device=features.device)
    back = torch.arange(1 - lookback, 1, device=features.device)
    rows = (bars.unsqueeze(1) + back).clamp_min(0)  # [B, L]
    return features[rows].transpose(1, 2).flatten(2)
