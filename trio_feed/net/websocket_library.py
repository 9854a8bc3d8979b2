"""trio-websocket as a transport; its only importer.

It leaves to its user, and this file puts right: it runs its reader in the nursery it is given, and
the reader dies of foreign exceptions; it waits for ever where the peer hangs up before the 101.
One unread message stops it from answering pings: its queue is made long.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import h11
import trio
import trio_websocket
import wsproto.utilities
from attrs import frozen

from ..rest_dialects import MALFORMED
from .counted_stream import CountedStream
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

BREACHES = (
    trio_websocket.HandshakeError,
    trio_websocket.ConnectionClosed,
    wsproto.utilities.ProtocolError,
    h11.ProtocolError,
    *MALFORMED,
)
"""The one table of what the library's reader dies of when the peer breaks the protocol."""
# What its methods raise when it has ended or is about to.
_ENDED = (trio_websocket.ConnectionClosed, wsproto.utilities.LocalProtocolError)


async def connect(
    nursery: trio.Nursery, stream: CountedStream, target: WebSocketUrl, limits: Limits
) -> Transport:
    """See :data:`~.transport.Connect`; what its reader in ``nursery`` dies of is in BREACHES."""
    nursery.start_soon(_fail_unless_upgraded, stream)
    library = await trio_websocket.wrap_client_stream(
        nursery,
        cast("Any", stream),  # annotated as a socket, used as a Stream
        target.host_header,
        target.resource,
        message_queue_size=limits.unread,
        max_message_size=limits.max_message_bytes,
        receive_buffer_size=RECEIVE_BYTES,  # 30 % faster than the library's 4 KiB
    )
    stream.upgraded = True
    return LibraryTransport(library)


async def _fail_unless_upgraded(stream: CountedStream) -> None:
    await stream.ended.wait()
    if not stream.upgraded:
        raise HungUp


def translated(error: BaseException) -> BaseException:
    """What the library's reader died of, in words that the other transport has too."""
    if isinstance(error, trio_websocket.ConnectionRejected):
        return Rejected(error.status_code)
    cause: BaseException | None = error
    if isinstance(error, wsproto.utilities.LocalProtocolError | h11.LocalProtocolError):
        # It answers a wrong 101 as a server would, fails in that, and so hides what was wrong.
        while cause is not None and not isinstance(cause, wsproto.utilities.RemoteProtocolError):
            cause = cause.__context__
    if isinstance(cause, wsproto.utilities.RemoteProtocolError):
        return ProtocolBroken(_in_our_words(str(cause)))
    return error


_WORDS = [
    (re.compile(pattern), words)
    for pattern, words in (
        (r"client received unexpected masked frame", "a masked frame from a server"),
        (r"Reserved bit set", "a bit of an extension that was not negotiated"),
        (r"Invalid opcode 0x([0-9a-f])", "opcode {}, which is reserved"),
        (
            r"Invalid attempt to fragment control frame|Control frame with payload len > 125",
            "a control frame in parts, or longer than 125 bytes",
        ),
        (r"unexpected CONTINUATION", "a part of no message"),
        (r"expected CONTINUATION", "a message inside another one"),
        (r"Error decoding CLOSE|'utf-8' codec can't decode", "a text that is not UTF-8"),
        (
            r"remote CLOSE with|CLOSE with",
            "a close frame with a code that may not be sent",
        ),
        (
            r"Payload length used|8-byte payload length with",
            "a length that is not written in the shortest form",
        ),
        (r"Exceeded maximum message size: (\d+)", "a message of more than {} bytes"),
        (r"Missing header", "a 101 that switches to something else"),
        (r"Bad accept token", "a Sec-WebSocket-Accept that is not for our key"),
        (
            r"unrecognized (subprotocol|extension)",
            "an extension or a protocol that was not asked for",
        ),
    )
]
"""How the library (wsproto 1.2) begins to say what was broken, and how the other transport does."""


def _in_our_words(text: str) -> str:
    for pattern, words in _WORDS:
        if found := pattern.match(text):
            return words.format(*(_number(group) for group in found.groups()))
    return text


def _number(text: str) -> str:
    """An opcode is written in hexadecimal."""
    return str(int(text, 16)) if len(text) == 1 else text


@frozen(eq=False)
class LibraryTransport:
    """See :class:`~.transport.Transport`."""

    _library: trio_websocket.WebSocketConnection

    @property
    def closed(self) -> tuple[int, str] | None:
        closed = self._library.closed
        return None if closed is None else (closed.code, _in_our_words(closed.reason or ""))

    async def receive(self) -> Sequence[str | bytes]:
        with _translated():
            return (await self._library.get_message(),)

    async def send(self, text: str) -> None:
        with _translated():
            await self._library.send_message(text)

    async def ping(self) -> None:
        with _translated():
            await self._library.ping()

    async def close(self) -> None:
        await self._library.aclose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except _ENDED:
        raise TransportEnded from None
