"""Serve an ASGI app with hypercorn's protocol code and our own supervision.  Sole importer of it.

Hypercorn's own ``serve`` makes every connection a child of one nursery, so whatever one client
breaks breaks for all, and its sends cannot be cancelled, so one frozen client blocks the exit.
Here its parts are put together differently:

* every connection has a task, a cancel scope and an exception barrier of its own;
* its bytes go through a :class:`ClientStream`, which can always be aborted;
* each request head is vetted between h11 and hypercorn (``VettedH11``): no HTTP/2, no h2c, no
  compression, and nothing in the fields over which hypercorn 0.18 stumbles;
* whatever waits has a deadline, which :class:`ServerLimits` or a constant below names.

Sessions find their byte stream in ``scope["state"]["stream"]``.
"""

import importlib.metadata
import inspect
import sys
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from math import inf
from typing import Any

import h11
import structlog
import trio
from attrs import frozen
from hypercorn.config import Config
from hypercorn.events import Event, RawData
from hypercorn.logging import Logger
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import LifespanFailureError, LifespanTimeoutError

from ..errors import StartError
from .barrier import ClientGone, barrier, first_of, last_line, place
from .stream import ClientStream, accept, bound_address
from .vetting import VettedH11

log = structlog.get_logger()

__all__ = ["ASGIApp", "ClientGone", "ServerLimits", "bound_address", "check_hypercorn", "serve"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Any], Awaitable[None]]
ASGIApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

CLOSE_S = 2.0
"""What is left of a connection, its last word and hypercorn's tidying up, after the app is done."""
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n"
    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
)
_BUSY_S = 1.0
"""All a refused client gets to read its answer."""
_BUSY_AT_ONCE = 64
"""Refused clients that are answered at the same time; more are dropped without a word."""
_WEBSOCKET_CLOSE = b"\x88"
"""First byte of a Close frame (RFC 6455, 5.2: FIN and opcode 8); servers do not mask."""


@frozen
class ServerLimits:
    """Bounds of :func:`serve`; everything in seconds or bytes."""

    max_connections: int = 10_000
    """Open at once; one more is answered 503."""
    max_message_bytes: int = 64 * 1024
    """Largest WebSocket message from a client (of text: characters); then close 1009."""
    ping_interval_s: float = 25.0
    send_timeout_s: float = 10.0
    """A client that takes no byte for this long is dropped."""
    handshake_timeout_s: float = 10.0
    """From the accept, or from the last response, to the end of the next request head."""
    receive_timeout_s: float = 180.0
    """A client that sends no byte for this long is dropped; a live one answers pings."""
    max_head_bytes: int = 16 * 1024
    startup_timeout_s: float = 10.0
    """The app's lifespan start-up."""
    shutdown_grace_s: float = 1.0
    """For what is being finished when the server ends, and again for the app's own shutdown."""


