"""The writes to one client, in one order.

A frame is written at once, in the caller's turn, as long as the socket takes it.  What
the socket does not take, or the coalescer wants to write together with more, waits in the send
queue; a task that lives only as long as the socket is full drains it.
"""

from collections.abc import Awaitable, Callable, Sequence

import trio

from .coalescing import WriteCoalescer
from .send_queue import QueuedFrame, SendQueue
from .transport import Transport

_FRAMES, _FLUSH_BYTES, _DRAIN_BYTES = 1024, 256 * 1024, 64 * 1024
"""Written with one call: so many frames at most, and bytes (the draining task copies them)."""

Close = Callable[[], Awaitable[None]]


class Writer:
    """``written`` is called with the first of the queued frames that were written together.

    A client's sender is one, so that a message is one call away from its subscriber.
    """

    __slots__ = (
        "_close_last",
        "_coalescer",
        "_drainers",
        "_draining",
        "_room",
        "_scheduled",
        "_stopped",
        "_written",
        "send_queue",
        "transport",
        "waiting",
    )  # fmt: skip

    def __init__(
        self,
        transport: Transport,
        send_queue: SendQueue,
        coalescer: WriteCoalescer,
        written: Callable[[QueuedFrame], None],
    ) -> None:
        self.send_queue = send_queue
        self.waiting = send_queue.entries
        self.transport, self._coalescer, self._written = transport, coalescer, written
        self._scheduled = self._draining = self._stopped = False
        self._room: trio.lowlevel.ParkingLot | None = None
        self._drainers: trio.Nursery
        self._close_last: Close | None = None

    @property
    def stuck(self) -> bool:
        """The socket has been full, and there is more to write."""
        return self._draining

    def start(self, nursery: trio.Nursery) -> None:
        """Before anything else: where the draining task goes.  What the transport raises comes
        out of there."""
        self._drainers = nursery

    def push(self, entry: QueuedFrame) -> None:
        """A push: written at once if nothing is before it and it is not too much for now, else it
        waits for the coalescer.  Never waits itself; see :meth:`too_slow`."""
        if not (self.waiting or self._draining) and self._coalescer.may_write():
            self._coalescer.spare -= 1
            if self._write_now((entry.frame,)):
                return
        self.enqueue(entry)

    def enqueue(self, entry: QueuedFrame) -> None:
        """A push that waits for the coalescer, which may write it together with others.

        Under load every message passes here once per subscriber; its calls are counted
        (tests/test_cost.py).
        """
        if self.send_queue.newest and self._gives_way(entry):
            return
        if not self.send_queue.put(entry):
            self.flush()  # the coalescer may not have had its turn
            if not self.send_queue.put(entry):
                self.too_slow(entry)
                return
        if not (self._scheduled or self._draining):
            self._scheduled = True
            self._coalescer.schedule(self)

    def begun(self, frame: bytes, taken: int) -> None:
        """See :class:`.topics.Subscriber`."""
        self.transport.begun(frame, taken)
        self._note_begun()

    def too_slow(self, entry: QueuedFrame) -> None:
        """There is no room for it."""
        raise NotImplementedError

    def conflated(self) -> None:
        """A push has gone in place of an older one."""

    def _gives_way(self, entry: QueuedFrame) -> bool:
        """Whether an older one that waits has given way to it."""
        if entry.message is None or not self.send_queue.conflate(entry, entry.key):
            return False
        self.conflated()
        return True

    def flush(self) -> None:
        """Write what waits, as far as the socket takes it."""
        self._scheduled = False
        if self._stopped:  # the coalescer's turn came after the client had gone
            return
        waiting, queue = self.waiting, self.send_queue
        while waiting and not self._draining:
            first = waiting[0]
            frames = queue.first(_FRAMES, _FLUSH_BYTES)
            taken = self._write_now(frames)
            queue.remove(taken)
            if self._room is not None:
                self._room.unpark_all()
            if taken < len(frames):
                self._drain_soon()
            if taken:
                self._written(first)

    async def wait_capacity(self) -> None:
        """Wait while the send_queue is full."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while self.send_queue.full:
            if self._room is None:
                self._room = trio.lowlevel.ParkingLot()
            await self._room.park()

    def stop(self) -> None:
        """The client has gone and the nursery ends: what waits stays unwritten."""
        self._stopped = True

    def finish(self, close: Close) -> None:
        """Write what waits, then ``close``, and then cancel the nursery."""
        self._close_last = close
        self._drain_soon()

    def _write_now(self, frames: Sequence[bytes]) -> int:
        taken = self.transport.write_now(frames)
        if self.transport.behind:
            self._note_begun()
        return taken

    def _note_begun(self) -> None:
        """The kernel took a part of a frame: its rest goes as soon as there is room."""
        self.send_queue.taken(self.transport.unsent)
        self._drain_soon()

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.unpark_all()

    def _drain_soon(self) -> None:
        if not self._draining:
            self._draining = True
            self._drainers.start_soon(self._drain, name="client writer")

    async def _drain(self) -> None:
        while self.send_queue or self.transport.behind:
            frames = self.send_queue.first(_FRAMES, _DRAIN_BYTES)
            begun = self.transport.unsent if self.transport.behind else 0
            self.send_queue.taken(begun + sum(map(len, frames)))
            self.send_queue.remove(len(frames))
            self._make_room()
            await self.transport.send_frames(frames)
            self.send_queue.taken(0)
            self._make_room()
        self._draining = False
        if self._close_last is not None:
            await self._close_last()
            self._drainers.cancel_scope.cancel()
