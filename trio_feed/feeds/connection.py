"""One connection to an exchange: opened, subscribed, read, and thrown away whole.

The reader parses and hands on; it waits for the processor only when the bounded buffer is full,
and says so in a metric.  A message that cannot be parsed is counted and dropped here.
"""

from collections.abc import Callable
from typing import Any, Never

import structlog
import trio
from attrs import define

from ..errors import BadMessage, ConnectionLost, SubscriptionRefused
from ..metrics import Metrics
from ..model import Trade
from ..net.tunnel import Route
from ..net.websocket import Deadlines, Socket, open_websocket
from ..settings import ConnectionSettings
from ..supervise import Backoff
from ..venues import Ack, GoingAway, Ignored, KlineUpdate, Plan, Venue

Incoming = tuple[KlineUpdate | Trade, float]
"""An event and our clock (unix ms) when its bytes came in."""

_BAD_SAMPLES_PER_CONNECTION = 5


@define
class ConnectionState:
    """What the status page shows of one connection, over all its attempts."""

    id: int
    plan: Plan
    status: str = "connecting"
    message_count: int = 0
    bad_messages: int = 0
    attempts: int = 0
    last_message_ms: float | None = None
    problem: str = ""

    def statistics(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "url": self.plan.url,
            "streams": [stream.name for stream in self.plan.streams],
            "status": self.status,
            "message_count": self.message_count,
            "bad_messages": self.bad_messages,
            "attempts": self.attempts,
            "last_message_ms": self.last_message_ms,
            "problem": self.problem,
        }


@define
class Connection:
    """One attempt after the other is made by calling :meth:`run`; each uses a fresh socket.

    ``up`` and ``down`` are told when the streams deliver and when they do not any more.
    """

    state: ConnectionState
    venue: Venue
    route: Route
    settings: ConnectionSettings
    outlet: trio.MemorySendChannel[Incoming]
    backoff: Backoff
    now_ms: Callable[[], float]
    metrics: Metrics
    up: Callable[[Plan], None]
    down: Callable[[Plan], None]

    async def run(self) -> Never:
        """Open, subscribe, read until it ends.  Raises NetworkError."""
        state, settings = self.state, self.settings
        state.status, state.attempts = "connecting", state.attempts + 1
        log = structlog.get_logger().bind(venue=self.venue.NAME, connection=state.id)
        deadlines = Deadlines(
            open_s=settings.open_timeout_s,
            close_s=settings.close_timeout_s,
            ping_after_s=settings.ping_after_s,
            pong_s=settings.pong_timeout_s,
            silence_s=settings.silence_timeout_s,
        )
        async with open_websocket(
            state.plan.url,
            route=self.route,
            deadlines=deadlines,
            max_message_bytes=settings.max_message_bytes,
        ) as socket:
            gauge = self.metrics.connections.labels(self.venue.NAME)
            gauge.inc()
            try:
                state.status = "subscribing"
                await self._subscribe(socket, log)
                state.status, state.problem = "live", ""
                log.info("connection.open", url=state.plan.url, streams=len(state.plan.streams))
                self.up(state.plan)
                while True:
                    await self._take(await socket.receive(), log)
            finally:
                gauge.dec()
                state.status = "lost"
                self.down(state.plan)

    async def _subscribe(self, socket: Socket, log: Any) -> None:
        """Send the plan's frames and wait until each is acknowledged."""
        waiting = set(self.state.plan.subscribe)
        for frame in self.state.plan.subscribe.values():
            await socket.send(frame)
        try:
            with trio.fail_after(self.settings.open_timeout_s):
                while waiting:
                    answer = await self._take(await socket.receive(), log)
                    if answer is not None and answer.request_id is not None:
                        waiting.discard(answer.request_id)
        except trio.TooSlowError:
            raise SubscriptionRefused(
                f"{self.venue.NAME}: no answer to SUBSCRIBE within {self.settings.open_timeout_s}s"
            ) from None

    async def _take(self, raw: str | bytes, log: Any) -> Ack | None:
        """One message: parse, count, hand on.  Returns a control frame's answer."""
        state, name = self.state, self.venue.NAME
        received = self.now_ms()
        state.message_count += 1
        state.last_message_ms = received
        self.metrics.messages.labels(name).inc()
        try:
            event = self.venue.parse(raw)
        except BadMessage as error:
            note_bad_message(state, name, error, self.metrics, log)
            return None
        match event:
            case KlineUpdate() | Trade():
                self.backoff.succeeded()
                await self._hand_on((event, received))
            case Ack(error=problem) if problem:
                raise SubscriptionRefused(f"{name} refused a request: {problem}")
            case Ack():
                return event
            case Ignored(kind):
                self.metrics.ignored_messages.labels(name, kind).inc()
            case GoingAway():
                raise ConnectionLost(f"{name} announced that it will close this connection")
        return None

    async def _hand_on(self, item: Incoming) -> None:
        try:
            self.outlet.send_nowait(item)
        except trio.WouldBlock:
            self.metrics.reader_waits.labels(self.venue.NAME).inc()
            await self.outlet.send(item)


def note_bad_message(
    state: ConnectionState, venue: str, error: BadMessage, metrics: Metrics, log: Any
) -> None:
    """Count a message that is dropped; the first few of a connection are logged."""
    state.bad_messages += 1
    metrics.bad_messages.labels(venue).inc()
    if state.bad_messages <= _BAD_SAMPLES_PER_CONNECTION:
        log.warning("message.bad", problem=str(error), sample=error.sample)
