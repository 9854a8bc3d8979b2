"""One client: its requests in, its messages out.  Knows nothing of HTTP or of any server.

Requests are answered one after the other.  Pushes never wait: a client whose send_queue is full is
dropped and told where to resume.  Replies do wait, which slows down nobody but a client that asks
faster than it reads.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from uuid import uuid4

import structlog
import trio
from attrs import frozen

from ..errors import StoreError
from ..metrics import Metrics
from ..model import StatusMessage
from ..store import KlineStore
from . import messages, protocol
from .fanout import history
from .fanout.encoded import EncodedMessage, encoded_once, prefix_of
from .fanout.frames import PING, reply_frame
from .fanout.hub import Hub
from .fanout.resume import Missed, missed, resume_points
from .fanout.send_queue import QueuedFrame, SendQueue
from .fanout.topics import Subscription, Topic
from .fanout.transport import Transport
from .fanout.writer import Writer
from .private.events import PrivateAccess, PrivateSession
from .protocol import (
    HISTORY_FAILED,
    REFUSED,
    SLOW_CLIENT,
    Authenticate,
    History,
    ListSubscriptions,
    Ping,
    Request,
    RequestError,
    Subscribe,
    Unsubscribe,
)

log = structlog.get_logger()

CLOSE_TIMEOUT_S = 2.0
"""For the rest of a frame, the last message and the close, where a client is too slow."""

Receive = Callable[[], Awaitable[str | bytes | None]]
"""The client's next message; None: it has gone."""
Close = Callable[[int, str], Awaitable[None]]


@frozen
class SessionLimits:
    """``max_queued`` messages and ``max_queued_bytes`` may wait for one client, and for a moment
    ``burst`` times as much: see :class:`.send_queue.SendQueue`."""

    max_subscriptions: int
    history_rows: int
    max_queued: int
    max_queued_bytes: int
    burst: int = 1


@frozen
class ClientTimeouts:
    """With a client, in seconds: without a byte from it until it is pinged, and until it is
    aborted; without its taking a byte while some wait, until it is dropped."""

    ping_s: float
    silence_s: float
    stall_s: float

    @property
    def sweep_s(self) -> float:
        """How often to look, so that none of them is overrun by much."""
        return min(self.ping_s / 4, self.silence_s / 4, self.stall_s / 10)


