"""Spin Pet over restarts of the service: the chain went on meanwhile, and nothing is missing.

The box lives through all of it; the store is one in memory that is opened again.
"""

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from attrs import define, field
from structlog.testing import capture_logs
from support.memory import MemoryNetwork
from support.slow import but_slow
from support.stack import push_client, settings_for_tests, virtual_now_ms

from trio_feed import service
from trio_feed.bus.local import LocalBus
from trio_feed.cluster import opening as cluster_opening
from trio_feed.core.effects import ChannelNews
from trio_feed.environment import Environment
from trio_feed.ingest.chain_prices import ChainPrices
from trio_feed.model import Interval, Kline, Price, Series
from trio_feed.settings import Settings, SimulatorSettings
from trio_feed.simulator.exchanges import serve_exchange, spinpet_market
from trio_feed.simulator.machinery.memory_stream import pipe_pair
from trio_feed.simulator.solana.node import SolanaNode
from trio_feed.store import MemoryStore
from trio_feed.testing.judge import Stored
from trio_feed.testing.prices import Bar, bars_of, prices_of

LENGTHS = {Interval.S1: 1_000, Interval.S30: 30_000, Interval.M5: 300_000}
BOX = SimulatorSettings(venue="spinpet", seed=4, trades_per_minute=40)
MARKET = spinpet_market(BOX)


def settings(*more: str) -> Settings:
    return settings_for_tests(
        ".symbols=['*']",
        ".intervals=[]",
        ".trade_intervals=['1s','30s','5m']",
        ".channels=['kline','trade']",
        f".solana.program_id={MARKET.program_id}",
        *more,
        venue="spinpet",
    )


@define
class World:
    """A box, a store that is kept, and a service that is started again and again."""

    network: MemoryNetwork
    box: SolanaNode
    store: MemoryStore
    lines: list[Any] = field(factory=list)

    @asynccontextmanager
    async def service(self, *more: str) -> AsyncIterator[service.Ready]:
        environment = Environment(
            self.network.dial, self.network.listen, virtual_now_ms, random.Random(1)
        )
        with capture_logs() as lines:
            async with trio.open_nursery() as nursery:
                yield await nursery.start(service.run, settings(*more), environment)
                nursery.cancel_scope.cancel()
        self.lines += lines
        self.network.listeners.pop(("push", 80), None)

    async def stored(self, mint: str, interval: Interval) -> Stored:
        rows = await self.store.history(Series("spinpet", mint, interval), limit=10**6)
        return {row.open_ms: row for row in rows}

    def truth(self, mint: str, interval: Interval) -> Mapping[int, Bar]:
        return bars_of(prices_of(self.box.chain, mint), interval)

    async def wrong(self, *, first: bool = True) -> list[str]:
        """What is stored otherwise than it was, or is missing.  The first candles of a mint are
        not certain."""
        found = []
        for mint in MARKET.mints:
            for interval, length in LENGTHS.items():
                truth, stored = self.truth(mint, interval), await self.stored(mint, interval)
                until = virtual_now_ms() - 60_000 - length
                for at, bar in truth.items():
                    if at <= min(stored, default=0) or at > until:
                        continue
                    row = stored.get(at)
                    where = f"{interval.value} {at}"
                    if row is None:
                        found.append(f"no {where}")
                    elif not row.complete:
                        found.append(f"{where} is not complete")
                    elif _values(row) != (*bar.values[:4], bar.number):
                        found.append(f"{where} is {_values(row)} and not {bar}")
                found += [f"invented {at}" for at, row in stored.items()
                          if at not in truth and row.trades]  # fmt: skip
        return found

    def events(self, name: str) -> list[Any]:
        return [line for line in self.lines if line["event"] == name]


def _values(row: Kline) -> tuple[float, ...]:
    return (*map(float, (row.open, row.high, row.low, row.close)), row.trades)


