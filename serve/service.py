"""What answers: the versions that are loaded, the queue before them, and the rules of time. No HTTP, no Ray."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kit.errors import UserError
from market.panel import Panel
from serve.config import EndpointConfig
from serve.explain import explain
from serve.model import Decision, Model, by_symbol
from serve.panel import panel_of
from serve.schema import ActionsAnswer, ActionsRequest, Portfolio, Problem, Vote, last_close, moment, parse

log = logging.getLogger(__name__)

CLOCKS_APART = 60.0  # seconds
COME_AGAIN = 1  # seconds, where there is no better guess
SWITCH = 0.0005  # seconds after which a decision lets a body go on arriving; Python's own 5 ms are a decision's length


@dataclass(frozen=True)
class Versions:
    """What a replica serves: all of one moment, replaced as a whole."""

    champion: Model
    others: Mapping[str, Model] = field(default_factory=dict)  # by version; asked for by name
    shadows: Sequence[Model] = ()  # see the traffic; nobody sees them

    @property
    def loaded(self) -> tuple[Model, ...]:
        return (self.champion, *self.others.values(), *self.shadows)

    def asked(self, version: str | None) -> Model:
        if version is None or version == self.champion.version:
            return self.champion
        if version not in self.others:
            there = ", ".join([self.champion.version, *self.others])
            raise Problem(422, "version", f"{version} is not served; expected one of {there}")
        return self.others[version]


@dataclass(frozen=True)
class Asked:
    """A request that is to be answered."""

    model: Model
    panel: Panel
    request: ActionsRequest
    asked_at: datetime


class Service:
    """One thread decides, another explains; callers wait in a queue of bounded length, for a bounded time."""

    def __init__(
        self,
        config: EndpointConfig,
        shadowed: Callable[[str], None] = lambda line: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        torch.set_num_threads(1)
        sys.setswitchinterval(SWITCH)
        self.config, self.shadowed, self.clock = config, shadowed, clock
        self.versions: Versions | None = None
        self.trouble = ""  # why what was asked for last is not served
        self.waiting = 0
        self.decided: dict[str, int] = {}  # by version
        self._decider = ThreadPoolExecutor(1, thread_name_prefix="decide")
        self._explainer = ThreadPoolExecutor(1, thread_name_prefix="explain")  # takes seconds; no decision waits for it
        self._batch: list[tuple[Asked, asyncio.Future[Decision]]] = []

    # -- which versions

    def load(self, folders: Mapping[str, Sequence[str | Path]]) -> bool:
        """Load and verify what is new, then change over at once. What fails to load leaves everything as it was."""
        known = {} if self.versions is None else {model.version: model for model in self.versions.loaded}
        try:
            models = {state: [_model(folder, known) for folder in there] for state, there in folders.items()}
            champions = models.get("champion", [])
            if len(champions) != 1:
                raise UserError(f"champion: {len(champions)} versions; expected one")
        except Exception as error:  # whatever it is, callers are served on
            self.trouble = " ".join(f"{error}".split()) or type(error).__name__
            told = None if isinstance(error, UserError) else error
            log.error("not loaded, what was served before is served on: %s", self.trouble, exc_info=told)
            return False
        (champion,) = champions
        others = {model.version: model for model in models.get("canary", ())}
        self.versions, self.trouble = Versions(champion, others, tuple(models.get("shadow", ()))), ""
        log.info(
            "serving %s, canary %s, %d in the shadow",
            champion.version,
            ", ".join(others) or "none",
            len(models.get("shadow", ())),
        )
        return True

    @property
    def now(self) -> Versions:
        if self.versions is None:
            raise Problem(503, "", "no version is loaded yet", COME_AGAIN)
        return self.versions

    # -- decisions

    async def actions(self, body: bytes) -> ActionsAnswer:
        began = time.perf_counter()
        async with _Place(self):
            asked, decision = await self._in_time(self._decide(body))
        self.decided[asked.model.version] = self.decided.get(asked.model.version, 0) + 1
        return self._answer(asked, decision, (time.perf_counter() - began) * 1e3)

    async def explained(self, body: bytes) -> dict[str, Any]:
        async with _Place(self):
            return await self._in_time(_on(self._explainer, self._explain, body))

    async def _decide(self, body: bytes) -> tuple[Asked, Decision]:
        if self.config.batch > 1:
            asked = await _on(self._decider, self._check, body)
            return asked, await self._together(asked)
        return await _on(self._decider, self._check_and_decide, body)

    def _check_and_decide(self, body: bytes) -> tuple[Asked, Decision]:
        asked = self._check(body)
        return asked, asked.model.decide(asked.panel, asked.request.portfolio)

    def _explain(self, body: bytes) -> dict[str, Any]:
        asked = self._check(body)
        return explain(asked.model, asked.panel, asked.request.portfolio)

    def _check(self, body: bytes) -> Asked:
        request = parse(body)
        model = self.now.asked(request.version)
        panel = panel_of(request, model.lens, model.needed)
        return Asked(model, panel, request, self._check_time(request))

    def _check_time(self, request: ActionsRequest) -> datetime:
        now = self.clock()
        asked_at = now if request.asked_at is None else moment(request.asked_at, "asked_at")
        as_of = last_close(request)
        if self.config.freshness == "strict" and abs((asked_at - now).total_seconds()) > CLOCKS_APART:
            apart = f"is {(asked_at - now).total_seconds():+.0f} s from the server's clock"
            raise Problem(422, "asked_at", f"{apart}; expected at most {CLOCKS_APART:g}, or freshness = request")
        if as_of > asked_at:
            raise Problem(422, f"closes.{len(request.closes) - 1}", "is after asked_at: the bar has not ended yet")
        if asked_at - as_of > timedelta(hours=self.config.max_age):
            hours = (asked_at - as_of).total_seconds() / 3600
            raise Problem(
                422,
                f"closes.{len(request.closes) - 1}",
                f"is {hours:.1f} hours old; expected at most {self.config.max_age:g}",
            )
        return asked_at

    def _answer(self, asked: Asked, decision: Decision, milliseconds: float) -> ActionsAnswer:
        model = asked.model
        weights, cash = by_symbol(model.symbols, decision.wanted)
        ordered, left = by_symbol(model.symbols, decision.ordered)
        votes = []
        for member, vote in zip(model.members, decision.votes):
            theirs, kept = by_symbol(model.symbols, vote)
            votes.append(Vote.model_construct(name=member.name, share=member.weight, weights=theirs, cash=kept))
        return ActionsAnswer.model_construct(
            version=model.version,
            as_of=last_close(asked.request),
            asked_at=asked.asked_at,
            weights=weights,
            cash=cash,
            ordered=ordered,
            ordered_cash=left,
            members=votes,
            dispersion=decision.dispersion,
            warnings=list(decision.warnings),
            milliseconds=round(milliseconds, 3),
        )

    # -- the shadow

    async def shadow(self, body: bytes, answer: ActionsAnswer) -> None:
        """What shadow versions would have said, into a log; after the answer, and only when nobody waits."""
        versions = self.versions
        if versions is None or not versions.shadows:
            return
        for model in versions.shadows:
            line: dict[str, Any] = {
                "at": answer.asked_at.isoformat(),
                "version": model.version,
                "beside": answer.version,
            }
            if self.waiting:
                line["skipped"] = "the replica was busy"
            else:
                line |= await _on(self._decider, _shadowed, model, body)
            self.shadowed(json.dumps(line))

    # -- the queue

    async def _in_time(self, work: Any) -> Any:
        try:
            return await asyncio.wait_for(work, self.config.timeout)
        except TimeoutError:
            raise Problem(504, "", f"no answer within {self.config.timeout:g} s", COME_AGAIN) from None

    async def _together(self, asked: Asked) -> Decision:
        """Wait a little for others, then decide all of them in one pass."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Decision] = loop.create_future()
        self._batch.append((asked, answer))
        if len(self._batch) >= self.config.batch:
            self._flush()
        elif len(self._batch) == 1:
            loop.call_later(self.config.batch_wait, self._flush)
        return await answer

    def _flush(self) -> None:
        """Depends on none of those who wait: any of them may give up."""
        batch, self._batch = self._batch, []
        for model in {id(asked.model): asked.model for asked, _ in batch}.values():
            mine = [(asked, answer) for asked, answer in batch if asked.model is model]
            pairs = [(asked.panel, asked.request.portfolio) for asked, _ in mine]
            work = _on(self._decider, _outcomes, model, pairs)
            work.add_done_callback(partial(_hand_out, [answer for _, answer in mine]))


