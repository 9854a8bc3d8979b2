"""The bytes under a client WebSocket, counted as they pass.

The library above does not say when something last came in or how a connection ended; this
stream, between the tunnel and the library, does.
"""

import re

import trio

from ..environment import mono
from .limits import FrameBudget
from .socket_reader import RECEIVE_BYTES, receive_from

MAX_REFUSAL_BYTES = 256 * 1024
"""More than this before the upgrade is done is no handshake."""


_INTERIM = re.compile(rb"HTTP/1\.[01] 1(?!01)\d\d[ \r\n]")
_DECIDED_BY = len(b"HTTP/1.1 103 ")
_END_OF_HEAD = re.compile(rb"\n\r?\n")


class CountedStream(trio.abc.Stream):
    """The bytes under the library, and what can be concluded from them.

    Every frame that is sent is counted in ``frames``, the library's own pongs too: it hands over
    each frame by itself.
    """

    def __init__(self, stream: trio.abc.Stream, frames: FrameBudget) -> None:
        self._stream, self._receive = stream, receive_from(stream)
        self._frames = frames
        self._head = b""
        self._before: bytes | None = b""  # of the answer to the upgrade; None: it has begun
        self.upgraded = False
        self.ended = trio.Event()
        self.end = ""
        self.received_bytes = 0
        self.last_received = trio.current_time()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        while True:
            try:
                data = await self._receive(max_bytes or RECEIVE_BYTES)
            except trio.BrokenResourceError:
                self._end("the connection was reset")
                raise
            if not data:
                self._end("the peer hung up without a close frame")
            self.received_bytes += len(data)
            self.last_received = trio.current_time()
            if self.upgraded or (answer := self._of_the_answer(data)) is None:
                return data
            if answer:
                return answer

    def _of_the_answer(self, data: bytes | bytearray) -> bytes | None:
        """What of it belongs to the answer to the upgrade; empty: that has not begun.  None: all,
        for it has begun before, or nothing more comes."""
        self._head = (self._head + data)[:16]
        if self.received_bytes > MAX_REFUSAL_BYTES:
            self._end("the peer sent too much")
        if self._before is None or not data:
            return None
        found = self._without_interim(self._before + data)
        if not found and self.ended.is_set():
            raise trio.BrokenResourceError(self.end)
        return found

    def _without_interim(self, data: bytes) -> bytes:
        """``data`` from the answer proper on; empty: that has not begun.

        An interim answer such as 103 Early Hints may come before any other (RFC 9110, 15.2), and
        the library takes it for a refusal.
        """
        while (interim := _INTERIM.match(data)) and (end := _END_OF_HEAD.search(data)):
            data = data[end.end() :]
        if interim or (len(data) < _DECIDED_BY and b"HTTP/1.".startswith(data[:7])):
            self._before = data
            return b""
        self._before = None
        self._head = data[:16]
        if not data.startswith(b"HTTP/"):  # h11 would wait for the end of it
            self._end("the peer sent what is no HTTP")
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.upgraded:
            self._frames.sent(mono())
        try:
            await self._stream.send_all(data)
        except BaseException as exc:  # half a frame may be out: nothing can follow it
            broken = isinstance(exc, trio.BrokenResourceError)
            self._end("the connection was reset" if broken else "a send was interrupted")
            await trio.aclose_forcefully(self._stream)
            raise

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        self._end("closed here")
        await self._stream.aclose()

    def refused_with(self) -> int | None:
        """The HTTP status of the answer to the upgrade, where it was one and not a 1xx."""
        match = re.match(rb"HTTP/1\.[01] ([2-5]\d\d)", self._head)
        return int(match[1]) if match else None

    def _end(self, how: str) -> None:
        self.end = self.end or how
        self.ended.set()
