"""What can be subscribed to: topics, and the names by which requests find them."""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

from attrs import define, field

from ...bus.base import Stream
from ...model import ChannelKey, Interval, Series, StatusMessage, StreamKey
from ..protocol import REFUSED, RequestError, Subscribe, Target
from .encoded import StreamForm
from .fan_out import Audience, FanOut, audiences
from .holes import HandedOut
from .send_queue import QueuedFrame
from .transport import Transport


class Subscriber(Protocol):
    """One connected client.  Nothing here waits; a client that is too slow is dropped."""

    @property
    def transport(self) -> Transport: ...

    @property
    def waiting(self) -> list[QueuedFrame]:
        """What is in its send queue, always the same list."""

    def push(self, entry: QueuedFrame) -> None:
        """A message, framed in the subscription's form, which is its key."""

    def enqueue(self, entry: QueuedFrame) -> None:
        """The same, where there have been enough direct writes for now."""

    def begun(self, frame: bytes, taken: int) -> None:
        """So many bytes of a frame were written to its transport, and the rest was not taken."""

    def send_status(self, subscription: "Subscription", status: StatusMessage) -> None:
        """The stream's upstream changed its state."""

    def topic_closed(self, subscription: "Subscription") -> None:
        """The topic is about to be removed, and the subscription with it."""


@define(eq=False)
class Subscription:
    """One client's subscription to one topic; ``form`` is how its messages are written.

    ``name``: what the client calls the stream, where it may have several of one topic; a second
    subscription of the same name, or else to the same topic, replaces the first.  ``asks`` False:
    it takes what there is, and is no reason to go on feeding a symbol on demand.  ``number``, epoch
    and offset: what the client was told to go on from; (0, 0) where its form says no numbers.  Of
    one whose topic was closed: the last message that it was given.
    """

    subscriber: Subscriber
    topic: "Topic"
    request: Subscribe
    form: StreamForm
    name: str = ""
    asks: bool = True
    number: tuple[int, int] = (0, 0)
    active: bool = False
    """It is one of its topic's."""

    @property
    def at_topic(self) -> object:
        """Its key among the subscriptions of its topic."""
        return (self.subscriber, self.name) if self.name else self.subscriber

    @property
    def at_client(self) -> object:
        """Its key among the subscriptions of its client."""
        return self.name or self.topic


@define(eq=False)
class Topic:
    """One series or line as this node's subscribers see it; ``stream`` is the bus's part of it.
    ``under_way``: messages that some have not been given yet.  ``since_ms``: when it was opened;
    ``late``: while the service ran, so that nobody can have had it before.
    ``subscriptions`` are added, removed and changed by methods."""

    stream: Stream
    since_ms: float = 0.0
    late: bool = False
    subscriptions: dict[object, Subscription] = field(factory=dict)
    under_way: deque[FanOut] = field(factory=deque)
    handed_out: HandedOut | None = None
    """None: what is missing between two of its messages says nothing."""
    _audiences: list[Audience] = field(factory=list)
    _provisional: list[Audience] = field(factory=list)

    @property
    def stream_key(self) -> StreamKey:
        return self.stream.stream_key

    @property
    def audiences(self) -> list[Audience]:
        """Its subscribers as they are now."""
        if not self._audiences:
            self._audiences = audiences(self.subscriptions.values())
        return self._audiences

    @property
    def provisional_audiences(self) -> list[Audience]:
        """Those of them who asked for provisional candles."""
        if not self._provisional:
            there = self.subscriptions.values()
            self._provisional = audiences(each for each in there if each.request.provisional)
        return self._provisional

    def add(self, subscription: Subscription) -> Subscription | None:
        """Returns the one that it replaces."""
        replaced = self.subscriptions.get(subscription.at_topic)
        if replaced is not None:
            replaced.active = False
        self.subscriptions[subscription.at_topic] = subscription
        subscription.active = True
        self._changed()
        return replaced

    def remove(self, subscription: Subscription) -> bool:
        """False: it is none of its subscriptions any more."""
        subscription.active = False
        self._changed()
        return self.subscriptions.pop(subscription.at_topic, None) is not None

    def reform(self, subscription: Subscription, form: StreamForm) -> None:
        """Write its messages in another way from now on."""
        subscription.form = form
        self._changed()

    def _changed(self) -> None:
        for audience in (*self._audiences, *self._provisional):
            audience.stale = True
        self._audiences, self._provisional = [], []


