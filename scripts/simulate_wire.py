"""The WebSocket of a simulated client: wsproto over a stream, read by who wants what comes.

trio-websocket reads in a task of its own and hands each message over a channel: nine steps of tasks
per message instead of one, which were a twentieth to an eighth of a simulated day.
"""

from contextlib import suppress
from typing import Self

import trio
from attrs import define, field
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError

_RECEIVE_BYTES = 65_536
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


class Ended(Exception):
    """The connection is over; says why."""


@define(eq=False)
class Wire:
    """Made by :meth:`open`.  Any number of tasks may send, one receives.  Who gave the stream
    closes it."""

    _stream: trio.abc.Stream
    _protocol: WSConnection = field(factory=lambda: WSConnection(ConnectionType.CLIENT))
    _part: str = ""
    """Of a message whose end has not come."""
    _reason: str = ""
    """Why it is over, once it is."""

    @classmethod
    async def open(cls, stream: trio.abc.Stream, host: str, target: str) -> Self:
        """Raises Ended where the upgrade is refused, or the server hangs up."""
        wire = cls(stream)
        await wire._send(Request(host=host, target=target))
        while True:
            await wire._read()
            # What comes behind the answer stays with wsproto for the first :meth:`receive`.
            event = next(wire._protocol.events(), None)
            if isinstance(event, AcceptConnection):
                return wire
            if isinstance(event, RejectConnection):
                raise Ended(f"refused with {event.status_code}")

    async def send(self, text: str) -> None:
        """Raises Ended."""
        await self._send(TextMessage(text))

    async def receive(self) -> list[str]:
        """The messages that came with one read, one at least.  Raises Ended when all have been
        given, and wsproto's ProtocolError where the server breaks the protocol."""
        messages: list[str] = []
        while not messages:
            if self._reason:
                raise Ended(self._reason)
            for event in self._protocol.events():
                if isinstance(event, TextMessage):
                    self._part += event.data
                    if event.message_finished:
                        messages.append(self._part)
                        self._part = ""
                elif isinstance(event, Ping):
                    await self._send(event.response())
                elif isinstance(event, CloseConnection):
                    with suppress(Ended):
                        await self._send(event.response())
                    self._reason = f"{int(event.code)} {event.reason or ''}".rstrip()
                    break
            if not messages and not self._reason:
                await self._read()
        return messages

    async def _read(self) -> None:
        try:
            data = await self._stream.receive_some(_RECEIVE_BYTES)
        except _GONE:
            data = b""
        if not data:
            self._reason = self._reason or "the server hung up"
            raise Ended(self._reason)
        self._protocol.receive_data(bytes(data))

    async def _send(self, event: Event) -> None:
        try:
            await self._stream.send_all(self._protocol.send(event))
        except _GONE:
            raise Ended("the server hung up") from None
        except LocalProtocolError:  # the server has said goodbye meanwhile
            raise Ended(self._reason or "it is closed") from None
