"""``trio_feed.feed``: one client without the service, under virtual time."""

import logging
import random
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from attrs import define
from support.make import SERIES, kline, message
from support.memory import MemoryNetwork
from support.proxies import MemoryProxy, MemorySocks
from support.stack import START_MS, virtual_now_ms

import trio_feed
from trio_feed.bus.base import Published
from trio_feed.bus.local import LocalBus
from trio_feed.client import CandleUpdate, StreamStatus, TradeUpdate, UpdateKind
from trio_feed.core.effects import CandleNews
from trio_feed.embedded.inbox import Inbox
from trio_feed.environment import Environment
from trio_feed.errors import SettingsError
from trio_feed.model import Interval, StreamState, Trade
from trio_feed.settings import SimulatorSettings
from trio_feed.simulator.exchanges import serve_exchange

MINUTE = 60_000
PAGE = Path(__file__).parent.parent / "docs/python.md"
SAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


@define
class Outside:
    """A network with an exchange in it; ``feed`` is :func:`trio_feed.feed` that finds both."""

    network: MemoryNetwork
    exchange: Any
    socks: MemorySocks
    feed: Callable[..., Any]


@asynccontextmanager
async def outside(
    venue: str = "binance_usdm", *, trades_per_minute: int = 6, push_ms: int = 10_000
) -> AsyncIterator[Outside]:
    network = MemoryNetwork()
    environment = Environment(network.dial, network.listen, virtual_now_ms, random.Random(1))
    box = SimulatorSettings(
        venue=venue, symbols=("BTCUSDT", "ETHUSDT"), kline_push_ms=push_ms,
        trades_per_minute=trades_per_minute,
    )  # fmt: skip
    where = {"websocket_url": "ws://exchange:80", "rest_url": "http://exchange:80"}
    with trio.fail_after(90_000):
        async with trio.open_nursery() as nursery:
            listeners = await network.listen("exchange", 80)
            exchange = await nursery.start(
                partial(serve_exchange, box, listeners=listeners, now_ms=virtual_now_ms)
            )
            socks = MemorySocks(network, "127.0.0.1", 1080)
            await nursery.start(socks.run)
            await nursery.start(MemoryProxy(network, "127.0.0.1", 7890).run)
            feed = partial(trio_feed.feed, environment=environment, settings={"connection": where})
            yield Outside(network, exchange, socks, feed)
            nursery.cancel_scope.cancel()


def closed(messages: list[Any], symbol: str = "BTCUSDT") -> list[CandleUpdate]:
    return [m for m in messages if isinstance(m, CandleUpdate) and m.final
            and m.stream.symbol == symbol]  # fmt: skip


def trade_ids(messages: list[Any]) -> list[int]:
    found = [m.trade for m in messages if isinstance(m, TradeUpdate)]
    assert all(isinstance(trade, Trade) for trade in found)
    return [trade.trade_id for trade in found if isinstance(trade, Trade)]


def assert_whole(there: Outside, candles: list[CandleUpdate]) -> None:
    """Every minute once, in order, and as the market was."""
    opens = [candle.kline.open_ms for candle in candles]
    assert opens == list(range(opens[0], opens[0] + len(opens) * MINUTE, MINUTE))
    for candle in candles:
        truth = there.exchange.market.candle("BTCUSDT", Interval.M1, candle.kline.open_ms)
        assert candle.kline.same_values(truth)


