"""What goes to one client: directly, coalesced, or by the task that drains a full socket."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import trio
import trio.testing

from trio_feed.push.fanout.coalescing import WriteCoalescer
from trio_feed.push.fanout.send_queue import QueuedFrame, SendQueue
from trio_feed.push.fanout.waiting import WaitingBytes
from trio_feed.push.fanout.writer import Writer


class Socket:
    """Takes ``room`` frames at once; ``send_frames`` waits while it is ``full``."""

    peer, last_received, bytes_out, ready_fd = "x", 0.0, 0, -1

    def __init__(self, room: int = 1_000_000) -> None:
        self.room = room
        self.written: list[list[bytes]] = []
        self.sent: list[list[bytes]] = []
        self.behind, self.unsent = False, 0
        self.free = trio.Event()
        self.free.set()

    def write_now(self, frames: Sequence[bytes]) -> int:
        taken = list(frames[: self.room])
        self.room -= len(taken)
        if taken:
            self.written.append(taken)
        return len(taken)

    async def send_frames(self, frames: Sequence[bytes]) -> None:
        await self.free.wait()
        self.behind = False
        self.sent.append(list(frames))

    def abort(self) -> None: ...


class Spying(Writer):
    """``refused`` are the frames that found no room."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.refused: list[bytes] = []

    def too_slow(self, entry: QueuedFrame) -> None:
        self.refused.append(entry.frame)


class Kit:
    def __init__(self, socket: Socket, *, at_once: int = 100, most: int = 10_000) -> None:
        self.socket, self.coalescer = socket, WriteCoalescer(at_once=at_once)
        self.account = WaitingBytes().open(lambda: None)
        self.send_queue = SendQueue(most, 100_000_000, account=self.account)
        self.told: list[bytes] = []
        transport: Any = socket
        self.writer = Spying(
            transport, self.send_queue, self.coalescer, lambda entry: self.told.append(entry.frame)
        )

    def push(self, *frames: bytes) -> None:
        """Pushes while it is too much to write at once."""
        left = self.coalescer.take(self.coalescer.at_once)
        for frame in frames:
            self.writer.push(QueuedFrame(frame, 0.0, True))
        self.coalescer.spare = left

    def write(self, frame: bytes) -> bool:
        """One push; whether it was written at once."""
        self.writer.push(QueuedFrame(frame, 0.0, True))
        return self.socket.written[-1:] == [[frame]]


@contextmanager
def started(kit: Kit, nursery: trio.Nursery) -> Iterator[Kit]:
    kit.writer.start(nursery)
    yield kit
    nursery.cancel_scope.cancel()


async def test_at_once_only_where_nothing_is_before_it() -> None:
    kit = Kit(Socket(), at_once=2)
    async with trio.open_nursery() as nursery:
        with started(kit, nursery):
            assert kit.write(b"a")
            kit.push(b"b")
            assert not kit.write(b"c")  # b is before it
            kit.writer.flush()
            assert kit.write(b"d")
            assert not kit.write(b"e")  # two at once are enough
            assert kit.socket.written == [[b"a"], [b"b", b"c"], [b"d"]]
            assert not kit.writer.stuck


async def test_a_frame_that_the_socket_does_not_take_was_not_written() -> None:
    kit = Kit(Socket(room=0))
    async with trio.open_nursery() as nursery:
        with started(kit, nursery):
            assert not kit.write(b"a")
            assert not kit.writer.stuck


async def test_the_coalescer_is_asked_once_and_writes_together(
    autojump_clock: trio.abc.Clock,
) -> None:
    kit = Kit(Socket())
    async with trio.open_nursery() as nursery:
        with started(kit, nursery):
            kit.push(b"a", b"b", b"c")
            assert len(kit.coalescer._scheduled) == 1
            nursery.start_soon(kit.coalescer.run)
            await trio.testing.wait_all_tasks_blocked()
            assert kit.socket.written == [[b"a", b"b", b"c"]]
            assert kit.told == [b"a"]  # the first of those that waited
            kit.push(b"d")
            assert kit.coalescer.busy
            await trio.testing.wait_all_tasks_blocked()
            assert kit.socket.written[1:] == [[b"d"]]


async def test_no_room_is_said_and_owes_nothing() -> None:
    kit = Kit(Socket(room=1), most=1)
    async with trio.open_nursery() as nursery:
        with started(kit, nursery):
            kit.push(b"a", b"b")  # the coalescer has not had its turn
            assert (kit.socket.written, kit.writer.refused) == ([[b"a"]], [])
            kit.push(b"c")
            assert kit.writer.refused == [b"c"]
            assert [entry.frame for entry in kit.send_queue] == [b"b"]


