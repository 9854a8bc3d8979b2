"""The watch over every stream, in the whole service: dead, trickling, quiet; clients are told."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Any

import pytest
import trio
from support.memory import MemoryNetwork
from support.slow import but_slow
from support.stack import (
    START_MS,
    PushClient,
    Stack,
    open_stack,
    push_client,
    settings_for_tests,
    virtual_now_ms,
)

from trio_feed.ingest.venue import VenueFeed
from trio_feed.settings import Settings
from trio_feed.simulator.faults.frames import FRAME_FAULTS
from trio_feed.simulator.machinery.memory_stream import pipe_pair
from trio_feed.venues import Rows

MINUTE = 60_000
BOTH = (".channels=['kline','trade']", "kline.broadcast_buffer_size=1000000")
CANDLES = {"binance": "btcusdt@kline_1m", "binance_usdm": "btcusdt_perpetual@continuousKline_1m",
           "okx": "candle1m:BTC-USDT"}  # fmt: skip
TRADES = {"binance": "btcusdt@aggTrade", "binance_usdm": "btcusdt@aggTrade",
          "okx": "trades-all:BTC-USDT"}  # fmt: skip
VENUES = ["binance", "binance_usdm", "okx"]
LEARN_S = 300.0


@asynccontextmanager
async def watched_stack(
    settings: Settings, *, trades_per_minute: int = 60
) -> AsyncIterator[tuple[Stack, PushClient, VenueFeed]]:
    """Candles and trades are pushed as fast as the venues do; five minutes to learn."""
    with trio.fail_after(9_000):
        async with (
            open_stack(
                settings,
                push_ms=250,
                trades_per_minute=trades_per_minute,
                network=MemoryNetwork(pipe_pair),
            ) as stack,
            push_client(stack) as client,
        ):
            await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m")
            await client.of_type("subscription_confirmed")
            await client.ask(type="subscribe", symbol="BTCUSDT", channel="trade")
            await trio.sleep(LEARN_S)
            (feed,) = stack.ready.feeds
            yield stack, client, feed


def told(client: PushClient, channel: str) -> list[str]:
    """The states of a channel that the client was told, in order; without the live with which it
    begins for who subscribed before anything came."""
    found = [m["data"] for m in client.messages if m["type"] == "stream_status"]
    states = [row["status"] for row in found if row.get("channel", "kline") == channel]
    return states[states[:1] == ["live"] :]


def check_nothing_lost(client: PushClient, until_s: float) -> None:
    times = [row["time"] * 1000 for row in client.candles(final=True)]
    assert times == list(range(times[0], times[-1] + MINUTE, MINUTE))
    assert times[-1] + 2 * MINUTE > START_MS + until_s * 1000 - 3_000
    ids = [m["data"]["data"]["trade_id"] for m in client.messages if m["type"] == "trade_data"]
    assert ids == list(range(ids[0], ids[0] + len(ids)))


def probes(stack: Stack, venue: str, result: str) -> float:
    return stack.ready.app.context.metrics.probes.labels(venue, result)._value.get()


def lost(stack: Stack, venue: str) -> float:
    return stack.ready.app.context.metrics.connections_lost.labels(
        venue, "ConnectionLost"
    )._value.get()


async def wait_until(true: Callable[[], object]) -> float:
    """Returns the time at which it was."""
    for _ in count():
        if true():
            break
        await trio.sleep(0.05)
    return trio.current_time()


def carrier(stack: Stack, name: str) -> Any:
    """The exchange's end of the connection that carries a stream."""
    (found,) = [c for c in stack.exchange.connections if name in _names(c)]
    return found


def _names(connection: Any) -> list[str]:
    if hasattr(connection, "control"):
        return [f"{c.name}:{c.inst_id}" for c in connection.control.subscribed]
    return list(connection.subscriptions.names)


@pytest.mark.parametrize("kind", ["candles", "trades"])
@pytest.mark.parametrize("venue", VENUES)
async def test_one_stream_goes_mute_and_the_others_go_on(
    venue: str, kind: str, autojump_clock: trio.abc.Clock
) -> None:
    """Noticed within three times its cadence, rotated, nothing lost, and the client is told."""
    name = (CANDLES if kind == "candles" else TRADES)[venue]
    channel = "kline" if kind == "candles" else "trade"
    async with watched_stack(settings_for_tests(*BOTH, venue=venue)) as (stack, client, feed):
        allowed_s = max(5.0, 2 * feed.driver.streams()[name]["expected_gap_s"])
        connection = carrier(stack, name)
        connection.mute_stream(name)
        muted_at = trio.current_time()
        noticed_at = await wait_until(lambda: "stale" in told(client, channel))
        assert noticed_at - muted_at <= 1.5 * allowed_s
        await wait_until(lambda: connection not in stack.exchange.connections)
        assert trio.current_time() - noticed_at < 10
        await trio.sleep(300)
        assert lost(stack, venue) == 0
        assert told(client, channel) in (["stale", "live"], ["stale", "repairing", "repaired"])
        other = "trade" if kind == "candles" else "kline"
        assert told(client, other) == []
        check_nothing_lost(client, trio.current_time())
        gaps = stack.ready.app.context.metrics.gap_seconds.labels(venue)._value.get()
        assert allowed_s / 2 < gaps < 3 * allowed_s


