"""The desk's own broker, driving the local exchange, is what the desk relies on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from broker_conformance import BrokerConformance
from exchanges import advance, serving, trading

from envs.config import CostConfig
from paper.alpaca import LocalBroker, LocalConfig
from paper.exchange.run import Running


class TestLocalExchangeConforms(BrokerConformance):
    @pytest.fixture
    def exchange(self) -> Iterator[Running]:
        with serving(trading=trading(costs=CostConfig(cash_rate=0.05))) as running:
            yield running

    @pytest.fixture
    def broker(self, exchange: Running) -> Iterator[LocalBroker]:
        broker = LocalBroker(LocalConfig(url=exchange.url))
        yield broker
        broker.close()

    @pytest.fixture
    def symbols(self) -> list[str]:
        return ["S000", "S001"]

    @pytest.fixture
    def span(self) -> tuple[datetime, datetime]:
        return datetime(2019, 1, 14, tzinfo=UTC), datetime(2019, 2, 1, tzinfo=UTC)

    @pytest.fixture
    def settle(self, exchange: Running) -> Callable[[], None]:
        def to_the_next_fill() -> None:
            while advance(exchange)["stage"] != "filled":
                pass

        return to_the_next_fill

    def test_interest_is_an_activity(self, broker: LocalBroker, settle: Callable[[], None]):
        settle()
        before = broker.account().cash
        settle()
        settle()
        paid = broker.activities("")
        assert [activity.kind for activity in paid] == ["INT", "INT"]
        assert sum(activity.cash for activity in paid) == broker.account().cash - before > 0
        assert list(broker.activities(paid[0].id)) == [paid[1]]


def test_the_lock_step_is_driven_by_the_broker():
    with serving() as exchange:
        broker = LocalBroker(LocalConfig(url=exchange.url))
        now = broker.local_clock()
        assert (now.bar, now.stage, now.close) == (30, "closed", broker.now())
        filled = broker.advance(now.bar, now.stage)
        assert (filled.bar, filled.stage) == (30, "filled")
        assert broker.advance(now.bar, now.stage) == filled
        assert broker.advance(30, "filled").bar == 31
        broker.close()
