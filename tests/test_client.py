"""The client against the whole service, and against a scripted server, under virtual time."""

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
import trio
import trio_websocket
from attrs import define, field
from support.memory import MemoryNetwork, MemoryStream
from support.slow import but_slow
from support.stack import Stack, open_stack, push_client, settings_for_tests, virtual_now_ms

from trio_feed import service
from trio_feed.client import (
    Authenticated,
    AuthRefused,
    CandleUpdate,
    Client,
    ConnectionChange,
    ConnectionState,
    History,
    ServerError,
    TradeUpdate,
    open_client,
)
from trio_feed.client import connection as connection_module
from trio_feed.cluster import opening as cluster_opening
from trio_feed.environment import Environment
from trio_feed.errors import SettingsError
from trio_feed.model import Interval, Kline
from trio_feed.settings import SimulatorSettings
from trio_feed.simulator.exchanges import serve_exchange
from trio_feed.store import MemoryStore

MINUTE = 60_000
URL = "ws://push:80/ws"


@define
class CuttableNetwork:
    """The way from the client to the service; it can be cut."""

    network: MemoryNetwork
    streams: list[MemoryStream] = field(factory=list)

    async def dial(self, host: str, port: int) -> MemoryStream:
        stream = await self.network.dial(host, port)
        self.streams.append(stream)
        return stream

    def cut(self) -> None:
        if self.streams:
            self.streams[-1].receive_stream.put_eof()

    def environment(self, seed: int = 1) -> Environment:
        return Environment(self.dial, self.network.listen, virtual_now_ms, random.Random(seed))


@define
class Reader:
    """A consumer: keeps what it is told."""

    client: Client
    messages: list[Any] = field(factory=list)

    async def read_until(self, wanted: Callable[[Any], bool]) -> Any:
        async for message in self.client:
            self.messages.append(message)
            if wanted(message):
                return message

    async def until_minute(self, open_ms: int) -> None:
        """Read until the candle that opens there, or a later one, is closed."""
        await self.read_until(
            lambda m: isinstance(m, CandleUpdate) and m.final and m.kline.open_ms >= open_ms
        )

    def closed(self) -> list[Kline]:
        """History and closed candles, in the order of telling."""
        rows: list[Kline] = []
        for message in self.messages:
            if isinstance(message, History):
                rows += message.candles
            elif isinstance(message, CandleUpdate) and message.final:
                rows.append(message.kline)
        return rows

    def resumed(self) -> list[bool | None]:
        return [
            m.recovered
            for m in self.messages
            if isinstance(m, ConnectionChange) and m.state is ConnectionState.RESUMED
        ]


def assert_whole(rows: list[Kline], market: Any) -> None:
    """Every minute once, in order, as the market has it."""
    opens = [kline.open_ms for kline in rows]
    assert opens == list(range(opens[0], opens[0] + len(opens) * MINUTE, MINUTE))
    assert all(k.same_values(market.candle("BTCUSDT", Interval.M1, k.open_ms)) for k in rows)


def now_minute() -> int:
    return int(virtual_now_ms()) // MINUTE * MINUTE


async def wait_ready(stack: Stack) -> None:
    async with push_client(stack) as client:
        await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m")
        await client.wait_for(
            lambda m: m["type"] == "kline_data" and not m["data"]["data"]["is_final"]
        )


@pytest.mark.parametrize("seed", but_slow(range(3), quick=[0]))
async def test_cut_at_random_moments(seed: int, autojump_clock: trio.abc.Clock) -> None:
    chance = random.Random(seed)
    with trio.fail_after(100_000):
        async with open_stack(settings_for_tests(), push_ms=3_000) as stack:
            await wait_ready(stack)
            line = CuttableNetwork(stack.network)
            async with open_client(URL, environment=line.environment(seed)) as client:
                await client.subscribe("BTCUSDT", "1m", history=7)
                reader = Reader(client)
                async with trio.open_nursery() as nursery:

                    async def cut() -> None:
                        for _ in range(40):
                            await trio.sleep(chance.choice([0.0, 0.01, 5.0, 100.0, 900.0]))
                            line.cut()

                    nursery.start_soon(cut)
                    await reader.until_minute(now_minute() + 5 * 60 * MINUTE)
                    nursery.cancel_scope.cancel()
            rows = reader.closed()
            assert len(rows) >= 5 * 60
            assert_whole(rows, stack.market)
            assert len(line.streams) > 15
            assert reader.resumed()
            assert all(reader.resumed())


