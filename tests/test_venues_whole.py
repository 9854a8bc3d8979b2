"""Every venue, whole: its simulator over the wire, feeds, store, push endpoint, a client."""

import random
from itertools import pairwise
from typing import Any

import pytest
import trio
from attrs import evolve
from support.stack import START_MS, PushClient, Stack, open_stack, push_client, settings_for_tests

from trio_feed.model import Interval, Series
from trio_feed.settings import SimulatorSettings
from trio_feed.simulator.exchanges import spinpet_market
from trio_feed.venues.okx import venue as okx

MINUTE = 60_000
ALL = ".channels=['kline','trade','ticker','book']"


def last_of(client: PushClient, kind: str) -> dict[str, Any]:
    found = [m["data"] for m in client.messages if m["type"] == kind]
    assert found, kind
    return found[-1]


async def check_candles(stack: Stack, client: PushClient, venue: str, cuts: list[float]) -> None:
    """Two hours with cut connections: every minute once, in order, right."""
    for at in cuts:
        await trio.sleep_until(at)
        for connection in list(stack.exchange.connections):
            connection.abort()
    await trio.sleep_until(7_290)
    times = [row["time"] * 1000 for row in client.candles(final=True)]
    assert times == list(range(times[0], times[-1] + MINUTE, MINUTE))
    assert times[-1] + MINUTE > START_MS + 7_200_000 - MINUTE
    series = Series(venue, "BTCUSDT", Interval.M1)
    stored = await stack.ready.store.history(series, limit=5000)
    opens = [k.open_ms for k in stored]
    assert opens == list(range(opens[0], opens[-1] + MINUTE, MINUTE))
    for kline in stored:
        truth = stack.market.candle("BTCUSDT", Interval.M1, kline.open_ms)
        assert kline.same_values(truth), (kline, truth)


@pytest.mark.parametrize("venue", ["binance", "binance_usdm", "okx"])
async def test_candles_survive_disconnects(venue: str, autojump_clock: trio.abc.Clock) -> None:
    chance = random.Random(venue)
    cuts = sorted(chance.uniform(60, 7_100) for _ in range(8))
    settings = settings_for_tests("kline.broadcast_buffer_size=100000", venue=venue)
    with trio.fail_after(20_000):
        async with open_stack(settings) as stack, push_client(stack) as client:
            await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m", limit=5)
            await client.of_type("subscription_confirmed")
            await check_candles(stack, client, venue, cuts)


@pytest.mark.parametrize("venue", ["binance", "binance_usdm", "okx"])
async def test_lines_reach_a_client(venue: str, autojump_clock: trio.abc.Clock) -> None:
    """Tickers, trades and books, with the book in step with the exchange's own."""
    settings = settings_for_tests(ALL, "kline.broadcast_buffer_size=100000", venue=venue)
    with trio.fail_after(3_600):
        async with (
            open_stack(settings, trades_per_minute=60) as stack,
            push_client(stack) as client,
        ):
            for channel in ("trade", "ticker", "book"):
                await client.ask(type="subscribe", symbol="BTCUSDT", channel=channel)
            await trio.sleep(60)
            ticker = last_of(client, "ticker_data")["data"]
            assert ticker["bid"] < ticker["ask"]
            trade = last_of(client, "trade_data")["data"]
            assert trade["side"] in ("buy", "sell")
            book = last_of(client, "book_data")["data"]
            assert book["stale"] is False
            assert book["bids"][0][0] < book["asks"][0][0]
            assert len(book["bids"]) == len(book["asks"]) == 20
            (feed,) = stack.ready.feeds
            assert feed.driver.stale_books() == 0
            metrics = stack.ready.app.context.metrics
            assert metrics.book_gaps.labels(venue)._value.get() == 0
            assert metrics.bad_messages.labels(venue)._value.get() == 0
            assert all(not state.refused for state in feed.connections)


