"""What is missing between two closed candles is said, whoever knew of it."""

from typing import Any

import pytest
import trio
from attrs import evolve
from support.make import MINUTE, SERIES, T0, kline, message
from support.node import Node, connected

from trio_feed.model import Interval, Series, StatusMessage, StreamState
from trio_feed.push.fanout.encoded import encoded
from trio_feed.push.fanout.holes import HandedOut, hole_between, holes_in

HOUR = 60 * MINUTE
HOURS = Series("binance_usdm", "BTCUSDT", Interval.H1)
MONTHS = Series("binance_usdm", "BTCUSDT", Interval.MO1)
MARCH, APRIL, MAY, JUNE = 1772323200000, 1775001600000, 1777593600000, 1780272000000


@pytest.mark.parametrize(
    ("series", "before_ms", "open_ms", "hole"),
    [
        (SERIES, T0, T0 + MINUTE, None),
        (SERIES, T0, T0 + 2 * MINUTE, (T0 + MINUTE, T0 + MINUTE)),
        (SERIES, T0, T0 + 5 * MINUTE, (T0 + MINUTE, T0 + 4 * MINUTE)),
        (SERIES, T0, T0, None),
        (SERIES, T0, T0 - 3 * MINUTE, None),
        (HOURS, 0, HOUR + 14 * MINUTE, None),  # late after a halt
        (HOURS, HOUR + 14 * MINUTE, 2 * HOUR, None),  # back on the grid
        (HOURS, 14 * MINUTE, 3 * HOUR, (HOUR + 14 * MINUTE, HOUR + 14 * MINUTE)),
        (MONTHS, MARCH, APRIL, None),
        (MONTHS, MARCH, JUNE, (APRIL, MAY)),
    ],
)
def test_whole_candles_between_two(
    series: Series, before_ms: int, open_ms: int, hole: tuple[int, int] | None
) -> None:
    assert hole_between(series, before_ms, open_ms) == hole


def test_only_candles_that_close_count() -> None:
    def made(n: int, *, closed: bool = True, revision: bool = False) -> Any:
        row = kline(T0 + n * MINUTE, closed=closed)
        return encoded(evolve(message(row, offset=n), revision=revision), 0.0)

    missed = [made(3, closed=False), made(0, revision=True), made(3), made(4), made(7)]
    found = [(each, first, last) for each, (first, last) in holes_in(SERIES, T0, missed)]
    assert found == [
        (missed[2], T0 + MINUTE, T0 + 2 * MINUTE),
        (missed[4], T0 + 5 * MINUTE, T0 + 6 * MINUTE),
    ]
    assert [each for each, _ in holes_in(SERIES, None, missed)] == [missed[4]]


@pytest.mark.parametrize(
    ("first", "last", "is_told"), [(1, 4, True), (0, 9, True), (2, 4, False), (1, 3, False)]
)
def test_what_was_said_of_all_of_it_is_not_said_again(first: int, last: int, is_told: bool) -> None:
    handed_out = HandedOut(SERIES)
    assert handed_out.closed(T0) is None
    span = T0 + first * MINUTE, T0 + last * MINUTE
    handed_out.told(StatusMessage(SERIES, StreamState.REPAIRING, "", T0, T0 + 9 * MINUTE))
    handed_out.told(StatusMessage(SERIES, StreamState.UNREPAIRABLE, "", *span))
    status = handed_out.closed(T0 + 5 * MINUTE)
    assert (status is None) is is_told
    if status is not None:
        assert (status.first_ms, status.last_ms) == (T0 + MINUTE, T0 + 4 * MINUTE)
    assert handed_out.closed(T0 + 7 * MINUTE) is not None, "that is another hole"


def test_a_candle_from_before_the_last_one_leaves_nothing_missing_behind_it() -> None:
    """One that was found late is said out of order."""
    handed_out = HandedOut(SERIES)
    assert [handed_out.closed(T0 + n * MINUTE) for n in (9, 5, 10)] == [None] * 3
    rows = [encoded(message(kline(T0 + n * MINUTE), offset=n), 0.0) for n in (9, 5, 10)]
    assert list(holes_in(SERIES, T0 + 8 * MINUTE, rows)) == []


