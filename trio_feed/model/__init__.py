"""The words of the domain: frozen values, no I/O, no clock, nothing of any exchange.

Times are unix milliseconds (``_ms``).  Money is :class:`decimal.Decimal` made from the exchange's
own digits, so ``"85000.10"`` is sent as ``85000.10``.
"""

from .candles import Hole, Interval, Kline, Series, Source
from .market import (
    MOST_AGGREGATED,
    BookTop,
    BookUpdate,
    Bounds,
    Instrument,
    Level,
    Liquidation,
    MarkPrice,
    OpenInterest,
    Price,
    Ticker,
    TickerDetails,
    Trade,
)
from .messages import (
    BookView,
    Channel,
    ChannelKey,
    ChannelMessage,
    KlineMessage,
    Message,
    StatusMessage,
    StreamKey,
    StreamState,
)
from .numbers import (
    EXACT,
    INT_MAX,
    parse_decimal,
    parse_price,
    parse_quantity,
    parse_time_ms,
    plain,
)
from .private import Delivery, PrivateMessage, Settlement

__all__ = [
    "BookTop",
    "Bounds",
    "BookUpdate",
    "BookView",
    "Channel",
    "Delivery",
    "EXACT",
    "MOST_AGGREGATED",
    "Hole",
    "INT_MAX",
    "Instrument",
    "Interval",
    "Kline",
    "KlineMessage",
    "Level",
    "ChannelKey",
    "ChannelMessage",
    "Liquidation",
    "MarkPrice",
    "OpenInterest",
    "Message",
    "Price",
    "PrivateMessage",
    "Series",
    "Settlement",
    "Source",
    "StatusMessage",
    "StreamState",
    "StreamKey",
    "Ticker",
    "TickerDetails",
    "Trade",
    "parse_decimal",
    "parse_price",
    "parse_quantity",
    "parse_time_ms",
    "plain",
]
