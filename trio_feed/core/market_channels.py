"""One symbol's channels beside candles and trades: tickers, books, and what passes as it is.  Pure.

What there is, is in the table :mod:`.channels`; with two connections at once the first copy counts
(:mod:`.arbitration`).
"""

from collections.abc import Iterable, Sequence

from ..instants import NEVER, Mono, Now
from ..model import BookUpdate, Channel
from .arbitration import Arbitration
from .books import BookChannel
from .channels import BY_EVENT, CHANNELS
from .effects import ChannelNews, Effect, Fetch, Report, Resubscribe
from .mark_prices import MarkPriceChannel
from .questions import Need
from .scope import Scope
from .streams import Data, Kind, Stream
from .tickers import TickerChannel

_HOLD_BOOKS_S = 0.5
"""With redundancy: how much one connection may be ahead of the other."""


class MarketChannels:
    """Of one symbol.  ``book`` is None where none is wanted, or the venue has none."""

    __slots__ = ("_arbitration", "_mark", "_scope", "_ticker", "book")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        settings = scope.settings
        two = settings.connection.redundancy > 1
        self._arbitration = Arbitration(_HOLD_BOOKS_S if two else 0.0)
        ticker, book = scope.channel_keys.get(Channel.TICKER), scope.channel_keys.get(Channel.BOOK)
        mark = scope.channel_keys.get(Channel.MARK_PRICE)
        self._ticker = None if ticker is None else TickerChannel(ticker, scope.source)
        self._mark = None if mark is None else MarkPriceChannel(mark, scope.source)
        self.book: BookChannel | None = None
        if book is not None and scope.rules.book_rule is not None:
            self.book = BookChannel(scope.rules, book, settings.book_levels, scope.source)

    def take(self, event: Data, now: Now) -> Sequence[Effect]:
        """An event of one of the channels."""
        kind = type(event)
        if isinstance(event, BookUpdate):
            return self._book_update(event, now)
        keys = self._scope.channel_keys
        wanted = [channel for channel in BY_EVENT.get(kind, ()) if channel in keys]
        if not wanted:
            return [ignored(kind.__name__)]
        order = CHANNELS[wanted[0]].events[kind](event)
        if not self._arbitration.is_new(event, order, now.mono):
            return []
        out: list[Effect] = []
        for channel in wanted:
            if channel is Channel.TICKER and self._ticker is not None:
                out += self._ticker.take(event, now)  # type: ignore[arg-type]
            elif channel is Channel.MARK_PRICE and self._mark is not None:
                out += self._mark.take(event, now)  # type: ignore[arg-type]
            else:
                source, received_ms = self._scope.source, float(now.wall)
                out.append(ChannelNews(keys[channel], event, source, received_ms))  # type: ignore[arg-type]
        return out

    def lost(self, streams: Iterable[Stream], now: Now) -> list[Effect]:
        """These do not deliver any more."""
        out: list[Effect] = []
        for stream in streams:
            if stream.kind is Kind.BOOK and self.book is not None:
                self._arbitration.forget_book()
                out += self.book.lost(now)
        return out

    def dues(self) -> Iterable[tuple[Fetch, Mono]]:
        """What to ask, and when."""
        due = NEVER if self.book is None else self.book.due()
        if due < NEVER:
            yield Fetch(Need.BOOK, self._scope.symbol), due

    def snapshot(self, rows: Iterable[object], streams: Iterable[Stream], now: Now) -> list[Effect]:
        """A snapshot of the book; where it is of no use the streams are subscribed to anew."""
        out: list[Effect] = []
        if self.book is None:
            return out
        for row in rows:
            if isinstance(row, BookUpdate):
                out += self.book.snapshot(row, now)
        if self.book.renew:
            out += [Resubscribe(stream, "renewed") for stream in streams]
        return out

    def _book_update(self, update: BookUpdate, now: Now) -> list[Effect]:
        if self.book is None:
            return [ignored("other book")]
        out = self.book.update(self._arbitration.in_order(update, now.mono), now)
        self._scope.alarm.want(self.book.due())
        return out


def ignored(kind: str) -> Report:
    """Something came that nobody asked for."""
    return Report("", "", {}, "ignored_messages", (kind,))
