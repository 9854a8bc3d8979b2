"""A candle and its row, column by column.  Prices are TEXT: the exchange's own digits."""

from decimal import Decimal
from typing import Any

from ...model import Kline, Source, plain

NAMES = (
    "open_ms",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote_volume",
    "trades",
    "source",
    "event_ms",
    "complete",
    "last_stream_id",
    "taker_buy_volume",
    "taker_buy_quote_volume",
    "first_trade_id",
    "last_trade_id",
)
"""Columns of a candle, in the order of :func:`to_row` and :func:`from_row`."""
COLUMNS = ", ".join(NAMES)
BEFORE_NAMES = tuple(f"before_{name}" for name in NAMES[1:])
"""Columns of a revision that hold the values before."""


def columns_of(table: str) -> str:
    """The columns with the name of their table before each."""
    return ", ".join(f"{table}.{name}" for name in NAMES)


def to_row(k: Kline) -> tuple[Any, ...]:
    taker, taker_quote = k.taker_buy_volume, k.taker_buy_quote_volume
    return (
        k.open_ms,
        plain(k.open),
        plain(k.high),
        plain(k.low),
        plain(k.close),
        plain(k.volume),
        plain(k.quote_volume),
        k.trades,
        k.source.value,
        k.event_ms,
        int(k.complete),
        k.last_stream_id,
        None if taker is None else plain(taker),
        None if taker_quote is None else plain(taker_quote),
        k.first_trade_id,
        k.last_trade_id,
    )


def from_row(row: tuple[Any, ...]) -> Kline:
    """The first columns of ``row`` -> a closed candle."""
    o, h, low, c, volume, quote = map(Decimal, row[1:7])
    taker, taker_quote = row[12], row[13]
    return Kline(
        open_ms=row[0],
        open=o,
        high=h,
        low=low,
        close=c,
        volume=volume,
        quote_volume=quote,
        trades=row[7],
        closed=True,
        source=Source(row[8]),
        event_ms=row[9],
        complete=bool(row[10]),
        last_stream_id=row[11],
        first_trade_id=row[14],
        last_trade_id=row[15],
        taker_buy_volume=None if taker is None else Decimal(taker),
        taker_buy_quote_volume=None if taker_quote is None else Decimal(taker_quote),
    )