class ForgetfulStore(MemoryStore):
    """Outlives its service; what was put last may be lost with it."""

    def forget(self, number: int) -> None:
        kept = [
            rows.messages[open_ms]
            for rows in self._series.values()
            for open_ms in rows.opens[: len(rows.opens) - number]
        ]
        self._series.clear()
        for message in kept:
            self.put(message)
        for series, holes in self.holes.items():
            for hole in holes:
                self._series[series].end.add_hole(hole)


@pytest.mark.parametrize(
    ("seed", "unwritten"),
    [
        pytest.param(0, 0, id="a"),
        pytest.param(1, 0, id="b", marks=pytest.mark.slow),
        pytest.param(2, 3, id="rows lost by a kill"),
    ],
)
async def test_the_server_restarts(
    seed: int, unwritten: int, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same store, other epochs, candles that closed meanwhile; and some the client has and
    the store has not."""
    chance = random.Random(seed)
    store = ForgetfulStore(1)

    @asynccontextmanager
    async def same_store(*_: Any, **__: Any) -> AsyncIterator[MemoryStore]:
        store.epoch += 1
        yield store

    monkeypatch.setattr(cluster_opening, "open_store", same_store)
    network = MemoryNetwork()
    environment = Environment(network.dial, network.listen, virtual_now_ms, random.Random(seed))
    box = SimulatorSettings(
        venue="binance_usdm",
        seed=seed,
        symbols=("BTCUSDT",),
        kline_push_ms=20_000,
        trades_per_minute=6,
    )
    async with trio.open_nursery() as nursery:
        with trio.fail_after(100_000):
            listeners = await network.listen("exchange", 80)
            exchange = await nursery.start(
                partial(serve_exchange, box, listeners=listeners, now_ms=virtual_now_ms)
            )
            line = CuttableNetwork(network)

            async def serve_by_turns() -> None:
                while True:
                    with trio.move_on_after(chance.choice([20, 300, 1500])):
                        await service.run(settings_for_tests(), environment)
                    store.forget(unwritten)
                    await trio.sleep(chance.choice([0, 10, 1200]))

            nursery.start_soon(serve_by_turns)
            async with open_client(URL, environment=line.environment()) as client:
                reader = Reader(client)
                await client.subscribe("BTCUSDT", "1m", history=1)
                await reader.until_minute(now_minute() + 6 * 60 * MINUTE)
            nursery.cancel_scope.cancel()
    assert store.epoch > 8
    assert_whole(reader.closed(), exchange.market)
    assert all(reader.resumed())


async def test_a_consumer_that_does_not_read(autojump_clock: trio.abc.Clock) -> None:
    with trio.fail_after(10_000):
        async with open_stack(settings_for_tests()) as stack:
            await wait_ready(stack)
            async with open_client(URL, environment=stack.environment, buffered=5) as client:
                await client.subscribe("BTCUSDT", "1m", history=2)
                await trio.sleep(3_000)
                assert client._messages.statistics().current_buffer_used == 5
                reader = Reader(client)
                await reader.until_minute(now_minute())
            assert_whole(reader.closed(), stack.market)


async def test_trades_say_that_some_are_missing(autojump_clock: trio.abc.Clock) -> None:
    settings = settings_for_tests(".channels=['kline','trade']")
    with trio.fail_after(10_000):
        async with open_stack(settings, trades_per_minute=60) as stack:
            await wait_ready(stack)
            line = CuttableNetwork(stack.network)
            async with open_client(URL, environment=line.environment()) as client:
                stream = await client.subscribe("BTCUSDT", channel="trade")
                reader = Reader(client)
                await reader.read_until(lambda m: isinstance(m, TradeUpdate))
                stack.network.down.add(("push", 80))
                line.cut()
                await reader.read_until(lambda m: isinstance(m, ConnectionChange))
                lost = reader.messages[-1]
                assert lost.state is ConnectionState.LOST
                await trio.sleep(300)
                stack.network.down.clear()
                await reader.read_until(lambda _: bool(reader.resumed()))
                assert reader.messages[-1].stream == stream
                await reader.read_until(lambda m: isinstance(m, TradeUpdate))
            ids = [m.trade.trade_id for m in reader.messages if isinstance(m, TradeUpdate)]
            whole = ids == list(range(ids[0], ids[0] + len(ids)))
            assert reader.resumed() == [whole]


async def test_history_in_between_and_a_refusal(autojump_clock: trio.abc.Clock) -> None:
    with trio.fail_after(1_000):
        async with open_stack(settings_for_tests()) as stack:
            await wait_ready(stack)
            async with open_client(URL, environment=stack.environment) as client:
                stream = await client.subscribe("BTCUSDT", "m1", history=0)
                wrong = await client.subscribe("NOSUCH", "1m")
                await client.history("BTCUSDT", "1m", limit=3, end_s=now_minute() // 1000)
                reader = Reader(client)
                refusal = await reader.read_until(lambda m: isinstance(m, ServerError))
                assert (refusal.code, refusal.stream) == (1002, wrong)
                history = await reader.read_until(lambda m: isinstance(m, History))
                assert history.requested
                assert_whole(list(history.candles), stack.market)
                assert len(history.candles) == 3
                await client.unsubscribe(stream)
                with pytest.raises(KeyError):
                    await client.unsubscribe(wrong)
                for bad in ({"interval": "7m"}, {"channel": "x"}, {"channel": "trade"}, {}):
                    arguments = {"interval": "1m", **bad} if bad else {}
                    with pytest.raises(ValueError, match=r"is not|have an interval"):
                        await client.subscribe("BTCUSDT", **arguments)


async def test_a_url_that_is_none() -> None:
    async def use() -> None:
        async with open_client("http://push/ws") as client:
            await anext(client)

    with pytest.raises(SettingsError):
        await use()


async def test_what_the_block_raises_comes_out_as_it_is(autojump_clock: trio.abc.Clock) -> None:
    environment = CuttableNetwork(MemoryNetwork()).environment()

    async def use() -> None:
        async with open_client(URL, environment=environment) as client:
            assert isinstance(await anext(client), ConnectionChange)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await use()


Talk = Callable[[trio_websocket.WebSocketConnection], Awaitable[None]]


@asynccontextmanager
async def scripted(talk: Talk) -> AsyncIterator[CuttableNetwork]:
    """A server that speaks ``talk`` on each connection."""
    network = MemoryNetwork()
    (listener,) = await network.listen("push", 80)

    async def handle(stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as mine:
            request = await trio_websocket.wrap_server_stream(mine, stream)
            connection = await request.accept()
            with suppress(trio_websocket.ConnectionClosed):
                await talk(connection)
            await connection.aclose()
            mine.cancel_scope.cancel()

    async def accept() -> None:
        while True:
            nursery.start_soon(handle, await listener.accept())

    with trio.fail_after(1_000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            yield CuttableNetwork(network)
            nursery.cancel_scope.cancel()


async def test_a_refused_token_ends_it(autojump_clock: trio.abc.Clock) -> None:
    asked: list[Any] = []

    async def talk(connection: trio_websocket.WebSocketConnection) -> None:
        asked.append(json.loads(await connection.get_message()))
        refusal = {"type": "error", "code": 1004, "message": "token: not known"}
        await connection.send_message(json.dumps(refusal))
        await connection.get_message()

    async def use() -> None:
        async with open_client(URL, token="wrong", environment=line.environment()) as client:
            await anext(client)

    async with scripted(talk) as line:
        with pytest.raises(AuthRefused, match="not known"):
            await use()
    assert asked == [{"type": "auth", "token": "wrong"}]


async def test_it_comes_back_when_it_was_told_to(autojump_clock: trio.abc.Clock) -> None:
    dialled: list[float] = []

    async def talk(connection: trio_websocket.WebSocketConnection) -> None:
        dialled.append(trio.current_time())
        await connection.get_message()
        if len(dialled) == 1:
            await connection.send_message('{"type":"reconnect","after_ms":42000}')
            return
        await connection.send_message('{"type":"auth.success","user_id":7}')
        await connection.get_message()

    async with scripted(talk) as line:
        async with open_client(URL, token="t", environment=line.environment()) as client:
            reader = Reader(client)
            await reader.read_until(lambda m: m == Authenticated(7))
    (lost, _) = reader.messages
    assert lost.retry_s == 42
    assert dialled[1] - dialled[0] >= 42


async def test_it_waits_longer_each_time_while_nobody_is_there(
    autojump_clock: trio.abc.Clock,
) -> None:
    network = MemoryNetwork()
    async with open_client(URL, environment=CuttableNetwork(network).environment()) as client:
        waits = [(await anext(client)).retry_s for _ in range(20)]
    low, high = connection_module._BACKOFF_S
    assert waits[0] <= low
    assert max(waits) <= high
    assert min(waits[10:]) >= high / 2
