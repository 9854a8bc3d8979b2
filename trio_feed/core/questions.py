"""What the core wants to know from an exchange, in its own words, and what a venue is to the core.

An engine says *that* it wants to know something (:class:`.effects.Fetch` with a :class:`Need`); the
driver comes back when it can ask, and :meth:`.symbol.SymbolEngine.ask` says *what* as things stand
then.  The venue turns it into a request.
"""

from collections.abc import Mapping
from enum import IntEnum

from attrs import field, frozen

from ..model import Interval
from .streams import BookRule, Kind, TradeIds


@frozen
class Rules:
    """What the core has to know of a venue.

    ``intervals`` are the candles it answers by REST, ``page`` the most of them in one answer.
    ``refill``: it can be asked for trades by id.  ``began_ms``: nothing of it is older.
    ``keep``: by interval, the seconds after which the store deletes a candle; what is not named
    stays.
    """

    venue: str
    intervals: frozenset[Interval]
    trade_kind: Kind
    trade_ids: TradeIds = "dense"
    refill: bool = True
    book_rule: BookRule | None = None
    book_snapshot_levels: int | None = None
    page: int = 1_000
    began_ms: int = 0
    keep: Mapping[Interval, float] = field(factory=dict)
    chain: bool = False
    """What was missed of its prices is fetched in the order of a chain (:mod:`.chain`)."""


class Need(IntEnum):
    """What a question is about, the most urgent first: what holds up live data comes before what
    only makes history longer."""

    TRADES = 0
    CANDLES = 1
    BOOK = 2
    PROBE = 3
    """The newest of a stream that is silent."""
    PROOF = 4
    """The newest trade, to close candles of a quiet market."""
    GRID = 5
    AUDIT = 6
    HISTORY = 7


@frozen
class CandleQuestion:
    """``bars`` candles from ``start_ms`` on."""

    interval: Interval
    start_ms: int
    bars: int


@frozen
class TradeQuestion:
    """Trades from this id on."""

    from_id: int


@frozen
class LatestQuestion:
    """The newest candle of an interval, or (None) the newest trade."""

    interval: Interval | None


@frozen
class BookQuestion:
    """A snapshot of the order book."""


Question = CandleQuestion | TradeQuestion | LatestQuestion | BookQuestion