async def test_what_a_full_socket_does_not_take_is_drained(
    autojump_clock: trio.abc.Clock,
) -> None:
    kit = Kit(Socket(room=2))
    kit.socket.free = trio.Event()
    async with trio.open_nursery() as nursery:
        with started(kit, nursery):
            kit.push(b"a", b"b", b"c", b"d")
            kit.writer.flush()
            assert kit.socket.written == [[b"a", b"b"]]
            assert (kit.writer.stuck, kit.told) == (True, [b"a"])
            await trio.testing.wait_all_tasks_blocked()
            kit.socket.room = 99
            assert not kit.write(b"e")  # the task is still at c and d
            kit.push(b"f")
            kit.writer.flush()
            assert len(kit.socket.written) == 1
            # What the task has taken is not sent yet: it waits as well.
            assert (kit.send_queue.statistics().bytes, kit.account.bytes) == (4, 4)
            kit.socket.free.set()
            await trio.testing.wait_all_tasks_blocked()
            assert kit.socket.sent == [[b"c", b"d"], [b"e", b"f"]]
            assert (kit.send_queue.statistics().bytes, kit.account.bytes) == (0, 0)
            assert not kit.writer.stuck
            assert kit.write(b"g")


async def test_nothing_taken_is_nothing_told(autojump_clock: trio.abc.Clock) -> None:
    kit = Kit(Socket(room=0))
    async with trio.open_nursery() as nursery:
        with started(kit, nursery):
            kit.push(b"a")
            kit.writer.flush()
            assert (kit.told, kit.writer.stuck) == ([], True)
            await trio.testing.wait_all_tasks_blocked()
            assert kit.socket.sent == [[b"a"]]


async def test_a_frame_that_was_begun_is_finished_by_the_task(
    autojump_clock: trio.abc.Clock,
) -> None:
    kit = Kit(Socket())
    async with trio.open_nursery() as nursery:
        with started(kit, nursery):
            kit.socket.behind, kit.socket.unsent = True, 5
            assert kit.write(b"a")
            assert kit.writer.stuck
            assert kit.account.bytes == 5
            await trio.testing.wait_all_tasks_blocked()
            assert kit.socket.sent == [[]]  # only the rest of it
            assert kit.account.bytes == 0
            assert not kit.writer.stuck


async def test_one_call_writes_a_thousand_frames_or_a_quarter_of_a_mebibyte() -> None:
    kit = Kit(Socket())
    async with trio.open_nursery() as nursery:
        with started(kit, nursery):
            kit.push(*[b"x"] * 1025)
            kit.writer.flush()
            assert [len(frames) for frames in kit.socket.written] == [1024, 1]
            kit.socket.written.clear()
            kit.push(*[bytes(1024)] * 257)
            kit.writer.flush()
            assert [len(frames) for frames in kit.socket.written] == [256, 1]


async def test_the_task_writes_64_kib_at_a_time(autojump_clock: trio.abc.Clock) -> None:
    kit = Kit(Socket(room=0))
    async with trio.open_nursery() as nursery:
        with started(kit, nursery):
            kit.push(*[bytes(1024)] * 65)
            kit.writer.flush()
            await trio.testing.wait_all_tasks_blocked()
            assert [len(frames) for frames in kit.socket.sent] == [64, 1]


@pytest.mark.parametrize("stuck", [False, True])
async def test_room_waits_while_the_send_queue_is_full(
    stuck: bool, autojump_clock: trio.abc.Clock
) -> None:
    kit = Kit(Socket(room=0 if stuck else 99), most=2)
    kit.socket.free = trio.Event()
    waited = trio.Event()

    async def wait() -> None:
        await kit.writer.wait_capacity()
        waited.set()

    async with trio.open_nursery() as nursery:
        with started(kit, nursery):
            for frame in (b"a", b"b"):
                kit.send_queue.put(QueuedFrame(frame, 0.0))
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert not waited.is_set()
            kit.writer.flush()
            await trio.testing.wait_all_tasks_blocked()
            assert waited.is_set()
            await kit.writer.wait_capacity()  # and who comes later does not wait


@pytest.mark.parametrize("queued", [[], [b"a", b"b"]])
async def test_the_last_word_is_the_close(
    queued: list[bytes], autojump_clock: trio.abc.Clock
) -> None:
    kit, closed = Kit(Socket()), list[int]()

    async def close() -> None:
        await trio.lowlevel.checkpoint()
        closed.append(len(kit.socket.sent))

    async with trio.open_nursery() as nursery:
        kit.writer.start(nursery)
        kit.push(*queued)
        kit.writer.finish(close)
        await trio.sleep_forever()  # the nursery is cancelled when all is said
    assert kit.socket.sent == ([queued] if queued else [])
    assert closed == [bool(queued)]
