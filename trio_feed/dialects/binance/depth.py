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
"""

from collections.abc import Iterable

from attrs import define

from ...model import BookView, ChannelMessage, Level
from ...push.fanout.encoded import EncodedMessage
from ...push.fanout.topics import Topic
from . import encoders

_PER_EPOCH = 1000
"""An epoch is the unix time in ms of a start, so ids grow over a restart unless there were more
than a million messages a second; they stay below 2**53, the most that JavaScript holds."""


def number_of(epoch: int, offset: int) -> int:
    """The update id of a book message."""
    return epoch * _PER_EPOCH + offset


def changes(before: Iterable[Level], after: Iterable[Level]) -> list[Level]:
    """The levels that differ, with their quantity in ``after``; 0: it is not there."""
    old, new = dict(before), dict(after)
    gone = [(price, size * 0) for price, size in old.items() if price not in new]
    return [*gone, *((price, size) for price, size in new.items() if old.get(price) != size)]


@define(eq=False)
class DepthChanges:
    """Writes the events of one book.  Made while ``topic`` stands at what it showed last."""

    native: str
    topic: Topic
    spot: bool
    _number: tuple[int, int] = (-1, -1)
    _view: BookView | None = None
    _text: str = ""

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
        last = number_of(*number)
        bids = changes(before.bids if before else (), view.bids)
        asks = changes(before.asks if before else (), view.asks)
        if not bids and not asks:  # nautilus fails with an event of nothing: repeat a level
            bids, asks = [*view.bids[:1]], [*view.asks[:1]]
        at_ms = view.event_ms or int(encoded.sent_ms)
        if self.spot:
            self._text = encoders.depth_update(self.native, bids, asks, last, last, at_ms)
        else:
            self._text = encoders.depth_update(
                self.native, bids, asks, last - 1, last, at_ms, last - 1
            )
        return self._text

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
