"""A candle and its row, column by column.  Prices are ``numeric``, which keeps every digit, those
behind the point that are zero as well."""

from collections.abc import Iterable, Sequence
from typing import Any

from ...model import Kline, Source, plain

TYPES = {
    "open_ms": "bigint NOT NULL",
    **dict.fromkeys(("open", "high", "low", "close", "volume", "quote_volume"), "numeric NOT NULL"),
    "trades": "bigint NOT NULL",
    "source": "text NOT NULL",
    "event_ms": "bigint NOT NULL",
    "complete": "boolean NOT NULL",
    "last_stream_id": "bigint NOT NULL",
    "taker_buy_volume": "numeric",
    "taker_buy_quote_volume": "numeric",
    "first_trade_id": "bigint",
    "last_trade_id": "bigint",
}
"""Columns of a candle, in the order of :func:`to_row` and :func:`from_row`."""
NAMES = tuple(TYPES)
COLUMNS = ", ".join(NAMES)
BEFORE_NAMES = tuple(f"before_{name}" for name in NAMES[1:])
"""Columns of a revision that hold the values before."""
_LONGEST = 16_000
"""Digits of a ``numeric``: 16,383 behind the point."""


def columns_of(table: str) -> str:
    """The columns with the name of their table before each."""
    return ", ".join(f"{table}.{name}" for name in NAMES)


def casts(types: Iterable[str]) -> str:
    """``%s::bigint[], ...``: placeholders of an ``unnest``, a list per column."""
    return ", ".join(f"%s::{kind.split()[0]}[]" for kind in types)


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
        k.complete,
        k.last_stream_id,
        None if taker is None else plain(taker),
        None if taker_quote is None else plain(taker_quote),
        k.first_trade_id,
        k.last_trade_id,
    )


def why_no_row(row: Sequence[Any]) -> str:
    """What ``numeric`` cannot hold of a row; empty: nothing."""
    if any(len(row[at]) > _LONGEST for at in _DECIMALS if row[at] is not None):
        return "a number of more digits than PostgreSQL holds"
    return ""


_DECIMALS = tuple(at for at, name in enumerate(NAMES) if TYPES[name].startswith("numeric"))


def from_row(row: Sequence[Any]) -> Kline:
    """The first columns of ``row`` -> a closed candle."""
    return Kline(
        open_ms=row[0],
        open=row[1],
        high=row[2],
        low=row[3],
        close=row[4],
        volume=row[5],
        quote_volume=row[6],
        trades=row[7],
        closed=True,
        source=Source(row[8]),
        event_ms=row[9],
        complete=row[10],
        last_stream_id=row[11],
        first_trade_id=row[14],
        last_trade_id=row[15],
        taker_buy_volume=row[12],
        taker_buy_quote_volume=row[13],
    )
