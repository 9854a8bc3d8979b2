"""A candle and its row, column by column.  Prices are ``numeric``, which keeps every digit, those
behind the point that are zero as well."""

from collections.abc import Iterable, Sequence
from typing import Any

from ...model import Kline, Source, plain
from ...model.quick import maker

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
    texts = list(map(str, (k.open, k.high, k.low, k.close, k.volume, k.quote_volume)))
    if "E" in "".join(texts):  # looked at together, for hardly any has an exponent
        texts = list(map(plain, (k.open, k.high, k.low, k.close, k.volume, k.quote_volume)))
    return (
        k.open_ms,
        *texts,
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
    """The first columns of ``row`` -> a closed candle.  A thousand at once are asked for, so the
    arguments go by position."""
    return _make(
        row[0],
        row[1],
        row[2],
        row[3],
        row[4],
        row[5],
        row[6],
        row[7],
        True,  # closed
        _SOURCES[row[8]],
        row[9],
        row[10],
        row[11],
        row[14],
        row[15],
        row[12],
        row[13],
    )


_SOURCES = {source.value: source for source in Source}
_make = maker(Kline)