async def test_a_loop_gets_history_candles_and_trades_through_a_proxy_whatever_breaks(
    autojump_clock: trio.abc.Clock,
) -> None:
    seen: list[Any] = []
    async with outside() as there:
        wanted = {"symbols": ["BTCUSDT"], "intervals": ["1m"], "channels": ["trade"]}
        async with there.feed(
            "binance_usdm", **wanted, proxy="socks5://127.0.0.1:1080", history=20, statuses=True
        ) as feed:
            async with trio.open_nursery() as nursery:

                async def read() -> None:
                    async for each in feed:
                        seen.append(each)

                nursery.start_soon(read)
                for pause_s in (0, 20, 130, 300):
                    await trio.sleep(600)
                    there.network.down.add(("exchange", 80))
                    for connection in list(there.exchange.connections):
                        connection.abort()
                    await trio.sleep(pause_s)
                    there.network.down.clear()
                await trio.sleep(750)
                nursery.cancel_scope.cancel()
            assert feed.problem == ""
            (connection, *_) = feed.status()["connections"]
            assert connection["streams"]
        candles = closed(seen)
        assert len(candles) >= 20 + 59
        assert candles[0].kline.open_ms == START_MS // MINUTE * MINUTE - 20 * MINUTE
        assert_whole(there, candles)
        ids = trade_ids(seen)
        assert len(ids) > 300
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        states = {m.state for m in seen if isinstance(m, StreamStatus)}
        assert {StreamState.STALE, StreamState.REPAIRED} <= states
        assert there.exchange.dials > 3
        dialled = {host for host, _ in there.network.dialled}
        assert dialled == {"127.0.0.1", "exchange"}
        assert len(there.socks.carried) == there.network.dialled.count(("exchange", 80)), (
            "all by it"
        )


async def test_leaving_the_block_closes_everything(autojump_clock: trio.abc.Clock) -> None:
    async with outside() as there:

        async def fail() -> None:
            async with there.feed("binance_usdm", symbols="BTCUSDT", intervals="1m") as feed:
                async for _ in feed:
                    assert there.exchange.connections
                    raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):  # as it is, in no group
            await fail()
        await trio.sleep(5)
        assert not there.exchange.connections


async def test_a_reader_that_pauses_misses_nothing_and_little_waits(
    autojump_clock: trio.abc.Clock,
) -> None:
    seen: list[Any] = []
    async with outside(trades_per_minute=60, push_ms=1_000) as there:
        wanted = {"symbols": "BTCUSDT", "intervals": "1m", "channels": "trade"}
        async with there.feed("binance_usdm", **wanted, buffer=20) as feed:
            with trio.move_on_after(60):
                async for each in feed:
                    seen.append(each)
            most = 0
            for _ in range(1_800):
                await trio.sleep(1)
                most = max(most, feed.unread)
            assert 20 <= most <= 20 + 64, "half an hour is 1,800 trades"
            with trio.move_on_after(300):
                async for each in feed:
                    seen.append(each)
        candles = closed(seen)
        assert len(candles) >= 34
        assert_whole(there, candles)
        ids = trade_ids(seen)
        assert len(ids) > 1_900
        assert ids == list(range(ids[0], ids[0] + len(ids)))


async def test_only_the_newest_state_of_an_open_candle_waits(
    autojump_clock: trio.abc.Clock,
) -> None:
    bus = LocalBus(epoch=1, history_rows=1, resume_messages=1, now_ms=lambda: 0.0)
    inbox = Inbox(10, statuses=False)
    bus.listen(inbox)
    bus.open(SERIES)
    for close in ("100", "101", "102"):
        bus.publish(CandleNews(SERIES, kline(close=close, closed=False), 1, 0.0))
    assert len(inbox) == 1
    bus.publish(CandleNews(SERIES, kline(close="103"), 4, 0.0))
    later = kline(kline().open_ms + MINUTE, close="99", closed=False)
    bus.publish(CandleNews(SERIES, later, 1, 0.0))
    got: list[Any] = [await inbox.receive() for _ in range(3)]
    assert [(str(m.kline.close), m.kind) for m in got] == [
        ("102", UpdateKind.REALTIME), ("103", UpdateKind.FINAL), ("99", UpdateKind.REALTIME)
    ]  # fmt: skip
    bus.publish(CandleNews(SERIES, later, 2, 0.0))
    assert len(inbox) == 1, "what was read is not changed any more"
    inbox.published(None, Published(message(later), 0.0, provisional=True))  # type: ignore[arg-type]
    assert len(inbox) == 1


