"""The line a minute, in JSON logs as on a terminal."""

import trio
from attrs import evolve
from structlog.testing import capture_logs
from support.stack import open_stack, push_client, settings_for_tests

from trio_feed.summary import Numbers, minute

BEFORE = Numbers(
    messages=100,
    failed=1,
    repaired=5,
    pushed=10,
    push_failed=2,
    broadcasts=1000,
    broadcast_s=9.0,
    live=0,
    streams=24,
    clients=0,
    subscriptions=0,
    proxies_up=0,
    proxies=2,
)


def test_rates_and_counts_are_of_the_minute() -> None:
    now = evolve(
        BEFORE, messages=6_100, failed=3, repaired=8, pushed=40, push_failed=4, live=23,
        broadcasts=1004, broadcast_s=9.002, clients=1, subscriptions=7, proxies_up=1,
    )  # fmt: skip
    assert minute(BEFORE, now, 60.0) == {
        "messages_per_s": 100.0,
        "messages_failed": 2,
        "streams_live": 23,
        "streams": 24,
        "repaired": 3,
        "clients": 1,
        "subscriptions": 7,
        "pushed_per_s": 0.5,
        "push_failed": 2,
        "broadcast_avg_ms": 0.5,
        "proxies_up": 1,
        "proxies": 2,
    }
    assert minute(BEFORE, BEFORE, 0.0)["broadcast_avg_ms"] == 0.0


async def test_it_comes_once_a_minute(autojump_clock: trio.abc.Clock) -> None:
    with trio.fail_after(600), capture_logs() as events:
        async with open_stack(settings_for_tests()) as stack, push_client(stack) as client:
            await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m")
            await trio.sleep(130)
    lines = [event for event in events if event["event"] == "service.minute"]
    assert len(lines) == 2
    last = lines[-1]
    assert (last["log_level"], last["clients"], last["subscriptions"]) == ("info", 1, 1)
    assert (last["streams_live"], last["messages_failed"], last["push_failed"]) == (1, 0, 0)
    assert last["messages_per_s"] > 0
    assert last["pushed_per_s"] > 0
