"""What the core wants done, as values in order; the driver performs them and nothing calls back.

Nothing here carries a number: only the bus gives epoch and offset.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from ..model import (
    ChannelKey,
    Hole,
    Interval,
    Kline,
    Series,
    Source,
    StatusMessage,
    Trade,
)
from ..model.quick import quick
from .channels import ChannelData
from .questions import Need
from .streams import Stream


@quick
@frozen(weakref_slot=False)
class CandleNews:
    """A candle state that subscribers get.

    ``update_count`` counts the updates of this candle.  ``kline.closed`` is True exactly once per
    candle, and in each ``revision``.  ``provisional``: something before it is still missing; only
    subscribers that asked for provisional updates get it, it has no number and is in no history.
    ``after_ms`` is the open time of the closed candle before it, None where none is known.
    ``received_ms`` is our calendar (unix ms) when the bytes came in.
    """

    series: Series
    kline: Kline
    update_count: int
    received_ms: float
    revision: bool = False
    provisional: bool = False
    after_ms: int | None = None


@frozen
class TradeNews:
    """Trades of one symbol that came at once, in order; each is a message of its own."""

    key: ChannelKey
    trades: Sequence[Trade]
    source: Source
    received_ms: float


@frozen
class ChannelNews:
    """News of another line (tickers, books, prices)."""

    key: ChannelKey
    data: ChannelData
    source: Source
    received_ms: float


News = CandleNews | TradeNews | ChannelNews | StatusMessage
"""What is published.  A closed candle that is published is stored with the number it was given."""


@frozen
class StoreHole:
    """Keep that the exchange itself has no candles there."""

    series: Series
    hole: Hole


@frozen
class Report:
    """A line of the log, and what it counts.  ``level``: debug, info, warning or error.

    ``metric`` names a counter of :class:`trio_feed.metrics.Metrics`, ``labels`` are its labels
    after the venue, ``amount`` is added to it; ``event`` empty: nothing is logged.
    """

    event: str
    level: str = "info"
    fields: Mapping[str, Any] = {}
    metric: str = ""
    labels: tuple[str, ...] = ()
    amount: float = 1.0


@frozen
class StoreRows:
    """Keep closed candles that are older than the line: they are history and are not published."""

    series: Series
    rows: tuple[Kline, ...]


@frozen
class Fetch:
    """Ask the exchange, as soon as the budget allows; smaller needs first, and of one need what was
    wanted first."""

    need: Need
    symbol: str
    interval: Interval | None = None

    def __str__(self) -> str:
        interval = f" {self.interval}" if self.interval else ""
        return f"{self.symbol}{interval} {self.need.name.lower()}"


@frozen
class Load:
    """Read the stored minutes that open in [start_ms, end_ms), for a candle that is made of
    them."""

    symbol: str
    interval: Interval
    start_ms: int
    end_ms: int


@frozen
class Resubscribe:
    """Replace the connection that carries this stream, make before break."""

    stream: Stream
    reason: str


Effect = News | StoreHole | StoreRows | Report | Fetch | Load | Resubscribe
