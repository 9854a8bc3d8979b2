"""One client's byte stream, as the server and the application see it.

HTTP servers shield their sends from cancellation, because half a frame spoils a connection.  The
price is that a client which stops reading holds its task, and with it the process, for ever.  This
stream sits between: every send has a deadline of its own that each accepted byte moves on, and
``abort`` ends whatever is under way at once, shielded or not.

All outgoing bytes pass one lock, first come first served, so what several tasks write is never
interleaved.  Finished frames can also be written without a task switch (``write_now``) while
no task holds the lock; a frame of which the kernel took a part stays with the stream, and its rest
goes before anything else.
"""

import errno
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from math import inf
from struct import pack
from typing import Any

import structlog
import trio

from .admission import ip_group
from .endpoint import endpoint_of

log = structlog.get_logger()

_PIECE = 16 * 1024
"""Bytes offered at a time to a transport that does not tell how many it took."""

_MAX_RECEIVE = 64 * 1024
_ACCEPT_PAUSE_S = 0.1
_writev: Callable[[int, Sequence[bytes]], int] = getattr(os, "writev", lambda _fd, _frames: 0)
"""Not on Windows, where frames are sent by tasks instead."""
_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


async def accept(listener: trio.abc.Listener[Any], *, send_timeout_s: float) -> "ClientStream":
    """The next connection, which the caller closes.

    Waits while the process or the machine is out of descriptors or memory: that passes.  Raises
    OSError for what does not, ``trio.ClosedResourceError`` once the listener is closed.
    """
    failing = False
    while True:
        try:
            transport = await listener.accept()
        except OSError as error:
            if error.errno not in _OUT_OF_RESOURCES:
                raise
            if not failing:
                log.error("server.accept_failed", error=str(error))
            failing = True
            await trio.sleep(_ACCEPT_PAUSE_S)
        else:
            return ClientStream(transport, send_timeout_s=send_timeout_s)


