"""One symbol's order book: updates in, views out, snapshots asked for.  Pure."""

from collections.abc import Iterable

from attrs import define, field

from ..instants import NEVER, Mono, Now
from ..model import BookUpdate, BookView, ChannelKey, Source
from .book import Book, BookPolicy, Outcome
from .effects import ChannelNews, Effect, Report
from .questions import Rules


@define(eq=False)
class BookChannel:
    """The book and how it is shown.  ``again`` after a snapshot says that the venue's snapshots do
    not tell where in the sequence they stand, so that its stream has to be subscribed to anew."""

    rules: Rules
    key: ChannelKey
    levels: int
    source: Source
    book: Book = field(init=False)
    renew: bool = False
    _flowing: bool = False

    def __attrs_post_init__(self) -> None:
        rule = self.rules.book_rule
        assert rule is not None, "the settings were checked: the venue has books"
        policy = BookPolicy(snapshot_levels=self.rules.book_snapshot_levels)
        self.book = Book(self.key.symbol, rule, policy)

    def update(self, updates: Iterable[BookUpdate], now: Now) -> list[Effect]:
        """Messages of the book stream; best levels that are complete in themselves pass."""
        out: list[Effect] = []
        for update in updates:
            if update.partial:
                continue
            self._flowing = True
            change = self.book.update(update)
            if change.outcome is Outcome.RESYNC:
                fields = {"symbol": self.key.symbol, "problem": change.reason}
                out.append(Report("book.gap", "warning", fields, "book_gaps"))
            if change.outcome in (Outcome.APPLIED, Outcome.RESYNC):
                out += self._view(now)
        return out

    def lost(self, now: Now) -> list[Effect]:
        """The stream is down: what is known is stale."""
        self._flowing = False
        self.book.interrupt()
        return self._view(now)

    def due(self) -> Mono:
        """When a snapshot is wanted.  Before the stream flows none would fit."""
        due_ms = self.book.due_ms if self._flowing else None
        return NEVER if due_ms is None else Mono(due_ms / 1000)

    def asked(self, now: Now) -> None:
        """A snapshot was asked for, or a new subscription."""
        self.book.asked(float(now.mono) * 1000)

    def snapshot(self, snapshot: BookUpdate, now: Now) -> list[Effect]:
        """The exchange's answer.  ``renew`` is True afterwards where it was of no use."""
        change = self.book.snapshot(snapshot)
        self.renew = change.outcome is Outcome.AGAIN and not snapshot.last_id
        if self.renew:
            return [Report("book.renewing", "info", {"symbol": self.key.symbol})]
        if change.outcome is Outcome.AGAIN:
            fields = {"symbol": self.key.symbol, "problem": change.reason}
            return [Report("book.again", "info", fields)]
        return [Report("book.synced", "info", {"symbol": self.key.symbol}), *self._view(now)]

    def _view(self, now: Now) -> list[Effect]:
        book = self.book
        bids, asks = book.levels(self.levels)
        exact_bids, exact_asks = book.exact_levels  # beyond the last snapshot some may be missing
        bids, asks = bids[:exact_bids], asks[:exact_asks]
        if not (bids or asks) or (book.crossed and not book.stale):
            return []
        view = BookView(self.key.symbol, bids, asks, book.stale, book.last_id, book.event_ms)
        return [ChannelNews(self.key, view, self.source, float(now.wall))]