class Topics:
    """All topics by stream key and by symbol.  ``default_venue`` answers for a symbol that exists
    on several venues."""

    def __init__(self, default_venue: str) -> None:
        self.by_key: dict[StreamKey, Topic] = {}
        self._by_symbol: dict[str, dict[StreamKey, Topic]] = {}
        self._aliases: dict[str, str] = {}
        self._intervals: Counter[Interval] = Counter()
        self._there: list[Interval] | None = None
        self._default_venue = default_venue

    @property
    def symbols(self) -> list[str]:
        return list(self._by_symbol)

    @property
    def intervals(self) -> list[Interval]:
        """From the shortest to the longest.  Every client gets them."""
        if self._there is None:
            self._there = [interval for interval in Interval if self._intervals[interval]]
        return self._there

    def add(self, topic: Topic) -> None:
        stream_key = topic.stream_key
        self.by_key[stream_key] = topic
        self._by_symbol.setdefault(stream_key.symbol, {})[stream_key] = topic
        if isinstance(stream_key, Series):
            self._intervals[stream_key.interval] += 1
            self._there = None

    def remove(self, topic: Topic) -> None:
        stream_key = topic.stream_key
        del self.by_key[stream_key]
        there = self._by_symbol[stream_key.symbol]
        del there[stream_key]
        if not there:
            del self._by_symbol[stream_key.symbol]
        if isinstance(stream_key, Series):
            self._intervals[stream_key.interval] -= 1
            self._there = None

    def name(self, alias: str, symbol: str) -> None:
        """``alias`` is a venue's own name of ``symbol``; requests may use either."""
        self._aliases[alias] = symbol

    def has(self, venue: str, symbol: str) -> bool:
        """Something of a symbol can be subscribed to."""
        return any(key.venue == venue for key in self._by_symbol.get(symbol, ()))

    def symbols_of(self, venue: str) -> list[str]:
        """Those of a venue."""
        return [symbol for symbol in self._by_symbol if self.has(venue, symbol)]

    def wanted(self, venue: str, symbol: str) -> int:
        """Subscriptions that ask for anything of a symbol."""
        there = self._by_symbol.get(symbol, {})
        topics = [topic for key, topic in there.items() if key.venue == venue]
        return sum(each.asks for topic in topics for each in topic.subscriptions.values())

    def find(self, target: Target, *, code: int = REFUSED) -> Topic:
        """The topic that a request is about.  Raises RequestError with ``code``."""
        symbol = self._resolve(target.symbol)
        if symbol is None:
            known = _some(nearest(target.symbol, self._by_symbol))
            raise RequestError(code, f"symbol: {target.symbol!r} is not one of {known}")
        there = self._by_symbol[symbol]
        venues = list(dict.fromkeys(stream_key.venue for stream_key in there))
        venue = self._venue_of(target, venues)
        if venue not in venues:
            known = _some(nearest(venue, venues))
            raise RequestError(code, f"exchange: {venue!r} has no {symbol}; one of {known}")
        topic = there.get(_stream_key(venue, symbol, target))
        if topic is None:
            have = [stream_key for stream_key in there if stream_key.venue == venue]
            raise RequestError(code, f"{_absent(target, have)} for {symbol}")
        return topic

    def venue_of(self, target: Target) -> str | None:
        """The venue that answers for a request; None: nothing of its symbol is here."""
        symbol = self._resolve(target.symbol)
        if symbol is None:
            return None
        return self._venue_of(target, [stream_key.venue for stream_key in self._by_symbol[symbol]])

    def _venue_of(self, target: Target, venues: Sequence[str]) -> str:
        if target.exchange is not None:
            return target.exchange
        return self._default_venue if self._default_venue in venues else venues[0]

    def _resolve(self, name: str) -> str | None:
        """A unified symbol, in any case, or a venue's own name -> the unified symbol."""
        for found in (name, self._aliases.get(name), name.upper(), self._aliases.get(name.upper())):
            if found in self._by_symbol:
                return found
        return None


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """``known`` with the names most like ``name`` first, by the letter pairs that they share
    (Dice's coefficient); names that are equally like it stay in their order."""
    pairs = _pairs(name)

    def likeness(other: str) -> float:
        others = _pairs(other)
        return 2 * len(pairs & others) / max(1, len(pairs) + len(others))

    return sorted(known, key=likeness, reverse=True)


@lru_cache(maxsize=16_384)  # the known names are compared again with each refused request
def _pairs(name: str) -> frozenset[str]:
    letters = "".join(filter(str.isalnum, name.upper()))
    return frozenset(map("".join, pairwise(letters)))


def _absent(target: Target, have: Iterable[StreamKey]) -> str:
    if target.interval is None:
        channels = _some(s.channel.value for s in have if isinstance(s, ChannelKey))
        return f"channel: {target.channel.value!r} is not one of {channels}"
    places = list(Interval)  # from the shortest to the longest
    wanted = places.index(target.interval)
    there = [s.interval for s in have if isinstance(s, Series)]
    there.sort(key=lambda interval: abs(places.index(interval) - wanted))
    intervals = _some(interval.value for interval in there)
    return f"interval: {target.notation!r} is not one of {intervals}"


def _stream_key(venue: str, symbol: str, target: Target) -> StreamKey:
    if target.interval is None:
        return ChannelKey(venue, symbol, target.channel)
    return Series(venue, symbol, target.interval)


def _some(names: Iterable[str], most: int = 20) -> str:
    listed = [str(name) for name in names]
    return " ".join(listed[:most]) + (" ..." if len(listed) > most else "")
