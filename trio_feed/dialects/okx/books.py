"""``books`` out of our own book: a snapshot, then changes whose ids follow each other.

Ids are made of the number of a book message, so that WebSocket and REST agree without a common
state; OKX's own would jump where our book was fetched anew.  ``prevSeqId`` is the ``seqId`` of the
message before, -1 in a snapshot, which is what clients check (dialect-facts, 6).  The checksum is
0, as OKX sends it since 2026-06-23.

The book is what its channel shows (``book_levels`` a side, at most 400): a level that is pushed out
of the view is removed, and one that comes into it is set, so that a client's book equals our view.
"""

from collections.abc import Callable, Iterable
from decimal import Decimal
from math import inf

from attrs import define, field, frozen

from ...model import BookView, ChannelMessage, Instrument, Level, Source
from ...push.fanout.encoded import EncodedMessage
from ...push.fanout.frames import text_frame
from ...push.fanout.topics import Topic
from . import encoders

MOST_LEVELS = 400
_NONE = Decimal(0)
_PER_EPOCH = 1000
"""An epoch is the unix time in ms of a start, so ids grow over a restart unless there were more
than a million messages a second; they stay below 2**53, the most that JavaScript holds."""


def number_of(epoch: int, offset: int) -> int:
    """The ``seqId`` of a message of a book."""
    return epoch * _PER_EPOCH + offset


@frozen
class _State:
    """A book as it stood at the message with this number; -1: there was none."""

    epoch: int = -1
    offset: int = -1
    bids: tuple[Level, ...] = ()
    asks: tuple[Level, ...] = ()
    ts: int = 0

    @property
    def number(self) -> int:
        return -1 if self.epoch < 0 else number_of(self.epoch, self.offset)


@define(eq=False)
class BookForm:
    """A :class:`.StreamForm` of ``books``, one for all clients of a book.

    It follows the topic's messages as they are handed out; a client that comes gets
    :meth:`present`, how the book stands after the last one that was published, and every later one
    is a change of just that.  Messages that are hidden (a fallback's) did not happen.
    """

    head: bytes
    instrument: Instrument
    topic: Topic
    hides: Callable[[Source], bool]
    conflates: bool = False
    _state: _State = field(init=False)
    _snapshot: tuple[_State, str] = (_State(), "")

    def __attrs_post_init__(self) -> None:
        self.topic.stream.keep()
        self._state = self._latest() or _State()

    def present(self) -> str | None:
        """The snapshot for who comes now; None: there is no book yet, and the first message of it
        will be one."""
        # Not how it stood when a message was written last: some may be on their way to others, and
        # who comes now does not get those.
        state = self._latest() or self._before(inf)
        if state.number < 0:
            return None
        if self._snapshot[0] != state:
            self._snapshot = state, self._text("snapshot", state, state.bids, state.asks, -1)
        return self._snapshot[1]

    def frame(
        self, message: EncodedMessage, left_out: int = 0, *, snapshot: bool = False
    ) -> bytes | None:
        """See :meth:`.StreamForm.frame`; called for the messages in their order."""
        news = message.message
        assert isinstance(news, ChannelMessage), "the topic is a book"
        if self.hides(news.source):
            return None
        before = self._before(news.offset) if news.epoch == self._state.epoch else self._state
        self._state = state = _state_of(news, message.sent_ms)
        if before.number < 0:
            text = self._text("snapshot", state, state.bids, state.asks, -1)
        else:
            bids = changes(before.bids, state.bids, best=1)
            asks = changes(before.asks, state.asks, best=-1)
            text = self._text("update", state, bids, asks, before.number)
        return text_frame(text.encode())

    def _before(self, offset: float) -> _State:
        """The book before the message with this number: as it was written last, unless the only
        client left before its turn and another came, or what came last is hidden: the stream keeps
        its last messages for such cases."""
        state = self._state
        if state.offset >= offset - 1:
            return state
        for kept in self.topic.stream.after(self.topic.stream.epoch, state.offset):
            earlier = kept.message
            assert isinstance(earlier, ChannelMessage), "the topic is a book"
            if earlier.offset < offset and not self.hides(earlier.source):
                state = _state_of(earlier, kept.sent_ms)
        return state

    def _latest(self) -> _State | None:
        latest = self.topic.stream.latest
        message = None if latest is None else latest.message
        if latest is None or not isinstance(message, ChannelMessage) or self.hides(message.source):
            return None
        return _state_of(message, latest.sent_ms)

    def _text(
        self,
        action: str,
        state: _State,
        bids: Iterable[Level],
        asks: Iterable[Level],
        previous: int,
    ) -> str:
        levels = encoders.sides(self.instrument, bids, asks)
        ids = f'"checksum":0,"prevSeqId":{previous},"seqId":{state.number}'
        row = f'{{{levels},"ts":"{state.ts}",{ids}}}'
        return encoders.push("books", self.instrument.native, row, action)


def _state_of(message: ChannelMessage, sent_ms: float) -> _State:
    view = message.data
    assert isinstance(view, BookView), "the topic is a book"
    bids, asks = view.bids[:MOST_LEVELS], view.asks[:MOST_LEVELS]
    return _State(message.epoch, message.offset, bids, asks, view.event_ms or int(sent_ms))


def changes(before: Iterable[Level], after: Iterable[Level], *, best: int) -> list[Level]:
    """The levels that differ, with their quantity in ``after``, 0: it is not there; the best price
    first, which is the highest (``best`` 1) or the lowest (-1)."""
    old, new = dict(before), dict(after)
    found = [(price, _NONE) for price in old if price not in new]
    found += [(price, size) for price, size in new.items() if old.get(price) != size]
    return sorted(found, key=lambda level: level[0], reverse=best > 0)
