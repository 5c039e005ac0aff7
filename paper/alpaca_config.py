"""Which Alpaca the desk trades at: a paper account, or the local exchange. Never an account with real money."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from kit.config import setting
from market.sources.patience import PER_MINUTE

PAPER = "https://paper-api.alpaca.markets"
DATA = "https://data.alpaca.markets"
LOCAL = "http://127.0.0.1:8701"


@dataclass(frozen=True)
class AlpacaConfig:
    """A paper account at Alpaca. The keys come from APCA_API_KEY_ID and APCA_API_SECRET_KEY."""

    kind: Literal["alpaca"] = setting("alpaca")
    url: str = setting(PAPER, help="of the trading API: Alpaca's for paper, or a server on this machine")
    data_url: str = setting(DATA, help="of the market data")
    stream_url: str | None = setting(None, help="of the order events (default: url, with /stream)")
    bar: Literal["minute", "hour", "day"] = setting("day", help="the size of a bar")
    asset_class: Literal["stocks", "crypto"] = setting("stocks")
    feed: Literal["iex", "sip", "otc"] = setting("iex", help="of stocks; sip and otc need a subscription")
    adjustment: Literal["raw", "split", "dividend", "all"] = setting("all", help="of the prices of stocks")
    hours: Literal["regular", "extended"] = setting("regular", help="of intraday bars of stocks, as in training")
    timeout_s: float = setting(10.0, above=0, help="the longest wait for a part of an answer")
    attempts: int = setting(4, low=1, help="at a question; an order is sent once")
    per_minute: int = setting(PER_MINUTE, low=10, help="calls at most")

    def __post_init__(self) -> None:
        _check("url", self.url, PAPER)
        _check("data_url", self.data_url, DATA)
        _check("stream_url", self.order_events, _stream_of(PAPER))

    @property
    def order_events(self) -> str:
        return self.stream_url or _stream_of(self.url)


@dataclass(frozen=True)
class LocalConfig:
    """The local exchange: `python -m paper exchange`."""

    kind: Literal["local"] = setting("local")
    url: str = setting(LOCAL, help="where the exchange listens, on this machine")
    bar: Literal["minute", "hour", "day"] = setting("day", help="the size of its bars")
    lockstep: bool = setting(True, help="its clock moves only when the desk is done with a bar")
    timeout_s: float = setting(10.0, above=0, help="the longest wait for a part of an answer")
    attempts: int = setting(4, low=1, help="at a question; an order is sent once")

    def __post_init__(self) -> None:
        if not (_on_this_machine(self.url) and _alike(self.url, LOCAL)):
            raise ValueError(f"url = {self.url!r}: expected a server on this machine, as {LOCAL}")


def _stream_of(url: str) -> str:
    return f"ws{url.removeprefix('http')}/stream"


def _check(name: str, url: str, right: str) -> None:
    """Alpaca's own address, or one on this machine; elsewhere nobody is given the keys."""
    if url != right and not (_on_this_machine(url) and _alike(url, right)):
        raise ValueError(f"{name} = {url!r}: expected {right}, or a server on this machine; it trades on paper only")


def _alike(url: str, right: str) -> bool:
    """The same kind of address at another host, encrypted or not."""
    parts, expected = urlsplit(url), urlsplit(right)
    plain = "@" not in parts.netloc and not parts.query and not parts.fragment
    return plain and parts.scheme.rstrip("s") == expected.scheme.rstrip("s") and parts.path == expected.path


def _on_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
