"""The way out for what clients of a dialect sign themselves: a venue's proxies and its budget.

It fills the port :mod:`trio_feed.dialects.outside` with the feed that runs at the moment; a venue
that is fed no more, or asks nothing by REST, leads nowhere.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from attrs import evolve, frozen

from .dialects.outside import Answered, Line, Signed
from .errors import HostUnreachable, SettingsError
from .ingest.venue import VenueFeed
from .net.http import Passed
from .net.limits import FrameBudget
from .net.websocket import Deadlines, Socket, open_websocket

_DIAL_WAIT_S = 10.0
_UNREAD = 64
"""Messages of the exchange that wait for a client before the exchange is left to wait."""
_FRAMES = 100, 1.0
"""For what has no bound of its own: the exchange counts these requests by their weight."""
_LONGEST_SILENCE_S = 86_400.0
"""Whether the exchange is there is asked by pings: accounts are silent for hours."""


@frozen
class _WeighedLine:
    """See :class:`.dialects.outside.Line`."""

    socket: Socket
    feed: VenueFeed

    async def receive_many(self) -> Sequence[str | bytes]:
        return await self.socket.receive_many()

    async def send(self, text: str, weight: int = 0) -> None:
        """An order is never held back for want of room: what waits then are our own questions."""
        rest = self.feed.rest
        if weight and rest is not None:
            rest.spent(self.socket.exit_name, weight)
        await self.socket.send(text)


@frozen
class VenueOutside:
    """See :class:`.dialects.outside.Outside`.  ``boxed``: the exchange is simulated, so that every
    URL is its own."""

    find: Callable[[], VenueFeed | None]
    boxed: bool = False

    async def ask(self, signed: Signed, weight: int) -> Answered:
        rest = self._feed().rest
        if rest is None:
            raise HostUnreachable("the venue is not asked by REST (now)")
        asked = Passed(signed.fields, signed.body)
        answer = await rest.pass_on(signed.method, signed.target, asked, weight=weight)
        return Answered(answer.status, answer.fields, answer.body)

    @asynccontextmanager
    async def dial(self, url: str, target: str) -> AsyncIterator[Line]:
        feed = self._feed()
        own, connection = feed.venue, feed.settings.connection
        streams = connection.websocket_url or own.WEBSOCKET_URL
        elsewhere = bool(url) and not self.boxed
        base = (url if elsewhere else streams).rstrip("/")
        deadlines = Deadlines(
            open_s=connection.open_timeout_s,
            close_s=connection.close_timeout_s,
            ping_after_s=connection.ping_after_s,
            pong_s=connection.pong_timeout_s,
            silence_s=_LONGEST_SILENCE_S,
        )
        opening = open_websocket(
            base + target,
            route=evolve(feed.route, dial_wait_s=_DIAL_WAIT_S),
            deadlines=deadlines,
            max_message_bytes=connection.max_message_bytes,
            frames=FrameBudget(_FRAMES if elsewhere else own.FRAMES),
            queue_size=_UNREAD,
            is_quiet=lambda: True,
            hints=own.DIALECT.hints,
            blocking=frozenset(),  # a client's own mistake must not shut out an exit
        )
        try:
            async with opening as socket:
                yield _WeighedLine(socket, feed)
        except SettingsError as error:  # a target that is no URL's
            raise HostUnreachable(str(error)) from None

    def _feed(self) -> VenueFeed:
        found = self.find()
        if found is None:
            raise HostUnreachable("the venue is not fed (now)")
        return found
