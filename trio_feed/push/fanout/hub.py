"""The hub of a node: from the bus to this node's subscribers.  Synchronous.

A message is encoded once, framed once per distinct form, and pushed to the clients, which write
it to their sockets at once or queue it (``coalescing``).  A subscriber joins in the synchronous
moment in which its history is taken, so there is neither gap nor overlap.
"""

from collections.abc import Callable, Iterable
from typing import Never

from attrs import frozen

from ...bus.base import Published, Reader, Stream
from ...metrics import Metrics
from ...model import Interval, KlineMessage, Series, StatusMessage, StreamKey, StreamState
from ..protocol import REFUSED, Target
from ..sampling import SampledLines
from .coalescing import WriteCoalescer
from .encoded import EncodedMessage, encoded_once
from .fan_out import FanOut, audiences_after_gap
from .holes import HandedOut
from .send_queue import QueuedFrame
from .topics import Subscription, Topic, Topics

_SAMPLED = 64
_START_MS = 60_000
"""So long clients of before come back to what a start opens."""


class Hub:
    """All topics and who subscribed to them: the :class:`trio_feed.bus.base.Listener` of a node.
    ``run`` is the task that writes what has to wait.
    """

    def __init__(
        self,
        bus: Reader,
        *,
        default_venue: str,
        now_ms: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self.coalescer = WriteCoalescer()
        self._all = Topics(default_venue)
        self._topics: dict[Stream, Topic] = {}
        self._wanted: dict[Stream, Topic] = {}
        """Those that have subscribers: of the others a message touches nothing here."""
        self._now_ms, self._began_ms = now_ms, now_ms()
        self._metrics = metrics
        self._samples = 0
        self.openings = 0
        """How many topics were opened so far."""
        self._awaited: set[StreamKey] = set()
        """Closed, and somebody may come to resume them when they are opened again."""
        self.lines = SampledLines()
        """What the log says of this node's clients."""
        self._watchers: list[Callable[[str], None]] = []
        bus.listen(self)

    @property
    def symbols(self) -> list[str]:
        return self._all.symbols

    @property
    def intervals(self) -> list[Interval]:
        return self._all.intervals

    @property
    def topics(self) -> Iterable[Topic]:
        return self._all.by_key.values()

    async def run(self) -> Never:
        """Run the write coalescer, until cancelled."""
        await self.coalescer.run()

    # From the bus

    def opened(self, stream: Stream) -> None:
        now_ms = self._now_ms()
        late = now_ms - self._began_ms > _START_MS
        topic = self._topics[stream] = Topic(stream, now_ms, late)
        if isinstance(stream.stream_key, Series) and not stream.sparse:
            topic.handed_out = HandedOut(stream.stream_key)
        self._all.add(topic)
        self.openings += 1
        if stream.stream_key in self._awaited:
            self._awaited.discard(stream.stream_key)
            stream.keep()
        self._tell(stream.stream_key.symbol)

    def closed(self, stream: Stream) -> None:
        """Its subscribers get a last status, and the topic is removed; see :mod:`.orphans`."""
        topic = self._topics.pop(stream)
        if any(each.asks for each in topic.subscriptions.values()):
            self._awaited.add(stream.stream_key)
        status = StatusMessage(stream.stream_key, StreamState.STALE, "removed from the settings")
        for subscription in list(topic.subscriptions.values()):
            subscription.subscriber.send_status(subscription, status)
            subscription.subscriber.topic_closed(subscription)
            self.unsubscribe(subscription)
        self._all.remove(topic)

    def aliased(self, native: str, symbol: str) -> None:
        """Requests may use either name."""
        self._all.name(native, symbol)
        self._tell(symbol)

    def listed(self, venue: str, symbol: str) -> None:
        """Its instrument is known from now on, where that is told apart from its streams."""
        if self.has(venue, symbol):
            self._tell(symbol)

    def _tell(self, symbol: str) -> None:
        for watcher in self._watchers:
            watcher(symbol)

    def status_changed(self, stream: Stream, status: StatusMessage) -> None:
        topic = self._topics[stream]
        if topic.handed_out is not None and stream in self._wanted:
            topic.handed_out.told(status)
        self._say(topic, status)

    def _say(self, topic: Topic, status: StatusMessage) -> None:
        for subscription in list(topic.subscriptions.values()):
            subscription.subscriber.send_status(subscription, status)

    def described(self, stream: Stream) -> None:
        """A new subscriber reads it from the stream."""

    def published(self, stream: Stream, published: Published) -> None:
        topic = self._wanted.get(stream)
        if topic is None:
            return
        listening = topic.audiences
        if listening and published.provisional:
            listening = topic.provisional_audiences
        if listening:  # else its values are not even read
            message = published.message
            live = not isinstance(message, KlineMessage) or message.kline.event_ms > 0
            encoded = encoded_once(published)
            timed = live and not published.ephemeral and encoded.received_ms > 0
            if published.left_out:
                there = topic.subscriptions.values()
                listening = audiences_after_gap(there, encoded, published.left_out)
            if encoded.final and topic.handed_out is not None and not published.ephemeral:
                assert encoded.open_ms is not None, "it is a candle"
                missing = topic.handed_out.closed(encoded.open_ms)
                if missing is not None:
                    self._say(topic, missing)
            self._fan_out(topic, FanOut(encoded, listening, timed=timed))

    # For the clients

    def watch(self, watcher: Callable[[str], None]) -> None:
        """It is called, as long as the hub lives, with each symbol that has a new topic or name."""
        self._watchers.append(watcher)

    def find(self, target: Target, *, code: int = REFUSED) -> Topic:
        """The topic that a request is about.  Raises RequestError with ``code``."""
        return self._all.find(target, code=code)

    def venue_of(self, target: Target) -> str | None:
        """The venue that answers for a request; None: nothing of its symbol is here."""
        return self._all.venue_of(target)

    def topic(self, stream_key: StreamKey) -> Topic | None:
        """The topic of this very key."""
        return self._all.by_key.get(stream_key)

    def has(self, venue: str, symbol: str) -> bool:
        """Something of a symbol can be subscribed to."""
        return self._all.has(venue, symbol)

    def symbols_of(self, venue: str) -> list[str]:
        """Those of a venue."""
        return self._all.symbols_of(venue)

    def wanted(self, venue: str, symbol: str) -> int:
        """Subscriptions to anything of a symbol."""
        return self._all.wanted(venue, symbol)

    def _fan_out(self, topic: Topic, fan_out: FanOut) -> None:
        self._metrics.pushed.inc(fan_out.number_left)
        topic.under_way.append(fan_out)
        self.coalescer.more()
        if len(topic.under_way) > 1 or fan_out.number_left > self.coalescer.at_once:
            self.coalescer.begin(_FanOutTask(self, topic, fan_out))
        else:
            self._finish(topic)

    def _finish(self, topic: Topic) -> None:
        """The oldest message that is under way goes to everybody at once."""
        fan_out = topic.under_way[0]
        try:
            fan_out.step(fan_out.number_left, self.coalescer)
        finally:
            topic.under_way.popleft()
        if fan_out.timed:
            self._observe(fan_out.message)

    def _observe(self, message: EncodedMessage) -> None:
        """Measure how long it took until here; queued frames are measured in ``sample``."""
        self._metrics.published.observe(max(0.0, message.sent_ms - message.received_ms) / 1000)
        self._metrics.written.observe(max(0.0, self._now_ms() - message.received_ms) / 1000)

    def sample(self, entry: QueuedFrame) -> None:
        """A frame that had to wait is written; one in so many is measured."""
        self._samples += 1
        if entry.message is not None and entry.push and not self._samples % _SAMPLED:
            self._metrics.queued.observe(max(0.0, self._now_ms() - entry.at_ms) / 1000)

    def subscribe(self, subscription: Subscription) -> None:
        """From now on the subscriber gets the topic's messages; a second subscription of the same
        client to the same topic, under the same name, replaces the first."""
        topic = subscription.topic
        topic.stream.keep()
        if topic.handed_out is not None:
            topic.handed_out.joined()
            if topic.stream not in self._wanted:
                recent = topic.stream.recent
                topic.handed_out.closed_ms = recent[-1][0].open_ms if recent else None
        self._wanted[topic.stream] = topic
        if topic.add(subscription) is None:
            self._metrics.subscriptions.inc()

    def unsubscribe(self, subscription: Subscription) -> None:
        """It gets no more; nothing happens where it is none of its topic's any more."""
        topic = subscription.topic
        if topic.remove(subscription):
            self._metrics.subscriptions.dec()
        if not topic.subscriptions:
            self._wanted.pop(topic.stream, None)


@frozen(eq=False)
class _FanOutTask:
    """A fan-out as a task of the coalescer."""

    hub: Hub
    topic: Topic
    fan_out: FanOut

    def step(self, most: int) -> bool:
        """See :class:`.coalescing.Task`."""
        if self.fan_out.number_left > most:
            return self.fan_out.step(most, self.hub.coalescer)
        self.hub._finish(self.topic)
        return True
