"""The accepted connections: how many there may be, where from, and how they end.

Each has a task, a cancel scope and an error boundary of its own.  One too many is answered 503 with
Retry-After before its request is read.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Protocol

import structlog
import trio

from ..problems import NO_PLACE
from .error_boundary import ErrorBoundary
from .limits import ServerLimits
from .loop_limiter import LoopLimiter
from .shared import Refuse
from .stream import ClientStream, accept
from .upgrade import denial

log = structlog.get_logger()

Probes = Mapping[str, Callable[[], tuple[int, str]]]
"""What is answered also where there is no place for a client: path -> status and JSON."""
ALIVE: Probes = {"/health": lambda: (200, '{"status": "alive"}')}
_ASKING_S = 0.25
"""A probe of the process has this long to say that it is one: no number of clients makes it
unhealthy."""
_BUSY_S = 1.0
"""All a refused client gets to read its answer."""
_LONG_TURN_S = 0.002
_BUSY_AT_ONCE = 64
"""Refused clients that are answered at the same time; of more only probes are."""
_LOOKED_AT = 16
"""Of those beyond, who may be probes; the one that has said nothing for longest gives way."""
_PROBES_AT_ONCE = 16
REFUSED_FILES = _BUSY_AT_ONCE + _LOOKED_AT + _PROBES_AT_ONCE
"""Descriptors that refused clients take at most."""


async def _let_others_run() -> None:
    """One turn of the loop, and where that took long as much time again for those already here.

    A thousand new connections a second then wait in the kernel, and not the clients.
    """
    began = trio.current_time()
    await trio.lowlevel.checkpoint()
    took_s = trio.current_time() - began
    if took_s > _LONG_TURN_S:
        await trio.sleep(took_s)


async def _asked(stream: ClientStream) -> bytes:
    """How the request of a client begins that has no place; empty: it says nothing for now."""
    with trio.move_on_after(_ASKING_S):
        return bytes(await stream.receive_some())
    return b""


def _method_and_path(said: bytes) -> tuple[bytes, str]:
    method, _, rest = said.partition(b"\r\n")[0].partition(b" ")
    return method, rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1")


def _probe_answer(said: bytes, probes: Probes) -> bytes:
    """Empty: it is no probe."""
    method, path = _method_and_path(said)
    if method not in (b"GET", b"HEAD") or path not in probes:
        return b""
    status, text = probes[path]()
    body = text.encode()
    head = (
        b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
        b"Connection: close\r\n\r\n" % (status, HTTPStatus(status).phrase.encode(), len(body))
    )
    return head + body if method == b"GET" else head


class Places(Protocol):
    """Places for clients that other processes give away as well."""

    async def take(self, group: str) -> str:
        """Why there is none for a client of this address group; empty: it has one, until
        :meth:`leave`."""

    def leave(self, group: str) -> None:
        """The client has gone."""


class Connection(Protocol):
    """One accepted connection, as ``server`` makes it, or what one goes on as.

    ``finishing``: it should be given the grace when the server ends.  ``scope`` is shielded;
    cancelling it ends the connection.
    """

    @property
    def stream(self) -> ClientStream: ...
    @property
    def finishing(self) -> bool: ...
    @property
    def scope(self) -> trio.CancelScope: ...

    async def serve(self) -> "Connection | None":
        """What it goes on as, None: it is over."""


class Clients:
    """``places``: what there is room for in all processes together; None: this is the only one.

    ``connect`` makes the connection for an accepted stream; ``refused(reason, peer)`` is
    called for each refused client, ``refuse`` has the words for it; ``ending`` is awaited when the
    end begins; ``limiter`` is run here.  ``probes`` are answered also where there is no place,
    within a bound of their own.
    """

    def __init__(
        self,
        connect: Callable[[ClientStream], Connection],
        limits: ServerLimits,
        boundary: ErrorBoundary,
        refused: Callable[[str, str], None],
        limiter: LoopLimiter,
        refuse: Refuse,
        ending: Callable[[], Awaitable[None]],
        probes: Probes,
        places: Places | None = None,
    ) -> None:
        self._connect, self._limits, self._boundary = connect, limits, boundary
        self._refused, self._refuse_words, self._ending = refused, refuse, ending
        self._open: set[Connection] = set()
        self._per_ip: Counter[str] = Counter()
        self._probes, self._places, self._limiter = probes, places, limiter
        self._refusing = self._answering = 0
        self._looked_at: dict[ClientStream, None] = {}  # in the order of their coming
        self._left = trio.lowlevel.ParkingLot()

    async def run(
        self,
        listeners: Sequence[trio.abc.Listener[Any]],
        stop_accepting: trio.Event,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Accept until ``stop_accepting``, serve until cancelled, then end as ``serve`` says."""
        async with trio.open_nursery() as clients:
            clients.start_soon(self._limiter.run, name="loop limiter")
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
        stream, going_on, placed = connection.stream, True, False
        try:
            if self._places is not None:
                with self._boundary.around(stream.peer):
                    reason = await self._places.take(group)
                    placed = not reason
                    if reason:
                        await self._turn_away(stream, reason)
                going_on = placed
            while going_on:
                going_on = False
                with self._boundary.around(stream.peer):
                    following = await connection.serve()
                    if following is not None:
                        self._open.discard(connection)
                        self._open.add(following)
                        connection, going_on = following, True
        finally:
            if placed and self._places is not None:
                self._places.leave(group)
            self._open.discard(connection)
            self._per_ip[group] -= 1
            if not self._per_ip[group]:
                del self._per_ip[group]
            self._left.unpark_all()
            await trio.aclose_forcefully(stream)

    async def _turn_away(self, stream: ClientStream, reason: str) -> None:
        self._refused(reason, stream.peer)
        with trio.move_on_after(_BUSY_S):
            await self._answer_without_place(stream)

    def _reject(self, stream: ClientStream, clients: trio.Nursery) -> None:
        if self._refusing < _BUSY_AT_ONCE:
            self._refusing += 1
            clients.start_soon(self._refuse, stream, name=f"refused {stream.peer}")
            return
        if len(self._looked_at) >= _LOOKED_AT:
            oldest = next(iter(self._looked_at))
            del self._looked_at[oldest]
            oldest.abort()
        self._looked_at[stream] = None
        clients.start_soon(self._look_at, stream, name=f"refused {stream.peer}")

    async def _look_at(self, stream: ClientStream) -> None:
        """Answer a probe, drop any other."""
        answering = False
        try:
            answer = _probe_answer(await self._first_words(stream), self._probes)
            answering = bool(answer) and self._answering < _PROBES_AT_ONCE
            if answering:
                self._looked_at.pop(stream, None)
                self._answering += 1
                await self._end_with(stream, answer)
            else:
                stream.abort()
        finally:
            self._looked_at.pop(stream, None)
            self._answering -= answering
            await trio.aclose_forcefully(stream)

    async def _refuse(self, stream: ClientStream) -> None:
        try:
            with trio.move_on_after(_BUSY_S):
                await self._answer_without_place(stream)
        finally:
            self._refusing -= 1
            await trio.aclose_forcefully(stream)

    async def _answer_without_place(self, stream: ClientStream) -> None:
        """A probe is answered, any other client told to come back."""
        said = await self._first_words(stream)
        answer = _probe_answer(said, self._probes)
        if not answer:
            _, path = _method_and_path(said)
            answer = denial(self._refuse_words(path, 503, NO_PLACE))
        await self._end_with(stream, answer)

    async def _first_words(self, stream: ClientStream) -> bytes:
        """How its request begins; empty: it said nothing, or has gone."""
        said = b""
        with self._boundary.around(stream.peer):
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                said = await _asked(stream)
        return said

    async def _end_with(self, stream: ClientStream, answer: bytes) -> None:
        with self._boundary.around(stream.peer), trio.move_on_after(_BUSY_S):
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await stream.send_all(answer)
                await stream.send_eof()
                stream.finish(_BUSY_S)
                await stream.receive_some()

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
