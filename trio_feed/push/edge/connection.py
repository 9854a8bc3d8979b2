"""One accepted connection: hypercorn's protocol code with our checks and deadlines around it."""

from collections.abc import Iterator, MutableMapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from math import inf
from typing import Any

import h11
import trio
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.tcp_server import TCPServer
from wsproto.events import CloseConnection

from ..problems import problem
from .admission_check import CheckedH11
from .error_boundary import ClientGone, last_line
from .inflate import FrameRefused, InboundFrames
from .lifespan import Message, Receive, Send
from .shared import Shared
from .stream import ClientStream
from .throttle import TokenBucket

CLOSE_S = 2.0
"""For the last message and hypercorn's clean-up, after the app has ended."""
_WEBSOCKET_CLOSE = b"\x88"
"""First byte of a Close frame (RFC 6455, 5.2: FIN and opcode 8); servers do not mask."""
_MAX_RECEIVE = 64 * 1024
_MAX_FRAMES_RECEIVE = 2 * 1024
"""Looked at in one go: of the smallest frames these are three hundred, two milliseconds."""
_LONGEST_PACE_S = 1.0
_BODY_PIECE = 32 * 1024
_NO_UPGRADE = {
    400: "frames before the 101",
    403: "the WebSocket is refused",
    500: "a bug ended the WebSocket before it began; the log says which",
}
"""What hypercorn refuses an upgrade for by itself, after the head was checked."""
_SKIP_PAUSE_S = 0.01
"""Between two reads of what follows our Close frame: TCP then slows down a client that floods."""


