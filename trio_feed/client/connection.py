"""The client: one connection at a time, for ever a new one; the thin shell round Conversation."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from math import inf
from typing import Self

import msgspec
import trio

from ..environment import Environment, real_environment
from ..errors import BadMessage, ConnectionLost, NetworkError, SettingsError
from ..model import Channel, Interval
from ..net.egress import make_egress
from ..net.limits import FrameBudget
from ..net.route import Route
from ..net.websocket import Deadlines, Socket, open_websocket
from ..settings import ConnectionSettings, ProxySettings, Secret
from ..supervise import Backoff
from .candles import Candles
from .channel import ChannelSubscription
from .conversation import AuthRefused, Conversation, SentAway
from .messages import ClientMessage, ConnectionChange, ConnectionState, Stream

_encode = msgspec.json.encode
_DEADLINES = Deadlines(open_s=10, close_s=2, ping_after_s=20, pong_s=10, silence_s=inf)
_STEP_S = 10.0
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_UNREAD = 100
_FRAMES = (100, 1.0)
"""Sent in so many seconds; the server bears with 200 a second by default."""
_BACKOFF_S = (0.2, 10.0)
_RETRY_S = 2.0


class Client:
    """A connection to a push endpoint that mends itself.  Made by :func:`open_client`.

    Iterating yields :data:`ClientMessage` for ever; it raises AuthRefused where the server does not
    accept the token.  One task iterates.  Not reading holds the server back, and it in the end cuts
    the connection; what is read later still has every closed candle.
    """

    def __init__(self, route: Route, url: str, environment: Environment, buffered: int) -> None:
        self._route, self._url, self._environment = route, url, environment
        self._conversation = Conversation()
        self._news, self._messages = trio.open_memory_channel[ClientMessage](buffered)
        self._asked = trio.lowlevel.ParkingLot()
        self._ended: AuthRefused | None = None

    def __repr__(self) -> str:
        return f"<Client {self._url} {self._conversation!r}>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ClientMessage:
        try:
            return await self._messages.receive()
        except trio.EndOfChannel:
            assert self._ended is not None, "only a refused token ends it"
            raise self._ended from None

    async def subscribe(
        self,
        symbol: str,
        interval: str | None = None,
        *,
        channel: str = "kline",
        exchange: str | None = None,
        history: int = 100,
        provisional: bool = False,
    ) -> Stream:
        """Ask for a stream, now and after every reconnect; returns what its messages carry.

        Candles want an ``interval`` in either notation and begin with a History of so many rows
        (0: none).  ``provisional``: also open candles before which something is still missing,
        marked so.  A refusal comes as ServerError.  Name the exchange always or never: a second
        subscription to the same series replaces the first at the server.  Raises ValueError for an
        interval or channel that does not exist, or a stream that is subscribed to already.
        """
        stream = _stream(symbol, channel, interval, exchange)
        if stream.channel is Channel.KLINE:
            self._conversation.subscribe(Candles(stream, history, provisional=provisional))
        else:
            self._conversation.subscribe(ChannelSubscription(stream))
        await self._wake()
        return stream

    async def unsubscribe(self, stream: Stream) -> None:
        """End a subscription; what is buffered still comes.  Raises KeyError: there is none."""
        self._conversation.unsubscribe(stream)
        await self._wake()

    async def history(
        self,
        symbol: str,
        interval: str,
        *,
        limit: int = 100,
        start_s: int | None = None,
        end_s: int | None = None,
        exchange: str | None = None,
    ) -> Stream:
        """Ask for the last ``limit`` closed candles with ``start_s`` <= open < ``end_s`` (unix
        seconds), or the first ones where only ``start_s`` is given.

        The answer comes among the other messages, as a History that is ``requested``: waiting for
        it here would stand in the way of what comes before it.
        """
        stream = _stream(symbol, "kline", interval, exchange)
        span = {"limit": limit, "from": start_s, "to": end_s}
        self._conversation.ask(stream, {k: v for k, v in span.items() if v is not None})
        await self._wake()
        return stream

    async def authenticate(self, token: str) -> None:
        """Show this token, in band, and from now on: a first one, or a fresh one of the same user
        before the old one expires."""
        self._conversation.authenticate(Secret(token))
        await self._wake()

    async def _wake(self) -> None:
        self._asked.unpark_all()
        await trio.lowlevel.checkpoint()

    async def _run(self) -> None:
        """Connect, talk, be cut off, wait; for ever, or until the token is refused."""
        backoff = Backoff(*_BACKOFF_S)
        while True:
            began = trio.current_time()
            lost = await self._connect()
            self._conversation.lost()
            if isinstance(lost, AuthRefused):
                self._ended = lost
                return self._news.close()
            backoff.succeeded(trio.current_time() - began)
            delay = backoff.next_delay_s(self._environment.random)
            if isinstance(lost, SentAway):
                delay = max(delay, lost.after_s)
            await self._news.send(ConnectionChange(ConnectionState.LOST, str(lost), delay))
            await trio.sleep(delay)

    async def _connect(self) -> NetworkError | AuthRefused:
        """One connection, from the dial to its end; returns why it ended."""
        try:
            async with open_websocket(
                self._url,
                route=self._route,
                deadlines=_DEADLINES,
                frames=FrameBudget(_FRAMES),
                max_message_bytes=_MAX_MESSAGE_BYTES,
                queue_size=_UNREAD,
            ) as socket:
                self._conversation.connected()
                return await self._talk(socket)
        except NetworkError as error:
            return error

    async def _talk(self, socket: Socket) -> NetworkError | AuthRefused:
        ended: NetworkError | AuthRefused
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, socket, name="client writer")
            nursery.start_soon(self._retry, name="client retry")
            try:
                await self._read(socket)
            except (NetworkError, AuthRefused) as error:
                ended = error
            except BadMessage as error:
                ended = ConnectionLost(f"not of the protocol: {error}")
            nursery.cancel_scope.cancel()
        return ended

    async def _read(self, socket: Socket) -> None:
        while True:
            for news in self._conversation.take(await socket.receive()):
                await self._news.send(news)
            self._asked.unpark_all()

    async def _write(self, socket: Socket) -> None:
        with suppress(NetworkError):  # the reader knows how
            while True:
                request = self._conversation.next_request()
                if request is None:
                    await self._asked.park()
                else:
                    await socket.send(_encode(request).decode())

    async def _retry(self) -> None:
        while True:
            await trio.sleep(_RETRY_S)
            self._conversation.retry()
            self._asked.unpark_all()


@asynccontextmanager
async def open_client(
    url: str,
    *,
    token: str = "",
    proxy: ProxySettings | str | None = None,
    ca_file: str = "",
    buffered: int = 1000,
    environment: Environment | None = None,
) -> AsyncIterator[Client]:
    """A client of the push endpoint at ``url`` (ws or wss), connected in the background and closed
    when the block ends.

    ``token``: an API key or JWT for private events.  ``proxy``: the way out, a table or a URL
    (``socks5://user:password@host:1080``), never bypassed.
    ``ca_file``: PEM file that wss is verified with, empty: the system's authorities.  ``buffered``
    messages may wait for the consumer.  A URL that is none raises SettingsError; that
    the server cannot be reached is a ConnectionChange, and it is tried again.
    """
    environment = environment or real_environment()
    route = _make_route(environment, proxy, ca_file)
    client = Client(route, url, environment, buffered)
    if token:
        await client.authenticate(token)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client._run, name="client")
            yield client
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None  # what the block raises comes out as it is
        raise


def _make_route(environment: Environment, proxy: ProxySettings | str | None, ca_file: str) -> Route:
    """A single proxy is left alone as in the service, above all where it refuses credentials."""
    if isinstance(proxy, str):
        try:
            proxy = ProxySettings.from_url(proxy)
        except ValueError as error:
            raise SettingsError("proxy", str(error)) from None
    settings = proxy or ProxySettings()
    least_s, most_s = _BACKOFF_S
    connection = ConnectionSettings(proxy=settings, backoff_min_s=least_s, backoff_max_s=most_s)
    egress = make_egress(connection)
    return Route(environment.dial, settings, None, ca_file, _STEP_S, egress)


def _stream(symbol: str, channel: str, interval: str | None, exchange: str | None) -> Stream:
    kind = Channel(channel)
    if (interval is not None) != (kind is Channel.KLINE):
        raise ValueError("candles have an interval, and nothing else has")
    return Stream(symbol, kind, Interval.parse(interval) if interval else None, exchange)
