"""One connection's HTTP: hypercorn's protocol code with our checks and deadlines around it."""

from collections.abc import Iterator, MutableMapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from math import inf
from typing import Any

import h11
import trio
from hypercorn.events import Closed, RawData
from hypercorn.trio.tcp_server import TCPServer

from .admission_check import CheckedH11
from .lifespan import Message, Receive, Send
from .shared import Shared
from .stream import ClientStream
from .switching import switched
from .websocket import CLOSE_S, ClientWebSocket

_MAX_RECEIVE = 64 * 1024
_LONGEST_PACE_S = 1.0
_BODY_PIECE = 32 * 1024


class Connection(TCPServer):
    """A connection whose first request has been looked at and is no upgrade.  Used once; the
    caller closes ``stream``, unless the connection goes on as something else.

    ``finishing``: an HTTP exchange is under way.  ``scope`` is shielded so that the server's end
    does not cut that; ``Clients`` cancels it within the grace, so it always has an end.
    """

    stream: ClientStream  # type: ignore[assignment]

    def __init__(self, shared: Shared, stream: ClientStream, head: CheckedH11) -> None:
        account = shared.waiting.open(self._drop)
        own_state = {**shared.state, "while_there": self._while_there}
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
        self._head = head
        self._next: ClientWebSocket | None = None
        self._running = 0
        self._waiting_for = "slow_head"
        self._ahead = bytearray()
        self._gone = False
        self._waited_for = trio.CancelScope()
        self._input_over = trio.Event()

    async def serve(self) -> ClientWebSocket | None:
        """Serve requests until either side is done, or the client asks for a WebSocket, as which
        the connection then goes on.  May raise anything a client can provoke."""
        self._expect_request()
        with self.scope, closing(self._account):
            try:
                await self.run()
            finally:
                self._untie()
            return self._next
        if trio.current_time() >= self.scope.deadline and self._waiting_for:
            self._shared.refusals.note(self._waiting_for, self.stream.peer)
        return None

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
        await self._take_requests(None)
        while self._head.upgrade is None and (data := await self._receive()) is not None:
            await self._take_requests(data)
            if not data:
                break
        if self._head.upgrade is not None:
            await self.idle_task.stop()
            early = bool(self._ahead)
            self._next = await switched(self._shared, self.stream, self._head, early=early)
            return
        self._input_over.set()
        await self.protocol.handle(Closed())
        if not self._running:
            self.scope.cancel()

    async def _take_requests(self, data: bytes | bytearray | None) -> None:
        """``data`` None: the head has something already.  Hypercorn waits in here while a request
        is served and the next one has come already.  It is read on meanwhile, for a client that
        goes away should be noticed."""
        protocol: Any = self.protocol.protocol
        if data is not None and not data:
            self._client_gone()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_ahead, name="read ahead")
            if data is None:
                await protocol._handle_events()
            else:
                await self.protocol.handle(RawData(bytes(data)))
            nursery.cancel_scope.cancel()

    async def _close(self) -> None:
        """Hypercorn's own end of the connection."""
        if self._next is None:
            await super()._close()

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

    async def _answer_refusal(self, status: int) -> None:
        """In place of hypercorn's own, which has no body."""
        protocol: Any = self.protocol.protocol
        path = self._head.target.partition(b"?")[0].decode("latin-1")
        reply = self._shared.app.refuse(path, status, self._head.problem)
        body = reply.body.encode() if isinstance(reply.body, str) else reply.body
        headers = [
            (b"content-type", reply.media_type.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            *((name.lower().encode(), value.encode()) for name, value in reply.headers.items()),
            *([(b"sec-websocket-version", b"13")] if status == 426 else []),
            *self._shared.config.response_headers("h11"),
        ]
        await protocol._send_h11_event(h11.Response(status_code=reply.status, headers=headers))
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
        with trio.move_on_after(self._shared.limits.receive_timeout_s):
            with suppress(trio.ClosedResourceError, trio.BrokenResourceError):
                return await self.stream.receive_some(_MAX_RECEIVE)
        return None

    async def _run_app(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send, *_threads: Any
    ) -> None:
        if self._shared.rules.admission.scheme == "https":
            scope["scheme"] += "s"
        self.finishing = True
        self._running += 1
        self.scope.deadline, self._waiting_for = inf, ""
        if self._head.expects_body:
            receive = self._await_body(receive)
        with self._shared.boundary.around(self.stream.peer):
            await self._pace()
            await self._shared.limiter.enter()
            await self._shared.app.http(scope, receive, partial(self._send, send))
        self._count_body(0)
        await self._conclude(send, None)
        self._running -= 1
        if not self._running:
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
        """The app's ``send``, which bounds the step where hypercorn may hang."""
        if message["type"] == "http.response.start":
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
