"""A/B arbitration: with two connections at once the first copy of each message counts.

Candles, trades and the updates of a book know what they have seen already; tickers, best prices and
whatever else passes as it is do not, so their second copies end here.  Of book updates only the
order is put right: a connection that has just begun may be ahead of the one that carries the book,
and its first update would look like a gap.  Of one symbol.  Pure.
"""

from collections.abc import Sequence

from attrs import define, field

from ..instants import Mono
from ..model import BookUpdate

_RESTART_S = 10.0
"""Nothing newer for so long: the exchange has begun to count anew."""
_SAME_TIME = 16
"""Events of one millisecond that are distinguished."""
_HELD = 1_000
"""Book updates that wait for those before them."""


@define
class _Newest:
    """The newest event of a type, and others of the same millisecond."""

    order: int
    received: Mono
    seen: list[object]


@define
class _Sequence:
    """Where the book's updates have got to, and those that are ahead of it."""

    last_id: int | None = None
    reset_ms: int = 0
    held: list[BookUpdate] = field(factory=list)
    held_since: Mono = Mono(0.0)


@define(eq=False)
class Arbitration:
    """``hold_books_s``: how long book updates may wait for those before them; 0: not at all."""

    hold_books_s: float = 0.0
    _newest: dict[type, _Newest] = field(factory=dict)
    _book: _Sequence = field(factory=_Sequence)

    def is_new(self, event: object, order: int, received: Mono) -> bool:
        """Whether this is news; ``order``: see :data:`.channels.Order`."""
        if not order:
            return True
        newest = self._newest.get(type(event))
        if (
            newest is None
            or order > newest.order
            or (order < newest.order and received - newest.received > _RESTART_S)
        ):
            self._newest[type(event)] = _Newest(order, received, [event])
            return True
        if order < newest.order or event in newest.seen:
            return False
        newest.seen = [*newest.seen[-_SAME_TIME:], event]
        return True

    def forget_book(self) -> None:
        """Nothing carries the book any more: the next update is the first one."""
        self._book = _Sequence()

    def in_order(self, update: BookUpdate, received: Mono) -> Sequence[BookUpdate]:
        """The updates that follow now, in order; empty while those before them are awaited."""
        if not self.hold_books_s or update.partial:
            return (update,)
        book = self._book
        if 0 < update.event_ms < book.reset_ms:
            return ()  # of before the reset, by the slower connection
        if update.snapshot or book.last_id is None:
            book.held.clear()
            book.last_id = max(book.last_id or 0, update.last_id)
            return (update,)
        if update.last_id < _before(update):  # set back in maintenance: the ids begin anew
            if update.event_ms == book.reset_ms:
                return ()
            book.reset_ms, book.last_id = update.event_ms, update.last_id
            book.held.clear()
            return (update,)
        if _before(update) <= book.last_id:
            book.last_id = max(book.last_id, update.last_id)
            return (update, *self._following(book.last_id))
        if not book.held:
            book.held_since = received
        book.held.append(update)
        late = received - book.held_since > self.hold_books_s
        return self._release() if late or len(book.held) > _HELD else ()

    def _following(self, last_id: int) -> list[BookUpdate]:
        """What was held and follows now."""
        book = self._book
        out = []
        book.held.sort(key=lambda update: update.last_id)
        while book.held and _before(book.held[0]) <= last_id:
            out.append(book.held.pop(0))
            last_id = max(last_id, out[-1].last_id)
        book.last_id = last_id
        return out

    def _release(self) -> list[BookUpdate]:
        """What is missing has not come: it is a gap indeed."""
        book = self._book
        out = sorted(book.held, key=lambda update: update.last_id)
        book.held.clear()
        book.last_id = out[-1].last_id
        return out


def _before(update: BookUpdate) -> int:
    return update.first_id - 1 if update.previous_id is None else update.previous_id
