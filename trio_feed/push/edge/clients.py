"""The accepted connections: how many there may be, where from, and how they end.

Each has a task, a cancel scope and an error boundary of its own.  One too many is answered 503 with
Retry-After before its request is read.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import structlog
import trio

from ..problems import BUSY
from .error_boundary import ErrorBoundary
from .limits import ServerLimits
from .stream import ClientStream, accept

log = structlog.get_logger()

_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(BUSY), BUSY)
)
_ALIVE_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    b"Content-Length: 19\r\nConnection: close\r\n\r\n"
)
_ALIVE = b'{"status": "alive"}'
_HEALTH = (b"GET /health ", b"HEAD /health ")
_ASKING_S = 0.25
"""A probe of the process has this long to say that it is one: no number of clients makes it
unhealthy."""
_BUSY_S = 1.0
"""All a refused client gets to read its answer."""
_LONG_TURN_S = 0.002
_BUSY_AT_ONCE = 64
"""Refused clients that are answered at the same time; more are dropped unanswered."""


async def _let_others_run() -> None:
    """One turn of the loop, and where that took long as much time again for those already here.

    A thousand new connections a second then wait in the kernel, and not the clients.
    """
    began = trio.current_time()
    await trio.lowlevel.checkpoint()
    took_s = trio.current_time() - began
    if took_s > _LONG_TURN_S:
        await trio.sleep(took_s)


async def _answer(stream: ClientStream) -> bytes:
    """What a client that has no place is answered."""
    said = b""
    with trio.move_on_after(_ASKING_S):
        said = bytes(await stream.receive_some())
    if not said.startswith(_HEALTH):
        return _BUSY
    return _ALIVE_HEAD + _ALIVE if said.startswith(b"GET") else _ALIVE_HEAD


class Connection(Protocol):
    """One accepted connection, as ``server`` makes it.

    ``finishing``: it should be given the grace when the server ends.  ``scope`` is shielded;
    cancelling it ends the connection.
    """

    stream: ClientStream
    finishing: bool
    scope: trio.CancelScope

    async def serve(self) -> None: ...


class Clients:
    """``connect`` makes the connection for an accepted stream; ``refused(reason, peer)`` is
    called for each refused client; ``ending`` is awaited when the end begins."""

    def __init__(
        self,
        connect: Callable[[ClientStream], Connection],
        limits: ServerLimits,
        boundary: ErrorBoundary,
        refused: Callable[[str, str], None],
        ending: Callable[[], Awaitable[None]],
    ) -> None:
        self._connect, self._limits, self._boundary = connect, limits, boundary
        self._refused, self._ending = refused, ending
        self._open: set[Connection] = set()
        self._per_ip: Counter[str] = Counter()
        self._refusing = 0
        self._left = trio.lowlevel.ParkingLot()

    async def run(
        self,
        listeners: Sequence[trio.abc.Listener[Any]],
        stop_accepting: trio.Event,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Accept until ``stop_accepting``, serve until cancelled, then end as ``serve`` says."""
        async with trio.open_nursery() as clients:
            try:
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        accepting.start_soon(self._accept, listener, clients, name="accept")
                    task_status.started()
                    await stop_accepting.wait()
                    accepting.cancel_scope.cancel()
                await trio.sleep_forever()
            finally:
                await self._finish()

    async def _accept(self, listener: trio.abc.Listener[Any], clients: trio.Nursery) -> None:
        async with listener:
            while True:
                stream = await accept(listener, send_timeout_s=self._limits.send_timeout_s)
                group = stream.group
                if reason := self._too_many(group):
                    self._refused(reason, stream.peer)
                    self._reject(stream, clients)
                    continue
                self._begin(stream, clients)
                await _let_others_run()

    def _begin(self, stream: ClientStream, clients: trio.Nursery) -> None:
        connection, group = self._connect(stream), stream.group
        self._open.add(connection)
        self._per_ip[group] += 1
        clients.start_soon(self._serve, connection, group, name=f"client {stream.peer}")

    def _too_many(self, group: str) -> str:
        if len(self._open) >= self._limits.max_connections:
            return "connections"
        if 0 < self._limits.max_connections_per_ip <= self._per_ip[group]:
            return "connections_per_ip"
        return ""

    async def _serve(self, connection: Connection, group: str) -> None:
        try:
            with self._boundary.around(connection.stream.peer):
                await connection.serve()
        finally:
            self._open.discard(connection)
            self._per_ip[group] -= 1
            if not self._per_ip[group]:
                del self._per_ip[group]
            self._left.unpark_all()
            await trio.aclose_forcefully(connection.stream)

    def _reject(self, stream: ClientStream, clients: trio.Nursery) -> None:
        if self._refusing < _BUSY_AT_ONCE:
            self._refusing += 1
            clients.start_soon(self._refuse, stream, name=f"refused {stream.peer}")
        else:
            stream.abort()

    async def _refuse(self, stream: ClientStream) -> None:
        try:
            with self._boundary.around(stream.peer), trio.move_on_after(_BUSY_S):
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await stream.send_all(await _answer(stream))
                    await stream.send_eof()
                    stream.finish(_BUSY_S)
                    await stream.receive_some()
        finally:
            self._refusing -= 1
            await trio.aclose_forcefully(stream)

    async def _finish(self) -> None:
        """The end of every connection, at most the grace from now."""
        with trio.CancelScope(shield=True, relative_deadline=self._limits.shutdown_grace_s):
            await self._ending()
            for connection in self._open:
                if not connection.finishing:
                    connection.scope.cancel()
            while self._open:
                await self._left.park()
        for connection in self._open:
            log.info("client.aborted", peer=connection.stream.peer)
            connection.stream.abort()
            connection.scope.cancel()
