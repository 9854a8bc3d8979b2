"""TLS over a stream, client side, on OpenSSL's memory buffers.

What :class:`trio.SSLStream` does, and one thing more: a read returns everything that has been
decrypted.  An exchange puts each message into a record of its own, and one turn of the event loop
per record is several times the cost of the record (``scripts/bench inbound``).
"""

import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import trio

from .socket_reader import RECEIVE_BYTES, receive_from

_RECORD = 16 * 1024
"""The most that a record holds (RFC 8446, 5.1)."""
_WANTS = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class TlsStream(trio.abc.Stream):
    """Owns ``transport_stream``, the one below, and closes it.  One task receives, another sends.

    As HTTPS does, the end of the transport without a closing alert counts as the end: what is
    inside knows by itself whether it is whole.  A cancelled send breaks the stream, a cancelled
    read loses nothing.  Raises trio.BrokenResourceError, of ssl.SSLError where TLS is to blame.
    """

    def __init__(self, transport: trio.abc.Stream, context: ssl.SSLContext, host: str) -> None:
        """Raises ValueError for a ``host`` that is no name."""
        self.transport_stream, self._receive = transport, receive_from(transport)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._turn = trio.Lock()
        self._ended = self._closed = False
        self._failure: ssl.SSLError | None = None

    async def do_handshake(self) -> None:
        """To be awaited once, before anything else."""
        while True:
            try:
                self._tls.do_handshake()
            except _WANTS:
                await self._flush()
                await self._fill()
            except ssl.SSLError as error:
                await self._flush_at_once()
                raise trio.BrokenResourceError from error
            else:
                return await self._flush()

    def certificate(self) -> Mapping[str, Any]:
        """The peer's, verified, as :meth:`ssl.SSLObject.getpeercert` gives it."""
        return self._tls.getpeercert() or {}

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        most = max_bytes or RECEIVE_BYTES
        while True:
            data = self._decrypt(most)
            if self._outgoing.pending:  # an answer to what came: new keys, or an alert
                await self._flush_if_possible()
            if data or self._ended:
                return data
            await self._fill()

    def _decrypt(self, most: int) -> bytes:
        """All that is there, at most so much; empty: nothing yet, or the end."""
        if self._failure is not None:
            raise trio.BrokenResourceError from self._failure
        parts: list[bytes] = []
        left = most
        try:
            while left > 0 and not self._ended:
                part = self._tls.read(min(left, _RECORD))
                parts.append(part)
                left -= len(part)
                self._ended = not part
        except _WANTS:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self._ended = True
        except ssl.SSLError as error:
            self._failure = error
            if not parts:  # else the next read says so
                raise trio.BrokenResourceError from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        async with self._turn:
            if self._closed:
                raise trio.ClosedResourceError
            if data:
                try:
                    self._tls.write(data)
                except ssl.SSLError as error:
                    raise trio.BrokenResourceError from error
            await self._send()

    async def wait_send_all_might_not_block(self) -> None:
        await self.transport_stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Without waiting for the peer's closing alert."""
        self._closed = True
        with suppress(ssl.SSLError, ValueError, OSError):  # it would wait for theirs
            self._tls.unwrap()
        try:
            await self._flush_at_once()
        finally:
            await self.transport_stream.aclose()

    async def _fill(self) -> None:
        data = await self._receive(RECEIVE_BYTES)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        async with self._turn:
            await self._send()

    async def _send(self) -> None:
        if data := self._outgoing.read():
            await self.transport_stream.send_all(data)

    async def _flush_if_possible(self) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # reading says so
            await self._flush()

    async def _flush_at_once(self) -> None:
        """Last words, as far as the transport takes them without waiting."""
        with trio.move_on_after(0):
            await self._flush_if_possible()