class Connection(TCPServer):
    """One accepted connection.  Used once; the caller closes ``stream``.

    ``finishing``: an HTTP exchange is under way, or the app has begun to close the WebSocket.
    ``scope`` is shielded so that the server's end does not cut those; ``Clients`` cancels it within
    the grace, so it always has an end.
    """

    stream: ClientStream  # type: ignore[assignment]

    def __init__(self, shared: Shared, stream: ClientStream) -> None:
        account = shared.waiting.open(self._drop)
        own_state = {
            **shared.state,
            "stream": stream,
            "account": account,
            "while_there": self._while_there,
        }
        super().__init__(
            self._run_app,  # type: ignore[arg-type]
            shared.config,
            shared.context,
            own_state,
            stream,  # type: ignore[arg-type]
        )
        self.finishing = False
        self.scope = trio.CancelScope(shield=True)
        self._shared, self._account, self._body_bytes = shared, account, 0
        self._head = CheckedH11(shared.rules, shared.refusals.note, shared.limits)
        self._frames: InboundFrames | None = None
        self._running = 0
        self._waiting_for = "slow_head"
        self._receiving = trio.CancelScope()
        self._close_by = inf
        self._ahead = bytearray()
        self._gone = False
        self._waited_for = trio.CancelScope()
        self._input_over = trio.Event()

    async def serve(self) -> None:
        """Serve requests until either side is done.  May raise anything a client can provoke."""
        self._expect_request()
        with self.scope, closing(self._account):
            try:
                await self.stream.secure()
            except trio.BrokenResourceError as error:
                self._shared.refusals.note(
                    "tls", f"{self.stream.peer}: {last_line(error.__cause__)}"
                )
                return
            try:
                await self.run()
            finally:
                self._untie()
        expired = self.scope.cancelled_caught and trio.current_time() >= self.scope.deadline
        if expired and self._waiting_for:
            self._shared.refusals.note(self._waiting_for, self.stream.peer)

    def _untie(self) -> None:
        """Hypercorn's objects hold methods of ours and we hold them.  Untied, all of a connection
        is freed as it ends, and the garbage collector, which stops everybody, has little to do."""
        self.protocol = self.app = self._head = None  # type: ignore[assignment]
        self.state = {}

    def _drop(self) -> None:
        """More bytes are waiting for it than for anybody else, and too many for all."""
        self._shared.refusals.note("waiting_bytes", self.stream.peer)
        self.stream.abort()

    async def _read_data(self) -> None:
        """Hypercorn's reading loop, with a check of everything that comes in."""
        protocol: Any = self.protocol.protocol
        protocol.connection = self._head
        protocol._send_error_response = self._answer_refusal
        while (data := await self._receive()) is not None:
            if protocol.connection is self._head:
                await self._take_requests(data)
                if not data:
                    break
            elif not data or not await self._take_frames(data):
                break
        self._input_over.set()
        if self._frames is not None:  # hypercorn does not always tell the app of the end
            self.scope.deadline = trio.current_time() + CLOSE_S
        await self.protocol.handle(Closed())
        if not self._running:
            self.scope.cancel()

    async def _take_requests(self, data: bytes | bytearray) -> None:
        """Hypercorn waits in here while a request is served and the next one has come already.  It
        is read on meanwhile, for a client that goes away should be noticed."""
        if not data:
            self._client_gone()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_ahead, name="read ahead")
            await self.protocol.handle(RawData(bytes(data)))
            nursery.cancel_scope.cancel()

    async def _read_ahead(self) -> None:
        while not self._gone and len(self._ahead) < _MAX_RECEIVE:
            data = await self._receive_some()
            if data:
                self._ahead += data
            else:
                self._client_gone()

    def _client_gone(self) -> None:
        """It will send nothing any more, and most probably does not wait for an answer either."""
        self._gone = True
        self._waited_for.cancel()

    @contextmanager
    def _while_there(self) -> Iterator[None]:
        """For the app: long work that nobody needs without its client.  Cancelled when it goes."""
        with trio.CancelScope() as self._waited_for:
            if self._gone:
                self._waited_for.cancel()
            yield

    async def _refuse_upgrade(self, status: int) -> None:
        await self._answer_refusal(status, _NO_UPGRADE.get(status, "the upgrade is refused"))

    async def _answer_refusal(self, status: int, message: str = "") -> None:
        """In place of hypercorn's own, which has no body."""
        protocol: Any = self.protocol.protocol
        body = problem(status, message or self._head.problem).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            *([(b"sec-websocket-version", b"13")] if status == 426 else []),
            *self._shared.config.response_headers("h11"),
        ]
        await protocol._send_h11_event(h11.Response(status_code=status, headers=headers))
        if not self._head.bodiless:
            await protocol._send_h11_event(h11.Data(data=body))
        await protocol._send_h11_event(h11.EndOfMessage())

    async def _receive(self) -> bytes | bytearray | None:
        if self._ahead:
            ahead, self._ahead = self._ahead, bytearray()
            return ahead
        if self._gone:
            return None
        data = await self._receive_some()
        if data is None:
            self._client_gone()
        return data

    async def _receive_some(self) -> bytes | bytearray | None:
        """What came in, empty at the end of the stream; None: nothing can come any more."""
        deadline = min(trio.current_time() + self._shared.limits.receive_timeout_s, self._close_by)
        with trio.CancelScope(deadline=deadline) as self._receiving:
            with suppress(trio.ClosedResourceError, trio.BrokenResourceError):
                return await self.stream.receive_some(
                    _MAX_RECEIVE if self._frames is None else _MAX_FRAMES_RECEIVE
                )
        return None

    async def _take_frames(self, data: bytes | bytearray) -> bool:
        """Pass on what is in order.  False: the client has closed.

        What comes after our own Close frame is only looked through for the client's.
        """
        if self._frames is None:  # before the app runs; hypercorn answers it with 400
            await self.protocol.handle(RawData(bytes(data)))
            return True
        if self._close_by < inf:
            self._frames.skip(data)
            await trio.sleep(_SKIP_PAUSE_S)
            return not self._frames.closed
        try:
            plain = self._frames.feed(data, trio.current_time())
        except FrameRefused as refusal:
            self._shared.refusals.note(f"frame_{refusal.code}", self.stream.peer)
            await self._close_websocket(refusal)
        else:
            await self.protocol.handle(RawData(plain))
        return True

    async def _close_websocket(self, refusal: FrameRefused) -> None:
        """Say why, then tell the app that its client is gone."""
        websocket: Any = getattr(self.protocol.protocol, "stream", None)
        if isinstance(websocket, WSStream) and websocket.handshake.accepted:
            event = CloseConnection(code=refusal.code, reason=str(refusal))
            await websocket._send_wsproto_event(event)
        self._expect_close()
        self.scope.deadline = trio.current_time() + 2 * CLOSE_S
        await self.protocol.handle(Closed())

    async def protocol_send(self, event: Event) -> None:
        opened = self._frames is not None
        if opened and isinstance(event, RawData) and event.data[:1] == _WEBSOCKET_CLOSE:
            self._expect_close()
        await super().protocol_send(event)

    def _expect_close(self) -> None:
        """We send a Close frame: the client has ``CLOSE_S`` to answer it, nothing else counts."""
        self._close_by = min(self._close_by, trio.current_time() + CLOSE_S)
        self._receiving.deadline = min(self._receiving.deadline, self._close_by)

    async def _run_app(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send, *_threads: Any
    ) -> None:
        websocket = scope["type"] == "websocket"
        if websocket:
            self._open_websocket(scope)
        if self._shared.rules.admission.scheme == "https":
            scope["scheme"] += "s"
        self.finishing = not websocket
        self._running += 1
        self.scope.deadline, self._waiting_for = inf, ""
        if self._head.expects_body:
            receive = self._await_body(receive)
        with self._shared.boundary.around(self.stream.peer):
            if not websocket:
                await self._pace()
            await self._shared.app(scope, receive, partial(self._send, send))
        self._count_body(0)
        self.finishing = True
        if self._close_by < inf:
            await self._linger()
        await self._conclude(send, None)
        self._running -= 1
        if websocket:
            self.scope.cancel()  # nothing that hypercorn still waits for will come
        elif not self._running:
            self.finishing = False
            self._expect_request()
            if self._input_over.is_set():
                self.scope.cancel()

    async def _pace(self) -> None:
        """Requests that cost nothing but themselves are slowed down, not refused: probes of the
        process are among them."""
        requests, address = self._shared.requests, self.stream.group
        if wait_s := requests.wait_s(address, trio.current_time()):
            await trio.sleep(min(wait_s, _LONGEST_PACE_S))
        requests.spend(address, 1, trio.current_time())

    def _open_websocket(self, scope: MutableMapping[str, Any]) -> None:
        protocol: Any = self.protocol.protocol
        protocol.stream._send_error_response = self._refuse_upgrade
        limits, deflate = self._shared.limits, self._head.deflate is not None
        self._frames = InboundFrames(
            limits.max_message_bytes,
            TokenBucket(limits.frames_per_s, limits.frame_burst),
            TokenBucket(limits.controls_per_s, limits.control_burst),
            deflate=deflate,
        )
        scope["state"]["deflate"] = deflate

    def _await_body(self, receive: Receive) -> Receive:
        """The app's ``receive``, whose connection is dropped unless the body arrives in time."""
        self.scope.deadline = trio.current_time() + self._shared.limits.body_timeout_s
        self._waiting_for = "slow_body"

        async def receive_in_time() -> Message:
            message = await receive()
            if not message.get("more_body", False):
                self.scope.deadline = inf
            return message

        return receive_in_time

    async def _send(self, send: Send, message: Message) -> None:
        """The app's ``send``: raises ClientGone, and bounds the step where hypercorn may hang."""
        if message["type"] == "websocket.accept" and self._head.deflate is not None:
            answer = (b"sec-websocket-extensions", self._head.deflate.encode())
            message = {**message, "headers": [*message.get("headers", []), answer]}
        if message["type"] in ("websocket.accept", "websocket.send"):
            before = self.stream.bytes_out
            await send(message)
            # On a connection that is over, hypercorn returns at once and without a checkpoint: an
            # app that sends in a loop would never let anybody else run.
            if self.stream.bytes_out == before:
                raise ClientGone(f"{self.stream.peer}: the client has gone")
            return
        if message["type"] == "websocket.close":
            self.finishing = True
        elif message["type"] == "http.response.start":
            # The body is there already, and has to wait for its head.
            self._count_body(int(dict(message.get("headers", ())).get(b"content-length", 0)))
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            await self._send_body(send, message.get("body", b""))
            await self._conclude(send, {"type": "http.response.body", "body": b""})
            return
        await send(message)

    async def _send_body(self, send: Send, body: bytes) -> None:
        """In pieces, for what a piece needs on its way is there as often as there are slow readers;
        the rest is there once."""
        self._count_body(len(body))
        for at in range(0, len(body), _BODY_PIECE):
            piece = body[at : at + _BODY_PIECE]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            self._count_body(len(body) - at - len(piece))

    def _count_body(self, size: int) -> None:
        """So much of a response's body waits."""
        change, self._body_bytes = size - self._body_bytes, size
        self._account.add(change)

    async def _linger(self) -> None:
        """Our Close frame is sent: read on until the client's, or the end of the stream, came.

        Closing with bytes unread would make the kernel reset the connection, and the client might
        lose the Close frame.
        """
        with trio.move_on_after(CLOSE_S):
            await self._input_over.wait()

    async def _conclude(self, send: Send, last: Message | None) -> None:
        """Tell hypercorn that the app is done (``None``: altogether).

        It then queues a disconnect event for the app, and where the app has left 10 events
        unread it would wait for ever.
        """
        with trio.move_on_after(CLOSE_S) as concluding:
            await send(last)
        if concluding.cancelled_caught:
            self.scope.cancel()

    def _expect_request(self) -> None:
        self.scope.deadline = trio.current_time() + self._shared.limits.handshake_timeout_s
