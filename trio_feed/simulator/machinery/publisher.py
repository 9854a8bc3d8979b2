"""Who subscribed to which stream of a simulated exchange, and the pushing to them.

A stream has a :class:`Source` while somebody subscribes to it.  A quiet market costs nothing; a
followed book costs a look every 100 ms.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Set
from typing import Generic, Protocol, TypeVar

from attrs import define, field

from ...model import Interval
from .scheduler import Scheduler
from .wire import text_frame

Key = TypeVar("Key", bound=Hashable)


class Source(ABC):
    """What one stream says and when, pure: time is an argument, in unix ms, and never goes back.

    ``symbol`` is empty for a stream of all symbols; ``interval`` is set for the market's candles.
    Of the sources that are due together those of lower ``rank`` push first.
    """

    @property
    def symbol(self) -> str:
        return ""

    @property
    def interval(self) -> Interval | None:
        return None

    @property
    def rank(self) -> int:
        return 0

    @property
    @abstractmethod
    def due_ms(self) -> int:
        """The next time at which there may be news."""

    @abstractmethod
    def news(self, now_ms: int) -> Iterable[bytes]:
        """What happened since the last call; moves ``due_ms``."""

    def snapshot(self) -> Iterable[bytes]:
        """For a new subscriber: the state as of the last ``news``."""
        return ()

    def candle(self, open_ms: int, now_ms: int) -> Iterable[bytes]:
        """The candle that opens at ``open_ms``, once more."""
        return ()


class Subscriber(Protocol):
    """One connection.  ``combined``: its messages name their stream."""

    @property
    def combined(self) -> bool: ...

    def offer(self, frame: bytes) -> None:
        """Take one encoded frame without waiting."""


@define(eq=False)
class _Stream(Generic[Key]):
    key: Key
    source: Source
    due_ms: int
    subscribers: dict[Subscriber, None] = field(factory=dict)


@define(eq=False)
class Publisher(Generic[Key]):
    """``scheduler.run()`` pushes to all who subscribed.  ``now_ms`` is unix ms.

    ``make_source(key, now_ms)`` gives None for a stream that does not exist, ``combine(key,
    message)`` the form of a message that names its stream.  Nothing of ``silent`` symbols is
    pushed.
    """

    now_ms: Callable[[], float]
    make_source: Callable[[Key, int], Source | None]
    silent: Set[str]
    combine: Callable[[Key, bytes], bytes] = lambda _key, message: message
    scheduler: Scheduler = field(init=False)
    _streams: dict[Key, _Stream[Key]] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.scheduler = Scheduler(self.now_ms, self._due_ms, self._push_due)

    def subscribe(self, key: Key, subscriber: Subscriber) -> None:
        """Offer the state of the stream and from then on its news."""
        stream = self._streams.get(key)
        if stream is None:
            source = self.make_source(key, math.floor(self.now_ms()))
            if source is None:
                return
            stream = self._streams[key] = _Stream(key, source, source.due_ms)
            self.scheduler.changed()
        for message in stream.source.snapshot():
            subscriber.offer(text_frame(message))
        stream.subscribers[subscriber] = None

    def unsubscribe(self, key: Key, subscriber: Subscriber) -> None:
        """Offer no more of this stream; it need not have been subscribed to."""
        stream = self._streams.get(key)
        if stream is not None:
            stream.subscribers.pop(subscriber, None)
            if not stream.subscribers:
                del self._streams[key]

    def republish(self, symbol: str, interval: Interval, open_ms: int) -> list[Subscriber]:
        """Push a closed candle once more, as the market has it now.  Returns who got it."""
        now, told = math.floor(self.now_ms()), list[Subscriber]()
        for stream in [*self._streams.values()]:
            if (stream.source.symbol, stream.source.interval) == (symbol, interval):
                told += stream.subscribers
                self._publish(stream, stream.source.candle(open_ms, now))
        return told

    def _due_ms(self) -> float:
        return min((stream.due_ms for stream in self._streams.values()), default=math.inf)

    def _push_due(self, now: float) -> None:
        due = [stream for stream in self._streams.values() if stream.due_ms <= now]
        for stream in sorted(due, key=lambda stream: stream.source.rank):
            messages = [*stream.source.news(math.floor(now))]  # silent symbols use up theirs
            if stream.source.symbol not in self.silent:
                self._publish(stream, messages)
            stream.due_ms = stream.source.due_ms

    def _publish(self, stream: _Stream[Key], messages: Iterable[bytes]) -> None:
        """Encode each of the two forms at most once."""
        for message in messages:
            frames: dict[bool, bytes] = {}
            for subscriber in [*stream.subscribers]:  # one may leave while it is offered a frame
                frame = frames.get(combined := subscriber.combined)
                if frame is None:
                    form = self.combine(stream.key, message) if combined else message
                    frame = frames[combined] = text_frame(form)
                subscriber.offer(frame)
