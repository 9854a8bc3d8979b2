"""The first copy counts: what comes twice, over two connections at once, goes on once.

Candles, trades and the updates of a book know what they have seen already; tickers and best prices
do not, so their second copies end here.  Of book updates only the order is put right: a connection
that has just begun may be ahead of the one that carries the book, and its first update would look
like a gap.  Pure.
"""

from collections.abc import Iterable, Sequence

from attrs import define, field

from ..model import BookTop, BookUpdate, Ticker
from ..venues import Data

_RESTART_MS = 10_000
"""Nothing newer for so long: the exchange has begun to count anew."""
_SAME_TIME = 16
"""Tickers of one millisecond that are told apart."""
_HELD = 1_000
"""Book updates that wait for those before them, per symbol."""


@define
class _Newest:
    """The newest ticker of a symbol, and others of the same millisecond."""

    order: int
    received: float
    seen: list[Ticker | BookTop]


@define
class _Sequence:
    """Where a book's updates have got to, and those that are ahead of it."""

    last_id: int | None = None
    reset_ms: int = 0
    held: list[BookUpdate] = field(factory=list)
    held_since: float = 0.0


class Firsts:
    """``hold_books_ms``: how long book updates may wait for those before them; 0: not at all."""

    def __init__(self, hold_books_ms: float = 0.0) -> None:
        self._hold_books_ms = hold_books_ms
        self._newest: dict[tuple[type, str], _Newest] = {}
        self._books: dict[str, _Sequence] = {}

    def news(self, events: Iterable[Data], received: float) -> list[Data]:
        """What of ``events`` is new, and what was held back until now, in order."""
        out: list[Data] = []
        for event in events:
            if isinstance(event, Ticker | BookTop):
                out += [event] if self._is_new(event, received) else []
            elif isinstance(event, BookUpdate) and self._hold_books_ms and not event.partial:
                out += self._in_order(event, received)
            else:
                out.append(event)
        return out

    def forget(self, symbols: Iterable[str]) -> None:
        """Nothing carries these books any more: the next update is the first one."""
        for symbol in symbols:
            self._books.pop(symbol, None)

    def _is_new(self, event: Ticker | BookTop, received: float) -> bool:
        order = (isinstance(event, BookTop) and event.update_id) or event.event_ms
        if not order:
            return True
        key = (type(event), event.symbol)
        newest = self._newest.get(key)
        if (
            newest is None
            or order > newest.order
            or (order < newest.order and received - newest.received > _RESTART_MS)
        ):
            self._newest[key] = _Newest(order, received, [event])
            return True
        if order < newest.order or event in newest.seen:
            return False
        newest.seen = [*newest.seen[-_SAME_TIME:], event]
        return True

    def _in_order(self, update: BookUpdate, received: float) -> Sequence[BookUpdate]:
        book = self._books.setdefault(update.symbol, _Sequence())
        if 0 < update.event_ms < book.reset_ms:
            return ()  # of before the reset, by the slower connection
        if update.snapshot or book.last_id is None:
            book.held.clear()
            book.last_id = max(book.last_id or 0, update.last_id)
            return (update,)
        if update.last_id < _before(update):  # OKX's reset: the numbers begin anew
            if update.event_ms == book.reset_ms:
                return ()
            book.reset_ms, book.last_id = update.event_ms, update.last_id
            book.held.clear()
            return (update,)
        if _before(update) <= book.last_id:
            book.last_id = max(book.last_id, update.last_id)
            return (update, *self._following(book, book.last_id))
        if not book.held:
            book.held_since = received
        book.held.append(update)
        late = received - book.held_since > self._hold_books_ms
        return self._release(book) if late or len(book.held) > _HELD else ()

    def _following(self, book: _Sequence, last_id: int) -> list[BookUpdate]:
        """What was held and follows now."""
        out = []
        book.held.sort(key=lambda update: update.last_id)
        while book.held and _before(book.held[0]) <= last_id:
            out.append(book.held.pop(0))
            last_id = max(last_id, out[-1].last_id)
        book.last_id = last_id
        return out

    def _release(self, book: _Sequence) -> list[BookUpdate]:
        """What is missing has not come: it is a gap indeed."""
        out = sorted(book.held, key=lambda update: update.last_id)
        book.held.clear()
        book.last_id = out[-1].last_id
        return out


def _before(update: BookUpdate) -> int:
    return update.first_id - 1 if update.previous_id is None else update.previous_id
