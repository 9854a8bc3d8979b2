"""The whole service under virtual time."""

import random
from itertools import pairwise
from typing import Any

import pytest
import trio
from attrs import evolve
from structlog.testing import capture_logs
from support.stack import START_MS, Stack, open_stack, push_client, settings_for_tests

from trio_feed.model import Interval, Kline, Series
from trio_feed.settings import ProxySettings

MINUTE = 60_000
M1 = Series("binance_usdm", "BTCUSDT", Interval.M1)


def values(row: dict[str, Any]) -> tuple[Any, ...]:
    """A pushed candle, comparable with :func:`truth`.  Floats: JSON numbers, as a client has."""
    return tuple(row[k] for k in ("time", "open", "high", "low", "close", "volume", "trades"))


def truth(stack: Stack, open_ms: int) -> tuple[Any, ...]:
    """What the simulator's market says about a minute."""
    k = stack.market.candle("BTCUSDT", Interval.M1, open_ms)
    prices = (float(v) for v in (k.open, k.high, k.low, k.close, k.volume))
    return (open_ms // 1000, *prices, k.trades)


def same(stored: Kline, stack: Stack) -> bool:
    return stored.same_values(stack.market.candle("BTCUSDT", Interval.M1, stored.open_ms))


async def test_fifty_disconnects(autojump_clock: trio.abc.Clock) -> None:
    """Promise 1: every closed minute once, in order, right, in the store and at the subscriber.
    Six hours; whole days are simulated by ``scripts/simulate``."""
    chance, end_s = random.Random(50), 6 * 3_600
    cuts = sorted(chance.uniform(60, end_s) for _ in range(50))
    settings = settings_for_tests("kline.broadcast_buffer_size=100000")
    with trio.fail_after(200_000):
        async with open_stack(settings) as stack, push_client(stack) as client:
            await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m", limit=5)
            history = (await client.of_type("history_data"))["data"]["data"]
            for at in cuts:
                await trio.sleep_until(at)
                for connection in list(stack.exchange.connections):
                    connection.abort()
            await trio.sleep_until(end_s + 90)
            last = (START_MS + end_s * 1000) // MINUTE * MINUTE
            await client.wait_for(
                lambda m: (
                    m["type"] == "kline_data"
                    and m["data"]["data"]["is_final"]
                    and m["data"]["data"]["time"] * 1000 >= last
                )
            )
            pushed = history + client.candles(final=True)
            times = [row["time"] * 1000 for row in pushed]
            first = times[0]
            assert times == list(range(first, times[-1] + MINUTE, MINUTE))
            assert len(times) >= end_s // 60
            assert [values(row) for row in pushed] == [truth(stack, at) for at in times]

            stored = await stack.ready.store.history(M1, limit=5000)
            opens = [k.open_ms for k in stored]
            assert opens == list(range(opens[0], opens[-1] + MINUTE, MINUTE))
            assert opens[-1] >= last
            assert all(same(kline, stack) for kline in stored)
            assert stack.exchange.dials >= 51

            sent = [m["data"] for m in client.messages if m["type"] == "kline_data"]
            for before, after in pairwise(sent):
                assert after["offset"] == before["offset"] + 1 + after.get("conflated", 0)


async def test_clients_are_pinged_and_silent_ones_dropped(autojump_clock: trio.abc.Clock) -> None:
    """One client that answers pings and says nothing else, and one that does not even do that."""
    with trio.fail_after(3_600):
        async with open_stack(settings_for_tests()) as stack, push_client(stack) as alive:
            await alive.ask(type="subscribe", symbol="BTCUSDT", interval="1m")
            await alive.of_type("subscription_confirmed")
            host, _, port = stack.ready.address.rpartition(":")
            silent = await stack.network.dial(host, int(port))
            await silent.send_all(
                b"GET /ws HTTP/1.1\r\nHost: push\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            began = trio.current_time()
            assert b" 101 " in bytes(await silent.receive_some())
            while await silent.receive_some():
                pass
            assert 60 <= trio.current_time() - began < 62
            await trio.sleep(600)
            await alive.ask(type="ping")
            await alive.of_type("pong")


async def test_readiness_can_be_asked_at_any_moment(autojump_clock: trio.abc.Clock) -> None:
    """At every scheduler tick of the first moments, and then while it gets ready."""
    reasons = []
    with trio.fail_after(600):
        async with open_stack(settings_for_tests()) as stack:
            (feed,) = stack.ready.feeds
            for tick in range(2_000):
                reasons.append(feed.not_ready(30))
                feed.status()
                if tick % 50 == 49:
                    await trio.sleep(1)
                else:
                    await trio.lowlevel.checkpoint()
            exposition = stack.ready.app.context.metrics.exposition().decode()
    assert 'trio_feed_held_series{venue="binance_usdm"} 0.0' in exposition
    assert reasons[0] == "binance_usdm: no instruments yet"
    assert reasons[-1] == ""


@pytest.mark.parametrize(
    "way",
    [
        {"proxy": ProxySettings(enabled=True, proxy_type="socks5", address="proxy:1080")},
        {"proxies": (ProxySettings(enabled=True, proxy_type="http", address="proxy:8080"),)},
    ],
    ids=["one", "pool"],
)
async def test_nothing_goes_direct_while_the_proxy_is_down(
    way: dict[str, Any], autojump_clock: trio.abc.Clock
) -> None:
    """Promise 2, of the whole service: WebSocket, REST, instruments; the exchange is reachable."""
    settings = settings_for_tests()
    exchange = settings.exchanges["binance_usdm"]
    exchange = evolve(exchange, connection=evolve(exchange.connection, **way))
    settings = evolve(settings, exchanges={"binance_usdm": exchange})
    with capture_logs() as logs, trio.fail_after(3_600):
        async with open_stack(settings) as stack:
            await trio.sleep(600)
            assert {host for host, _ in stack.network.dialled} == {"proxy"}
            assert stack.exchange.dials == 0
            assert stack.ready.feeds[0].not_ready(30) != ""
            (proxy,) = stack.ready.feeds[0].status()["proxies"]
            assert (proxy["state"], proxy["successes"]) == ("cooling", 0)
            assert "cannot be reached" in proxy["problem"]
    assert [line["event"] for line in logs if line["event"].startswith("proxy.")] == ["proxy.down"]
    # Said once, not by each poller at each of its tries.
    tries = [line for line in logs if line["event"] == "instruments.failed"]
    warned = [line["reason"] for line in tries if line["log_level"] == "warning"]
    assert len(tries) > 10
    assert len(warned) == len(set(warned)) <= 2


async def test_the_trades_of_an_outage_come_at_once_and_drop_no_client(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Two thousand trades within a moment are more than a client's queue holds."""
    settings = settings_for_tests(
        ".channels=['kline','trade']", "kline.broadcast_buffer_size=1000",
        "websocket.queue_bytes=65536",
    )  # fmt: skip
    with trio.fail_after(3_600):
        async with (
            open_stack(settings, trades_per_minute=2_000) as stack,
            push_client(stack) as client,
        ):
            await client.ask(type="subscribe", symbol="BTCUSDT", channel="trade")
            await client.of_type("trade_data")
            stack.network.down.add(("exchange", 80))
            for connection in [*stack.exchange.connections]:
                connection.abort()
            await trio.sleep(60)
            stack.network.down.clear()
            await trio.sleep(60)
            trades = [m["data"]["data"] for m in client.messages if m["type"] == "trade_data"]
            ids = [trade["trade_id"] for trade in trades]
            assert len(ids) > 2_500
            assert ids == list(range(ids[0], ids[0] + len(ids)))
            limits = stack.ready.app.context.limits
            assert (limits.max_queued_bytes, limits.behind_ms) == (65536, 10_000)
