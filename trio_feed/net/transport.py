"""What :mod:`.websocket` asks of the code that speaks RFC 6455 over an open stream.

There are two: :mod:`.websocket_library` (trio-websocket, for everything with ordinary rates) and
:mod:`.websocket_fast` (ours, for the exchanges' streams: one step of the event loop per read and
not several per message).  Both pass the same tests.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol

import trio
from attrs import frozen

from .counted_stream import CountedStream
from .urls import WebSocketUrl

TransportName = Literal["fast", "trio-websocket"]


class Rejected(Exception):
    """The upgrade was answered with another HTTP ``status``."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class ProtocolBroken(Exception):
    """The peer sent what may not be sent; before the upgrade: no answer to it."""


class HungUp(Exception):
    """The stream ended before the upgrade was answered."""


class TransportEnded(Exception):
    """Nothing more can be received or sent."""


@frozen
class Limits:
    """``unread`` messages are kept before the peer is left to wait (where the transport reads on
    its own); a frame of the transport's own takes at most ``send_s`` seconds."""

    max_message_bytes: int
    unread: int
    send_s: float


class Transport(Protocol):
    """An open WebSocket.  One task receives, any number send.  The stream belongs to the caller."""

    @property
    def closed(self) -> tuple[int, str] | None:
        """Code and reason of the close frame, 1006 without one; None: open, as far as is known."""
        ...

    async def receive(self) -> Sequence[str | bytes]:
        """The next messages, at least one.  Losing none when cancelled.  Raises TransportEnded,
        and ProtocolBroken where no task of the transport's own does."""
        ...

    async def send(self, text: str) -> None:
        """One message.  Raises TransportEnded."""
        ...

    async def ping(self) -> None:
        """Return when the peer has answered.  Raises TransportEnded."""
        ...

    async def close(self) -> None:
        """Shake hands, where there is still somebody to do it with.  The caller has a deadline."""
        ...


Connect = Callable[[trio.Nursery, CountedStream, WebSocketUrl, Limits], Awaitable[Transport]]
"""Upgrade a stream.  Tasks of the transport's own run in the nursery until it is cancelled; what
they raise is for the caller.  Raises Rejected, ProtocolBroken, HungUp, and what the stream does."""
