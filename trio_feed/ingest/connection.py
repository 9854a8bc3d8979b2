"""One connection to an exchange: opened, subscribed, read, and thrown away whole.

The reader parses and hands on, all that one read brought at once: the clocks are read, metrics
counted and, unless so little came that it is taken at once (:mod:`.intake`), the processor woken
once per read, and when it reads again is the venue's pace.  It waits for the processor only when
the bounded buffer is full, and says so in a metric.  A message that cannot be parsed is counted and
dropped here; a connection on which more than a tenth of the messages are bad is given up.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Never, Protocol

import structlog
import trio
from attrs import define, field, frozen

from ..errors import BadMessage, ConnectionLost, SubscriptionRefused
from ..instants import Mono, Wall
from ..metrics import Metrics
from ..net.limits import FrameBudget
from ..net.route import Route
from ..net.transport import TransportName
from ..net.websocket import Deadlines, Socket, open_websocket
from ..settings import ConnectionSettings, masked_url
from ..supervise import Backoff
from ..transactions import Transaction
from ..venues import Ack, Data, GoingAway, Ignored, Instruments, Plan, Pong, Venue
from ..venues.base import ChainVenue, Event
from .intake import Incoming, Outlet
from .read_pace import ReadPace

_OF_THE_CONNECTION = frozenset({Ack, Ignored, GoingAway, Pong})
BATCH = 128
"""At most so many events are handed on at once: the processor lets others run after them."""


_BAD_SAMPLES = 5
"""Bad messages of one attempt that are logged; all are counted."""
_MOST_ERRORS = 10
_WORST_ERROR_RATE = 0.1
"""More errors than this, and a larger share of the messages: the connection is given up."""


@define
class ConnectionState:
    """What the status page shows of one connection, over all its attempts."""

    id: int
    plan: Plan
    lane: int = 0
    """Which of the connections that carry the plan at once."""
    exit: str = ""
    """The proxy that it goes through, or "direct"."""
    status: str = "connecting"
    message_count: int = 0
    bad_messages: int = 0
    attempts: int = 0
    last_message_ms: float | None = None
    problem: str = ""
    refused: dict[str, str] = field(factory=dict)
    """Streams that the exchange refused, with its reason."""

    def statistics(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "url": masked_url(self.plan.url),
            "lane": self.lane,
            "exit": self.exit,
            "streams": [stream.name for stream in self.plan.streams],
            "status": self.status,
            "message_count": self.message_count,
            "bad_messages": self.bad_messages,
            "attempts": self.attempts,
            "last_message_ms": self.last_message_ms,
            "problem": self.problem,
            "refused": self.refused,
        }


@frozen
class ConnectionContext:
    """What all connections of a pool share.  What they read goes into ``outlet``."""

    venue: Venue
    settings: ConnectionSettings
    outlet: Outlet
    now_ms: Callable[[], float]
    metrics: Metrics
    pace: ReadPace


class ConnectionOwner(Protocol):
    """For whom a connection reads.  Its methods return at once."""

    @property
    def instruments(self) -> Instruments:
        """The table to parse with."""
        ...

    def up(self) -> None:
        """The streams deliver."""

    def down(self) -> None:
        """They do not any more."""

    def delivered(self) -> None:
        """A message with data came."""

    def leaving(self) -> None:
        """The exchange announces that it will close the connection."""

    def is_quiet(self) -> bool:
        """The exchange has confirmed that the streams have nothing to say: silence is no loss."""
        ...


def open_stream(
    url: str,
    venue: Venue,
    settings: ConnectionSettings,
    route: Route,
    is_quiet: Callable[[], bool] = lambda: False,
) -> AbstractAsyncContextManager[Socket]:
    """A WebSocket of the venue's as its settings want it; raises as :func:`open_websocket` does."""
    deadlines = Deadlines(
        open_s=settings.open_timeout_s,
        close_s=settings.close_timeout_s,
        ping_after_s=settings.ping_after_s,
        pong_s=settings.pong_timeout_s,
        silence_s=settings.silence_timeout_s,
    )
    return open_websocket(
        url,
        route=route,
        deadlines=deadlines,
        max_message_bytes=settings.max_message_bytes,
        frames=FrameBudget(venue.FRAMES, venue.OPERATIONS),
        is_quiet=is_quiet,
        hints=venue.DIALECT.hints,
        blocking=venue.DIALECT.blocking,
        transport=_transport(venue, settings),
    )