class ClientStream(trio.abc.HalfCloseableStream):
    """Wraps an accepted stream, which it owns from then on.

    The caller of ``accept`` closes it: ``aclose`` lets the kernel deliver what it has, ``abort``
    does not.
    Sends and receives raise ``trio.BrokenResourceError`` after ``abort`` or when the peer is gone,
    ``trio.ClosedResourceError`` after ``aclose``.

    ``group`` is whose budgets and caps it shares, see :func:`.admission.ip_group`;
    ``bytes_in`` and ``bytes_out`` count; ``last_received`` is the ``trio.current_time()`` of the
    last byte that came in, pongs included (at first: of the accept).  ``behind``: a frame was
    begun, and a call of ``send_frames`` has to send its rest.  ``ready_fd``: where a frame can be
    written at this moment; -1: nowhere, because something else is being written, the stream is at
    its end, or it is no plain socket.
    """

    __slots__ = (
        "_fd", "_last", "_listen_until", "_out", "_over", "_read_fd", "_receiving", "_rest",
        "_send_timeout_s", "_transport", "_under_way", "_write", "behind", "bytes_in", "bytes_out",
        "group", "last_received", "peer", "ready_fd", "socket",
    )  # fmt: skip

    def __init__(self, transport: trio.abc.Stream, *, send_timeout_s: float) -> None:
        self.socket = endpoint_of(transport)
        self.peer = str(self.socket)
        self.group = ip_group(self.socket.peer[0]) if self.socket.peer else self.peer
        self.bytes_in = self.bytes_out = 0
        self.last_received = trio.current_time()
        self._transport = transport
        self._write = _writer(transport)
        self.ready_fd = self._fd = self._read_fd = _descriptor(transport)
        self._rest = b""
        self.behind = False
        self._send_timeout_s = send_timeout_s
        self._out = trio.StrictFIFOLock()
        self._last = False
        self._under_way: list[trio.CancelScope] = []
        self._over: type[trio.BrokenResourceError | trio.ClosedResourceError] | None = None
        self._receiving: trio.CancelScope | None = None
        self._listen_until = inf

    def __repr__(self) -> str:
        state = "open" if self._over is None else self._over.__name__
        return f"<ClientStream {self.peer} in={self.bytes_in} out={self.bytes_out} {state}>"

    async def secure(self) -> None:
        """Complete the TLS handshake, where there is TLS; the caller bounds it.  Raises Broken."""
        if isinstance(self._transport, trio.SSLStream):
            with self._operation():
                await self._transport.do_handshake()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write ``data`` behind what others are writing.  Raises as the class says.

        A peer that takes no byte for ``send_timeout_s`` is aborted; so is the connection when a
        write is cancelled half way, because nothing sensible can follow half a frame.
        """
        async with self._alone():
            await self._send_next(data)

    @property
    def unsent(self) -> int:
        """Bytes of that frame that are not sent yet."""
        return len(self._rest)

    def write_now(self, frames: Sequence[bytes]) -> int:
        """Write as many of the frames (at most 1024) as can be without waiting; says how many.

        Takes none without a ``ready_fd``.  A frame that was begun counts.  A broken connection is
        aborted.
        """
        if self.ready_fd < 0:
            return 0
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        try:
            taken = os.write(self.ready_fd, data)
        except BlockingIOError:
            return 0
        except OSError:
            self.abort()
            return 0
        self.bytes_out += taken
        if taken == len(data):
            return len(frames)
        for number, frame in enumerate(frames):
            if taken < len(frame):
                if taken:
                    self._keep(frame[taken:])
                return number + bool(taken)
            taken -= len(frame)
        return len(frames)

    def begun(self, frame: bytes, taken: int) -> None:
        """The caller has written to ``ready_fd``, and the kernel took so much of a frame."""
        self.bytes_out += taken
        self._keep(frame[taken:])

    def _keep(self, rest: bytes) -> None:
        self._rest, self.behind, self.ready_fd = rest, True, -1

    async def send_frames(self, frames: Sequence[bytes]) -> None:
        """``send_all`` for frames of the application: none follows the last one.
        Raises as the class says, and ClosedResourceError after ``send_last``."""
        async with self._alone():
            self._check_last()
            await self._send_next(b"".join(frames))

    async def send_last(self, frame: bytes) -> None:
        """Send a frame behind which there is none.  Raises as ``send_frames``."""
        async with self._alone():
            self._check_last()
            self._last, self._fd = True, -1
            await self._send_next(frame)

    def _check_last(self) -> None:
        if self._last:
            raise trio.ClosedResourceError(f"{self.peer}: nothing is sent behind the last frame")

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until a send would begin at once; no deadline of its own."""
        async with self._alone():
            with self._operation():
                await self._transport.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Nothing more will be sent; what is being sent still goes first.  TLS has no such half."""
        async with self._alone():
            with self._operation():
                if isinstance(self._transport, trio.abc.HalfCloseableStream):
                    await self._transport.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """At most ``max_bytes`` (None: as many as are there); empty at the end of the stream."""
        if self._read_fd >= 0 and self._listen_until == inf:
            return await self._receive_plainly(max_bytes or _MAX_RECEIVE)
        while True:
            data: bytes | bytearray = b""
            with self._operation(self._listen_until) as self._receiving:
                data = await self._transport.receive_some(max_bytes)
            self._receiving = None
            if data:
                self.bytes_in += len(data)
                self.last_received = trio.current_time()
            if not data or self._listen_until == inf:
                return data

    async def _receive_plainly(self, max_bytes: int) -> bytes:
        """From the socket itself: a client waits here for nearly all of its life, so each object
        that takes counts.  ``abort`` and ``aclose`` close the socket, which wakes who waits."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            self._check()
            try:
                data = os.read(self._read_fd, max_bytes)
                break
            except BlockingIOError:
                pass
            except OSError as error:
                raise trio.BrokenResourceError(f"{self.peer}: {error}") from error
            try:
                await trio.lowlevel.wait_readable(self._read_fd)
            except trio.ClosedResourceError:
                self._check()
                raise
        self.bytes_in += len(data)
        if data:
            self.last_received = trio.current_time()
        return data

    def finish(self, within_s: float) -> None:
        """Our last bytes are sent: what still arrives is thrown away.

        ``receive_some`` then gives the end of the stream when the peer closes, at the latest
        ``within_s`` seconds from now.  Closing with bytes unread would make the kernel reset the
        connection, and the peer might lose our last bytes.
        """
        self._last, self._fd, self.ready_fd = True, -1, -1
        self._listen_until = min(self._listen_until, trio.current_time() + within_s)
        if self._receiving is not None:
            self._receiving.deadline = self._listen_until

    def abort(self) -> None:
        """Drop the connection now: every send and receive, pending or future, raises Broken.

        Never waits and may be called any number of times.  A socket is reset (no FIN), because a
        frozen peer would keep the unsent bytes in the kernel for minutes.
        """
        self._over, self.ready_fd = trio.BrokenResourceError, -1
        _close_now(self._transport)
        self._wake_all()

    async def aclose(self) -> None:
        """Close; pending sends and receives raise ClosedResourceError."""
        self.ready_fd = -1
        if self._over is None:
            self._over = trio.ClosedResourceError
        self._wake_all()
        await self._transport.aclose()

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Hold the lock.  From the moment on in which it is asked for nothing overtakes."""
        self.ready_fd = -1
        try:
            async with self._out:
                yield
        finally:
            if not (self._out.locked() or self.behind or self._over is not None):
                self.ready_fd = self._fd

    async def _send_next(self, data: bytes | bytearray | memoryview) -> None:
        """Under the lock: the rest of a frame that was begun, then ``data``."""
        with self._operation() as scope:
            begun, self._rest, self.behind = self._rest, b"", False
            rest = memoryview(begun + data if begun else data)
            try:
                while rest:
                    scope.deadline = trio.current_time() + self._send_timeout_s
                    taken = await self._write(rest)
                    self.bytes_out += taken
                    rest = rest[taken:]
            except trio.Cancelled:
                if self._over is None:
                    self.abort()
                raise

    @contextmanager
    def _operation(self, deadline: float = inf) -> Iterator[trio.CancelScope]:
        """A scope that ``abort`` and ``aclose`` cancel, and the errors of the class."""
        self._check()
        with trio.CancelScope(deadline=deadline) as scope:
            self._under_way.append(scope)
            try:
                yield scope
            except OSError as error:
                self._check()
                raise trio.BrokenResourceError(f"{self.peer}: {error}") from error
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._check()
                raise
            finally:
                self._under_way.remove(scope)
        self._check()

    def _check(self) -> None:
        if self._over is not None:
            raise self._over(f"{self.peer}: closed on our side")

    def _wake_all(self) -> None:
        for scope in self._under_way:
            scope.cancel()


def _descriptor(transport: trio.abc.Stream) -> int:
    """Of a plain socket, where the system has calls that take one; else -1."""
    if not hasattr(os, "writev") or not isinstance(transport, trio.SocketStream):
        return -1
    return transport.socket.fileno()


def _writer(transport: trio.abc.SendStream) -> Callable[[memoryview], Awaitable[int]]:
    """A write that tells how much was taken, because every byte taken is progress."""
    if isinstance(transport, trio.SocketStream):
        return transport.socket.send

    async def write_piece(data: memoryview) -> int:
        piece = data[:_PIECE]
        await transport.send_all(piece)
        return len(piece)

    return write_piece


def _close_now(transport: trio.abc.Stream) -> None:
    """Close without waiting, as far as the transport can."""
    if isinstance(transport, trio.SSLStream):
        _close_now(transport.transport_stream)
    elif isinstance(transport, trio.SocketStream):
        with suppress(OSError):
            transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
        transport.socket.close()
    elif isinstance(transport, trio.StapledStream):
        for half in (transport.send_stream, transport.receive_stream):
            half.close()
