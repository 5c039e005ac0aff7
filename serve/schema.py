"""What a request may say and what an answer says. Everything is checked: nothing is assumed, nothing ignored."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

MOST_SYMBOLS, MOST_BARS = 2_000, 10_000
VERSION = r"^[0-9a-f]{12}$"

Name = Annotated[str, Field(min_length=1, max_length=64)]
Cell = Annotated[float, Field(allow_inf_nan=False)] | None
Column = list[list[Cell]]  # a list per symbol, a value per bar; null: nothing there yet
Moments = Annotated[list[AwareDatetime], Field(min_length=1, max_length=MOST_BARS)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class ObservedColumn(Strict):
    """A column beside the bars: each value with the time at which it became known."""

    values: Column
    known_at: list[list[AwareDatetime | None]]


class Portfolio(Strict):
    cash: float
    positions: dict[Name, float] = Field(description="quantities; a symbol that is not named is not held")
    peak_equity: float = Field(gt=0, description="the highest equity so far")


class ActionsRequest(Strict):
    """Recent bars as columns, and the portfolio that is to be moved."""

    symbols: Annotated[list[Name], Field(min_length=1, max_length=MOST_SYMBOLS)]
    times: Moments = Field(description="starts of bars, increasing")
    closes: Moments = Field(description="ends of bars: the last one is when the decision is taken")
    open: Column
    high: Column
    low: Column
    close: Column
    volume: Column
    tradable: list[list[bool]] | None = Field(
        None, description="false in a gap, where prices repeat the last close with volume 0; default: wherever listed"
    )
    observed: dict[Name, ObservedColumn] = Field(default_factory=dict)
    portfolio: Portfolio
    asked_at: AwareDatetime | None = Field(None, description="default: the server's clock")
    version: str | None = Field(None, pattern=VERSION, description="default: the champion")


class Vote(Strict):
    name: str
    share: float
    weights: dict[str, float]
    cash: float


class ActionsAnswer(Strict):
    version: str
    as_of: datetime
    asked_at: datetime
    weights: dict[str, float] = Field(description="the ensemble's target")
    cash: float
    ordered: dict[str, float] = Field(description="after rate and no-trade band: what orders should reach this bar")
    ordered_cash: float
    members: list[Vote]
    dispersion: float = Field(description="0: members agree; 1: they have nothing in common")
    warnings: list[str]
    milliseconds: float


class Problem(Exception):
    """A request that is refused: what field, and why (RFC 9457)."""

    def __init__(self, status: int, field: str, reason: str, retry_after: int | None = None) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.status, self.field, self.reason, self.retry_after = status, field, reason, retry_after


def parse(body: bytes) -> ActionsRequest:
    """The request, or a Problem that names its first fault."""
    try:
        return ActionsRequest.model_validate_json(body)
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise Problem(422, field, first["msg"]) from None


def utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)
