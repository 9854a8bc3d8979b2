"""Make before break: nothing lost, nothing doubled."""

import pytest
import trio
from support.house import START_MS, open_house, push_client, settings_for_tests

from trio_feed.ingest.connection import ConnectionState
from trio_feed.ingest.pool import Link
from trio_feed.venues import Plan

MINUTE = 60_000


@pytest.mark.parametrize("venue", ["binance_usdm", "okx"])
async def test_rotations_lose_and_double_nothing(
    venue: str, autojump_clock: trio.abc.Clock
) -> None:
    """An hour in which every connection lives about five minutes, trades and candles taken."""
    settings = settings_for_tests(
        ".connection.max_age_s=300",
        ".trade_intervals=['30s']",
        ".channels=['kline','trade']",
        "kline.broadcast_buffer_size=1000000",
        venue=venue,
    )
    with trio.fail_after(50_000):
        async with open_house(settings) as house, push_client(house) as client:
            await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m")
            await client.ask(type="subscribe", symbol="BTCUSDT", channel="trade")
            await trio.sleep_until(3600 + 90)
            (feed,) = house.ready.feeds
            lost = house.ready.app.metrics.connections_lost
            assert lost.labels(venue, "ConnectionLost")._value.get() == 0
            assert max(state.id for state in feed.connections) > 11
            times = [row["time"] * 1000 for row in client.candles(final=True)]
            assert times == list(range(times[0], times[-1] + MINUTE, MINUTE))
            assert times[-1] + 2 * MINUTE > START_MS + 3600_000
            trades = [m["data"]["data"] for m in client.messages if m["type"] == "trade_data"]
            ids = [row["trade_id"] for row in trades]
            assert ids == list(range(ids[0], ids[0] + len(ids)))


async def test_an_announced_end_is_answered_before_it_comes(
    autojump_clock: trio.abc.Clock,
) -> None:
    settings = settings_for_tests()
    with trio.fail_after(3_600):
        async with open_house(settings) as house:
            (feed,) = house.ready.feeds
            await trio.sleep(30)
            house.exchange.announce_shutdown()
            await trio.sleep(60)
            (state,) = feed.connections
            assert (state.id, state.status) == (2, "live")
            lost = house.ready.app.metrics.connections_lost
            assert lost.labels("binance_usdm", "ConnectionLost")._value.get() == 0


async def test_a_successor_that_does_not_deliver_replaces_nothing(
    autojump_clock: trio.abc.Clock,
) -> None:
    settings = settings_for_tests(".connection.max_age_s=300")
    with trio.fail_after(10_000):
        async with open_house(settings) as house, push_client(house) as client:
            await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m")
            await trio.sleep(200)
            house.exchange.refuse_upgrades(503, 5)
            await trio.sleep(300)
            (feed,) = house.ready.feeds
            assert feed.not_ready(60) == ""
            times = [row["time"] * 1000 for row in client.candles(final=True)]
            assert times == list(range(times[0], times[-1] + MINUTE, MINUTE))
            await trio.sleep(300)
            assert [state.status for state in feed.connections] == ["live"]


def test_a_link_that_has_no_connection_yet_has_a_name_all_the_same() -> None:
    """Between the plan and the first try /ready looked for its newest connection, and fell."""
    link = Link(Plan("ws://exchange", ()))
    assert link.name == "a connection that is about to be opened"
    assert not link.live
    assert link.last_message_ms is None
    link.states.append(ConnectionState(3, link.plan))
    assert link.name == "connection 3 (connecting)"
