"""What a local exchange is told. Keys are no settings: they come from the environment."""

from __future__ import annotations

from dataclasses import dataclass

from envs.config import TradingConfig
from kit.config import setting
from market.data import DataConfig
from market.sources.times import parse_moment
from paper.exchange.faults import Fault


@dataclass(frozen=True)
class ExchangeConfig:
    """A market to replay, how it trades, and where it listens."""

    data: DataConfig = setting(help="the bars that are replayed")
    trading: TradingConfig = setting(TradingConfig(), help="fill, costs and whether there are shorts")
    start: str | None = setting(None, help="the first bar that has closed is the first at or after this time")
    bar: int = setting(0, low=0, help="its number, where no start is given")
    cash: float = setting(1e6, above=0, help="what the account starts with")
    whole: bool = setting(False, help="trade whole shares only")
    partial: float = setting(0.0, low=0, high=1, help="share of orders that fill in two executions")
    seed: int = setting(0, low=0, help="of which orders these are")
    pace: float | None = setting(None, above=0, help="seconds a bar (default: in lock-step, the clock waits)")
    requests_per_minute: int = setting(0, low=0, help="more are answered with 429; 0: no limit; Alpaca's is 200")
    faults: list[Fault] = setting([], help="what goes wrong, as POST /local/faults takes it")
    host: str = setting("127.0.0.1", help="where it listens")
    port: int = setting(8701, low=0, high=65535, help="0: any free one")

    def __post_init__(self) -> None:
        if self.start is not None:
            parse_moment(self.start)