async def test_all_who_wait_for_room_go_on(autojump_clock: trio.abc.Clock) -> None:
    """The processor and every fetcher."""
    bus = LocalBus(epoch=1, history_rows=1, resume_messages=1, now_ms=lambda: 0.0)
    inbox = Inbox(1, statuses=False)
    bus.listen(inbox)
    bus.open(SERIES)
    bus.publish(CandleNews(SERIES, kline(), 1, 0.0))
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(inbox.wait_room)
            await trio.testing.wait_all_tasks_blocked()
            await inbox.receive()


async def test_callbacks_of_both_kinds(autojump_clock: trio.abc.Clock) -> None:
    seen: list[Any] = []

    async def slowly(each: Any) -> None:
        await trio.sleep(1)
        seen.append(each)

    async with outside() as there:
        async with there.feed("binance_usdm", symbols="BTCUSDT", intervals="1m", history=3) as feed:
            with trio.move_on_after(60):
                await feed.deliver(slowly)
            assert len(closed(seen)) >= 3
            seen.clear()
            with trio.move_on_after(120):
                await feed.deliver(seen.append)
            assert len(closed(seen)) >= 1

            def stop(_: Any) -> None:
                raise StopAsyncIteration("enough")

            with pytest.raises(StopAsyncIteration, match="enough"):
                await feed.deliver(stop)


async def test_intervals_that_the_venue_lacks_are_made_here(
    autojump_clock: trio.abc.Clock,
) -> None:
    seen: list[Any] = []
    async with outside() as there:
        async with there.feed(
            "binance_usdm", symbols="BTCUSDT", intervals=["1m", "30s", "m3"], history=10
        ) as feed:
            with trio.move_on_after(400):
                async for each in feed:
                    seen.append(each)
    found = {m.stream.interval for m in closed(seen)}
    assert found == {Interval.S30, Interval.M1, Interval.M3}


@pytest.mark.parametrize("venue", ["binance", "okx"])
async def test_other_venues_and_a_long_history(venue: str, autojump_clock: trio.abc.Clock) -> None:
    """The newest come in the loop; those before them are in memory a moment later."""
    seen: list[Any] = []
    async with outside(venue) as there:
        async with there.feed(venue, symbols="BTCUSDT", intervals="1m", history=900) as feed:
            with trio.move_on_after(120):
                async for each in feed:
                    seen.append(each)
            rows = await feed.history("BTCUSDT", "m1", limit=1000)
            assert len(await feed.history("BTCUSDT", "1m", limit=7)) == 7
            assert await feed.history("ETHUSDT", "1m") == []
        candles = closed(seen)
        assert len(candles) >= 99 + 1
        assert_whole(there, candles)
        assert len(rows) >= 900
        assert [b.open_ms - a.open_ms for a, b in pairwise(rows)] == [MINUTE] * (len(rows) - 1)
        assert rows[-1] == candles[-1].kline


async def test_a_symbol_that_is_not_listed_is_said(autojump_clock: trio.abc.Clock) -> None:
    async with outside() as there:
        async with there.feed("binance_usdm", symbols="NOPEUSDT", intervals="1m") as feed:
            await trio.sleep(30)
            assert "NOPEUSDT" in feed.problem


