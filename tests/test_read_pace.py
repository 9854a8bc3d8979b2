"""Readers that read together, once in a while: nothing waits longer, nor where much comes."""

from collections.abc import Sequence

import pytest
import trio
import trio.testing
from support.stack import open_stack, push_client, settings_for_tests

from trio_feed.ingest import pool
from trio_feed.ingest.read_pace import FULL, ReadPace

FEW = ("a message",)


async def reads(pace: ReadPace, first_s: float, each_s: float, count: int) -> list[float]:
    """When a reader reads to whom a message comes each ``each_s`` seconds from ``first_s`` on."""
    await trio.sleep(first_s)
    began = []
    for number in range(count):
        await trio.sleep_until(first_s + number * each_s)  # a message is there
        began.append(trio.current_time())
        await pace.after(FEW)
    return began


async def test_all_read_at_the_same_moments_and_those_are_so_far_apart(
    autojump_clock: trio.abc.Clock,
) -> None:
    pace, began = ReadPace(0.25), list[list[float]]()

    async def one(first_s: float) -> None:
        began.append(await reads(pace, first_s, 0.0, 4))

    async with trio.open_nursery() as nursery:
        for first_s in (0.0625, 0.125, 0.1875):
            nursery.start_soon(one, first_s)
    assert sorted(began) == [[first_s, 0.25, 0.5, 0.75] for first_s in (0.0625, 0.125, 0.1875)]


async def test_a_message_after_a_silence_is_read_when_it_comes(
    autojump_clock: trio.abc.Clock,
) -> None:
    assert await reads(ReadPace(0.25), 0.125, 1.0, 3) == [0.125, 1.125, 2.125]


async def test_who_has_left_much_behind_or_has_no_pace_reads_on(
    autojump_clock: trio.abc.Clock,
) -> None:
    await ReadPace(0).after(FEW)
    await ReadPace(0.25).after(["x" * (FULL // 2)] * 2)
    assert trio.current_time() == 0
    await ReadPace(0.25).after(["x" * (FULL // 2 - 1)] * 2)
    assert trio.current_time() == 0.25


async def test_nobody_waits_for_a_reader_that_was_cancelled(autojump_clock: trio.abc.Clock) -> None:
    pace = ReadPace(0.25)
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(0.125):
            nursery.start_soon(pace.after, FEW, name="follower")
            await pace.after(FEW)
        await trio.testing.wait_all_tasks_blocked()
        assert not nursery.child_tasks  # it reads early
        await pace.after(FEW)
    assert trio.current_time() == 0.25


async def test_the_service_reads_as_its_settings_say(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The simulator's messages come at multiples of 100 ms, where nothing is seen of a pace."""
    waited: list[float] = []

    class Noted(ReadPace):
        async def after(self, messages: Sequence[str | bytes]) -> None:
            waited.append(self.interval_s)
            await super().after(messages)

    monkeypatch.setattr(pool, "ReadPace", Noted)
    settings = settings_for_tests(
        ".channels=['trade']", ".intervals=[]", ".connection.read_batch_us=70_000"
    )
    with trio.fail_after(600):
        async with open_stack(settings, trades_per_minute=600) as stack:
            async with push_client(stack) as client:
                await client.ask(type="subscribe", symbol="BTCUSDT", channel="trade")
                await client.wait_for(
                    lambda message: message["type"] == "trade_data" and len(waited) > 20
                )
    assert set(waited) == {0.07}
