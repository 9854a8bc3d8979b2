"""HTTP/1.1 and WebSocket, server side, over any ``trio.abc.Stream``: sole owner of h11 and wsproto.

A connection begins as HTTP (RFC 9112, keep-alive); a request that asks for an upgrade may turn it
into a WebSocket (RFC 6455) for the rest of its life.  No extension is ever negotiated, so one
encoded frame (:func:`text_frame`) fits every connection: a message to a thousand clients is
encoded once.

Every wait has a deadline and every buffer a bound.  A peer that is gone, too slow or off the
protocol ends its own connection: :func:`serve_stream` returns.
"""

import struct
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from socket import SO_LINGER, SOL_SOCKET
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

import h11
import trio
from attrs import define, field, frozen
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.utilities import generate_accept_token

from ...errors import ConnectionLost

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)
_RECEIVE_BYTES = 16 * 1024


@frozen
class Limits:
    """Bounds of one connection."""

    head_bytes: int = 16 * 1024
    """Request line and headers."""
    body_bytes: int = 64 * 1024
    message_bytes: int = 64 * 1024
    """One WebSocket message, put together."""
    idle_s: float = 60.0
    """Between two HTTP requests, and for all of one."""
    silence_s: float = 900.0
    """Between two WebSocket frames, pongs included."""
    send_s: float = 10.0
    close_s: float = 2.0
    """From our close frame to theirs."""


@frozen
class Request:
    """One HTTP request.  ``path`` is decoded, ``query`` has the last value of each name."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(factory=dict)
    """Lower-case names."""
    body: bytes = b""
    target: bytes = b""
    """Path and query as they came."""


@frozen
class Response:
    """One HTTP response; ``body`` is JSON unless ``headers`` says otherwise."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(factory=dict)


