"""Binance spot: streams, REST questions, limits, as of 2026-11.

Source: github binance/binance-spot-api-docs (2026-07-21).  The server pings every 20 s and wants
the pong within a minute; candles are pushed every 2 s (``1s``: every second).
"""

from collections.abc import Sequence

from ...core.streams import BookRule, Kind, Stream, TradeIds
from ...model import Instrument, Interval
from ...rest_dialects import RestDialect
from ..base import Heartbeat, Plan, RestQuestion
from ..names import joined
from ..rows import Rows
from . import connections, messages, rest
from .dialect import BinanceDialect

NAME = "binance"
WEBSOCKET_URL = "wss://stream.binance.com:443"
REST_URL = "https://api.binance.com"
INTERVALS = frozenset(Interval) - {Interval.S30}
BOOK_RULE: BookRule | None = BookRule(dense=True)
"""Source: "How to manage a local order book correctly" (2025-11-12).  Wider than that page: the
first update after a snapshot mostly begins at ``lastUpdateId + 1`` (9 of 10 recordings)."""
DIALECT: RestDialect = BinanceDialect()
BOOK_SNAPSHOT_LEVELS: int | None = 1000
HIGH_RATES = True
HEARTBEAT: Heartbeat | None = None
LISTED = True
BURST_S = 60.0
DIALS = (300, 305.0)
"""300 per 5 minutes; some seconds more for those that are long on the way."""
FRAMES = (5, 1.25)
"""5 in a second; a quarter more for those that are longer on the way than the next."""
OPERATIONS: tuple[int, float] | None = None
SHARES = NAME
TRADE_KIND = Kind.AGG_TRADE
TRADE_IDS: TradeIds = "dense"
PAGE = 1000
BEGAN_MS = 1_498_867_200_000
"""2017-07-01: the month of the first candles (2017-07-14)."""

_STREAMS = {
    Kind.KLINE: "{pair}@kline_{interval}",
    Kind.AGG_TRADE: "{pair}@aggTrade",
    Kind.TRADE: "{pair}@trade",
    Kind.TICKER: "{pair}@ticker",
    Kind.MINI_TICKER: "{pair}@miniTicker",
    Kind.TOP: "{pair}@bookTicker",
    Kind.BOOK: "{pair}@depth@100ms",
    Kind.BOOK_LEVELS: "{pair}@depth20@100ms",
}
KINDS = frozenset(_STREAMS)
_TRADE_PAGE = 1000

parse_klines = rest.parse_klines
parse_trades = rest.parse_trades
parse_book = rest.parse_book
parse = messages.parse


own_form = joined


def stream(kind: Kind, instrument: Instrument, interval: Interval | None = None) -> Stream:
    """Raises ValueError for a kind that is not in the table."""
    if kind not in _STREAMS:
        raise ValueError(f"{NAME} has no {kind} streams")
    name = _STREAMS[kind].format(pair=instrument.native.lower(), interval=interval)
    return Stream("", name, instrument.symbol, kind, interval)


def plan(base_url: str, streams: Sequence[Stream], limit: int) -> list[Plan]:
    """Streams -> connections."""
    return connections.plan(base_url, "", streams, limit)


def instruments_questions() -> list[RestQuestion]:
    return [RestQuestion("/api/v3/exchangeInfo", {"permissions": "SPOT"}, 20)]


def parse_instruments(body: bytes) -> Rows[Instrument]:
    """All spot pairs."""
    return rest.parse_instruments(body, NAME)


def klines_question(
    instrument: Instrument, interval: Interval, start_ms: int, bars: int, now_ms: float
) -> RestQuestion:
    """``bars`` candles from ``start_ms`` on and one more, oldest first; the weight is always 2."""
    params: dict[str, str | int] = {
        "symbol": instrument.native,
        "interval": interval.value,
        "startTime": max(start_ms, BEGAN_MS),
        "limit": min(PAGE, max(bars, 1) + 1),
    }
    return RestQuestion("/api/v3/klines", params, 2)


def trades_question(instrument: Instrument, from_id: int) -> RestQuestion | None:
    """Aggregated trades from ``from_id`` on, oldest first."""
    params: dict[str, str | int] = {
        "symbol": instrument.native,
        "fromId": from_id,
        "limit": _TRADE_PAGE,
    }
    return RestQuestion("/api/v3/aggTrades", params, 4)


def latest_question(instrument: Instrument, interval: Interval | None) -> RestQuestion | None:
    """The newest candle or aggregated trade."""
    params: dict[str, str | int] = {"symbol": instrument.native, "limit": 1}
    if interval is None:
        return RestQuestion("/api/v3/aggTrades", params, 4)
    return RestQuestion("/api/v3/klines", params | {"interval": interval.value}, 2)


def book_question(instrument: Instrument) -> RestQuestion | None:
    params: dict[str, str | int] = {"symbol": instrument.native, "limit": BOOK_SNAPSHOT_LEVELS or 0}
    return RestQuestion("/api/v3/depth", params, 50)
