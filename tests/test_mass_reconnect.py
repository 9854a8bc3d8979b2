"""Two hundred connections are cut at once: all come back, and no limit of the exchange is passed.

What is counted is what arrives at the exchange.  Take a budget away and it fails: without DIALS all
come at once, without FRAMES the subscriptions of one connection do.
"""

import pytest
import trio
from support.counted import CountedNetwork, most_within
from support.stack import Stack, open_stack, settings_for_tests

from trio_feed.venues.binance import connections as binance_connections
from trio_feed.venues.okx import venue as okx

CONNECTIONS = 200
SYMBOLS = tuple(f"C{number:02d}USDT" for number in range(CONNECTIONS))
LIMITS = {  # exchanges.md 1.2, 5.2: connects, frames a second, subscriptions an hour
    "binance": ((300, 300.0), 5, None),
    "okx": ((3, 1.0), None, 480),
}


def lived(stack: Stack) -> int:
    return sum(state.status == "live" for state in stack.ready.feeds[0].connections)


async def all_live(stack: Stack) -> None:
    while lived(stack) < CONNECTIONS:  # noqa: ASYNC110 - no event tells it
        await trio.sleep(1)


def check(network: CountedNetwork, venue: str) -> None:
    (most, window_s), frames_per_s, per_hour = LIMITS[venue]
    assert most_within(network.connects, window_s) <= most
    for stream in network.websockets:
        if frames_per_s is not None:
            assert most_within(stream.frames, 1.0) <= frames_per_s
        if per_hour is not None:
            assert most_within(stream.operations, 3600.0) <= per_hour


@pytest.mark.parametrize("venue", list(LIMITS))
async def test_two_hundred_connections_come_back_inside_every_limit(
    venue: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.abc.Clock
) -> None:
    """Six streams on each, in frames of one each, so that subscribing meets the limits too."""
    monkeypatch.setattr(binance_connections, "SUBSCRIBE_MAX", 1)
    monkeypatch.setattr(okx, "ARGS_MAX", 1)
    settings = settings_for_tests(
        f".symbols={list(SYMBOLS)}",
        ".intervals=['1m','5m','15m','1h','4h','1d']",
        ".history_bars=0",
        ".connection.streams_per_connection=6",
        ".connection.silence_timeout_s=600",
        venue=venue,
    )
    network = CountedNetwork()
    with trio.fail_after(7_200):
        async with open_stack(
            settings, network=network, symbols=SYMBOLS, push_ms=60_000, trades_per_minute=1
        ) as stack:
            await all_live(stack)
            for connection in [*stack.exchange.connections]:
                connection.abort()
            await trio.sleep(1)
            assert lived(stack) < CONNECTIONS
            await all_live(stack)
            assert len(network.websockets) >= 2 * CONNECTIONS
            check(network, venue)
            assert stack.ready.feeds[0].status()["dials_waiting"] == 0
            limited = stack.ready.app.context.metrics.rest_calls.labels(venue, "RateLimited")
            assert limited._value.get() == 0
