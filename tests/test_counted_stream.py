"""The bytes under a client WebSocket: what interrupts a send is not hidden."""

import pytest
import trio
import trio.testing

from trio_feed.net.counted_stream import CountedStream
from trio_feed.net.limits import FrameBudget


async def test_a_send_that_fails_says_so_and_ends_the_wire() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    wire = CountedStream(ours, FrameBudget((10, 1.0)))
    await theirs.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await wire.send_all(b"x")
    assert wire.end == "the connection was reset"


async def test_a_send_that_is_cancelled_ends_the_wire(autojump_clock: trio.abc.Clock) -> None:
    ours, _theirs = trio.testing.lockstep_stream_pair()
    wire = CountedStream(ours, FrameBudget((10, 1.0)))
    with trio.move_on_after(1) as scope:
        await wire.send_all(b"x")
    assert scope.cancelled_caught
    assert wire.end == "a send was interrupted"
    assert wire.ended.is_set()
