"""One client's WebSocket, from its 101 to its end; no HTTP server has a part in it.

It reads, checks and answers what the protocol itself wants (pings, Close frames, broken rules).
What the client says is for the handler, which the application made for it; what is said to the
client goes through :attr:`ClientWebSocket.stream`.

Control frames are answered as soon as they are read; messages wait for their turn of the loop
(:mod:`.loop_limiter`).  A ping that is a message, ``{"type": "ping"}``, is one like all others, and
what a client sends behind its own message waits with that: nothing is read meanwhile.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from math import inf
from typing import Protocol

import structlog
import trio

from ..fanout.frames import close_frame, pong_frame
from ..fanout.waiting import WaitingBytes
from .error_boundary import ErrorBoundary
from .inflate import Control, FrameRefused, InboundFrames
from .limits import ServerLimits
from .loop_limiter import LoopLimiter
from .refusals import Refusals
from .stream import ClientStream
from .throttle import TokenBucket

log = structlog.get_logger()

CLOSE_S = 2.0
"""For the client's answer to our Close frame, and for the handler once its client has gone."""
_NORMAL, _NO_CODE, _INTERNAL_ERROR = 1000, 1005, 1011
_MAX_RECEIVE = 2 * 1024
"""Looked at in one go: of the smallest frames these are three hundred, two milliseconds."""
_MOST_AHEAD = 10
"""Messages that are read while the handler is at work."""
_SKIP_PAUSE_S = 0.01
"""Between two reads of what follows our Close frame: TCP then slows down a client that floods."""

Message = str | bytes


class Inbox(Protocol):
    """What a handler may ask of the client's messages besides receiving them."""

    @property
    def more(self) -> bool:
        """The next message is here already, and has not to wait for its turn."""

    def reading_ahead(self) -> AbstractAsyncContextManager[None]:
        """A block that waits for something else: meanwhile the client is answered its pings."""