@pytest.mark.parametrize("venue", VENUES)
async def test_a_trickle_is_noticed(venue: str, autojump_clock: trio.abc.Clock) -> None:
    """One of twenty messages comes through, on every connection, for a while."""
    async with watched_stack(settings_for_tests(*BOTH, venue=venue)) as (stack, client, feed):
        gap_s = feed.driver.streams()[CANDLES[venue]]["expected_gap_s"]
        stack.fault_proxy.change_frames(partial(FRAME_FAULTS["trickle"], 0.0), 60.0)
        begun_at = trio.current_time()
        noticed_at = await wait_until(lambda: probes(stack, venue, "news") > 0)
        assert noticed_at - begun_at <= 3 * max(5.0, 3 * gap_s)
        await trio.sleep(300)
        assert stack.exchange.upgrades < 14
        assert all(state["state"] == "live" for state in feed.driver.streams().values())
        check_nothing_lost(client, trio.current_time())


@pytest.mark.parametrize("venue", VENUES)
async def test_half_open_is_noticed_long_before_the_silence_timeout(
    venue: str, autojump_clock: trio.abc.Clock
) -> None:
    async with watched_stack(settings_for_tests(*BOTH, venue=venue)) as (stack, client, _):
        for connection in stack.exchange.connections:
            connection.mute()
        muted_at = trio.current_time()
        muted = set(stack.exchange.connections)
        gone_at = await wait_until(lambda: not muted & set(stack.exchange.connections))
        assert gone_at - muted_at < 15
        await trio.sleep(300)
        for channel in ("kline", "trade"):
            states = told(client, channel)
            assert states[0] == "stale"
            assert states in (["stale", "live"], ["stale", "repairing", "repaired"])
        check_nothing_lost(client, trio.current_time())
        assert lost(stack, venue) == 0


@pytest.mark.parametrize("venue", VENUES)
async def test_a_quiet_market_is_asked_about_and_left_alone(
    venue: str, autojump_clock: trio.abc.Clock
) -> None:
    """Four trades a minute, and now and then nearly two minutes nothing; then a busy market."""
    settings = settings_for_tests(*BOTH, ".connection.silence_timeout_s=600", venue=venue)
    async with watched_stack(settings, trades_per_minute=4) as (stack, client, feed):
        pause_sometimes(stack)
        await trio.sleep(7_200)
        assert probes(stack, venue, "quiet") > 3
        assert probes(stack, venue, "news") == 0
        assert stack.exchange.upgrades == len(feed.connections)
        assert told(client, "kline") == told(client, "trade") == []
        check_nothing_lost(client, trio.current_time())


@pytest.mark.parametrize("venue", but_slow(VENUES, quick=["okx"]))
async def test_a_pause_of_a_stream_that_ticks_each_second_is_no_reason_to_rotate(
    venue: str, autojump_clock: trio.abc.Clock
) -> None:
    settings = settings_for_tests(*BOTH, ".connection.silence_timeout_s=600", venue=venue)
    async with watched_stack(settings) as (stack, client, feed):
        pause_sometimes(stack)
        await trio.sleep(3_600)
        assert 10 < probes(stack, venue, "quiet") < 200
        assert probes(stack, venue, "news") == 0
        assert stack.exchange.upgrades == len(feed.connections)
        assert told(client, "kline") == told(client, "trade") == []
        check_nothing_lost(client, trio.current_time())


