"""The venues' book rules, and the checksum that recordings of OKX carry."""

from zlib import crc32

from trio_feed.core.book import Book
from trio_feed.core.streams import BookRule
from trio_feed.model import BookUpdate, plain
from trio_feed.venues.binance import spot, usdm
from trio_feed.venues.okx import venue as okx

_CHECKED_LEVELS = 25


def _rule(rule: BookRule | None) -> BookRule:
    assert rule is not None
    return rule


SPOT, USDM, OKX = map(_rule, (spot.BOOK_RULE, usdm.BOOK_RULE, okx.BOOK_RULE))


def checksum_ok(book: Book, update: BookUpdate) -> bool:
    """Whether the book agrees with the checksum of the update just applied.

    OKX's CRC-32 over the first 25 levels, alternately ``bid:size:ask:size``.  Since 2026-06-23
    it is always 0; None and 0 are no checksum.  It is over the wire's digits, so it fits only
    where sizes were not converted from contracts.
    """
    if not update.checksum:
        return True
    bids, asks = book.levels(_CHECKED_LEVELS)
    rows = (side[n] for n in range(_CHECKED_LEVELS) for side in (bids, asks) if n < len(side))
    text = ":".join(plain(number) for row in rows for number in row)
    return crc32(text.encode()) == update.checksum % 2**32  # theirs is signed
