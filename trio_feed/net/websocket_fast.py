"""A transport of our own for streams with high rates: the receiving task reads, and gets all that
one read brought.

h11 does the upgrade (RFC 6455, section 4), :mod:`.frames` the rest.  No task switch, no queue and
no copy but one slice per message lie between the stream and the consumer, so backpressure is the
stream's own.  Where the consumer stays away, an attendant reads in its place, as far as the bound
on unread messages allows: pings are answered meanwhile, and an end is seen.
"""

import base64
import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Never

import h11
import trio

from .counted_stream import CountedStream
from .frames import FrameError, FrameSplitter, close_frame, ping_frame, pong_frame, text_frame
from .socket_reader import RECEIVE_BYTES
from .transport import (
    HungUp,
    Limits,
    ProtocolBroken,
    Rejected,
    Transport,
    TransportEnded,
)
from .urls import WebSocketUrl

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


_AWAY_S = 10.0
"""After so long the attendant looks for a consumer; exchanges wait 30 s and more for a pong."""


async def connect(
    nursery: trio.Nursery, stream: CountedStream, target: WebSocketUrl, limits: Limits
) -> Transport:
    """See :data:`~.transport.Connect`."""
    key = base64.b64encode(os.urandom(16))
    http = h11.Connection(h11.CLIENT)
    try:
        request = http.send(_request(target, key))
        await stream.send_all(request or b"")
        trailing = await _switch(http, stream, key)
    except h11.ProtocolError as error:
        raise ProtocolBroken(str(error)) from None
    except _GONE:
        raise HungUp from None
    stream.upgraded = True
    transport = FastTransport(stream, limits, trailing)
    with suppress(TransportEnded):  # the first read says so
        await transport._answer()  # what came with the 101
    nursery.start_soon(transport.attend, name="websocket attendant")
    return transport


def _request(target: WebSocketUrl, key: bytes) -> h11.Request:
    return h11.Request(
        method="GET",
        target=target.resource,
        headers=[
            (b"Host", target.host_header.encode("ascii")),
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Key", key),
            (b"Sec-WebSocket-Version", b"13"),
        ],
    )


async def _switch(http: h11.Connection, stream: CountedStream, key: bytes) -> bytes:
    """Read the answer to the upgrade; returns what came behind it."""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            data = await stream.receive_some(RECEIVE_BYTES)
            if not data or stream.ended.is_set():  # or what came is no answer
                raise HungUp
            http.receive_data(bytes(data))
        elif isinstance(event, h11.InformationalResponse):
            if event.status_code == 101:
                _check(dict(event.headers), key)
                return http.trailing_data[0]
            # 100 to 199 but 101 may come before the answer (RFC 9110, 15.2)
        elif isinstance(event, h11.Response):
            raise Rejected(event.status_code)
        else:
            raise ProtocolBroken("something else than an answer to the upgrade")


def _check(headers: dict[bytes, bytes], key: bytes) -> None:
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
    tokens = headers.get(b"connection", b"").lower().replace(b",", b" ").split()
    if headers.get(b"upgrade", b"").lower() != b"websocket" or b"upgrade" not in tokens:
        raise ProtocolBroken("a 101 that switches to something else")
    if headers.get(b"sec-websocket-accept") != accept:
        raise ProtocolBroken("a Sec-WebSocket-Accept that is not for our key")
    if b"sec-websocket-extensions" in headers or b"sec-websocket-protocol" in headers:
        raise ProtocolBroken("an extension or a protocol that was not asked for")