def _transport(venue: Venue, settings: ConnectionSettings) -> TransportName:
    if settings.transport != "auto":
        return settings.transport
    return "fast" if venue.HIGH_RATES else "trio-websocket"


@define
class Connection:
    """One attempt after the other is made by calling :meth:`run`; each uses a fresh socket."""

    state: ConnectionState
    context: ConnectionContext
    route: Route
    owner: ConnectionOwner
    backoff: Backoff = field(init=False)
    _waiting: set[str] = field(init=False, factory=set)
    _messages: int = field(init=False, default=0)
    _errors: int = field(init=False, default=0)
    _last_data: float = field(init=False, default=0.0)
    _since: float = field(init=False, default=0.0)
    _count: Callable[[float], None] = field(init=False)
    _log: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        settings, venue = self.context.settings, self.context.venue.NAME
        self.backoff = Backoff(settings.backoff_min_s, settings.backoff_max_s)
        self._count = self.context.metrics.messages.labels(venue).inc
        self._log = structlog.get_logger().bind(venue=venue, connection=self.state.id)

    async def run(self) -> Never:
        """Open, subscribe, read until it ends.  Raises NetworkError."""
        state, settings, venue = self.state, self.context.settings, self.context.venue
        state.status, state.attempts = "connecting", state.attempts + 1
        async with open_stream(
            state.plan.url, venue, settings, self.route, self.owner.is_quiet
        ) as socket:
            gauge = self.context.metrics.connections.labels(venue.NAME)
            gauge.inc()
            try:
                await self._read(socket)
            finally:
                gauge.dec()
                if state.status == "live":
                    self.owner.down()
                state.status = "lost"
        raise AssertionError("reading ends with an exception")

    async def _read(self, socket: Socket) -> Never:
        state = self.state
        self._messages = self._errors = 0
        self._since = self._last_data = trio.current_time()
        state.status = "subscribing"
        state.refused.clear()
        await self._subscribe(socket)
        state.status, state.problem = "live", ""
        self._log.info(
            "connection.open", url=masked_url(state.plan.url), streams=len(state.plan.streams)
        )
        self.owner.up()
        if isinstance(self.context.venue, ChainVenue) and self.context.venue.chain:
            mono, wall = Mono(trio.current_time()), Wall(self.context.now_ms())
            await self._hand_on(Incoming((None,), mono, wall))
        while True:
            await self._take(messages := await self._receive(socket))
            await self.context.pace.after(messages)

    async def _subscribe(self, socket: Socket) -> None:
        """Send the plan's frames, no faster than the venue allows, and wait for every answer.

        Reading goes on meanwhile, because exchanges cut off slow readers.
        """
        frames = deque(self.state.plan.subscribe)
        self._waiting = {name for frame in frames for name in frame.acks}
        end = trio.current_time()
        while frames or self._waiting:
            wait_s = socket.send_delay_s(len(frames[0].acks)) if frames else 0.0
            if frames and not wait_s:
                frame = frames.popleft()
                await socket.send(frame.text, len(frame.acks))
                end = trio.current_time() + self.context.settings.open_timeout_s
                continue
            messages: Sequence[str | bytes] = ()
            with trio.move_on_at(trio.current_time() + wait_s if frames else end):
                messages = await socket.receive_many()
            if messages:
                await self._take(messages)
            elif not frames:
                missing = ", ".join(sorted(self._waiting)[:5])
                raise SubscriptionRefused(
                    f"{self.context.venue.NAME}: no answer to subscribing {missing}"
                )

    async def _receive(self, socket: Socket) -> Sequence[str | bytes]:
        """The next messages; where the venue wants it, asked for with its own kind of ping."""
        beat = self.context.venue.HEARTBEAT
        if beat is None:
            return await socket.receive_many()
        silence_s = self.context.settings.silence_timeout_s
        left_s = self._last_data + silence_s - trio.current_time()
        if left_s <= 0:
            if not self.owner.is_quiet():
                problem = f"silent for {silence_s:g} s, but for pongs"
                raise ConnectionLost(f"{self.context.venue.NAME}: {problem}")
            left_s = silence_s / 2
            self._last_data += left_s
        with trio.move_on_after(min(beat.after_s, left_s)):
            return await socket.receive_many()
        await socket.send(beat.text)
        with trio.move_on_after(self.context.settings.pong_timeout_s):
            return await socket.receive_many()
        raise ConnectionLost(f"{self.context.venue.NAME}: no answer to {beat.text!r}")

    async def _take(self, messages: Sequence[str | bytes]) -> None:
        """What one read brought: parse, count, hand on."""
        state, context = self.state, self.context
        received, mono = Wall(context.now_ms()), Mono(trio.current_time())
        state.message_count += len(messages)
        self._messages += len(messages)
        self._count(len(messages))
        said: list[Data | Transaction] = []
        instruments = self.owner.instruments
        try:
            for raw in messages:
                self._parse(raw, instruments, said)
        finally:  # what came before the message that ends the connection counts
            if said:
                self._note_data(received, mono)
                for start in range(0, len(said), BATCH):
                    await self._hand_on(Incoming(said[start : start + BATCH], mono, received))

    def _parse(
        self, raw: str | bytes, instruments: Instruments, said: list[Data | Transaction]
    ) -> None:
        """One message: what it says about the market goes into ``said``."""
        try:
            events = self.context.venue.parse(raw, instruments)
        except BadMessage as error:
            self._note_bad_message(error)
            return
        for event in events:
            if type(event) in _OF_THE_CONNECTION:
                self._note(event)
            else:
                said.append(event)  # type: ignore[arg-type]

    def _note(self, event: Event) -> None:
        """What the exchange says about the connection."""
        match event:
            case Ack():
                self._acknowledge(event)
            case Ignored(kind):
                name = self.context.venue.NAME
                self.context.metrics.ignored_messages.labels(name, kind).inc()
            case GoingAway():
                self._log.info("connection.leaving")
                self.owner.leaving()

    def _note_data(self, received: Wall, mono: Mono) -> None:
        self.state.last_message_ms = float(received)
        self._last_data = float(mono)
        self.backoff.succeeded(self._last_data - self._since)
        self.owner.delivered()
        waited_s = max(0.0, self.context.now_ms() - float(received)) / 1000
        self.context.metrics.parsed.observe(waited_s)

    def _acknowledge(self, ack: Ack) -> None:
        self._waiting.discard(ack.name)
        if not ack.error:
            return
        if not ack.stream_only:
            raise SubscriptionRefused(f"{self.context.venue.NAME} refused a request: {ack.error}")
        # A refusal without a name is about something that is still waited for.
        for name in [ack.name] if ack.name else sorted(self._waiting):
            self._waiting.discard(name)
            self.state.refused[name] = ack.error
            self.context.metrics.streams_refused.labels(self.context.venue.NAME).inc()
            self._log.error("stream.refused", stream=name, problem=ack.error)

    def _note_bad_message(self, error: BadMessage) -> None:
        """Count it, log the first few; too many of them are worse than a reconnect."""
        self.state.bad_messages += 1
        self._errors += 1
        for counter in (self.context.metrics.failed, self.context.metrics.bad_messages):
            counter.labels(self.context.venue.NAME).inc()
        if self._errors <= _BAD_SAMPLES:
            self._log.warning("message.bad", problem=str(error), sample=error.sample)
        if self._errors > _MOST_ERRORS and self._errors > self._messages * _WORST_ERROR_RATE:
            share = f"{self._errors} of {self._messages} messages"
            raise ConnectionLost(f"{self.context.venue.NAME}: {share} cannot be read")

    async def _hand_on(self, item: Incoming) -> None:
        try:
            self.context.outlet.send_nowait(item)
        except trio.WouldBlock:
            self.context.metrics.reader_waits.labels(self.context.venue.NAME).inc()
            await self.context.outlet.send(item)
