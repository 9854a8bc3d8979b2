"""One venue's order books: updates in, snapshots asked for one symbol at a time, views out."""

from collections.abc import Callable, Iterable

from attrs import frozen

from ..core.book import Book, BookPolicy, Outcome
from ..model import BookUpdate, BookView, Channel, Instrument, Line
from ..venues import Venue
from .backfill import Job
from .outlet import Outlet


@frozen
class BookOf:
    """Key of a job that asks for a snapshot."""

    symbol: str

    def __str__(self) -> str:
        return f"{self.symbol} book"


class Books:
    """A book per symbol.  A gap makes that one stale and resyncs it; the others go on.

    ``renew`` is called for a symbol whose stream has to be subscribed to anew, because the venue's
    snapshots by REST do not say where in the sequence they stand.
    """

    def __init__(
        self,
        venue: Venue,
        outlet: Outlet,
        *,
        levels: int,
        now_ms: Callable[[], float],
        changed: Callable[[], None],
        renew: Callable[[str], None],
    ) -> None:
        self._renew = renew
        self._venue, self._outlet, self._levels = venue, outlet, levels
        self._now_ms, self._changed = now_ms, changed
        self._policy = BookPolicy(snapshot_levels=venue.BOOK_SNAPSHOT_LEVELS)
        self._flowing: set[str] = set()
        self.books: dict[str, Book] = {}

    def open(self, symbol: str) -> None:
        """Keep a book of this symbol, where the venue has books."""
        rule = self._venue.BOOK_RULE
        if rule is not None:
            self.books[symbol] = Book(symbol, rule, self._policy)

    def close(self, symbol: str) -> None:
        """Forget the symbol's book, if there is one."""
        self._flowing.discard(symbol)
        self.books.pop(symbol, None)

    def update(self, update: BookUpdate, received: float) -> None:
        """A message of the book stream; best levels that are complete in themselves pass."""
        book = self.books.get(update.symbol)
        if book is None or update.partial:
            return
        self._flowing.add(update.symbol)
        change = book.update(update)
        if change.outcome is Outcome.RESYNC:
            self._outlet.metrics.book_gaps.labels(self._venue.NAME).inc()
            self._outlet.log.warning("book.gap", symbol=update.symbol, problem=change.reason)
        if change.outcome in (Outcome.APPLIED, Outcome.RESYNC):
            self._show(book, received)
        if book.due_ms is not None:
            self._changed()

    def lost(self, symbol: str) -> None:
        """The stream is down: what is known is stale."""
        self._flowing.discard(symbol)
        book = self.books.get(symbol)
        if book is not None:
            book.interrupt()
            self._show(book, self._now_ms())

    def due(self) -> Iterable[tuple[float, BookOf]]:
        """When which book wants its snapshot.  Before its stream flows none would fit."""
        for symbol in self._flowing:
            due_ms = self.books[symbol].due_ms
            if due_ms is not None:
                yield due_ms, BookOf(symbol)

    def job(self, key: BookOf, instrument: Instrument) -> Job | None:
        """What to ask for; None where the venue gives no snapshots by REST."""
        book, now = self.books[key.symbol], self._now_ms()
        question = self._venue.book_question(instrument)
        book.asked(now)
        if question is None:
            return None

        def take(body: bytes) -> None:
            snapshot = self._venue.parse_book(body, instrument)
            change = book.snapshot(snapshot)
            if change.outcome is Outcome.AGAIN and not snapshot.last_id:
                self._outlet.log.info("book.renewing", symbol=key.symbol)
                self._renew(key.symbol)
                return
            if change.outcome is Outcome.AGAIN:
                self._outlet.log.info("book.again", symbol=key.symbol, problem=change.reason)
                return
            self._outlet.log.info("book.synced", symbol=key.symbol)
            self._show(book, self._now_ms())

        return Job(question, take, lambda: None)

    def stale(self) -> int:
        """How many books stand still."""
        return sum(book.stale for book in self.books.values())

    def _show(self, book: Book, received: float) -> None:
        bids, asks = book.levels(self._levels)
        exact_bids, exact_asks = book.exact_levels  # beyond the last snapshot some may be missing
        bids, asks = bids[:exact_bids], asks[:exact_asks]
        if not (bids or asks) or (book.crossed and not book.stale):
            return
        view = BookView(book.symbol, bids, asks, book.stale, book.last_id, book.event_ms)
        self._outlet.line(Line(self._venue.NAME, book.symbol, Channel.BOOK), view, received)