class FastTransport:
    """See :class:`~.transport.Transport`; made by :func:`connect`."""

    def __init__(self, stream: CountedStream, limits: Limits, trailing: bytes) -> None:
        self._stream, self._send_s = stream, limits.send_s
        self._splitter = FrameSplitter(limits.max_message_bytes)
        self._most_unread = limits.unread
        self._unread: list[str | bytes] = self._splitter.feed(trailing)
        self._receiving = False
        self._reading = trio.Lock()
        self._attended = trio.CancelScope()
        self._turn = trio.Lock()
        self._pings: dict[bytes, trio.Event] = {}
        self._closed: tuple[int, str] | None = None
        self._close_sent = False

    @property
    def closed(self) -> tuple[int, str] | None:
        return self._closed

    async def receive(self) -> Sequence[str | bytes]:
        # No await lies between taking messages out and returning them: a cancel loses none.
        self._receiving = True
        try:
            if self._reading.locked():
                self._attended.cancel()  # it reads no further, and leaves what it has
                await self._reading.acquire()
            else:
                self._reading.acquire_nowait()  # without a turn of the event loop
            try:
                while not self._unread:
                    await self._fill()
            finally:
                self._reading.release()
        finally:
            self._receiving = False
        messages, self._unread = self._unread, []
        return messages

    async def attend(self) -> None:
        """Read for a consumer that stays away; until the connection ends."""
        with suppress(TransportEnded, ProtocolBroken):  # the consumer will see it as well
            while True:
                await trio.sleep(_AWAY_S)
                if not self._receiving and len(self._unread) < self._most_unread:
                    async with self._reading:
                        await self._read_in_place()

    async def _read_in_place(self) -> None:
        with trio.CancelScope() as self._attended:
            while not self._receiving and len(self._unread) < self._most_unread:
                await self._fill()

    async def _fill(self) -> None:
        """One read.  What comes before the end is kept; then TransportEnded, ProtocolBroken."""
        if (failure := self._splitter.failure) is not None:
            await self._refuse(failure)
        if self._closed is not None:
            raise TransportEnded
        self._unread += self._splitter.feed(await self._read())
        if self._splitter.controls:
            with suppress(TransportEnded):  # the next read says so
                await self._answer()

    async def send(self, text: str) -> None:
        if self._close_sent or self._closed is not None:
            raise TransportEnded
        await self._send(text_frame(text, os.urandom(4)))

    async def ping(self) -> None:
        payload, answered = os.urandom(8), trio.Event()
        self._pings[payload] = answered
        try:
            await self._send(ping_frame(payload, os.urandom(4)))
            await answered.wait()
        finally:
            del self._pings[payload]

    async def close(self) -> None:
        self._receiving = True  # nobody reads for us any more
        self._attended.cancel()
        try:
            if not self._close_sent:
                self._close_sent = True
                await self._send(close_frame(1000, os.urandom(4)))
            async with self._reading:
                while self._closed is None and self._splitter.failure is None:
                    self._splitter.feed(await self._read())
                    await self._answer()
        except TransportEnded:
            pass  # nobody to shake hands with

    async def _refuse(self, failure: FrameError) -> Never:
        if not self._close_sent:
            self._close_sent, self._closed = True, (failure.code, str(failure))
            with suppress(TransportEnded), trio.move_on_after(self._send_s, shield=True):
                await self._send(close_frame(failure.code, os.urandom(4)))
        raise ProtocolBroken(str(failure))

    async def _answer(self) -> None:
        """Take the control frames out of the splitter, and answer them."""
        controls = self._splitter.controls
        while controls:
            control = controls.popleft()
            if control.is_close:
                self._closed = control.code, control.reason
                if not self._close_sent:
                    self._close_sent = True
                    with trio.move_on_after(self._send_s, shield=True):
                        await self._send(close_frame(control.code, os.urandom(4)))
            elif control.is_ping:
                # A cancelled send would cut the frame and end the connection.
                with trio.move_on_after(self._send_s, shield=True):
                    await self._send(pong_frame(control.payload, os.urandom(4)))
            elif (answered := self._pings.get(control.payload)) is not None:
                answered.set()

    async def _read(self) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(RECEIVE_BYTES)
        except _GONE:
            raise self._end() from None
        if not data:
            raise self._end()
        return data

    async def _send(self, frame: bytes) -> None:
        try:
            async with self._turn:
                await self._stream.send_all(frame)
        except _GONE:
            raise self._end() from None

    def _end(self) -> TransportEnded:
        self._closed = self._closed or (1006, "")
        return TransportEnded()
