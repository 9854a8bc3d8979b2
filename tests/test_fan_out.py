"""One message to many: what is written directly, and what is the writer's."""

import os
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.make import SERIES, kline, message
from test_topics import at, numbered, target, topic

from trio_feed.push.fanout.coalescing import WriteCoalescer
from trio_feed.push.fanout.encoded import encoded, prefix_of
from trio_feed.push.fanout.fan_out import FanOut
from trio_feed.push.fanout.frames import text_frame
from trio_feed.push.fanout.resume import resume_points
from trio_feed.push.fanout.send_queue import QueuedFrame
from trio_feed.push.fanout.topics import Subscription, Topic
from trio_feed.push.protocol import Subscribe


class Pipe:
    """A subscriber whose transport is a pipe; ``log`` is what was asked of its writer."""

    def __init__(self) -> None:
        self._read, fd = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(fd, False)
        self.transport = SimpleNamespace(ready_fd=fd, bytes_out=0)
        self.waiting: list[QueuedFrame] = []
        self.log: list[str] = []

    def taken(self) -> bytes:
        try:
            return os.read(self._read, 1 << 20)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        os.close(self._read)
        os.close(self.transport.ready_fd)

    def push(self, entry: QueuedFrame) -> None:
        self.log.append("push")

    def enqueue(self, entry: QueuedFrame) -> None:
        self.log.append("enqueue")

    def begun(self, frame: bytes, taken: int) -> None:
        self.log.append(f"begun {taken < len(frame)}")


@pytest.fixture
def pipes() -> Iterator[list[Pipe]]:
    made = [Pipe() for _ in range(3)]
    yield made
    for pipe in made:
        pipe.close()


def still(at_once: int = 9) -> WriteCoalescer:
    return WriteCoalescer(at_once, clock=lambda: 0.0)


def joined(
    there: Topic, subscriber: Any, name: str = "", *, provisional: bool = False
) -> Subscription:
    own = prefix_of(target(), name or None, deflated=False)
    request = Subscribe(target(), None, None, None, provisional=provisional)
    made = Subscription(subscriber, there, request, own, name)
    there.add(made)
    return made


def test_who_has_nothing_waiting_is_written_to_and_counted(pipes: list[Pipe]) -> None:
    there = topic(SERIES)
    forms = [joined(there, pipe).form for pipe in pipes]
    pipes[1].waiting.append(QueuedFrame(text_frame(b"before"), 0.0))
    coalescer, content = still(), numbered()
    FanOut(content, there.audiences, timed=True).step(9, coalescer)
    frame = forms[0].frame(content)
    assert frame is not None
    assert [pipe.taken() for pipe in pipes] == [frame, b"", frame]
    assert [pipe.log for pipe in pipes] == [[], ["push"], []]
    assert [pipe.transport.bytes_out for pipe in pipes] == [len(frame), 0, len(frame)]
    assert coalescer.spare == 7  # two were written here


def test_what_is_too_much_for_now_is_queued_and_its_bytes_are_counted(pipes: list[Pipe]) -> None:
    there = topic(SERIES)
    for pipe in pipes:
        joined(there, pipe)
    coalescer = still(at_once=1)
    FanOut(numbered(), there.audiences, timed=True).step(9, coalescer)
    assert [pipe.log for pipe in pipes] == [[], ["enqueue"], ["enqueue"]]
    assert coalescer.gathered == 2 * pipes[0].transport.bytes_out > 0


def test_a_full_socket_is_its_writers(pipes: list[Pipe]) -> None:
    there = topic(SERIES)
    for pipe in pipes:
        joined(there, pipe)
    with suppress(BlockingIOError):
        while True:
            os.write(pipes[0].transport.ready_fd, bytes(4096))
    FanOut(numbered(), there.audiences, timed=True).step(9, still())
    assert [pipe.log for pipe in pipes] == [["push"], [], []]


def test_a_client_that_has_a_stream_twice_gets_nothing_past_what_waits(pipes: list[Pipe]) -> None:
    """It is full with the first and has room again before the second, of the same form."""
    there, pipe = topic(SERIES), pipes[0]
    form = joined(there, cast("Any", pipe), "one").form
    request = Subscribe(target(), None, None, None)
    there.add(Subscription(cast("Any", pipe), there, request, form, "two"))
    with suppress(BlockingIOError):
        while True:
            os.write(pipe.transport.ready_fd, bytes(4096))

    def push(entry: QueuedFrame) -> None:
        pipe.waiting.append(entry)
        pipe.taken()

    pipe.push = push  # type: ignore[method-assign]
    FanOut(numbered(), there.audiences, timed=True).step(9, still())
    assert (len(pipe.waiting), pipe.taken(), pipe.transport.bytes_out) == (2, b"", 0)


@pytest.mark.parametrize("provisional", [False, True])
def test_who_leaves_between_two_portions_is_not_written_to(
    provisional: bool, pipes: list[Pipe]
) -> None:
    there = topic(SERIES)
    gone = [joined(there, pipe, provisional=provisional) for pipe in pipes][1]
    listening = there.provisional_audiences if provisional else there.audiences
    fan_out = FanOut(numbered(), listening, timed=True)
    fan_out.step(1, still())
    there.remove(gone)
    fan_out.step(9, still())
    assert [bool(pipe.taken()) for pipe in pipes][:2] == [True, False]
    assert [pipe.log for pipe in pipes] == [[], [], ["enqueue"]]


def test_who_is_sent_away_by_its_first_stream_has_not_been_given_the_second() -> None:
    """A client may have a stream twice, under two names; both resume before the message."""
    there = at(topic(SERIES), 9)
    points: list[Any] = []

    class Slow:
        transport, waiting = SimpleNamespace(ready_fd=-1, bytes_out=0), ()

        def push(self, entry: QueuedFrame) -> None:
            if not points:
                points.extend(resume_points(own, [entry]))

    own = [joined(there, cast("Any", Slow()), name) for name in ("one", "two")]
    content = encoded(message(kline(), offset=9, epoch=1), 5.0)
    there.under_way.append(FanOut(content, there.audiences, timed=True))
    there.under_way[0].step(9, still())
    assert [point["offset"] for point in points] == [8, 8]
