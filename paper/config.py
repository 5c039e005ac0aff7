"""What a desk is told. Keys and tokens are no settings: they come from the environment alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kit.config import setting
from paper.alpaca import AlpacaConfig, LocalConfig
from paper.limits import Limits
from paper.sleeve import CanaryConfig
from paper.watch.alerts import AlertConfig

JOURNAL_KEY, BOARD_TOKEN = "PODRACER_JOURNAL_KEY", "PODRACER_BOARD_TOKEN"


@dataclass(frozen=True)
class EnsembleConfig:
    """Where the ensemble answers; the token is PODRACER_TOKEN."""

    url: str = setting("http://127.0.0.1:8000", help="the endpoint's address")
    version: str | None = setting(None, help="trade this version alone (default: the champion, whichever it is)")
    deadline: float = setting(10.0, above=0, help="seconds for a decision with all its attempts")
    attempts: int = setting(3, low=1)


@dataclass(frozen=True)
class FileColumns:
    """Observed columns from a file that something else keeps up to date."""

    path: Path = setting(help="a CSV or Parquet file with symbol, known_at and the columns")
    kind: Literal["file"] = "file"
    known_at: str = setting("known_at", help="the column that says when a value became known")
    timezone: str = setting("UTC", help="of times that name no zone")


@dataclass(frozen=True)
class HttpColumns:
    """Observed columns from a server that answers as the local exchange does at /local/observed."""

    url: str = setting(help="asked with ?start=TIME&stop=TIME")
    kind: Literal["http"] = "http"
    timeout: float = setting(10.0, above=0, help="seconds")


@dataclass(frozen=True)
class BrokerColumns:
    """Observed columns from the local exchange itself."""

    kind: Literal["broker"] = "broker"


@dataclass(frozen=True)
class DataConfig:
    """What a decision needs to see, and when it is too old."""

    observed: FileColumns | HttpColumns | BrokerColumns | None = setting(
        None, help="where the columns beside the bars come from, if the ensemble reads any"
    )
    fresh: int = setting(1, low=1, help="an observed value must have become known within so many bars")
    patience: float = setting(60.0, low=0, help="seconds to wait for a bar or a column that is late; then no trade")
    gaps: float = setting(0.0, low=0, high=1, help="share of symbols that may lack the last bar though they trade")
    session_close: str | None = setting(None, help='when daily bars are complete, as "16:00 America/New_York"')


@dataclass(frozen=True)
class OrderConfig:
    """How weights become orders."""

    fractional: bool = setting(True, help="whole shares only, where this is off")
    least: float = setting(1.0, low=0, help="money; smaller orders are not sent")
    band: float = setting(0.0, low=0, below=1, help="changes of weight smaller than this are not traded")
    deadline: float = setting(300.0, above=0, help="seconds after they could fill, until what is open is cancelled")
    settle: float = setting(20.0, above=0, help="seconds until an order that the broker does not know is sent again")


@dataclass(frozen=True)
class PaperConfig:
    """A desk: one account, one ensemble."""

    name: str = setting("desk", help="a short word; its orders carry it")
    broker: AlpacaConfig | LocalConfig = setting(LocalConfig())
    ensemble: EnsembleConfig = setting(EnsembleConfig())
    data: DataConfig = setting(DataConfig())
    orders: OrderConfig = setting(OrderConfig())
    limits: Limits = setting(Limits())
    canary: CanaryConfig = setting(CanaryConfig())
    alerts: AlertConfig = setting(AlertConfig())
    drift: Literal["alert", "reduce"] = setting("alert", help="upon critical drift; reduce: only reductions pass")
    watch: float = setting(15.0, above=0, help="seconds between looks at orders, limits and the kill switch")
    pause: float = setting(0.0, low=0, help="seconds between bars in lock-step, for somebody who watches")
    host: str = setting("127.0.0.1", help="where the dashboard listens")
    port: int = setting(8702, low=0, high=65535, help="of the dashboard; 0: any free one")
    wandb: Literal["auto", "offline", "disabled"] = setting("auto", help="auto: online if WANDB_API_KEY is set")

    def __post_init__(self) -> None:
        if not (self.name.isascii() and self.name.isalnum() and 1 <= len(self.name) <= 12):
            raise ValueError(f"name = {self.name!r}: expected 1 to 12 letters and digits")