@pytest.mark.parametrize(
    ("venue", "options", "line"),
    [
        ("binance_usdt", {}, "venue: not a venue; one of binance, binance_usdm, okx, spinpet"),
        ("okx", {"symbols": "btcusdt"}, "symbols: 'btcusdt' is no symbol; did you mean BTCUSDT?"),
        ("okx", {"symbols": []}, "symbols: none; name some, such as BTCUSDT"),
        ("okx", {"intervals": "1min"}, "intervals: '1min' is not one of 1s 30s 1m"),
        ("okx", {"intervals": "8h"}, "intervals: needs 1m in intervals"),
        ("okx", {"intervals": ()}, "intervals: none, and no channels"),
        ("okx", {"channels": "liquidation"}, "channels: okx has no liquidations"),
        ("okx", {"channels": "trades"}, "channels"),
        (
            "okx",
            {"proxy": "127.0.0.1:7890"},
            "proxy: has no type in front of it: write http://127.0.0.1:7890 or socks5://",
        ),
        ("okx", {"proxy": "socks4://127.0.0.1:1080"}, "proxy: is not a proxy URL"),
        ("okx", {"proxy": {"address": "a:99999", "enabled": True}}, "proxy.address: port 99999"),
        ("okx", {"history": 5000}, "history: 5000 is not between 0 and 1000"),
        ("okx", {"buffer": 0}, "buffer: 0 is not at least 1"),
        ("okx", {"settings": {"conection": {}}}, "settings.conection: unknown; did you mean"),
        ("okx", {"settings": {"connection": 1}, "proxy": "http://a:1"}, "settings.connection: is"),
        ("okx", {"settings": {"connection": {"redundancy": 3}}}, "settings.connection.redundancy"),
    ],
)  # fmt: skip
async def test_a_wrong_argument_is_one_line_with_its_name(
    venue: str, options: dict[str, Any], line: str
) -> None:
    wanted = {"symbols": "BTCUSDT", "intervals": "1m"} | options
    with pytest.raises(SettingsError) as refused:
        async with trio_feed.feed(venue, **wanted):
            pass
    assert str(refused.value).startswith(line)
    assert "\n" not in str(refused.value)


async def test_log_lines_go_to_logging(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    before = structlog.get_config() if structlog.is_configured() else None
    structlog.reset_defaults()
    try:
        with caplog.at_level(logging.INFO, "trio_feed"):
            async with outside() as there:
                async with there.feed("binance_usdm", symbols="NOPEUSDT", intervals="1m"):
                    await trio.sleep(30)
        assert not structlog.is_configured(), "a guest leaves nothing behind"
        lines = [record.getMessage() for record in caplog.records if record.name == "trio_feed"]
        assert any("NOPEUSDT" in line and "venue=binance_usdm" in line for line in lines), lines
    finally:
        if before is not None:
            structlog.configure(**before)


def test_importing_the_package_brings_nothing_along() -> None:
    code = (
        "import sys, trio_feed; print(sorted(m for m in sys.modules if 'trio' in m)); trio_feed.x"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "['trio_feed']\n"
    assert "has no attribute 'x'" in done.stderr


@pytest.mark.parametrize("sample", SAMPLES)
async def test_samples_of_the_page(sample: str, autojump_clock: trio.abc.Clock) -> None:
    """As they stand there; the network is in memory, with the proxies that they name."""
    printed: list[tuple[Any, ...]] = []
    async with outside() as there, trio.open_nursery() as nursery:
        started: list[Callable[[], Any]] = []

        def put(*words: Any) -> None:
            printed.append(words)
            if len(printed) == 70:
                nursery.cancel_scope.cancel()

        async def run_feed() -> None:
            handler, venue, options = called
            async with there.feed(venue, **options) as feed:
                await feed.deliver(handler)

        called: tuple[Any, str, dict[str, Any]]

        def call(handler: Any, venue: str, **options: Any) -> None:
            nonlocal called
            called = handler, venue, options
            started.append(run_feed)

        fakes = pytest.MonkeyPatch()
        with fakes.context() as patch:
            patch.setattr(trio_feed, "feed", there.feed, raising=False)
            patch.setattr(trio_feed, "run_feed", call, raising=False)
            patch.setattr(trio, "run", started.append)
            exec(compile(sample, "docs/python.md", "exec"), {"print": put})
            (main,) = started
            await main()
    assert len(printed) == 70
