"""A worker alone, the test in the place of its parent."""

import pickle
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, field
from support.make import MINUTE, SERIES, T0, kline
from support.memory import MemoryNetwork
from support.stack import settings_for_tests, virtual_now_ms

from trio_feed import __version__
from trio_feed.bus import wire
from trio_feed.environment import Environment
from trio_feed.model import KlineMessage
from trio_feed.workers import frames
from trio_feed.workers.pipe import Pipe, PipeLost
from trio_feed.workers.worker import run_worker


@define(eq=False)
class Parent:
    network: MemoryNetwork
    pipe: Pipe = field(init=False)
    came: list[Any] = field(factory=list)
    ended: list[str] = field(factory=list)

    async def answer(self, _what: str, _body: bytes) -> bytes:
        return b""

    async def run(self) -> None:
        with suppress(PipeLost):
            await self.pipe.run()

    def hello(self, **more: Any) -> None:
        facts: dict[str, Any] = {
            "version": __version__,
            "wire": wire.VERSION,
            "worker": 1,
            "settings": pickle.dumps(settings_for_tests("server.workers=2")),
            "epoch": 7,
            "journal_epoch": 1,
            "shared_epoch": None,
            "shared": False,
            "binds": [],
        }
        self.pipe.put(frames.Hello(**facts | more))

    def kinds(self) -> Sequence[str]:
        return [type(frame).__name__ for frame in self.came]


@asynccontextmanager
async def parent() -> AsyncIterator[Parent]:
    ours, theirs = trio.testing.memory_stream_pair()
    made = Parent(MemoryNetwork())
    made.pipe = Pipe(
        ours, frames.ToParent, made.came.append, made.answer, max_bytes=10**6, stall_s=5
    )

    def environment(_hello: frames.Hello, _put: Any) -> Environment:
        network = made.network
        return Environment(network.dial, network.listen, virtual_now_ms, random.Random(1))

    async def run() -> None:
        made.ended.append(await run_worker(theirs, environment))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        nursery.start_soon(run)
        yield made
        nursery.cancel_scope.cancel()


VIEW = frames.View("", "", {}, [], {})


def opened(stream: int = 1) -> frames.Feed:
    item = wire.opened(
        stream, SERIES, epoch=7, offset=0, first_ms=None, sparse=False, revisions=0,
        connected=True, waiting="", recent=[(kline(T0), 1)], latest=None, provisional=None,
        status=None, ring=None,
    )  # fmt: skip
    return frames.Feed([item])


async def test_it_serves_when_it_knows_all_streams(autojump_clock: trio.abc.Clock) -> None:
    async with parent() as made:
        made.hello()
        made.pipe.put(opened())
        await trio.sleep(10)
        assert "Ready" not in made.kinds()
        assert not made.network.listeners
        made.pipe.put(VIEW)
        await trio.sleep(1)
        assert "Ready" in made.kinds()
        assert made.network.listeners


async def test_pages_that_the_parent_does_not_give(autojump_clock: trio.abc.Clock) -> None:
    async with parent() as made:

        async def never(_what: str, _body: bytes) -> bytes:
            await trio.sleep_forever()
            raise AssertionError("for ever")

        async def place(what: str, body: bytes) -> bytes:
            return b"" if what == "take" else await never(what, body)

        made.pipe._answer = place
        made.hello()
        made.pipe.put(VIEW)
        await trio.sleep(1)
        for path in ("/metrics", "/api/v1/status"):
            stream = await made.network.dial("push", 80)
            await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: push\r\n\r\n".encode())
            with trio.fail_after(15):
                said = await stream.receive_some()
            assert said.startswith(b"HTTP/1.1 503 ")
        assert not made.ended


async def test_it_reports_each_second(autojump_clock: trio.abc.Clock) -> None:
    async with parent() as made:
        made.hello()
        made.pipe.put(VIEW)
        await trio.sleep(4.5)
        assert made.kinds().count("Report") == 5


@pytest.mark.parametrize("more", [{"version": "0"}, {"wire": wire.VERSION + 1}])
async def test_of_another_version_it_says_so_and_ends(
    more: dict[str, Any], autojump_clock: trio.abc.Clock
) -> None:
    async with parent() as made:
        made.hello(**more)
        await trio.sleep(3)
        (failed,) = made.came
        assert isinstance(failed, frames.Failed)
        assert "restart it" in failed.problem
        assert made.ended == [failed.problem]


async def test_out_of_step_it_ends(autojump_clock: trio.abc.Clock) -> None:
    """A candle before this one is missing: what it would tell its clients is not to be trusted."""
    async with parent() as made:
        made.hello()
        made.pipe.put(opened())
        made.pipe.put(VIEW)
        await trio.sleep(1)
        row = kline(T0 + 5 * MINUTE)
        message = KlineMessage(SERIES, row, 7, 9, 1, 1.0, after_ms=T0 + 4 * MINUTE)
        made.pipe.put(frames.Feed([wire.sent(1, message, 1.0)]))
        await trio.sleep(5)
        assert len(made.ended) == 1
        assert "out of step" in made.ended[0]


async def test_it_ends_with_its_parent(autojump_clock: trio.abc.Clock) -> None:
    async with parent() as made:
        made.hello()
        made.pipe.put(VIEW)
        await trio.sleep(1)
        made.pipe.give_up("the parent is gone")
        await trio.sleep(5)
        assert made.ended == ["it has ended"]
        assert not made.network.listeners


async def test_what_comes_before_it_is_made_is_not_lost(autojump_clock: trio.abc.Clock) -> None:
    async with parent() as made:
        made.pipe.put(opened())
        made.hello()
        made.pipe.put(VIEW)
        await trio.sleep(1)
        assert "Ready" in made.kinds()
        assert not made.ended