def test_two_holes_that_were_said_together_are_not_said_again() -> None:
    handed_out = HandedOut(SERIES)
    handed_out.closed(T0)
    for n in (1, 3):
        span = T0 + n * MINUTE, T0 + n * MINUTE
        handed_out.told(StatusMessage(SERIES, StreamState.UNREPAIRABLE, "", *span))
    assert [handed_out.closed(T0 + n * MINUTE) for n in (2, 4)] == [None, None]


async def test_who_comes_after_it_was_said_hears_of_it_too(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Its history ends before the hole."""
    node = Node()
    async with connected(node) as client:
        node.publish(0)
        span = T0 + MINUTE, T0 + 2 * MINUTE
        node.bus.publish(StatusMessage(SERIES, StreamState.UNREPAIRABLE, "", *span))
        node.bus.publish(StatusMessage(SERIES, StreamState.LIVE))
        await client.subscribe()
        node.publish(3)
        assert holes(client.take()) == [("", 1, 2)]


def holes(told: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    """Messages behind which a hole was told, and its minutes."""
    found, before = [], ""
    for each in told:
        if each["type"] == "stream_status" and each["data"]["status"] == "unrepairable":
            first, last = each["data"]["from"] * 1000, each["data"]["to"] * 1000
            found.append((before, (first - T0) // MINUTE, (last - T0) // MINUTE))
        before = each["type"]
    return found


async def test_who_is_subscribed_hears_of_it_before_the_candle_behind_it(
    autojump_clock: trio.abc.Clock,
) -> None:
    node = Node()
    async with connected(node) as client:
        node.publish(0)
        await client.subscribe()
        node.publish(3)
        node.publish(4)
        told = client.take()
        assert [m["type"] for m in told] == ["stream_status", "kline_data", "kline_data"]
        assert holes(told) == [("", 1, 2)]


async def test_it_is_not_said_of_what_nobody_was_subscribed_to(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Who comes has a history, which shows it."""
    node = Node()
    async with connected(node) as client:
        node.publish(0)
        await client.subscribe()
        await client.request(type="unsubscribe", symbol="BTCUSDT", interval="1m")
        await client.next("unsubscribe_confirmed")
        node.publish(3)
        await client.subscribe()
        node.publish(4)
        assert holes(client.take()) == []


@pytest.mark.parametrize("ring", [8, 1])
@pytest.mark.parametrize("has_time", [True, False])
async def test_who_was_away_hears_of_it(
    ring: int, has_time: bool, autojump_clock: trio.abc.Clock
) -> None:
    """From the ring and from the store, where the candle that it has is still known."""
    node = Node(ring=ring)
    async with connected(node) as client:
        await client.keep()
        for n in (0, 1, 4, 5, 8):
            node.publish(n)
        told = await client.resume(1, 2, **({"time": (T0 + MINUTE) // 1000} if has_time else {}))
        assert holes(told) == [("subscription_confirmed", 2, 3), ("kline_data", 6, 7)]


@pytest.mark.parametrize("ring", [8, 1])
@pytest.mark.parametrize("seconds", [-600, -60, 7])
async def test_who_says_an_older_time_than_its_number_hears_of_no_hole(
    ring: int, seconds: int, autojump_clock: trio.abc.Clock
) -> None:
    """It was told that nobody has candles that it has, by its number, and that the store has."""
    node = Node(ring=ring)
    async with connected(node) as client:
        await client.keep()
        for n in (0, 1, 2, 3):
            node.publish(n)
        told = await client.resume(1, 3, time=T0 // 1000 + seconds)
        assert holes(told) == []
        assert [m["data"]["data"]["time"] for m in told if m["type"] == "kline_data"] == [
            T0 // 1000 + 180
        ]


async def test_a_series_that_has_no_candle_of_silence_has_no_holes(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Which series that is its feed says: a venue may have come with a SIGHUP."""
    node = Node(sparse=True)
    async with connected(node) as client:
        await client.keep()
        node.publish(0)
        node.publish(3)
        told = await client.resume(1, 1)
        node.publish(7)
        assert holes([*told, *client.take()]) == []
