"""The sending half of one open WebSocket: a bounded queue, its writer, and the ways to end it.

The exchange never waits for a client: one whose queue is full is dropped (OKX documents 4005
"Buffer is full", Binance just does it; a close frame would have to wait behind the full queue).
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio
from attrs import define, field, frozen

from ...errors import ConnectionLost
from .wire import WebSocketPeer

_QUEUE_FRAMES = 4096
_WRITE_BYTES = 64 * 1024


@frozen
class _Close:
    code: int
    reason: str


@define(eq=False)
class SendQueue:
    """``put``, ``close`` and ``abort`` never wait."""

    peer: WebSocketPeer
    closing: bool = False
    too_slow: bool = False
    """It was dropped because its queue was full."""
    last_put: float = field(factory=trio.current_time)
    """When the latest frame was put in, on trio's clock."""
    _scope: trio.CancelScope = field(factory=trio.CancelScope)
    _send: trio.MemorySendChannel[bytes | _Close] = field(init=False)
    _receive: trio.MemoryReceiveChannel[bytes | _Close] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[bytes | _Close](_QUEUE_FRAMES)

    def put(self, frame: bytes) -> None:
        """Queue whole frames; nothing happens once it is closing."""
        self._queue(frame)
        self.last_put = trio.current_time()

    def close(self, code: int, reason: str) -> None:
        """Start the close handshake, behind what is queued."""
        self._queue(_Close(code, reason))
        self.closing = True

    def abort(self) -> None:
        """Cut the TCP connection: no close frame, and a reset where there is TCP."""
        self.peer.abort_on_close()
        self._scope.cancel()

    async def run(self, *jobs: Callable[[], Awaitable[None]]) -> None:
        """Write until the connection has ended, beside the owner's ``jobs``; the first to end, for
        whatever reason of the network's, ends the others."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for job in (self._write, *jobs):
                        nursery.start_soon(_first_to_end, job, nursery.cancel_scope, name=job)
        finally:
            self.closing = True

    async def _write(self) -> None:
        while True:
            frames = bytearray()
            item: bytes | _Close | None = await self._receive.receive()
            while isinstance(item, bytes):
                frames += item
                item = self._next() if len(frames) < _WRITE_BYTES else None
            if frames:
                await self.peer.send_frames(bytes(frames))
            if isinstance(item, _Close):
                await self.peer.close(item.code, item.reason)
                await trio.sleep(self.peer.limits.close_s)
                return

    def _next(self) -> bytes | _Close | None:
        try:
            return self._receive.receive_nowait()
        except trio.WouldBlock:
            return None

    def _queue(self, item: bytes | _Close) -> None:
        if self.closing:
            return
        try:
            self._send.send_nowait(item)
        except trio.WouldBlock:
            self.too_slow = True
            self.abort()


async def _first_to_end(job: Callable[[], Awaitable[None]], others: trio.CancelScope) -> None:
    with suppress(ConnectionLost):  # how most connections end
        await job()
    others.cancel()