class _NothingAhead:
    more = False

    def reading_ahead(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()


NOTHING_AHEAD: Inbox = _NothingAhead()
"""Of clients that are no WebSockets."""


class ClientWebSocket:
    """Used once; the caller closes ``stream``.  ``handler`` is run with it, and it ends with that.

    ``deflated``: the client has agreed to permessage-deflate.  ``account``: where the bytes are
    counted that wait for it.  ``finishing``: our Close frame is on its way.  ``scope`` is shielded;
    ``Clients`` cancels it.
    """

    __slots__ = (
        "_boundary", "_close_by", "_frames", "_handler", "_limiter", "_messages", "_over",
        "_refusals", "_send_timeout_s", "_silence_s", "_switching", "_turn_due", "account",
        "deflated", "finishing", "scope", "stream",
    )  # fmt: skip

    def __init__(
        self,
        stream: ClientStream,
        handler: "Handler",
        *,
        switching: bytes,
        deflated: bool,
        limits: ServerLimits,
        boundary: ErrorBoundary,
        refusals: Refusals,
        waiting: WaitingBytes,
        limiter: LoopLimiter,
    ) -> None:
        """``switching`` is the response to the client's request, which is sent first."""
        self.stream, self.deflated = stream, deflated
        self.account = waiting.open(self._drop)
        self.finishing = False
        self.scope = trio.CancelScope(shield=True)
        self._handler, self._switching = handler, switching
        self._boundary, self._refusals, self._limiter = boundary, refusals, limiter
        self._silence_s, self._send_timeout_s = limits.receive_timeout_s, limits.send_timeout_s
        self._frames = InboundFrames(
            limits.max_message_bytes,
            TokenBucket(limits.frames_per_s, limits.frame_burst),
            TokenBucket(limits.controls_per_s, limits.control_burst),
            deflate=deflated,
        )
        self._messages: list[Message] = []  # the next one is the last
        self._turn_due = False  # some of them have not waited for their turn
        self._over = False  # nothing more comes for the handler
        self._close_by = inf

    async def serve(self) -> None:
        """Answer the request, run the handler, and close."""
        try:
            with self.scope, suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._send(self._switching)
                self._switching = b""
                code = _INTERNAL_ERROR
                with self._boundary.around(self.stream.peer):
                    try:
                        await self._handler(self)
                    except* (trio.BrokenResourceError, trio.ClosedResourceError):
                        log.debug("client.broken", peer=self.stream.peer)
                    code = _NORMAL
                if not self._over:
                    await self.close(code)
                await self._linger()
        finally:
            self.account.close()

    @property
    def more(self) -> bool:
        """See :class:`Inbox`."""
        return bool(self._messages) and not self._turn_due

    async def receive(self) -> Message | None:
        """The client's next message; None: it has gone, or broke a rule."""
        while not self._messages and not self._over:
            await self._read()
        if self._turn_due:  # until it came: who is cancelled here waits again
            await self._limiter.enter()
            self._turn_due = False
        return self._messages.pop() if self._messages else None

    @asynccontextmanager
    async def reading_ahead(self) -> AsyncIterator[None]:
        """See :class:`Inbox`.  A handler whose client has gone is cancelled ``CLOSE_S`` later."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_ahead, name="read ahead")
            yield
            nursery.cancel_scope.cancel()

    async def close(self, code: int, reason: str = "") -> None:
        """Send a Close frame behind everything else; only the first call does anything.

        Afterwards nothing is sent.  Raises what the stream does.
        """
        if self._close_by < inf:
            return
        self.finishing = True
        self._close_by = trio.current_time() + CLOSE_S
        await self.stream.send_last(close_frame(code, reason))

    async def _read_ahead(self) -> None:
        while not self._over and len(self._messages) < _MOST_AHEAD:
            await self._read()

    async def _read(self) -> None:
        """One read of the stream and what follows from it."""
        self.scope.deadline = trio.current_time() + self._silence_s
        try:
            data = await self.stream.receive_some(_MAX_RECEIVE)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if not data:
            self._end()
            return
        try:
            items = self._frames.feed(data, trio.current_time())
        except FrameRefused as refusal:
            self._refusals.note(f"frame_{refusal.code}", self.stream.peer)
            self._end()
            await self.close(refusal.code, str(refusal))
            return
        # Before anything waits: who reads ahead may be cancelled there.
        controls = [item for item in items if isinstance(item, Control)]
        if len(controls) < len(items):
            said = [item for item in items if not isinstance(item, Control)]
            self._messages = [*reversed(said), *self._messages]
            self._turn_due = True
        if controls:
            await self._answer(controls)

    async def _answer(self, controls: Sequence[Control]) -> None:
        """A frame that is left half way would end the connection, so nothing but its deadline
        does that: neither a handler that has waited for long enough, nor one that leaves."""
        with trio.CancelScope(shield=True, relative_deadline=self._send_timeout_s):
            for control in controls:
                if control.is_ping:
                    await self._send(pong_frame(control.payload))
                elif control.is_close:
                    self._end()
                    await self.close(int.from_bytes(control.payload[:2]) or _NO_CODE)

    async def _send(self, frame: bytes) -> None:
        """Behind what others are writing."""
        if not self.stream.write_now((frame,)):
            await self.stream.send_frames((frame,))
        elif self.stream.behind:
            await self.stream.send_frames(())

    def _end(self) -> None:
        """The handler learns it at once, and has a moment for its own end."""
        self._over = True
        self.scope.deadline = trio.current_time() + CLOSE_S

    async def _linger(self) -> None:
        """Our Close frame is sent: read on until the client's, or the end of the stream, came.

        Closing with bytes unread would make the kernel reset the connection, and the client might
        lose the Close frame.
        """
        if self._close_by == inf:
            return
        self.scope.deadline = self._close_by
        while not self._frames.closed:
            data = await self.stream.receive_some(_MAX_RECEIVE)
            if not data:
                return
            self._frames.skip(data)
            if not self._frames.closed:
                await trio.sleep(_SKIP_PAUSE_S)

    def _drop(self) -> None:
        """More bytes are waiting for it than for anybody else, and too many for all."""
        self._refusals.note("waiting_bytes", self.stream.peer)
        self.stream.abort()


Handler = Callable[[ClientWebSocket], Awaitable[None]]
"""Serves a client until it returns; it should when :meth:`ClientWebSocket.receive` says None."""
