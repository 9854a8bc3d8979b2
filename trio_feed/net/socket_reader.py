"""Reading from a socket that is read until it is empty.

:class:`trio.SocketStream` tries to read before it waits.  Where each message is read as it comes,
that first try finds nothing every time: a system call and an exception, for a seventh of what a
message costs (docs/performance.md).  So what is here waits first, unless the last read left more
behind.
"""

import os
from collections.abc import Awaitable, Callable

import trio

RECEIVE_BYTES = 64 * 1024
"""Of one read."""
Receive = Callable[[int], Awaitable[bytes | bytearray]]
"""``await receive(most)`` as :meth:`trio.abc.ReceiveStream.receive_some`."""


def receive_from(stream: trio.abc.Stream) -> Receive:
    """How to read from this stream at the least cost."""
    if os.name == "posix" and isinstance(stream, trio.SocketStream):
        return _SocketReader(stream).receive
    return stream.receive_some


class _SocketReader:
    __slots__ = ("_full", "_stream")

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._full = True  # nothing is known yet

    async def receive(self, most: int) -> bytes | bytearray:
        if self._full:  # there is more, and it is had without waiting
            data: bytes | bytearray = await self._stream.receive_some(most)
        else:
            data = await self._receive_when_there(most)
        self._full = len(data) == most
        return data

    async def _receive_when_there(self, most: int) -> bytes:
        socket = self._stream.socket
        while True:
            if (fd := socket.fileno()) < 0:
                raise trio.ClosedResourceError("this socket was already closed")
            # A cancel here loses nothing: what follows does not wait.
            await trio.lowlevel.wait_readable(fd)
            try:
                return os.read(fd, most)
            except BlockingIOError:
                continue  # woken for nothing
            except OSError as error:
                raise trio.BrokenResourceError(f"socket connection broken: {error}") from error