def http_date(now_ms: float) -> str:
    """The value of a Date field (RFC 9110, 5.6.7), in whole seconds."""
    return formatdate(now_ms // 1000, usegmt=True)


@frozen
class Incoming:
    """One message from the peer.  Pings are answered before they are reported here."""

    kind: Literal["text", "binary", "ping", "pong"]
    data: str = ""
    """Of a text message; empty for the rest."""


OnRequest = Callable[[Request], Response]
OnOpen = Callable[["WebSocketPeer"], Awaitable[None]]
OnUpgrade = Callable[[Request], Response | OnOpen]
"""Decides about an upgrade: a Response refuses it, a coroutine function gets the open peer."""


def text_frame(payload: bytes) -> bytes:
    """A whole, unmasked text frame: goes as it is to any peer of this module."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65536:
        return struct.pack("!BBH", 0x81, 126, size) + payload
    return struct.pack("!BBQ", 0x81, 127, size) + payload


def ping_frame(payload: bytes = b"") -> bytes:
    """A ping, at most 125 bytes of payload, to be sent like a text frame."""
    return bytes((0x89, len(payload))) + payload


@define(eq=False)
class WebSocketPeer:
    """The server's end of one open WebSocket.  Single use.

    One task receives; any task may send.  All methods raise ConnectionLost once the connection
    has ended (``code`` 1006 without a close frame).  The stream belongs to serve_stream.
    """

    stream: trio.abc.Stream
    request: Request
    limits: Limits
    _protocol: Connection
    _turn: trio.Lock = field(factory=trio.Lock)
    _text: list[str] = field(factory=list)
    _size: int = 0

    async def receive(self) -> Incoming:
        """The next message, whole.  Raises ConnectionLost, also after the peer's close."""
        while True:
            event = next(self._protocol.events(), None)
            if event is None:
                await self._read_more()
            elif (message := await self._take(event)) is not None:
                return message

    async def send_text(self, text: str) -> None:
        await self.send_frames(text_frame(text.encode()))

    async def send_frames(self, frames: bytes) -> None:
        """Whole frames of this module's ``*_frame``, any number of them in one piece."""
        if self._protocol.state is not ConnectionState.OPEN:
            raise ConnectionLost("the WebSocket is closing")
        await self._send(frames)

    async def ping(self, payload: bytes = b"") -> None:
        await self.send_frames(ping_frame(payload))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Send the close frame; the task in :meth:`receive` sees the answer, or its absence."""
        if self._protocol.state is ConnectionState.OPEN:
            await self._send(self._protocol.send(CloseConnection(code, reason)))

    def abort_on_close(self) -> None:
        """Let the coming close of the stream be a TCP reset (where there is TCP)."""
        if isinstance(self.stream, trio.SocketStream) and self.stream.socket.fileno() >= 0:
            self.stream.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))

    async def _read_more(self) -> None:
        if self._protocol.state in (ConnectionState.REMOTE_CLOSING, ConnectionState.CLOSED):
            raise ConnectionLost("the WebSocket is closed")
        closing = self._protocol.state is ConnectionState.LOCAL_CLOSING
        wait_s = self.limits.close_s if closing else self.limits.silence_s
        data = await _receive(self.stream, wait_s)
        if not data:
            raise ConnectionLost("the peer hung up")
        self._protocol.receive_data(data)

    async def _take(self, event: object) -> Incoming | None:
        match event:
            case TextMessage() | BytesMessage():
                return await self._collect(event)
            case Ping():
                if self._protocol.state is ConnectionState.OPEN:
                    await self._send(self._protocol.send(event.response()))
                return Incoming("ping")
            case Pong():
                return Incoming("pong")
            case CloseConnection(code=code, reason=reason):
                await self._answer_close(event)
                raise ConnectionLost("the WebSocket was closed", int(code), reason or "")
        return None

    async def _collect(self, event: TextMessage | BytesMessage) -> Incoming | None:
        """One piece of a message -> the message, when this was its last piece."""
        self._size += len(event.data)
        if self._size > self.limits.message_bytes:
            await self.close(1009, "message too big")
            raise ConnectionLost("the peer's message was too big", 1009)
        if isinstance(event, TextMessage):
            self._text.append(event.data)
        if not event.message_finished:
            return None
        text, self._text, self._size = "".join(self._text), [], 0
        return Incoming("text" if isinstance(event, TextMessage) else "binary", text)

    async def _answer_close(self, event: CloseConnection) -> None:
        """Complete their close, or report their breach of the protocol (we are still OPEN then)."""
        state = self._protocol.state
        if state in (ConnectionState.REMOTE_CLOSING, ConnectionState.OPEN):
            await self._send(self._protocol.send(event.response()))

    async def _send(self, data: bytes) -> None:
        async with self._turn:
            await _send(self.stream, data, self.limits.send_s)


async def serve_stream(
    stream: trio.abc.Stream,
    on_request: OnRequest,
    on_upgrade: OnUpgrade,
    limits: Limits = Limits(),
) -> None:
    """Serve one accepted connection to its end.  Closes the stream.

    Raises nothing of the network's; what ``on_request`` or ``on_upgrade`` raise goes through.
    """
    try:
        upgraded = await _serve_http(stream, on_request, on_upgrade, limits)
        if upgraded is not None:
            opened, peer = upgraded
            await opened(peer)
    except ConnectionLost:
        pass  # the peer's right: the connection is over, nothing else is
    finally:
        await trio.aclose_forcefully(stream)


async def _serve_http(
    stream: trio.abc.Stream, on_request: OnRequest, on_upgrade: OnUpgrade, limits: Limits
) -> tuple[OnOpen, WebSocketPeer] | None:
    """Answer requests until the connection ends (None) or becomes a WebSocket."""
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes)
    while True:
        try:
            request = await _read_request(stream, http, limits)
        except h11.RemoteProtocolError as error:
            await _respond(stream, http, Response(error.error_status_hint), limits)
            return None
        if request is None:
            return None
        if _wants_upgrade(request):
            answer = on_upgrade(request) if _upgrade_is_valid(request) else Response(400)
            if not isinstance(answer, Response):
                return answer, await _switch(stream, http, request, limits)
        else:
            answer = on_request(request)
        await _respond(stream, http, answer, limits)
        if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
            return None
        http.start_next_cycle()


async def _read_request(
    stream: trio.abc.Stream, http: h11.Connection, limits: Limits
) -> Request | None:
    """The next request, whole.  None when the peer leaves."""
    head: h11.Request | None = None
    deadline, body = trio.current_time() + limits.idle_s, bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            data = await _receive(stream, deadline - trio.current_time())
            http.receive_data(data)
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > limits.body_bytes:
                raise h11.RemoteProtocolError("body too large", 413)
        elif isinstance(event, h11.EndOfMessage):
            return None if head is None else _request(head, bytes(body))
        else:
            return None


def _request(head: h11.Request, body: bytes) -> Request:
    try:
        target = urlsplit(head.target.decode("ascii"))
    except ValueError as error:
        raise h11.RemoteProtocolError("not a request target", 400) from error
    query = parse_qs(target.query, keep_blank_values=True)
    return Request(
        method=head.method.decode("ascii"),
        path=unquote(target.path),
        query={name: values[-1] for name, values in query.items()},
        headers={n.decode("latin-1"): v.decode("latin-1") for n, v in head.headers},
        body=body,
        target=head.target,
    )


def _wants_upgrade(request: Request) -> bool:
    return request.headers.get("upgrade", "").lower() == "websocket"


def _upgrade_is_valid(request: Request) -> bool:
    headers = request.headers
    return (
        request.method == "GET"
        and "upgrade" in headers.get("connection", "").lower()
        and headers.get("sec-websocket-version") == "13"
        and bool(headers.get("sec-websocket-key"))
    )


async def _switch(
    stream: trio.abc.Stream, http: h11.Connection, request: Request, limits: Limits
) -> WebSocketPeer:
    key = request.headers["sec-websocket-key"].encode("latin-1")
    head = http.send(
        h11.InformationalResponse(
            status_code=101,
            headers=[
                (b"Upgrade", b"websocket"),
                (b"Connection", b"Upgrade"),
                (b"Sec-WebSocket-Accept", generate_accept_token(key)),
            ],
        )
    )
    await _send(stream, head, limits.send_s)
    protocol = Connection(ConnectionType.SERVER, trailing_data=http.trailing_data[0])
    return WebSocketPeer(stream, request, limits, protocol)


async def _respond(
    stream: trio.abc.Stream, http: h11.Connection, response: Response, limits: Limits
) -> None:
    if http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return
    headers = {"Content-Type": "application/json;charset=UTF-8", **response.headers}
    headers["Content-Length"] = str(len(response.body))
    data = [
        http.send(h11.Response(status_code=response.status, headers=[*headers.items()])),
        http.send(h11.Data(data=response.body)),
        http.send(h11.EndOfMessage()),
    ]
    await _send(stream, b"".join(part for part in data if part), limits.send_s)


async def _receive(stream: trio.abc.Stream, within_s: float) -> bytes:
    try:
        with trio.fail_after(max(0.0, within_s)):
            return bytes(await stream.receive_some(_RECEIVE_BYTES))
    except (*_GONE, trio.TooSlowError) as error:
        raise ConnectionLost("the peer is gone or silent") from error


async def _send(stream: trio.abc.Stream, data: bytes, within_s: float) -> None:
    try:
        with trio.fail_after(within_s):
            await stream.send_all(data)
    except (*_GONE, trio.TooSlowError) as error:
        raise ConnectionLost("the peer takes no bytes") from error
