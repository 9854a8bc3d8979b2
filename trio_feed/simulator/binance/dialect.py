"""What spot and USD-M differ in, as one table each, and the names of their streams.

The tables are in :mod:`.spot` and :mod:`.usdm`; everything else reads them and knows neither.  A
stream exists only where a table names it; every other name is acked and stays silent, as on the
real exchange.
"""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Literal

from attrs import evolve, field, frozen

from ...model import Interval, Kline, Trade
from ..market.books import Books, Levels
from ..market.market import Market
from .statistics import Day, Mark, Statistics

Kind = Literal[
    "agg_trade", "trade", "kline", "continuous_kline", "ticker", "mini_ticker", "top",
    "book", "book_levels", "mark_price", "liquidation",
]  # fmt: skip
Payload = dict[str, Any]
Query = Mapping[str, str]


@frozen
class Stream:
    """A stream that pushes, or in a dialect's table the form of one, without name and symbol.

    ``path`` is where it is pushed.  ``every_ms`` is the grid of its push times.  ``depth`` is of
    book levels only, ``interval`` of candles only.  ``symbol`` is empty for all-market streams.
    """

    kind: Kind
    path: str = ""
    every_ms: int = 1
    interval: Interval | None = None
    depth: int = 0
    name: str = ""
    symbol: str = ""


@frozen
class Update:
    """A book's change as a stream tells it: ids before it, of its first and of its last part."""

    symbol: str
    previous_id: int
    first_id: int
    last_id: int
    bids: Levels
    asks: Levels


@frozen
class Span:
    """A candle's bounds: its end in unix ms, exclusive, and ids of its trades so far, -1 without
    one."""

    end_ms: int
    first_id: int
    last_id: int


@frozen
class Payloads:
    """The forms of the events.  The last argument of each is the event time in unix ms."""

    agg_trade: Callable[[Trade, int], Payload]
    trade: Callable[[Trade, int], Payload]
    kline: Callable[[Stream, Kline, Span, int], Payload]
    """Of a stream, a state of its candle, that candle's bounds."""
    ticker: Callable[[Day, Levels, Levels, int], Payload]
    """Of 24 hours, best bid and best ask."""
    mini_ticker: Callable[[Day, int], Payload]
    top: Callable[[Update, int], Payload]
    """Of an update that carries one level a side."""
    book: Callable[[Update, int], Payload]
    book_levels: Callable[[Update, int], Payload]
    mark_price: Callable[[Mark, int], Payload] | None = None
    liquidation: Callable[[Trade, int], Payload] | None = None


@frozen
class WeightRule:
    """The REST budget.  ``retry_after``: refusals say in a header when to come back."""

    per_minute: int
    too_many: str
    banned: str
    """``{}`` is the unix time in ms of its end."""
    retry_after: bool


@frozen
class RestForms:
    """What REST answers are made of."""

    kline_intervals: frozenset[Interval]
    most_klines: int
    strict_limit: bool
    """A limit that is too large is refused; else it is cut."""
    trades_kept_ms: int | None
    """Aggregated trades older than this are refused; None: all are kept."""
    agg_row: Callable[[Trade], Payload]
    trade_row: Callable[[Trade], Payload]
    depths: tuple[int, ...] | None
    """The depth limits there are; None: any up to 5000."""
    depth_times: bool
    """A snapshot carries E and T, best bid and ask carry ``time``."""
    day_tops: bool
    """24 h statistics carry best bid, best ask and the close before."""
    exchange_info: Callable[[Market, Query, int], Payload]
    digits: Callable[[Decimal], str]


@frozen
class Dialect:
    """One exchange's wire dialect."""

    name: str
    paths: frozenset[str]
    """First parts of a WebSocket's path, before ``/ws`` and ``/stream``; "" is none."""
    unrouted: str
    """What a connection without a path is."""
    suffixes: Mapping[str, Stream]
    """Per-symbol streams by what follows the lower-case symbol."""
    market_wide: Mapping[str, Stream]
    """All-market streams by name."""
    payloads: Payloads
    weights: WeightRule
    rest: RestForms
    endpoints: Mapping[str, "Endpoint"]
    ping_every_s: float
    pong_within_s: float
    messages_per_s: int
    """From the client, pings and pongs included."""
    first_id_gap: int
    """From a book event's previous id to its first: 1 where ids are contiguous."""
    lifetime_s: float = 24 * 3600.0


@frozen
class MarketData:
    """What streams and REST answers are made from."""

    market: Market
    dialect: Dialect
    kline_push_ms: int = 1
    """Open candles are pushed at most this often, whatever the dialect's own grid is."""
    book_push_ms: int = 1
    """And so are changes of books."""
    books: Books = field(init=False)
    statistics: Statistics = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "books", Books(self.market))
        object.__setattr__(self, "statistics", Statistics(self.market))


Endpoint = tuple[Callable[[Query], int], Callable[[MarketData, Query, int], object]]
"""A REST path's request weight and its answer at a time in unix ms."""

_NAME = re.compile(r"([a-z0-9]+)([@_].+)")


def parse_stream(name: str, market: Market, dialect: Dialect) -> Stream | None:
    """A stream's name -> the stream, or None for one that never pushes.

    Names are lower case (but for ``continuousKline``, ``aggTrade`` and so on):
    ``BTCUSDT@kline_1m`` is not a stream, and the exchange does not say so.
    """
    if (form := dialect.market_wide.get(name)) is not None:
        return evolve(form, name=name)
    found = _NAME.fullmatch(name)
    if found is None or (symbol := found[1].upper()) not in market.listings:
        return None
    form = dialect.suffixes.get(found[2])
    return None if form is None else evolve(form, name=name, symbol=symbol)


def book_id(step: int) -> int:
    """The update id of a book's state: eight per step of 100 ms."""
    return step * 8