class Session:
    """A connected client.  Made by the app, and at once run with :meth:`run`.

    ``deflated``: the client has agreed to permessage-deflate without context takeover.
    """

    def __init__(
        self,
        hub: Hub,
        store: KlineStore,
        limits: SessionLimits,
        now_ms: Callable[[], float],
        metrics: Metrics,
        access: PrivateAccess,
        transport: Transport,
        *,
        deflated: bool = False,
    ) -> None:
        self.client_id = str(uuid4())
        self._hub, self._store, self._limits = hub, store, limits
        self._now_ms, self._metrics = now_ms, metrics
        self._transport, self._deflated = transport, deflated
        self._send_queue = SendQueue(limits.max_queued, limits.max_queued_bytes, limits.burst)
        self._writer = Writer(transport, self._send_queue, hub.coalescer, hub.sample)
        self._subscriptions: dict[Topic, Subscription] = {}
        self._nursery: trio.Nursery
        self._reading = trio.CancelScope()
        self._close: Close
        self._access = access
        self._private: PrivateSession | None = None
        self._leaving = False
        self._conflated = self._counted = 0
        self._pinged_at = self._moved_at = trio.current_time()
        self._moved_bytes = 0

    def __repr__(self) -> str:
        number, queued = len(self._subscriptions), self._send_queue.statistics().messages
        return f"<client {self.client_id} {number} subscriptions, {queued} queued>"

    def statistics(self) -> dict[str, Any]:
        """One line of the status page; ``queued_age_ms`` of the oldest message that waits."""
        queued = self._send_queue.statistics()
        age_ms = 0.0 if queued.at_ms is None else self._now_ms() - queued.at_ms
        return {
            "client_id": self.client_id,
            "peer": self._transport.peer,
            "subscriptions": len(self._subscriptions),
            "authenticated": self._authenticated,
            "queued_messages": queued.messages,
            "queued_bytes": queued.bytes,
            "queued_age_ms": round(max(0.0, age_ms), 3),
            "conflated": self._conflated,
            "bytes_out": self._transport.bytes_out,
        }

    @property
    def engaged(self) -> bool:
        """Subscribed or authenticated, so it has a reason to be here."""
        return bool(self._subscriptions) or self._authenticated

    @property
    def _authenticated(self) -> bool:
        return self._private is not None and self._private.authenticated

    async def run(self, receive: Receive, close: Close) -> None:
        """Serve the client until it goes or is dropped.  Leaves no subscription behind.

        ``close`` says goodbye with a code and a reason.  Raises what ``receive``, ``close`` and
        the transport raise.
        """
        self._metrics.clients.inc()
        log.debug("client.connected", client_id=self.client_id)
        self._close = close
        try:
            async with trio.open_nursery() as self._nursery:
                self._writer.start(self._nursery)
                self._private = PrivateSession(self._access, self, self._nursery)
                self.reply(self._welcome())
                try:
                    with self._reading:
                        await self._read(receive)
                finally:
                    self._private.close()
                    self._unsubscribe_all()
                    if not self._leaving:
                        self._leaving = True
                        self._nursery.cancel_scope.cancel()
        finally:
            self._count_bytes()
            self._metrics.clients.dec()
            log.debug("client.gone", client_id=self.client_id)

    # What goes out

    def push(self, subscription: Subscription, message: EncodedMessage, frame: bytes) -> None:
        """A push from the hub.  Never waits; a client that does not read is dropped (4408)."""
        if self._writer.write(frame):
            return
        if self._send_queue.conflate(subscription, message, subscription.prefix):
            self._conflated += 1
            self._metrics.conflated.inc()
        else:
            self._push(QueuedFrame(frame, message.sent_ms, True, subscription, message))

    def deliver(self, text: str) -> None:
        """A private event: taken now or the client is dropped, never left out."""
        frame = reply_frame(text, deflated=self._deflated)
        if not self._leaving and not self._writer.write(frame):
            self._push(QueuedFrame(frame, self._now_ms(), True))

    def tell(self, subscription: Subscription, status: StatusMessage) -> None:
        """The upstream of a stream changed its state."""
        request, now = subscription.request, self._now_ms()
        own = request.target.splice(request.subscription_id)
        frame = reply_frame(messages.stream_status(own, status, now), deflated=self._deflated)
        self._push(QueuedFrame(frame, now, True, subscription))

    def ended(self, topic: Topic) -> None:
        """A topic that the client subscribed to is no more."""
        self._subscriptions.pop(topic, None)

    def leave(self, code: int, reason: str, last_message: str) -> None:
        """Say ``last_message`` after what is queued, then close with ``code``."""
        if self._leaving:
            return
        self.reply(last_message)
        self._leaving = True
        self._unsubscribe_all()
        self._reading.cancel()
        self._writer.finish(partial(self._close, code, reason))

    def reply(self, text: str) -> None:
        """An answer, taken in any case; who answers much waits for :meth:`room`."""
        self._queue(text)
        self._writer.flush()

    async def room(self) -> None:
        """Wait while too much is queued."""
        await self._writer.room()

    def _push(self, entry: QueuedFrame) -> None:
        if self._leaving or self._writer.push(entry):
            return
        self._writer.flush()  # the coalescer may not have had its turn
        if not self._writer.push(entry):
            self._drop("its queue is full", entry)

    def _queue(self, text: str, subscription: Subscription | None = None) -> None:
        if not self._leaving:
            frame = reply_frame(text, deflated=self._deflated)
            self._send_queue.put(QueuedFrame(frame, self._now_ms(), key=subscription))

    def _drop(self, why: str, unsent: QueuedFrame | None = None) -> None:
        """The client is too slow: forget what waits, tell it where to resume, close."""
        self._metrics.slow_clients.inc()
        log.warning("client.slow", why=why, **self.statistics())
        waiting = [*self._send_queue, unsent] if unsent is not None else list(self._send_queue)
        since = resume_points(self._subscriptions.values(), waiting)
        self._send_queue.clear()
        self.leave(SLOW_CLIENT, "too slow", messages.reconnect(0, since))
        self._nursery.cancel_scope.deadline = trio.current_time() + CLOSE_TIMEOUT_S

    # What the clock brings

    def sweep(self, now: float, timeouts: ClientTimeouts) -> int:
        """``now`` is trio's clock: ping or abort a silent client, drop one that takes nothing.
        Returns the bytes that wait."""
        self._count_bytes()
        if self._leaving:
            return 0
        moved, silent_s = self._transport.bytes_out, now - self._transport.last_received
        if moved != self._moved_bytes or not self._writer.stuck:
            self._moved_at, self._moved_bytes = now, moved
        if silent_s > timeouts.silence_s:
            log.info("client.timeout", client_id=self.client_id, silent_s=round(silent_s, 3))
            self._transport.abort()
        elif now - self._moved_at >= timeouts.stall_s:
            self._drop(f"it took no byte for {timeouts.stall_s:g} s")
        elif min(silent_s, now - self._pinged_at) >= timeouts.ping_s:
            self._pinged_at = now
            self._send_queue.put(QueuedFrame(PING, self._now_ms()))
            self._writer.flush()
        return self._send_queue.statistics().bytes

    def _count_bytes(self) -> None:
        self._metrics.push_bytes.inc(self._transport.bytes_out - self._counted)
        self._counted = self._transport.bytes_out

    # What comes in

    async def _read(self, receive: Receive) -> None:
        while (text := await receive()) is not None and not self._leaving:
            try:
                await self._answer(protocol.parse_request(text))
            except RequestError as error:
                self.refuse(error.code, str(error))
            except StoreError as error:
                self.refuse(HISTORY_FAILED, str(error))
            await self.room()

    def refuse(self, code: int, problem: str) -> None:
        """An error reply."""
        self._metrics.request_errors.labels(str(code)).inc()
        self.reply(messages.error(code, problem, self._now_ms()))

    async def _answer(self, request: Request) -> None:
        self._metrics.requests.labels(_KINDS[type(request)]).inc()
        match request:
            case Subscribe():
                await self._subscribe(request)
            case Unsubscribe():
                self._unsubscribe(request)
            case History():
                await self._history(request)
            case Authenticate():
                assert self._private is not None, "run made it"
                await self._private.authenticate(request)
            case Ping():
                self.reply(messages.pong(request))
            case ListSubscriptions():
                entries = [_entry(s) for s in self._subscriptions.values()]
                self.reply(messages.subscriptions(entries, self._now_ms()))

    async def _subscribe(self, request: Subscribe) -> None:
        target = request.target
        topic = self._hub.find(target)
        allowed = self._limits.max_subscriptions
        if topic not in self._subscriptions and len(self._subscriptions) >= allowed:
            raise RequestError(REFUSED, f"a client may have {allowed} subscriptions")
        topic.stream.keep()
        back, body = None, None
        if request.since is not None:
            back = await missed(self._store, topic, request.since, self._now_ms())
            self._metrics.resumes.labels(back.source if back else "fresh").inc()
        if back is None and target.interval is not None:
            limit = request.limit or self._limits.history_rows
            body = await history.latest(self._store, topic.stream, target.splice(), limit)
        # Nothing below waits, so no candle can fall between the history and the subscription.
        self._begin(request, topic, body, back)

    def _begin(
        self, request: Subscribe, topic: Topic, body: str | None, back: Missed | None
    ) -> None:
        """Confirm: after the history, and before what was missed or how things stand."""
        if self._leaving:
            return
        prefix = prefix_of(request.target, request.subscription_id, deflated=self._deflated)
        subscription = Subscription(self, topic, request, prefix)
        stream, now = topic.stream, self._now_ms()
        if body is not None:
            self._queue(messages.history_data(body, now), subscription)
        last = stream if back is None or request.since is None else request.since
        recovered = back is not None
        confirmed = messages.subscription_confirmed(
            request, last.epoch, last.offset, stream.upstream, now, recovered=recovered
        )
        self._queue(confirmed, subscription)
        for message, left_out in back.messages if back is not None else ():
            frame = prefix.frame(message, left_out)
            self._send_queue.put(QueuedFrame(frame, now, False, subscription, message, left_out))
        if back is None and stream.latest is not None:
            frame = prefix.frame(encoded_once(stream.latest), snapshot=True)
            self._send_queue.put(QueuedFrame(frame, now, key=subscription))
        if request.provisional and stream.provisional is not None:
            ahead = encoded_once(stream.provisional)
            frame = prefix.frame(ahead, snapshot=True)
            self._send_queue.put(QueuedFrame(frame, now, False, subscription, ahead))
        self._hub.subscribe(subscription)
        self._subscriptions[topic] = subscription
        if stream.status is not None:
            self.tell(subscription, stream.status)
        self._writer.flush()

    def _unsubscribe(self, request: Unsubscribe) -> None:
        topic = self._hub.find(request.target)
        self._subscriptions.pop(topic, None)
        if not self._hub.unsubscribe(self, topic):
            raise RequestError(REFUSED, f"symbol: not subscribed to {topic.subject}")
        self.reply(messages.unsubscribe_confirmed(request, self._now_ms()))

    def _unsubscribe_all(self) -> None:
        for topic in self._subscriptions:
            self._hub.unsubscribe(self, topic)
        self._subscriptions.clear()

    async def _history(self, request: History) -> None:
        target = request.target
        topic = self._hub.find(target, code=HISTORY_FAILED)
        own = target.splice()
        limit = request.limit or self._limits.history_rows
        body = await history.answer(self._store, topic.stream, own, request, limit)
        self.reply(messages.history_data(body, self._now_ms()))

    def _welcome(self) -> str:
        hub = self._hub
        return messages.connection_success(
            self.client_id, hub.symbols, hub.intervals, self._now_ms()
        )


_KINDS = {
    Subscribe: "subscribe",
    Unsubscribe: "unsubscribe",
    History: "history",
    Authenticate: "auth",
    Ping: "ping",
    ListSubscriptions: "list",
}


def _entry(subscription: Subscription) -> dict[str, Any]:
    target = subscription.request.target
    return {
        **target.about,
        "subscription_id": subscription.request.subscription_id,
        "exchange": subscription.topic.subject.venue,
        "channel": target.channel.value,
        "provisional": subscription.request.provisional,
    }