async def test_okx_books_survive_gaps_and_resets(autojump_clock: trio.abc.Clock) -> None:
    settings = settings_for_tests(
        ".channels=['book']", "kline.broadcast_buffer_size=100000", venue="okx"
    )
    with trio.fail_after(3_600):
        async with open_stack(settings, trades_per_minute=60) as stack:
            (feed,) = stack.ready.feeds
            await trio.sleep(20)
            stack.exchange.gap_books("BTC-USDT")
            await trio.sleep(20)
            metrics = stack.ready.app.context.metrics
            assert metrics.book_gaps.labels("okx")._value.get() == 1
            assert feed.driver.stale_books() == 0
            stack.exchange.reset_books("BTC-USDT")
            await trio.sleep(20)
            assert metrics.book_gaps.labels("okx")._value.get() == 1
            assert feed.driver.stale_books() == 0


async def test_an_okx_book_without_rest_ids_comes_back_by_a_new_subscription(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = okx.parse_book
    monkeypatch.setattr(okx, "parse_book", lambda *args: evolve(real(*args), last_id=0))
    settings = settings_for_tests(
        ".channels=['book']", "kline.broadcast_buffer_size=100000", venue="okx"
    )
    with trio.fail_after(3_600):
        async with open_stack(settings, trades_per_minute=60) as stack:
            (feed,) = stack.ready.feeds
            await trio.sleep(20)
            stack.exchange.gap_books("BTC-USDT")
            await trio.sleep(30)
            assert feed.driver.stale_books() == 0
            assert max(state.id for state in feed.connections) > 2


async def test_okx_is_pinged_in_its_own_way_when_it_is_quiet(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Nothing is pushed for a while on a muted connection: text pings, then it is replaced."""
    settings = settings_for_tests(venue="okx")
    with trio.fail_after(3_600):
        async with open_stack(settings) as stack:
            (feed,) = stack.ready.feeds
            await trio.sleep(10)
            assert feed.connections[0].status == "live"
            stack.exchange.connections[0].mute()
            await trio.sleep(120)
            assert (feed.connections[0].id, feed.connections[0].attempts) != (1, 1)
            assert feed.connections[0].status == "live"


async def test_spinpet_mints_become_candles(autojump_clock: trio.abc.Clock) -> None:
    box = SimulatorSettings(venue="spinpet", seed=1, trades_per_minute=60)
    market = spinpet_market(box)
    settings = settings_for_tests(
        ".symbols=['*']",
        ".intervals=[]",
        ".trade_intervals=['1s','30s','5m']",
        f".solana.program_id={market.program_id}",
        ".channels=['kline','trade']",
        "kline.broadcast_buffer_size=100000",
        venue="spinpet",
    )
    with trio.fail_after(3_600):
        async with (
            open_stack(settings, trades_per_minute=60) as stack,
            push_client(stack) as client,
        ):
            await trio.sleep(30)
            mint = stack.market.mints[0]
            await client.ask(msg_type="subscribe", symbol=mint, interval="s1")
            await client.of_type("subscription_confirmed")
            await trio.sleep(90)
            rows = [r for r in client.candles(final=True) if r["update_type"] == "final"]
            times = [row["time"] for row in rows]
            assert times == sorted(set(times))
            assert 10 < len(times) < 60  # silent seconds have no candle
            assert {row["volume"] for row in rows} == {0}
            for before, after in pairwise(rows):
                assert after["open"] == before["close"]
            await client.ask(type="history", symbol=mint, interval="1s", limit=60)
            answer = await client.wait_for(  # in history they are flat
                lambda m: m["type"] == "history_data" and len(m["data"]["data"]) == 60
            )
            filled = answer["data"]["data"]
            for before, after in pairwise(filled):
                assert after["time"] == before["time"] + 1
                assert after["open"] == before["close"]
            assert stack.ready.app.context.metrics.bad_messages.labels("spinpet")._value.get() == 0