class _Place:
    """In the queue."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def __aenter__(self) -> None:
        if self.service.waiting >= self.service.config.queue:
            raise Problem(503, "", f"{self.service.waiting} requests wait already", COME_AGAIN)
        self.service.waiting += 1

    async def __aexit__(self, *error: object) -> None:
        self.service.waiting -= 1


def _on(thread: ThreadPoolExecutor, work: Callable[..., Any], *given: Any) -> asyncio.Future[Any]:
    return asyncio.get_running_loop().run_in_executor(thread, work, *given)


def _outcomes(model: Model, asked: Sequence[tuple[Panel, Portfolio]]) -> list[Decision | Exception]:
    """In one pass; where that fails one of them is to blame, so each by itself."""
    try:
        return [*model.decide_together(asked)]
    except Exception as error:
        return [error] if len(asked) == 1 else [_outcomes(model, [one])[0] for one in asked]


def _hand_out(answers: Sequence[asyncio.Future[Decision]], work: asyncio.Future[list[Decision | Exception]]) -> None:
    for answer, outcome in zip(answers, work.result()):
        if answer.done():  # nobody waits for it any more
            continue
        if isinstance(outcome, Exception):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)


def _shadowed(model: Model, body: bytes) -> dict[str, Any]:
    """What a shadow says, for its log; a fault of its own is in the log of the server too, and harms nobody."""
    try:
        request = parse(body)
        decision = model.decide(panel_of(request, model.lens, model.needed), request.portfolio)
    except Problem as problem:
        return {"refused": str(problem)}
    except Exception as error:
        log.exception("shadow %s failed", model.version)
        return {"failed": type(error).__name__}
    weights, cash = by_symbol(model.symbols, decision.wanted)
    return {
        "as_of": last_close(request).isoformat(),
        "weights": weights,
        "cash": cash,
        "warnings": decision.warnings,
    }


def _model(folder: str | Path, known: Mapping[str, Model]) -> Model:
    """The one that is loaded already, if its files are still what they were."""
    model = Model(folder)
    return known.get(model.version, model)
