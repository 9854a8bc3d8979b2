"""Keys of an exchange's streams, and the events that come out of them."""

from enum import StrEnum
from typing import Literal

from attrs import frozen

from ..model import (
    BookTop,
    BookUpdate,
    Funding,
    Interval,
    Kline,
    Liquidation,
    MarkPrice,
    OpenInterest,
    Price,
    Ticker,
    Trade,
)


class Kind(StrEnum):
    """What a stream carries."""

    KLINE = "kline"
    AGG_TRADE = "agg_trade"
    TRADE = "trade"
    TICKER = "ticker"
    MINI_TICKER = "mini_ticker"
    TOP = "top"
    BOOK = "book"
    BOOK_LEVELS = "book_levels"
    MARK_PRICE = "mark_price"
    FUNDING = "funding"
    LIQUIDATION = "liquidation"
    OPEN_INTEREST = "open_interest"
    PRICE = "price"


POLLED = frozenset({Kind.OPEN_INTEREST})
"""Kinds that no connection carries: they are asked for by REST again and again."""
SPORADIC = POLLED | {Kind.LIQUIDATION, Kind.FUNDING}
"""Kinds that may have nothing to tell for hours: only what brings them can be dead."""
DERIVATIVES_ONLY = frozenset({Kind.LIQUIDATION, Kind.MARK_PRICE, Kind.FUNDING})
"""Kinds that spot pairs do not have."""


@frozen(order=True)
class Stream:
    """One subscription at the exchange.  ``path`` groups what may share a connection, ``name`` is
    what the venue calls it; ``interval`` is for candles only."""

    path: str
    name: str
    symbol: str
    kind: Kind
    interval: Interval | None = None


@frozen
class KlineUpdate:
    """A candle state of ``symbol`` from the exchange's candle stream."""

    symbol: str
    interval: Interval
    kline: Kline

    @property
    def event_ms(self) -> int:
        """The exchange's time of it, 0 where it gives none; every event has one."""
        return self.kline.event_ms


Data = (
    KlineUpdate | Trade | Price | Ticker | BookTop | BookUpdate | MarkPrice | Funding | Liquidation
    | OpenInterest
)  # fmt: skip
"""What the core takes."""


@frozen
class BookRule:
    """How the updates of a venue's books follow each other (:mod:`trio_feed.core.book`)."""

    dense: bool = False
    """Ids grow by one, so an update that begins before the id that is held and ends after it is
    the next one; else only one that follows this very id is."""
    first_repeats: bool = False
    """The first update after a snapshot by REST may end at the snapshot's own id."""
    streams_snapshots: bool = False
    """A new subscription begins with a snapshot, so none is asked for before updates come
    without it."""
    may_lack_ids: bool = False
    """Updates without any id were seen; such a one is taken as the next."""


TradeIds = Literal["dense", "opaque"]
"""dense: the ids of a symbol's trades follow each other (+1), so a missing one is a missing trade.
opaque: they only tell one trade from another."""
