"""Simulated data in place of a venue that is out of reach: seen, labelled, and never kept."""

import pytest
import trio
from support.stack import PushClient, open_stack, push_client, settings_for_tests

from trio_feed.errors import SettingsError
from trio_feed.model import Interval, Series, Source
from trio_feed.validate import check

MINUTE = 60_000
SERIES = Series("binance_usdm", "BTCUSDT", Interval.M1)


def sources(client: PushClient) -> set[str]:
    return {m["data"]["source"] for m in client.messages if m["type"] == "kline_data"}


def finals(client: PushClient) -> list[int]:
    """Open times of the real closed candles."""
    rows = [m["data"]["data"] for m in client.messages if m["type"] == "kline_data"]
    return [r["time"] * 1000 for r in rows if r["is_final"] and r["source"] != "simulated"]


async def test_an_outage_is_bridged_and_leaves_no_trace(autojump_clock: trio.abc.Clock) -> None:
    settings = settings_for_tests(".fallback=simulated", ".fallback_after_s=60")
    with trio.fail_after(10_000):
        async with open_stack(settings) as stack, push_client(stack) as client:
            await trio.sleep(90)
            await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m")
            await trio.sleep(90)
            assert sources(client) == {"exchange"}
            stack.network.down.add(("exchange", 80))
            for connection in [*stack.exchange.connections]:
                connection.abort()
            await trio.sleep(50)
            assert "simulated" not in sources(client)
            await client.wait_for(
                lambda m: m["type"] == "kline_data" and m["data"]["source"] == "simulated"
            )
            await trio.sleep(300)
            assert stack.ready.feeds[0].not_ready(30) != ""
            stored = await stack.ready.store.history(SERIES, limit=1000)
            assert {row.source for row in stored} <= {Source.EXCHANGE, Source.BACKFILL}
            before = len(stored)
            await client.ask(type="history", symbol="BTCUSDT", interval="1m")
            told = await client.wait_for(
                lambda m: m["type"] == "history_data" and m is not client.messages[1]
            )
            assert {row["source"] for row in told["data"]["data"]} <= {"exchange", "backfill"}
            stack.network.down.clear()
            await trio.sleep(120)
            seen = len(client.messages)
            await trio.sleep(180)
            later = {
                m["data"]["source"] for m in client.messages[seen:] if m["type"] == "kline_data"
            }
            assert later == {"exchange"}
            times = finals(client)
            assert times == list(range(times[0], times[-1] + MINUTE, MINUTE))
            stored = await stack.ready.store.history(SERIES, limit=1000)
            assert len(stored) > before + 5
            opens = [row.open_ms for row in stored]
            assert opens == list(range(opens[0], opens[-1] + MINUTE, MINUTE))


async def test_nothing_is_simulated_unless_it_is_asked_for(autojump_clock: trio.abc.Clock) -> None:
    with trio.fail_after(10_000):
        async with open_stack(settings_for_tests()) as stack, push_client(stack) as client:
            await trio.sleep(90)
            await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m")
            stack.network.down.add(("exchange", 80))
            for connection in [*stack.exchange.connections]:
                connection.abort()
            await trio.sleep(1_000)
            assert "simulated" not in sources(client)


def test_a_venue_that_cannot_be_simulated_says_so() -> None:
    words = (
        ".fallback=simulated",
        ".intervals=[]",
        ".symbols=['*']",
        f".solana.program_id={'1' * 32}",
    )
    settings = settings_for_tests(*words, venue="spinpet")
    with pytest.raises(
        SettingsError, match=r"exchanges\.spinpet\.fallback: there is no simulation"
    ):
        check(settings)
