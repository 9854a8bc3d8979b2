"""The clocks of the service: a calendar that is wrong or jumps, and three types that do not mix."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define
from structlog.testing import capture_logs
from support.stack import Stack, open_stack, settings_for_tests, virtual_now_ms

VENUE = "binance_usdm"


@define
class Calendar:
    """The service's, ``ahead_s`` of the exchange's."""

    ahead_s: float = 0.0

    def now_ms(self) -> float:
        return virtual_now_ms() + self.ahead_s * 1000


@asynccontextmanager
async def stack_with(calendar: Calendar, *assignments: str) -> AsyncIterator[Stack]:
    settings = settings_for_tests(".channels=['kline','trade']", *assignments)
    with trio.fail_after(50_000):
        async with open_stack(
            settings, now_ms=calendar.now_ms, trades_per_minute=60, push_ms=1000
        ) as stack:
            yield stack


async def readiness(stack: Stack) -> tuple[int, dict[str, Any]]:
    host, _, port = stack.ready.address.rpartition(":")
    stream = await stack.network.dial(host, int(port))
    await stream.send_all(b"GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = b""
    while part := await stream.receive_some():
        answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def clock_lines(lines: list[Any]) -> list[tuple[str, float]]:
    return [
        (line["event"], round(line.get("ahead_s", line.get("size_s"))))
        for line in lines if line["event"].startswith("clock.")
    ]  # fmt: skip


@pytest.mark.parametrize("ahead_s", [-7200, -5, 5, 7200])
async def test_a_clock_that_is_wrong_at_the_start_is_said_once(
    ahead_s: float, autojump_clock: trio.abc.Clock
) -> None:
    calendar = Calendar(ahead_s)
    with capture_logs() as lines:
        async with stack_with(calendar) as stack:
            await trio.sleep(180)
            code, body = await readiness(stack)
            words = f"our clock is {abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} "
            assert (code, body["clock"]) == (200, words + VENUE)
            shown = stack.ready.app.context.metrics.exposition().decode()
            (gauge,) = [x for x in shown.splitlines() if x.startswith("trio_feed_clock_offset")]
            assert float(gauge.split()[-1]) == pytest.approx(ahead_s, abs=0.5)
            assert clock_lines(lines) == [("clock.wrong", ahead_s)]
            calendar.ahead_s = 0
            await trio.sleep(240)
            assert await readiness(stack) == (200, {"ready": True})
    assert clock_lines(lines) == [
        ("clock.wrong", ahead_s),
        ("clock.stepped", abs(ahead_s)),
        ("clock.right", 0),
    ]


@pytest.mark.parametrize("step_s", [-3600, -3, 3, 3600])
async def test_a_step_is_said_and_counted_and_candles_do_not_feel_it(
    step_s: float, autojump_clock: trio.abc.Clock
) -> None:
    calendar = Calendar()
    with capture_logs() as lines:
        async with stack_with(calendar) as stack:
            await trio.sleep(300)
            calendar.ahead_s = step_s
            await trio.sleep(300)
            shown = stack.ready.app.context.metrics.exposition().decode()
            direction = "forward" if step_s > 0 else "back"
            assert f'trio_feed_clock_steps_total{{direction="{direction}"}} 1.0' in shown
            (feed,) = stack.ready.feeds
            assert float(feed.driver.now().exchange) == pytest.approx(virtual_now_ms(), abs=500)
            assert feed.driver.behind() == 0
    assert clock_lines(lines) == [("clock.stepped", abs(step_s)), ("clock.wrong", step_s)]


async def test_an_error_above_the_setting_is_not_ready(autojump_clock: trio.abc.Clock) -> None:
    async with stack_with(Calendar(90), "service.clock_error_max_s=60") as stack:
        await trio.sleep(120)
        code, body = await readiness(stack)
        assert (code, body["reason"]) == (503, f"our clock is 90.0 s ahead of {VENUE}")


async def test_a_right_clock_says_nothing(autojump_clock: trio.abc.Clock) -> None:
    with capture_logs() as lines:
        async with stack_with(Calendar(0.9)) as stack:
            await trio.sleep(900)
            assert await readiness(stack) == (200, {"ready": True})
    assert clock_lines(lines) == []
