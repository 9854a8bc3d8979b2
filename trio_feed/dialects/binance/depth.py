"""Diff depth out of our own book: changes from one view of it to the next.

Binance's clients keep a book of their own: a snapshot by REST, then changes whose ids follow each
other.  Ours are made of the number of a book message, so that snapshot and stream agree without a
common state: message ``n`` of an epoch has the id :func:`number_of`, its event goes from the id
before it to its own, and a snapshot has the id of the message that it shows.

What clients check, by market (dialect-facts, 6): spot ids are contiguous (``U`` is the ``u`` before
it + 1) and a snapshot's id is the ``u`` of an event; USD-M's ``pu`` is the ``u`` before it, and
``U`` is the same number, which passes those who ask for ``U <= lastUpdateId <= u`` though the event
that ends there was missed.

The book is what its channel shows (``book_levels`` a side): a level that is pushed out of the view
is removed, and one that comes into it is set, so that the client's book equals our view.  Where the
view stays as it is, its best levels are said again: no event is empty, and none is left out.

python-binance takes its snapshot before it subscribes, and wants the event that begins right behind
it; where that is missing it takes another snapshot and applies an event that is older.  So who
subscribes gets the events since the oldest snapshot that was :class:`Shown` of late first.  Others
leave out events from before their snapshot, by the exchange's rules.
"""

from collections import deque
from collections.abc import Callable, Iterable

from attrs import define, field

from ...model import BookView, ChannelMessage, Level, Source
from ...push.fanout.encoded import EncodedMessage
from ...push.fanout.topics import Topic
from . import encoders

_PER_EPOCH = 1000
"""An epoch is the unix time in ms of a start, so ids grow over a restart unless there were more
than a million messages a second; they stay below 2**53, the most that JavaScript holds."""


_SHOWN_S = 5.0
"""From a snapshot to the subscription of who takes it: a few round trips."""
_MOST_SHOWN = _MOST_WRITTEN = 64


def number_of(epoch: int, offset: int) -> int:
    """The update id of a book message."""
    return epoch * _PER_EPOCH + offset


def changes(before: Iterable[Level], after: Iterable[Level]) -> list[Level]:
    """The levels that differ, with their quantity in ``after``; 0: it is not there."""
    old, new = dict(before), dict(after)
    gone = [(price, size * 0) for price, size in old.items() if price not in new]
    return [*gone, *((price, size) for price, size in new.items() if old.get(price) != size)]


@define
class Shown:
    """The snapshots of each symbol's book that clients were given of late."""

    _shown: dict[str, deque[tuple[float, ChannelMessage]]] = field(factory=dict)

    def note(self, symbol: str, message: ChannelMessage, now_ms: float) -> None:
        found = self._shown.setdefault(symbol, deque(maxlen=_MOST_SHOWN))
        if not found or found[-1][1] is not message:
            found.append((now_ms, message))

    def lately(self, symbol: str, now_ms: float) -> list[ChannelMessage]:
        """Oldest first."""
        found = self._shown.get(symbol, deque())
        while found and found[0][0] < now_ms - _SHOWN_S * 1000:
            found.popleft()
        return [message for _, message in found]


@define(eq=False)
class DepthChanges:
    """Writes the events of one book.  Made while ``topic`` stands at what it showed last."""

    native: str
    topic: Topic
    spot: bool
    hides: Callable[[Source], bool]
    _number: tuple[int, int] = (-1, -1)
    _view: BookView | None = None
    _text: str = ""
    _written: dict[tuple[int, int], str] = field(factory=dict)
    """The last ones."""

    def __attrs_post_init__(self) -> None:
        self.topic.stream.keep()
        latest = self.topic.stream.latest
        if latest is not None and isinstance(latest.message, ChannelMessage):
            self._note(latest.message)

    def __call__(self, encoded: EncodedMessage) -> str | None:
        message = encoded.message
        assert isinstance(message, ChannelMessage), "the topic is a channel"
        number = message.epoch, message.offset
        if number == self._number and self._text:
            return self._text
        before = self._before(message)
        view = self._note(message)
        self._text = self._write(number, before, view, encoded.sent_ms)
        return self._text

    def since(self, shown: ChannelMessage) -> list[str]:
        """The events behind that snapshot, up to the message that was published last; none of them
        where they are many, or some are not kept (any more)."""
        latest = self.topic.stream.latest
        missed = 0 if latest is None else latest.message.offset - shown.offset
        if not 0 < missed <= _MOST_WRITTEN:
            return []
        kept = self.topic.stream.after(shown.epoch, shown.offset)
        if len(kept) != missed:
            return []
        texts, before = [], _view(shown)
        for each in kept:
            message = each.message
            assert isinstance(message, ChannelMessage), "the topic is a channel"
            if message.epoch != shown.epoch or self.hides(message.source):
                return []
            view, number = _view(message), (message.epoch, message.offset)
            text = self._written.get(number) or self._write(number, before, view, each.sent_ms)
            texts.append(text)
            before = view
        return texts

    def _write(
        self, number: tuple[int, int], before: BookView | None, view: BookView, sent_ms: float
    ) -> str:
        last = number_of(*number)
        bids = changes(before.bids if before else (), view.bids)
        asks = changes(before.asks if before else (), view.asks)
        if not bids and not asks:  # nautilus fails with an event of nothing: repeat a level
            bids, asks = [*view.bids[:1]], [*view.asks[:1]]
        at_ms = view.event_ms or int(sent_ms)
        if self.spot:
            text = encoders.depth_update(self.native, bids, asks, last, last, at_ms)
        else:
            text = encoders.depth_update(self.native, bids, asks, last - 1, last, at_ms, last - 1)
        self._written[number] = text
        if len(self._written) > _MOST_WRITTEN:
            del self._written[next(iter(self._written))]
        return text

    def _before(self, message: ChannelMessage) -> BookView | None:
        """What was shown before; None: it is the first of all.

        That is the last that was written here, unless the only client left before its turn and
        another came: the stream keeps its last messages for such cases."""
        if self._number == (message.epoch, message.offset - 1):
            return self._view
        for kept in self.topic.stream.after(message.epoch, message.offset - 2):
            earlier = kept.message
            if earlier.offset == message.offset - 1 and isinstance(earlier, ChannelMessage):
                return _view(earlier)
        return self._view

    def _note(self, message: ChannelMessage) -> BookView:
        self._number, self._view, self._text = (
            (message.epoch, message.offset), _view(message), "",
        )  # fmt: skip
        return self._view


def _view(message: ChannelMessage) -> BookView:
    assert isinstance(message.data, BookView), "the topic is a book"
    return message.data