@asynccontextmanager
async def chain(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    network, store = MemoryNetwork(pipe_pair), MemoryStore(1)

    @asynccontextmanager
    async def kept(*_: Any, **__: Any) -> AsyncIterator[MemoryStore]:
        store.epoch += 1
        yield store

    monkeypatch.setattr(cluster_opening, "open_store", kept)
    async with trio.open_nursery() as nursery:
        listeners = await network.listen("exchange", 80)
        box = await nursery.start(
            partial(serve_exchange, BOX, listeners=listeners, now_ms=virtual_now_ms)
        )
        box.market.talkative = False
        yield World(network, box, store)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("away_s", but_slow([0.0, 7.0, 95.0, 1500.0], quick=[0.0, 1500.0]))
async def test_what_happened_while_nothing_ran_is_fetched(
    away_s: float, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chain(monkeypatch) as environment:
        async with environment.service():
            await trio.sleep(700.3)
        await trio.sleep(away_s)
        async with environment.service():
            await trio.sleep(700)
            assert await environment.wrong() == []
        assert environment.events("chain.gap") == []
        assert len(environment.events("chain.resumed")) == 1
        assert len(await environment.stored(MARKET.mints[0], Interval.S1)) > 150


@pytest.mark.parametrize("commitment", ["confirmed", "processed"])
async def test_what_was_not_looked_up_yet_when_it_ended_is_made_good(
    commitment: str, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No candle is stored without it, so that none has to be revised."""
    more = (f".solana.commitment={commitment}",)
    async with chain(monkeypatch) as environment:
        for n in range(7):  # at any phase of the readings of the list
            async with environment.service(*more):
                await trio.sleep(100 + 1.5 * n)
                environment.box.chain.fork(1)
                environment.box.lose_notifications(3)
                await trio.sleep(7)
        before = len(environment.events("candle.revised"))
        async with environment.service(*more):
            await trio.sleep(400)
            assert await environment.wrong() == []
        assert environment.events("chain.gap") == []
        assert before == 0


async def test_a_start_right_after_revises_nothing(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chain(monkeypatch) as environment:
        for _ in range(3):
            async with environment.service():
                await trio.sleep(333.3)
        assert environment.events("candle.revised") == []
        assert len(environment.events("chain.resumed")) == 2


@pytest.mark.parametrize("ends", ["orderly", "killed"])
async def test_a_price_is_told_once_over_restarts(
    ends: str, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was told is on disk; of who is killed, but for the last seconds."""
    told: list[tuple[float, str]] = []
    publish = LocalBus.publish

    def noted(bus: LocalBus, news: Any, **how: Any) -> Any:
        if isinstance(news, ChannelNews) and isinstance(news.data, Price):
            told.append((trio.current_time(), news.data.key))
        return publish(bus, news, **how)

    monkeypatch.setattr(LocalBus, "publish", noted)
    if ends == "killed":
        monkeypatch.setattr(ChainPrices, "close", lambda _prices: None)
    async with chain(monkeypatch) as environment:
        ended: list[float] = []
        for away_s in (0.0, 3.0, 60.0, 0.0):
            async with environment.service():
                await trio.sleep(330.3)
                environment.box.lose_notifications(1)
                await trio.sleep(5)
            ended.append(trio.current_time())
            await trio.sleep(away_s)
        async with environment.service():
            environment.box.be_quiet(100)
            await trio.sleep(60)
        first: dict[str, float] = {}
        repeated = [first[key] for at, key in told if first.setdefault(key, at) != at]
        if ends == "orderly":
            assert repeated == []
        assert all(any(0 <= end - at <= 20 for end in ended) for at in repeated)
        landed = [
            f"{each.transaction.signature}:{quote.index}"
            for each in environment.box.chain.landed
            for quote in each.transaction.quotes
        ]
        assert set(landed[20:]) <= first.keys() <= {*landed}  # before the first none listened
        assert len(landed) > 1000


async def test_what_the_nodes_do_not_know_any_more_is_said_and_marked(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chain(monkeypatch) as environment:
        async with environment.service():
            await trio.sleep(700.3)
        left_ms = virtual_now_ms()
        await trio.sleep(1000)
        environment.box.chain.forget()
        back_ms = virtual_now_ms()
        async with environment.service():
            await trio.sleep(1000)
            for mint in MARKET.mints:
                for interval, length in LENGTHS.items():
                    rows = await environment.stored(mint, interval)
                    unsure = [at for at in rows if left_ms < at + length and at < back_ms]
                    assert not any(rows[at].complete for at in unsure)
                    later = [at for at in rows if at > back_ms + 350_000]
                    assert later
                    assert all(rows[at].complete for at in later)
        (gap,) = environment.events("chain.gap")
        assert gap["problem"] == "the list ends before the last known transaction"
        assert gap["from_ms"] <= left_ms
        assert gap["to_ms"] >= back_ms


async def test_a_cursor_that_cannot_be_read_is_said(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chain(monkeypatch) as environment:
        environment.store.put_cursor(f"spinpet {MARKET.program_id}", "{}")
        async with environment.service():
            await trio.sleep(200)
        assert len(environment.events("chain.cursor_lost")) == 1
        assert environment.events("chain.resumed") == []


@pytest.mark.parametrize("away_s", but_slow([0.0, 500.0], quick=[500.0]))
async def test_silent_minutes_are_flat_in_what_is_made_of_minutes(
    away_s: float, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = (".trade_intervals=['1s','30s','1m']", ".rollup_intervals=['5m','15m']")
    async with chain(monkeypatch) as environment:
        async with environment.service(*more):
            await trio.sleep(400)
            environment.box.be_quiet(1100)
            await trio.sleep(1500)
            environment.box.lose_notifications(5)
            await trio.sleep(100)
            environment.box.be_quiet(200)
            await trio.sleep(150)
        await trio.sleep(away_s)
        async with environment.service(*more):
            await trio.sleep(1500)
            environment.box.be_quiet(1200)
            await trio.sleep(1000)
            assert await environment.wrong() == []
            for mint in MARKET.mints:
                rows = await environment.stored(mint, Interval.M15)
                assert len(rows) >= 4
                assert [row.complete for row in rows.values()] == [False, *[True] * (len(rows) - 1)]
                assert max(rows) > virtual_now_ms() - 1_900_000  # though all are silent since
        assert environment.events("candle.hole") == []


async def test_mints_that_nobody_trades_any_more_are_retired(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chain(monkeypatch) as environment:
        async with environment.service(".idle_s=60") as ready:
            await trio.sleep(20)
            assert ready.feeds[0].driver.engines.keys() <= {*MARKET.mints}
            environment.box.be_quiet(1_000)
            await trio.sleep(130)
            assert ready.feeds[0].driver.engines == {}
        assert environment.events("symbol.retired")


async def test_silent_mints_are_flat_at_a_client_and_write_no_rows(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a restart, and when they were retired: a chart sees flat candles."""
    async with chain(monkeypatch) as environment:
        async with environment.service(".idle_s=120"):
            await trio.sleep(300)
            environment.box.be_quiet(1_500)
            await trio.sleep(350)  # the longest candle that runs is over
            rows = sum(environment.store.statistics().sizes.rows.values())
            await trio.sleep(600)
            assert sum(environment.store.statistics().sizes.rows.values()) == rows
        assert {line["symbol"] for line in environment.events("symbol.retired")} == {*MARKET.mints}
        async with environment.service(".idle_s=120") as ready:
            await trio.sleep(300)
            assert sum(environment.store.statistics().sizes.rows.values()) == rows
            assert ready.feeds[0].driver.engines == {}
            await trio.sleep(800)
            stack: Any = SimpleNamespace(ready=ready, network=environment.network)
            mint = MARKET.mints[0]
            truth = environment.truth(mint, Interval.S30)
            async with push_client(stack) as client:
                await client.ask(type="history", symbol=mint, interval="30s", limit=60)
                answer = await client.of_type("history_data")
            told = answer["data"]["data"]
            opens = [row["time"] * 1000 for row in told]
            assert opens == list(range(opens[0], opens[-1] + 1, 30_000))
            silent = [row for at, row in zip(opens, told, strict=True) if at not in truth]
            assert len(silent) > 40
            for row in silent:
                assert row["open"] == row["high"] == row["low"] == row["close"]
                assert row["complete"]


async def test_without_a_node_to_ask_it_is_said_that_nothing_is_repaired(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chain(monkeypatch) as environment:
        async with environment.service(".connection.rest_url=''"):
            await trio.sleep(120)
            assert environment.box.requests == 0
            environment.box.lose_notifications(10**6)
            await trio.sleep(60)
        (line,) = environment.events("chain.repairs_off")
        assert line["log_level"] == "warning"
        assert await environment.stored(MARKET.mints[0], Interval.S1)
        assert await environment.store.cursor(f"spinpet {MARKET.program_id}") is None
        environment.lines.clear()
        async with environment.service():
            await trio.sleep(30)
        assert environment.events("chain.repairs_off") == []
