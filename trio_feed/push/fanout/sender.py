"""The sending half of one client: its subscriptions, and what is written to it, in one order.

Pushes never wait: a client whose send queue is full, or that takes no byte for too long, is
disconnected and learns from where to resume; so is one whose streams went and came back.  Replies
do wait (``wait_capacity``), which slows down no client but one that asks faster than it reads."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from uuid import uuid4

import structlog
import trio
from attrs import frozen

from ...metrics import Metrics
from ...model import StatusMessage
from .frames import PING, binary_frame, reply_frame
from .hub import Hub
from .orphans import Orphans
from .resume import last_given, resume_points
from .send_queue import QueuedFrame, SendQueue
from .topics import Subscription
from .transport import Transport
from .voice import Farewell, Voice
from .writer import Writer

log = structlog.get_logger()

CLOSE_TIMEOUT_S = 2.0
"""For the rest of a frame, the last message and the close, where a client is too slow."""

Close = Callable[[int, str], Awaitable[None]]
"""Closes the connection with a code and a reason."""


@frozen
class ClientTimeouts:
    """In seconds: a client that sends no byte is pinged after ``ping_s`` and aborted after
    ``silence_s``; one that takes no byte while some wait is disconnected after ``stall_s``."""

    ping_s: float
    silence_s: float
    stall_s: float

    @property
    def sweep_s(self) -> float:
        """How often to look, so that none of them is overrun by much."""
        return min(self.ping_s / 4, self.silence_s / 4, self.stall_s / 10)


class ClientSender(Writer):
    """Made by the session, which serves its client inside of :meth:`serving`.

    ``queue`` holds what the socket does not take at once (:class:`.Writer`).  ``voice`` has the
    words for what the sender says by itself.  ``deflated``: the client has agreed to
    permessage-deflate without context takeover.  ``leaving``: its last message is queued.
    """

    __slots__ = (
        "_close", "_counted", "_hub", "_metrics", "_moved_at", "_moved_bytes", "_now_ms",
        "_number_conflated", "_nursery", "_pinged_at", "_reading", "_voice", "client_id",
        "deflated", "leaving", "orphans", "subscriptions",
    )  # fmt: skip

    def __init__(
        self,
        hub: Hub,
        queue: SendQueue,
        now_ms: Callable[[], float],
        metrics: Metrics,
        transport: Transport,
        voice: Voice,
        *,
        deflated: bool,
    ) -> None:
        super().__init__(transport, queue, hub.coalescer, hub.sample)
        self.client_id = str(uuid4())
        self.subscriptions: dict[object, Subscription] = {}
        """By :attr:`.Subscription.at_client`."""
        self.orphans = Orphans()
        self.leaving = False
        self.deflated = deflated
        self._hub, self._now_ms, self._metrics, self._voice = hub, now_ms, metrics, voice
        self._nursery: trio.Nursery
        self._reading: trio.CancelScope
        self._close: Close
        self._number_conflated = self._counted = 0
        self._pinged_at = self._moved_at = trio.current_time()
        self._moved_bytes = 0

    @asynccontextmanager
    async def serving(self, close: Close) -> AsyncIterator[trio.Nursery]:
        """The client is connected during the block, which reads its requests.

        ``leave`` cancels the block, then ``close`` is called with a code and a reason.  At the end
        no subscription is left, and nothing more is written unless a last message is under way.
        What the transport raises comes out of here.
        """
        self._metrics.clients.inc()
        log.debug("client.connected", client_id=self.client_id)
        self._close, self._reading = close, trio.CancelScope()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self.start(nursery)
                try:
                    with self._reading:
                        yield nursery
                finally:
                    self._end()
        finally:
            self.count_bytes()
            self._metrics.push_failed.inc(self.send_queue.pushes)  # what never will be written
            self._metrics.clients.dec()
            log.debug("client.gone", client_id=self.client_id)

    def _end(self) -> None:
        self.unsubscribe_all()
        if not self.leaving:
            self.leaving = True
            self.stop()
            self._nursery.cancel_scope.cancel()

    def statistics(self) -> dict[str, Any]:
        """Its part of the status page; ``queued_age_ms`` of the oldest message that waits."""
        queued = self.send_queue.statistics()
        age_ms = 0.0 if queued.at_ms is None else self._now_ms() - queued.at_ms
        return {
            "client_id": self.client_id,
            "peer": self.transport.peer,
            "subscriptions": len(self.subscriptions),
            "queued_messages": queued.messages,
            "queued_bytes": queued.bytes,
            "queued_age_ms": round(max(0.0, age_ms), 3),
            "conflated": self._number_conflated,
            "bytes_out": self.transport.bytes_out,
        }

    # From the hub: see topics.Subscriber; ``push`` is the writer's

    def too_slow(self, entry: QueuedFrame) -> None:
        """See :meth:`.Writer.too_slow`: a client that does not read is disconnected (4408)."""
        self.disconnect_slow("its queue is full", entry)

    def conflated(self) -> None:
        """See :meth:`.Writer.conflated`."""
        self._number_conflated += 1
        self._metrics.conflated.inc()

    def send_status(self, subscription: Subscription, status: StatusMessage) -> None:
        """The upstream of a stream changed its state."""
        text = self._voice.status(subscription, status)
        if text is not None and not self.leaving:
            frame = reply_frame(text, deflated=self.deflated)
            self.push(QueuedFrame(frame, self._now_ms(), True, subscription))

    def topic_closed(self, subscription: Subscription) -> None:
        """A topic that the client subscribed to exists no more, or for now."""
        subscription.number = last_given(subscription)
        if self.subscriptions.pop(subscription.at_client, None) is not None:
            self.orphans.note(subscription)

    # From the session

    def subscribe(self, subscription: Subscription) -> None:
        """From now on the client gets the topic's messages."""
        self._hub.subscribe(subscription)
        self.subscriptions[subscription.at_client] = subscription
        self.orphans.forget(subscription)

    def unsubscribe(self, at_client: object) -> bool:
        """``at_client``: see :attr:`.Subscription.at_client`.  False: there was no such
        subscription."""
        subscription = self.subscriptions.pop(at_client, None)
        if subscription is None:
            orphan = self.orphans.named(at_client)
            return orphan is not None and self.orphans.forget(orphan)
        self._hub.unsubscribe(subscription)
        return True

    def unsubscribe_all(self) -> None:
        for subscription in self.subscriptions.values():
            self._hub.unsubscribe(subscription)
        self.subscriptions.clear()
        self.orphans.clear()

    def deliver(self, text: str) -> None:
        """A private event: taken now or the client is disconnected, never left out."""
        if not self.leaving:
            frame = reply_frame(text, deflated=self.deflated)
            self.push(QueuedFrame(frame, self._now_ms(), True))

    def reply(self, text: str) -> None:
        """An answer, queued in any case; a caller with many of them waits for
        :meth:`wait_capacity`."""
        self.queue(text)
        self.flush()

    def queue(self, text: str, subscription: Subscription | None = None) -> None:
        """An answer that the next :meth:`flush` writes; ``subscription``: what it belongs to."""
        if not self.leaving:
            frame = reply_frame(text, deflated=self.deflated)
            self.send_queue.put(QueuedFrame(frame, self._now_ms(), key=subscription))

    def reply_bytes(self, data: bytes) -> None:
        """The same as :meth:`reply` for a binary message."""
        if not self.leaving:
            self.send_queue.put(QueuedFrame(binary_frame(data), self._now_ms()))
            self.flush()

    def queue_frame(self, frame: QueuedFrame) -> None:
        """The same for a frame that is made already."""
        self.send_queue.put(frame)

    @property
    def full(self) -> bool:
        """Too much is queued."""
        return self.send_queue.full

    def leave(self, code: int, reason: str, last_message: str | None) -> None:
        """Send ``last_message``, if any, after what is queued, then close with ``code``."""
        if self.leaving:
            return
        if last_message is not None:
            self.reply(last_message)
        self.leaving = True
        self.unsubscribe_all()
        self._reading.cancel()
        self.finish(partial(self._close, code, reason))

    def disconnect_slow(self, why: str, unsent: QueuedFrame | None = None) -> None:
        """The client is too slow: forget what waits, say where to resume, close."""
        self._metrics.slow_clients.inc()
        now, facts = trio.current_time(), self.statistics()
        self._hub.lines.say(log.warning, "client.slow", now, why=why, **facts)
        self._send_away(self._voice.slow, unsent)

    def _disconnect_to_resume(self, now: float) -> None:
        """Streams of the client went and came back: only from a number do they go on."""
        names = [str(each.topic.stream_key) for each in self.orphans.back(self._hub)]
        facts = {"client_id": self.client_id, "streams": len(names), "first": names[0]}
        self._hub.lines.say(log.info, "client.streams_back", now, **facts)
        self._send_away(self._voice.back)

    def _send_away(
        self,
        words: Callable[[Sequence[dict[str, Any]]], Farewell],
        unsent: QueuedFrame | None = None,
    ) -> None:
        waiting = [*self.send_queue, unsent] if unsent is not None else list(self.send_queue)
        there = [*self.subscriptions.values(), *self.orphans.back(self._hub)]
        since = resume_points(there, waiting)
        self._metrics.push_failed.inc(self.send_queue.pushes + (unsent is not None))
        self.send_queue.clear()
        farewell = words(since)
        self.leave(farewell.code, farewell.reason, farewell.text)
        self._nursery.cancel_scope.deadline = trio.current_time() + CLOSE_TIMEOUT_S

    def sweep(self, now: float, timeouts: ClientTimeouts) -> int:
        """``now`` is trio's clock: ping or abort a silent client, disconnect one that takes nothing
        or whose streams are back.  Returns the bytes that wait."""
        moved = self.transport.bytes_out
        if moved != self._counted:
            self.count_bytes()
        if self.leaving:
            return 0
        silent_s = now - self.transport.last_received
        if moved != self._moved_bytes or not self.stuck:
            self._moved_at, self._moved_bytes = now, moved
        if silent_s > timeouts.silence_s:
            facts = {"client_id": self.client_id, "silent_s": round(silent_s, 3)}
            self._hub.lines.say(log.info, "client.timeout", now, **facts)
            self.transport.abort()
        elif now - self._moved_at >= timeouts.stall_s:
            self.disconnect_slow(f"it took no byte for {timeouts.stall_s:g} s")
        elif self.orphans.are_back(self._hub, now):
            self._disconnect_to_resume(now)
        elif min(silent_s, now - self._pinged_at) >= timeouts.ping_s:
            self._pinged_at = now
            self.send_queue.put(QueuedFrame(PING, self._now_ms()))
            self.flush()
        return self.send_queue.size

    def count_bytes(self) -> None:
        """Add to the metric what was written since the last time."""
        written = self.transport.bytes_out
        if written != self._counted:  # the metric has a lock, and most clients got nothing
            self._metrics.push_bytes.inc(written - self._counted)
            self._counted = written
