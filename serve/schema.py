"""What a request may say and what an answer says. Everything is checked: nothing is assumed, nothing ignored."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MOST_SYMBOLS, MOST_BARS = 2_000, 10_000
MANY = 1_000  # faults of one request: no use in looking for the first
LONGEST = 300  # characters of a field or a reason

# Lists end at their first fault: a complaint about every number of a large body takes minutes and gigabytes.
_FAST: Any = Field(fail_fast=True)
Name = Annotated[str, Field(min_length=1, max_length=64)]
Version = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
Cell = Annotated[float, Field(allow_inf_nan=False)] | None
Column = Annotated[list[Annotated[list[Cell], _FAST]], _FAST]  # a list per symbol, a value per bar; null: nothing there
Flags = Annotated[list[Annotated[list[bool], _FAST]], _FAST]
EARLIEST, LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
# Read later, each distinct one once (`moment`): all symbols share them, and thousands of dates are slow to make.
Time = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"})]
Times = Annotated[list[Time], Field(fail_fast=True, min_length=1, max_length=MOST_BARS)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class ObservedColumn(Strict):
    """A column beside the bars: each value with the time at which it became known."""

    values: Column
    known_at: Annotated[list[Annotated[list[Time | None], _FAST]], _FAST]


class Portfolio(Strict):
    cash: float
    positions: dict[Name, float] = Field(description="quantities; a symbol that is not named is not held")
    peak_equity: float = Field(gt=0, description="the highest equity so far")


class ActionsRequest(Strict):
    """Recent bars as columns, and the portfolio that is to be moved."""

    symbols: Annotated[list[Name], Field(fail_fast=True, min_length=1, max_length=MOST_SYMBOLS)]
    times: Times = Field(description="starts of bars, increasing")
    closes: Times = Field(description="ends of bars: the last one is when the decision is taken")
    open: Column
    high: Column
    low: Column
    close: Column
    volume: Column
    tradable: Flags | None = Field(
        None, description="false in a gap, where prices repeat the last close with volume 0; default: wherever listed"
    )
    observed: dict[Name, ObservedColumn] = Field(default_factory=dict)
    portfolio: Portfolio
    asked_at: Time | None = Field(None, description="default: the server's clock")
    version: Version | None = Field(None, description="default: the champion")


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


class Refusal(Strict):
    """What every error looks like (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    field: str = Field(description="what is wrong, as close.0.17; empty: no field of the request")
    reason: str = Field(description="why, in one line")


class Problem(Exception):
    """A request that is refused: what field, and why; both may repeat some of it, so they are cut to a line."""

    def __init__(self, status: int, field: str, reason: str, retry_after: int | None = None) -> None:
        field, reason = _line(field), _line(reason)
        super().__init__(f"{field}: {reason}" if field else reason)
        self.status, self.field, self.reason, self.retry_after = status, field, reason, retry_after


def parse(body: bytes) -> ActionsRequest:
    """The request, or a Problem that names its first fault."""
    try:
        request = ActionsRequest.model_validate_json(body)
    except ValidationError as error:
        raise refused(error) from None
    if request.asked_at is not None:
        moment(request.asked_at, "asked_at")
    return request


def refused(error: ValidationError) -> Problem:
    if error.error_count() > MANY:
        return Problem(422, "", f"{error.error_count():,} faults; expected a request as described")
    first: Any = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return Problem(422, ".".join(map(str, first["loc"])), first["msg"])


def _line(text: str) -> str:
    """Of printable signs only, and of bounded length."""
    start = text[: 2 * LONGEST]
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in start).split())
    return line if len(line) <= LONGEST and start == text else f"{line[: LONGEST - 3]}..."


def moment(text: str, field: str) -> datetime:
    """A time in UTC."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Problem(422, field, f"{text!r} is no time; expected one such as 2020-01-02T21:00:00Z") from None
    if found.tzinfo is None:
        raise Problem(422, field, f"{text!r} has no time zone; expected one, such as Z for UTC")
    if not EARLIEST <= found < LATEST:
        raise Problem(422, field, f"{text!r}: expected a year from {EARLIEST.year} to {LATEST.year - 1}")
    return found.astimezone(UTC)


def last_close(request: ActionsRequest) -> datetime:
    return moment(request.closes[-1], f"closes.{len(request.closes) - 1}")
