"""The writes to one client, in one order.

A frame is written at once, in the caller's turn, as long as the socket takes it.  What
the socket does not take, or the coalescer wants to write together with more, waits in the send
queue; a task that lives only as long as the socket is full drains it.
"""

from collections.abc import Awaitable, Callable

import trio

from .coalescing import WriteCoalescer
from .send_queue import QueuedFrame, SendQueue
from .transport import Transport

_FRAMES, _FLUSH_BYTES, _DRAIN_BYTES = 1024, 256 * 1024, 64 * 1024
"""Written with one call: so many frames at most, and bytes (the draining task copies them)."""

Close = Callable[[], Awaitable[None]]


class Writer:
    """``written`` is called with the first of the queued frames that were written together."""

    def __init__(
        self,
        transport: Transport,
        send_queue: SendQueue,
        coalescer: WriteCoalescer,
        written: Callable[[QueuedFrame], None],
    ) -> None:
        self.send_queue = send_queue
        self._waiting = send_queue.waiting
        self._transport, self._coalescer, self._written = transport, coalescer, written
        self._scheduled = self._draining = False
        self._room = trio.lowlevel.ParkingLot()
        self._nursery: trio.Nursery
        self._close: Close | None = None

    @property
    def stuck(self) -> bool:
        """The socket has been full, and there is more to write."""
        return self._draining

    def start(self, nursery: trio.Nursery) -> None:
        """Before anything else: where the draining task goes.  What the transport raises comes
        out of there."""
        self._nursery = nursery

    def write(self, frame: bytes) -> bool:
        """Write it at once if nothing is before it and it is not too much for now.

        Every message passes here once per subscriber; its calls are counted (tests/test_cost.py).
        """
        if self._waiting or self._draining or not self._coalescer.may_write():
            return False
        taken = self._transport.write_now((frame,))
        if self._transport.behind:
            self._note_begun()
        return taken == 1

    def push(self, entry: QueuedFrame) -> bool:
        """Queue for the coalescer.  False: there is no room."""
        if not self.send_queue.put(entry):
            return False
        if not (self._scheduled or self._draining):
            self._scheduled = True
            self._coalescer.schedule(self)
        return True

    def flush(self) -> None:
        """Write what waits, as far as the socket takes it."""
        self._scheduled = False
        while self.send_queue and not self._draining:
            first = next(iter(self.send_queue))
            frames = self.send_queue.first(_FRAMES, _FLUSH_BYTES)
            taken = self._write_now(frames)
            self._remove(taken)
            if taken < len(frames):
                self._drain_soon()
            if taken:
                self._written(first)

    async def wait_capacity(self) -> None:
        """Wait while the send_queue is full."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while self.send_queue.full:
            await self._room.park()

    def finish(self, close: Close) -> None:
        """Write what waits, then ``close``, and then cancel the nursery."""
        self._close = close
        self._drain_soon()

    def _write_now(self, frames: list[bytes]) -> int:
        taken = self._transport.write_now(frames)
        if self._transport.behind:
            self._note_begun()
        return taken

    def _note_begun(self) -> None:
        """The kernel took a part of a frame: its rest goes as soon as there is room."""
        self.send_queue.taken(self._transport.unsent)
        self._drain_soon()

    def _remove(self, number: int) -> None:
        self.send_queue.remove(number)
        if self._room:
            self._room.unpark_all()

    def _drain_soon(self) -> None:
        if not self._draining:
            self._draining = True
            # A client that has gone may still stand in the coalescer's queue, and its nursery is
            # closed then: what waits for it is not written any more.
            if not self._nursery.cancel_scope.cancel_called:
                self._nursery.start_soon(self._drain, name="client writer")

    async def _drain(self) -> None:
        while self.send_queue or self._transport.behind:
            frames = self.send_queue.first(_FRAMES, _DRAIN_BYTES)
            begun = self._transport.unsent if self._transport.behind else 0
            self.send_queue.taken(begun + sum(map(len, frames)))
            self._remove(len(frames))
            await self._transport.send_frames(frames)
            self.send_queue.taken(0)
            self._room.unpark_all()
        self._draining = False
        if self._close is not None:
            await self._close()
            self._nursery.cancel_scope.cancel()