def pause_sometimes(stack: Stack) -> None:
    """Of ten minutes one has its trades in its first two seconds, the next in its last two."""
    line = stack.market._symbols["BTCUSDT"]
    real = line._ticks
    now = int(virtual_now_ms()) // MINUTE

    def ticks(minute: int) -> Any:
        found = real(minute)
        if minute <= now + 1 or minute % 10 > 1:
            return found
        late = 58_000 if minute % 10 == 1 else 0
        offsets = [late + offset // 30 for offset in found.offsets]
        return found._replace(offsets=offsets)

    line._ticks = ticks


@pytest.mark.parametrize("venue", VENUES)
async def test_without_rest_nothing_is_proven_and_the_silence_timeout_works(
    venue: str, autojump_clock: trio.abc.Clock
) -> None:
    async with watched_stack(settings_for_tests(*BOTH, venue=venue)) as (stack, client, feed):
        stack.exchange.rest_status(500, 1_000)
        muted = set(stack.exchange.connections)
        for connection in muted:
            connection.mute()
        await trio.sleep(50)
        assert probes(stack, venue, "failed") > 0
        assert stack.exchange.upgrades == len(feed.connections)
        assert told(client, "kline") == told(client, "trade") == []
        await trio.sleep(20)
        assert not muted & set(stack.exchange.connections)
        assert told(client, "kline")[0] == "stale"
        assert told(client, "kline").count("stale") == 1
        assert stack.exchange.upgrades == 2 * len(muted)


async def test_a_rotation_in_time_is_not_told(autojump_clock: trio.abc.Clock) -> None:
    settings = settings_for_tests(*BOTH, ".connection.max_age_s=120")
    async with watched_stack(settings) as (stack, client, _):
        await trio.sleep(900)
        assert stack.exchange.upgrades > 5
        assert told(client, "kline") == told(client, "trade") == []


LINES = {
    "binance_usdm": {"ticker": "btcusdt@ticker", "book": "btcusdt@depth@100ms"},
    "okx": {"ticker": "tickers:BTC-USDT", "book": "books:BTC-USDT"},
}


@pytest.mark.parametrize(
    ("venue", "channel"),
    but_slow(
        [(venue, channel) for venue in LINES for channel in ("ticker", "book")],
        quick=[("binance_usdm", "book"), ("okx", "ticker")],
    ),
)
async def test_a_line_that_nobody_can_be_asked_about_follows_the_market(
    venue: str, channel: str, autojump_clock: trio.abc.Clock
) -> None:
    """Tickers and books: dead when candles or trades of the symbol go on without them."""
    name = LINES[venue][channel]
    settings = settings_for_tests(
        f".channels=['kline','{channel}']", "kline.broadcast_buffer_size=1000000", venue=venue
    )
    async with watched_stack(settings) as (stack, client, feed):
        await client.ask(type="subscribe", symbol="BTCUSDT", channel=channel)
        await trio.sleep(1)
        connection = carrier(stack, name)
        connection.mute_stream(name)
        muted_at = trio.current_time()
        noticed_at = await wait_until(lambda: "stale" in told(client, channel))
        gap_s = feed.driver.streams()[name]["expected_gap_s"]
        assert noticed_at - muted_at < max(10, 4 * gap_s)
        await trio.sleep(60)
        assert connection not in stack.exchange.connections
        assert told(client, channel) == ["stale", "live"]
        assert told(client, "kline") == []


async def test_what_was_missed_is_told_with_its_interval(autojump_clock: trio.abc.Clock) -> None:
    """Three minutes without the exchange's WebSocket and REST; then trades that nobody has."""
    settings = settings_for_tests(*BOTH)
    async with watched_stack(settings) as (stack, client, _):
        lost_at = trio.current_time()
        stack.network.down.add(("exchange", 80))
        for connection in list(stack.exchange.connections):
            connection.abort()
        await trio.sleep(180)
        stack.network.down.clear()
        await trio.sleep(120)
        rows = [m["data"] for m in client.messages if m["type"] == "stream_status"]
        candles = [row for row in rows if "interval" in row]
        assert candles.pop(0)["status"] == "live"  # it subscribed before anything came
        assert [row["status"] for row in candles] == ["stale", "repairing", "repaired"]
        first = int(START_MS + lost_at * 1000) // MINUTE * 60
        assert candles[1]["from"] == candles[2]["from"] == first
        assert candles[1]["to"] in (first + 120, first + 180)
        assert told(client, "trade") == ["stale", "repairing", "repaired"]
        metrics = stack.ready.app.context.metrics
        number = (candles[1]["to"] - first) // 60 + 1
        assert metrics.repaired.labels("binance_usdm", "candle")._value.get() == number
        assert metrics.repaired.labels("binance_usdm", "trade")._value.get() >= 180
        assert metrics.gap_seconds.labels("binance_usdm")._value.get() >= 360
        assert metrics.coverage.labels("binance_usdm", "hour")._value.get() == 1.0
        assert metrics.stream_states.labels("binance_usdm", "live")._value.get() == 2
        check_nothing_lost(client, trio.current_time())


async def test_trades_that_nobody_has_are_told(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_feed.venues.binance.usdm.parse_trades", lambda *_: Rows([]))
    async with watched_stack(settings_for_tests(*BOTH)) as (stack, client, _):
        stack.network.down.add(("exchange", 80))
        for connection in list(stack.exchange.connections):
            connection.abort()
        await trio.sleep(30)
        stack.network.down.clear()
        await trio.sleep(120)
        assert told(client, "trade") == ["stale", "repairing", "unrepairable"]
