"""One WebSocket connection that is used once: opened by a route, closed in time.

A transport does the protocol (:mod:`.transport`); this file gives it what it leaves to its user:
deadlines for opening and closing, a heartbeat, a budget of frames, and errors of our own.
:class:`CountedStream` sees the bytes go by and knows how it ended.

The stall detector judges only while somebody waits for a message: while the consumer is busy,
silence may be of its own making.  What arrived is looked at before the peer is declared dead, so a
stalled event loop does not kill a good connection.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from contextlib import asynccontextmanager, suppress

import trio
from attrs import frozen

from ..environment import mono
from ..errors import ConnectionLost, NetworkError, UpgradeRefused
from ..supervise import HelperNursery, root_cause
from . import websocket_fast, websocket_library
from .budgets import WaitQueue
from .counted_stream import CountedStream
from .limits import FrameBudget, status_hint
from .route import Route
from .transport import (
    Connect,
    HungUp,
    Limits,
    ProtocolBroken,
    Rejected,
    Transport,
    TransportEnded,
    TransportName,
)
from .urls import WebSocketUrl

_FOREIGN = (Rejected, ProtocolBroken, HungUp, *websocket_library.BREACHES)
_TRANSPORTS: Mapping[TransportName, Connect] = {
    "fast": websocket_fast.connect,
    "trio-websocket": websocket_library.connect,
}


@frozen
class Deadlines:
    """Seconds.  ``open_s`` begins when the tunnel is there; ``close_s`` is for the close handshake.

    Nothing received for ``ping_after_s``: a ping asks.  Nothing for ``pong_s`` after it: lost.  No
    message for ``silence_s``, pongs or not: lost.  A send that takes longer than ``pong_s``: lost.
    """

    open_s: float
    close_s: float
    ping_after_s: float
    pong_s: float
    silence_s: float


@frozen
class SocketStatistics:
    """A snapshot.  ``opened_at`` is :func:`trio.current_time`; ``bytes`` are those off the wire."""

    messages: int
    bytes: int
    opened_at: float


@asynccontextmanager
async def open_websocket(
    url: str,
    *,
    route: Route,
    deadlines: Deadlines,
    max_message_bytes: int,
    frames: FrameBudget,
    queue_size: int = 1000,
    is_quiet: Callable[[], bool] = lambda: False,
    hints: Mapping[int, str] = {},
    blocking: Set[int] = frozenset(),
    transport: TransportName = "trio-websocket",
) -> AsyncIterator["Socket"]:
    """An open WebSocket to ``url`` (ws or wss); closed when the block ends, whichever way.

    ``frames`` is what this one connection may send.  ``queue_size`` messages are buffered before
    the peer is left to wait.  ``is_quiet`` says whether a silence is right, and no loss.  ``hints``
    say what to do about a status that the venue means in its own way, by those of ``blocking`` it
    shuts out our address.  Raises TunnelError, UpgradeRefused, ConnectionLost, SettingsError (of
    the URL).  What the block raises comes out as it is, never in an exception group.
    """
    target = WebSocketUrl.parse(url)
    stream = await route.open(target.host, target.port, tls=target.tls)
    try:
        limits = Limits(max_message_bytes, queue_size, deadlines.pong_s)
        settings = _Settings(deadlines, limits, is_quiet, hints, blocking, _TRANSPORTS[transport])
        name = target.name + route.name_of(stream)
        exit_name = route.exit_of(stream).name
        socket = Socket(target, name, CountedStream(stream, frames), frames, settings, exit_name)
        async with HelperNursery() as nursery:
            try:
                await socket._upgrade(nursery)
            except UpgradeRefused as error:
                route.blame(stream, error)  # a blocked region: another exit may be let in
                raise
            route.accepted(stream)
            try:
                yield socket
            finally:
                await socket._close()
    finally:
        await trio.aclose_forcefully(stream)


@frozen
class _Settings:
    """The arguments of :func:`open_websocket`."""

    deadlines: Deadlines
    limits: Limits
    is_quiet: Callable[[], bool]
    hints: Mapping[int, str]
    blocking: Set[int]
    connect: Connect


class Socket:
    """An open WebSocket.  Made by :func:`open_websocket`; one task receives, any number send.
    ``exit_name``: what the exchange sees us behind."""

    def __init__(
        self,
        target: WebSocketUrl,
        name: str,
        stream: CountedStream,
        frames: FrameBudget,
        settings: _Settings,
        exit_name: str,
    ) -> None:
        self._target, self._name, self.exit_name = target, name, exit_name
        self._stream, self._settings = stream, settings
        self._frames, self._sends = frames, WaitQueue()
        self._deadlines = settings.deadlines
        self._transport: Transport  # set by the upgrade
        self._transport_scope = trio.CancelScope()
        self._unread: deque[str | bytes] = deque()
        self._verdict: ConnectionLost | None = None
        self._closing = trio.Event()
        self._ended = trio.Event()
        self._receiving = False
        self._back: trio.Event | None = None  # the stall detector waits for the consumer
        self._messages = 0
        self._opened_at = self._last_message = trio.current_time()

    def __repr__(self) -> str:
        ended = self._verdict or self._stream.ended.is_set()
        return f"<Socket {self._name} {'lost' if ended else 'open'}, {self._messages} messages>"

    def statistics(self) -> SocketStatistics:
        return SocketStatistics(self._messages, self._stream.received_bytes, self._opened_at)

    async def receive(self) -> str | bytes:
        """The next message.  What came before the end is still given out, then ConnectionLost."""
        if not self._unread:
            self._unread.extend(await self._next())
        return self._unread.popleft()

    async def receive_many(self) -> Sequence[str | bytes]:
        """As :meth:`receive`: all messages that have come, at least one."""
        if not self._unread:
            return await self._next()
        messages = tuple(self._unread)
        self._unread.clear()
        return messages

    async def _next(self) -> Sequence[str | bytes]:
        self._receiving = True
        if self._back is not None:
            self._back.set()
        try:
            messages = await self._transport.receive()
        except TransportEnded:
            raise self._loss() from None
        except ProtocolBroken as error:
            await self._breach(error)
            raise self._loss() from None
        finally:
            self._receiving = False
        self._messages += len(messages)
        self._last_message = trio.current_time()
        return messages

    def send_delay_s(self, operations: int = 0) -> float:
        """How long :meth:`send` would wait for its budget now."""
        return self._frames.delay_s(mono(), operations)

    async def send(self, text: str, operations: int = 0) -> None:
        """Send a text message, which asks for so many ``operations``, when the budget allows it;
        then it takes at most ``pong_s``.  Raises ConnectionLost.

        A send that is cancelled may have been cut in the middle of a frame, so it ends the
        connection.
        """
        await self._sends.take(lambda: self.send_delay_s(operations))
        self._frames.operated(mono(), operations)
        try:
            with trio.fail_after(self._deadlines.pong_s):
                await self._transport.send(text)
        except trio.TooSlowError:
            await self._lose(f"took no bytes for {self._deadlines.pong_s:g} s")
        except TransportEnded:
            pass
        else:
            return
        raise self._loss()

    async def _upgrade(self, nursery: trio.Nursery) -> None:
        try:
            with trio.fail_after(self._deadlines.open_s):
                await nursery.start(self._run)
        except trio.TooSlowError:
            problem = f"did not answer the WebSocket upgrade in {self._deadlines.open_s:g} s"
            raise self._refusal(problem) from None

    async def _run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the transport's nursery from the upgrade to the last byte."""
        failure: BaseExceptionGroup[BaseException] | None = None
        connect, limits = self._settings.connect, self._settings.limits
        try:
            async with trio.open_nursery() as nursery:
                self._transport_scope = nursery.cancel_scope
                self._transport = await connect(nursery, self._stream, self._target, limits)
                task_status.started()
                await trio.lowlevel.checkpoint()  # an upgrade that was given up ends here
                self._transport_scope.shield = True  # from here on only _close() ends it
                await self._detect_until_closing()
                await self._transport.close()
                nursery.cancel_scope.cancel()
        except* (NetworkError, *_FOREIGN) as group:
            failure = group
        finally:
            self._ended.set()
        if failure is not None:
            error = websocket_library.translated(root_cause(failure))
            if not self._stream.upgraded:
                raise self._translate(error)
            await self._breach(error)

    async def _detect_until_closing(self) -> None:
        async with trio.open_nursery() as helpers:
            helpers.start_soon(self._detect_stall)
            await self._closing.wait()
            helpers.cancel_scope.cancel()  # before the close handshake, or it masks the cause

    async def _detect_stall(self) -> None:
        limits = self._deadlines
        with suppress(TransportEnded):  # the reader knows how
            while True:
                await trio.sleep_until(min(self._silent_at, self._ping_at))
                await self._consumer_waits()
                now = trio.current_time()
                if now < min(self._silent_at, self._ping_at):
                    continue
                if now >= self._silent_at:
                    if self._settings.is_quiet():
                        self._last_message += limits.silence_s / 2  # and then it is asked again
                        continue
                    return await self._lose(f"silent: no message for {limits.silence_s:g} s")
                if not await self._answers_ping():
                    return await self._lose(f"no pong, nothing at all for {limits.pong_s:g} s")

    @property
    def _silent_at(self) -> float:
        return self._last_message + self._deadlines.silence_s

    @property
    def _ping_at(self) -> float:
        return self._stream.last_received + self._deadlines.ping_after_s

    async def _consumer_waits(self) -> None:
        """Return when somebody waits for a message and all that had arrived is handed out."""
        for _ in range(4):  # stream -> transport -> consumer -> back in receive(): one turn each
            await trio.lowlevel.checkpoint()
        while not self._receiving:
            self._back = trio.Event()
            await self._back.wait()
            self._back = None
            for _ in range(4):
                await trio.lowlevel.checkpoint()

    async def _answers_ping(self) -> bool:
        before = self._stream.received_bytes
        await self._sends.take(self.send_delay_s)
        with trio.move_on_after(self._deadlines.pong_s):
            await self._transport.ping()
            return True
        await self._consumer_waits()
        return self._stream.received_bytes != before

    async def _breach(self, error: BaseException) -> None:
        await self._lose(f"broke the WebSocket protocol ({_one_line(error)})", 1002)

    async def _lose(self, problem: str, code: int = 1006) -> None:
        """Give the connection up: the reader ends, and receive() raises when its queue is empty."""
        closed = self._transport.closed
        if self._verdict is None and (closed is None or closed[0] == 1006):
            self._verdict = ConnectionLost(f"{self._name} {problem}", code, problem)
        await trio.aclose_forcefully(self._stream)

    def _loss(self) -> ConnectionLost:
        """Why nothing more comes or goes, as a fresh exception."""
        if self._verdict is not None:
            return ConnectionLost(str(self._verdict), self._verdict.code, self._verdict.reason)
        code, reason = self._transport.closed or (1006, "")
        if code == 1006:
            return ConnectionLost(f"{self._name} ended: {self._stream.end}", code, reason)
        if code == 1009:
            reason = f"{reason}; max_message_bytes is {self._settings.limits.max_message_bytes}"
        return ConnectionLost(f"{self._name} closed with {code} {reason!r}", code, reason)

    def _translate(self, error: BaseException) -> NetworkError:
        if isinstance(error, NetworkError):
            return error
        if isinstance(error, Rejected):
            return self._refusal("", error.status)
        if isinstance(error, HungUp):
            return self._refusal(f"{self._stream.end} during the WebSocket upgrade")
        return self._refusal(f"answered the upgrade with something else ({_one_line(error)})")

    def _refusal(self, problem: str, status: int | None = None) -> NetworkError:
        status = status or self._stream.refused_with()
        if status is None:
            return ConnectionLost(f"{self._name} {problem}")
        hint = status_hint(status, self._settings.hints)
        problem = f"{self._name} refused the upgrade: {status} ({hint})"
        return UpgradeRefused(problem, status, blocked=status in self._settings.blocking)

    async def _close(self) -> None:
        """The close handshake where there is still somebody to shake hands with; bounded."""
        self._closing.set()
        with trio.move_on_after(self._deadlines.close_s, shield=True):
            await self._ended.wait()
        self._transport_scope.cancel()


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
