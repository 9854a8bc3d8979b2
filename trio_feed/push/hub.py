"""The hub: what comes from the feeds goes to whoever subscribed.  Synchronous, no task, no wait.

A :class:`Topic` is one series, its last closed candles (so that a subscription is answered without
touching the disk), the open one, and its subscribers; or one line: trades, a ticker, a book.  A
subscriber joins in the same synchronous moment in which its history is taken, so there is neither
gap nor overlap.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from attrs import define, field

from ..metrics import Metrics
from ..model import (
    Interval,
    Kline,
    KlineMessage,
    Line,
    LineMessage,
    Message,
    Series,
    StatusMessage,
    StreamState,
    Subject,
)
from . import messages
from .protocol import REFUSED, RequestError, Target


class Subscriber(Protocol):
    """One connected client.  ``deliver`` takes a message without waiting, or drops the client."""

    def deliver(self, text: str) -> None: ...


@define(eq=False)
class Topic:
    """One series or line as subscribers see it."""

    subject: Subject
    recent: deque[tuple[Kline, int]]
    """Closed candles with their update_count, ascending."""
    first_ms: int | None = None
    """Open time of the oldest candle that exists anywhere, None while there is none."""
    epoch: int = 0
    offset: int = 0
    latest: KlineMessage | LineMessage | None = None
    """What a new subscriber is told at once: the open candle, the last news."""
    subscribers: dict[Subscriber, str] = field(factory=dict)
    """Each with its splice."""


class Hub:
    """All topics, by series; symbols resolve to venues here.

    ``history_rows`` closed candles are kept per topic.  ``default_venue`` answers for a symbol
    that exists on several venues.
    """

    def __init__(
        self,
        *,
        history_rows: int,
        default_venue: str,
        now_ms: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._topics: dict[Subject, Topic] = {}
        self._aliases: dict[str, str] = {}
        self._history_rows = history_rows
        self._default_venue = default_venue
        self._now_ms = now_ms
        self._metrics = metrics

    @property
    def symbols(self) -> list[str]:
        return list(dict.fromkeys(subject.symbol for subject in self._topics))

    @property
    def intervals(self) -> list[Interval]:
        present = {s.interval for s in self._topics if isinstance(s, Series)}
        return [interval for interval in Interval if interval in present]

    @property
    def topics(self) -> Iterable[Topic]:
        return self._topics.values()

    def open_topic(
        self, subject: Subject, history: Iterable[Kline] = (), first_ms: int | None = None
    ) -> None:
        """Make a series or line known; a series with its last closed candles and where its
        history begins.  One that is known stays as it is."""
        if subject in self._topics:
            return
        rows = ((kline, 1) for kline in history)
        self._topics[subject] = Topic(subject, deque(rows, self._history_rows), first_ms)

    def close_topic(self, subject: Subject) -> None:
        """It is fed no more; its subscribers are told, and it is not there any more."""
        topic = self._topics.get(subject)
        if topic is None:
            return
        self._tell(StatusMessage(subject, StreamState.STALE, "removed from the settings"))
        for subscriber in list(topic.subscribers):
            self.unsubscribe(subscriber, topic)
        del self._topics[subject]

    def name(self, alias: str, symbol: str) -> None:
        """``alias`` is a venue's own name of ``symbol``; requests may use either."""
        self._aliases[alias] = symbol

    def publish(self, message: Message) -> None:
        """The one narrow call from the feeds: note what is new and hand it out."""
        if isinstance(message, StatusMessage):
            self._tell(message)
            return
        if isinstance(message, KlineMessage):
            topic = self._topics[message.series]
            _note_candle(topic, message)
            event_ms = message.kline.event_ms
        else:
            topic = self._topics[message.line]
            topic.latest = message
            event_ms = 1
        topic.epoch, topic.offset = message.epoch, message.offset
        if topic.subscribers:
            self._hand_out(topic, message)
            if event_ms:
                late_ms = max(0.0, self._now_ms() - message.received_ms)
                self._metrics.push_latency.observe(late_ms / 1000)

    def _hand_out(self, topic: Topic, message: KlineMessage | LineMessage) -> None:
        head, tail = _halves(message, self._now_ms())
        for subscriber, own in list(topic.subscribers.items()):
            subscriber.deliver(f"{head}{own}{tail}")
        self._metrics.pushed.inc(len(topic.subscribers))

    def show(self, message: Message) -> None:
        """Hand it out without a trace: it is in no history, and nobody can resume from it."""
        if isinstance(message, StatusMessage):
            return
        subject = message.series if isinstance(message, KlineMessage) else message.line
        topic = self._topics.get(subject)
        if topic is not None:
            self._hand_out(topic, message)

    def _tell(self, message: StatusMessage) -> None:
        tail = messages.status_tail(message, self._now_ms())
        for subscriber, own in list(self._topics[message.subject].subscribers.items()):
            subscriber.deliver(f"{messages.STATUS_HEAD}{own}{tail}")

    def find(self, target: Target, *, code: int = REFUSED) -> Topic:
        """The topic that a request is about.  Raises RequestError with ``code``."""
        symbol = self._resolve(target.symbol)
        if symbol is None:
            known = _some(self.symbols)
            raise RequestError(code, f"symbol: {target.symbol!r} is not one of {known}")
        venues = [s.venue for s in self._topics if s.symbol == symbol]
        venue = target.exchange
        if venue is None:
            venue = self._default_venue if self._default_venue in venues else venues[0]
        if venue not in venues:
            raise RequestError(
                code, f"exchange: {venue!r} has no {symbol}; one of {_some(dict.fromkeys(venues))}"
            )
        topic = self._topics.get(_subject(venue, symbol, target))
        if topic is None:
            here = [s for s in self._topics if (s.venue, s.symbol) == (venue, symbol)]
            if target.interval is None:
                have = [s.channel.value for s in here if isinstance(s, Line)]
                problem = f"channel: {target.channel.value!r}"
            else:
                have = [s.interval.value for s in here if isinstance(s, Series)]
                problem = f"interval: {target.notation!r}"
            raise RequestError(code, f"{problem} is not one of {_some(have)} for {symbol}")
        return topic

    def _resolve(self, name: str) -> str | None:
        """A unified symbol, in any case, or a venue's own name -> the unified symbol."""
        known = set(self.symbols)
        for found in (name, self._aliases.get(name), name.upper(), self._aliases.get(name.upper())):
            if found in known:
                return found
        return None

    def subscribe(self, subscriber: Subscriber, topic: Topic, own: str) -> None:
        """From now on ``subscriber`` gets the topic's messages with ``own`` spliced in; a second
        subscription to the same topic replaces the first."""
        if subscriber not in topic.subscribers:
            self._metrics.subscriptions.inc()
        topic.subscribers[subscriber] = own

    def unsubscribe(self, subscriber: Subscriber, topic: Topic) -> bool:
        """False: there was no such subscription."""
        if topic.subscribers.pop(subscriber, None) is None:
            return False
        self._metrics.subscriptions.dec()
        return True

    def latest(self, topic: Topic, own: str) -> str | None:
        """What a new subscriber is told at once, None where there is nothing yet."""
        if topic.latest is None:
            return None
        head, tail = _halves(topic.latest, self._now_ms())
        return f"{head}{own}{tail}"


def _note_candle(topic: Topic, message: KlineMessage) -> None:
    if not message.kline.closed:
        topic.latest = message
        return
    if message.revision:
        for at, (kline, count) in enumerate(topic.recent):
            if kline.open_ms == message.kline.open_ms:
                topic.recent[at] = (message.kline, count)
        return
    topic.recent.append((message.kline, message.update_count))
    topic.latest = None
    if topic.first_ms is None:
        topic.first_ms = message.kline.open_ms


def _halves(message: KlineMessage | LineMessage, now_ms: float) -> tuple[str, str]:
    """A message before and after the subscriber's own part."""
    if isinstance(message, KlineMessage):
        return messages.KLINE_HEAD, messages.kline_tail(message, now_ms)
    return messages.line_head(message), messages.line_tail(message, now_ms)


def _subject(venue: str, symbol: str, target: Target) -> Subject:
    if target.interval is None:
        return Line(venue, symbol, target.channel)
    return Series(venue, symbol, target.interval)


def _some(names: Iterable[str], most: int = 20) -> str:
    listed = [str(name) for name in names]
    return " ".join(listed[:most]) + (" ..." if len(listed) > most else "")