async def serve(
    app: ASGIApp,
    *,
    listeners: Sequence[trio.abc.Listener[Any]],
    limits: ServerLimits,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled.  ``task_status.started()`` comes once connections are accepted.

    ``listeners`` are bound (``world.listen``) and closed here in every case.  When cancelled:
    accepting stops, WebSockets that are not closing and idle connections are cancelled, what is
    being finished (HTTP exchanges, closing WebSockets) has ``shutdown_grace_s``, and the rest is
    aborted.  An app that wants a last word sends it before, or in a shielded, bounded ``finally``.

    Raises StartError where hypercorn is not the one we know, or the app's start-up fails.
    """
    async with AsyncExitStack() as stack:
        for listener in listeners:
            await stack.enter_async_context(listener)
        check_hypercorn()
        config = _config(limits)
        life = _Life(app, config, limits.shutdown_grace_s)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(life.run, name="lifespan")
            try:
                await life.start()
                if life.failure is None:
                    await _Clients(app, config, limits, life.state).run(listeners, task_status)
            finally:
                await life.stop()
    if life.failure is not None:
        raise StartError(f"push server: {life.failure}")


def check_hypercorn() -> None:
    """Raises StartError unless hypercorn has what we lean on, much of which it calls private."""
    problems = []
    version = importlib.metadata.version("hypercorn")
    if not version.startswith("0.18."):
        problems.append(f"version {version}")
    for owner, names in _LEANED_ON.items():
        problems += [f"{owner.__name__}.{name}" for name in names if not hasattr(owner, name)]
    for owner, names in _IN_INIT.items():
        set_there = owner.__init__.__code__.co_names  # type: ignore[misc]
        problems += [f"{owner.__name__}.{name}" for name in names if name not in set_there]
    for function, expected in _SIGNATURES.items():
        if list(inspect.signature(function).parameters) != expected:
            problems.append(f"signature of {function.__qualname__}")
    if problems:
        raise StartError(
            f"hypercorn 0.18 is needed, the installed one differs in: {', '.join(problems)}"
        )


def _options(limits: ServerLimits) -> dict[str, Any]:
    return {
        "accesslog": None,
        "errorlog": None,
        "logger_class": _HypercornLog,
        "include_server_header": False,
        "h11_max_incomplete_size": limits.max_head_bytes,
        "keep_alive_timeout": limits.handshake_timeout_s,
        "read_timeout": limits.receive_timeout_s,
        "startup_timeout": limits.startup_timeout_s,
        "shutdown_timeout": limits.shutdown_grace_s,
        "websocket_max_message_size": limits.max_message_bytes,
        "websocket_ping_interval": limits.ping_interval_s,
    }


def _config(limits: ServerLimits) -> Config:
    config = Config()
    for name, value in _options(limits).items():
        setattr(config, name, value)
    return config


class _HypercornLog(Logger):
    """Hypercorn's log calls as one structlog line each, never a traceback."""

    async def warning(self, message: str, *_args: Any, **_kwargs: Any) -> None:
        log.warning("server.hypercorn", message=message)

    async def exception(self, message: str, *_args: Any, **_kwargs: Any) -> None:
        cause = first_of(sys.exception() or Exception())
        log.error("server.hypercorn", message=message, error=type(cause).__name__, at=place(cause))


class _Clients:
    """The accepted connections: how many there may be, and how they end."""

    def __init__(
        self, app: ASGIApp, config: Config, limits: ServerLimits, state: dict[str, Any]
    ) -> None:
        self._app, self._config, self._limits, self._state = app, config, limits, state
        self._context = WorkerContext(None)
        self._open: set[_Connection] = set()
        self._refusing = 0
        self._left = trio.lowlevel.ParkingLot()

    async def run(
        self, listeners: Sequence[trio.abc.Listener[Any]], task_status: trio.TaskStatus[None]
    ) -> None:
        async with trio.open_nursery() as clients:
            try:
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        accepting.start_soon(self._accept, listener, clients, name="accept")
                    task_status.started()
            finally:
                await self._finish()

    async def _accept(self, listener: trio.abc.Listener[Any], clients: trio.Nursery) -> None:
        async with listener:
            while True:
                stream = await accept(listener, send_timeout_s=self._limits.send_timeout_s)
                if len(self._open) < self._limits.max_connections:
                    connection = _Connection(
                        self._app, self._config, self._context, self._state, stream
                    )
                    self._open.add(connection)
                    clients.start_soon(self._serve, connection, name=f"client {stream.peer}")
                elif self._refusing < _BUSY_AT_ONCE:
                    self._refusing += 1
                    clients.start_soon(self._refuse, stream, name=f"refused {stream.peer}")
                else:
                    stream.abort()

    async def _serve(self, connection: "_Connection") -> None:
        try:
            with barrier(connection.stream.peer):
                await connection.serve()
        finally:
            self._open.discard(connection)
            self._left.unpark_all()
            await trio.aclose_forcefully(connection.stream)

    async def _refuse(self, stream: ClientStream) -> None:
        try:
            with barrier(stream.peer), trio.move_on_after(_BUSY_S):
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await stream.send_all(_BUSY)
                    await stream.send_eof()
                    stream.finish(_BUSY_S)
                    await stream.receive_some()
        finally:
            self._refusing -= 1
            await trio.aclose_forcefully(stream)

    async def _finish(self) -> None:
        """The end of every connection, at most the grace from now."""
        await self._context.terminated.set()  # hypercorn then keeps nothing alive
        for connection in self._open:
            if not connection.finishing:
                connection.scope.cancel()
        with trio.CancelScope(shield=True, relative_deadline=self._limits.shutdown_grace_s):
            while self._open:
                await self._left.park()
        for connection in self._open:
            log.info("client.aborted", peer=connection.stream.peer)
            connection.stream.abort()
            connection.scope.cancel()


class _Connection(TCPServer):
    """One accepted connection.  Used once; whoever made ``stream`` closes it.

    ``finishing``: an HTTP exchange is under way, or the app has begun to close the WebSocket.
    ``scope`` is shielded so that the server's end does not cut those; ``_Clients._finish`` cancels
    it within the grace, so it always has an end.
    """

    stream: ClientStream  # type: ignore[assignment]

    def __init__(
        self,
        app: ASGIApp,
        config: Config,
        context: WorkerContext,
        state: dict[str, Any],
        stream: ClientStream,
    ) -> None:
        own_state = {**state, "stream": stream}
        super().__init__(self._run_app, config, context, own_state, stream)  # type: ignore[arg-type]
        self.finishing = False
        self.scope = trio.CancelScope(shield=True)
        self._asgi = app
        self._websocket = False
        self._running = 0
        self._input_over = False

    async def serve(self) -> None:
        """Serve requests until either side is done.  May raise anything a client can provoke."""
        self._expect_request()
        with self.scope:
            await self.run()

    async def _read_data(self) -> None:
        protocol: Any = self.protocol.protocol
        protocol.connection = VettedH11(
            h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size
        )
        await super()._read_data()
        self._input_over = True
        if self._websocket:  # hypercorn does not always tell the app that its client has gone
            self.scope.deadline = trio.current_time() + CLOSE_S
        self._end_if_idle()

    async def protocol_send(self, event: Event) -> None:
        # After a Close frame hypercorn goes on collecting what the client sends, beyond every
        # limit if that is one endless message.  The stream throws it away instead.
        if isinstance(event, RawData) and self._websocket and event.data[:1] == _WEBSOCKET_CLOSE:
            self.stream.finish(CLOSE_S)
        await super().protocol_send(event)

    async def _run_app(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send, *_threads: Any
    ) -> None:
        self._websocket = scope["type"] == "websocket"
        self.finishing = not self._websocket
        self._running += 1
        self.scope.deadline = inf
        with barrier(self.stream.peer):
            await self._asgi(scope, receive, partial(self._send, send))
        self.finishing = True
        await self._conclude(send, None)
        self._running -= 1
        if self._websocket:
            self.scope.cancel()  # hypercorn's pinger would sleep through the rest of its interval
        elif not self._running:
            self.finishing = False
            self._expect_request()
            self._end_if_idle()

    async def _send(self, send: Send, message: Message) -> None:
        """The app's ``send``: raises ClientGone, and bounds the step where hypercorn may wedge."""
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
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            if message.get("body"):
                await send({**message, "more_body": True})
            await self._conclude(send, {"type": "http.response.body", "body": b""})
            return
        await send(message)

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
        self.scope.deadline = trio.current_time() + self.config.keep_alive_timeout

    def _end_if_idle(self) -> None:
        if self._input_over and not self._running:
            self.scope.cancel()


class _Life:
    """The app's lifespan (ASGI 3): started before the first client, stopped after the last."""

    def __init__(self, app: ASGIApp, config: Config, grace_s: float) -> None:
        self.state: dict[str, Any] = {}
        self.failure: str | None = None
        self._app, self._grace_s = app, grace_s
        self._lifespan = Lifespan(self._run_app, config, self.state)  # type: ignore[arg-type]
        self._started = False
        # Shielded, so that the app is told of the shutdown instead of cancelled; ``stop`` ends it.
        self._scope = trio.CancelScope(shield=True)

    async def run(self) -> None:
        with self._scope:
            try:
                await self._lifespan.handle_lifespan()
            except* LifespanFailureError as failures:
                log.error("server.lifespan_failed", error=last_line(first_of(failures)))

    async def start(self) -> None:
        """Afterwards ``failure`` says why the app cannot start, or is None."""
        try:
            await self._lifespan.wait_for_startup()
            self._started = True
        except LifespanTimeoutError as error:
            self.failure = str(error)

    async def stop(self) -> None:
        try:
            if self._started and not self._lifespan.shutdown.is_set():
                with trio.CancelScope(shield=True, relative_deadline=self._grace_s + CLOSE_S):
                    await self._lifespan.wait_for_shutdown()
        except LifespanTimeoutError as error:
            log.error("server.lifespan_failed", error=str(error))
        finally:
            self._scope.cancel()

    async def _run_app(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send, *_threads: Any
    ) -> None:
        async def watched(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                self.failure = last_line(message.get("message", "")) or "the app's start-up failed"
            await send(message)

        await self._app(scope, receive, watched)


_LEANED_ON: dict[type, Sequence[str]] = {
    Config: tuple(_options(ServerLimits())),
    Lifespan: ("handle_lifespan", "wait_for_startup", "wait_for_shutdown"),
    Logger: ("warning", "exception"),
    TCPServer: ("run", "_read_data", "protocol_send"),
}
_IN_INIT: dict[type, Sequence[str]] = {
    H11Protocol: ("connection",),
    Lifespan: ("startup", "shutdown"),
    ProtocolWrapper: ("protocol",),
    WorkerContext: ("terminated",),
}
_SIGNATURES: dict[Callable[..., Any], Sequence[str]] = {
    Lifespan: ["app", "config", "state"],
    TCPServer: ["app", "config", "context", "state", "stream"],
    TCPServer._read_data: ["self"],
    TCPServer.protocol_send: ["self", "event"],
    WorkerContext: ["max_requests"],
}
