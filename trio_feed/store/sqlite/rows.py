"""A candle and its row, column by column.  Prices are TEXT: the exchange's own digits."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from ...model import Kline, Source, plain
from ...model.quick import maker

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
_SOURCES = {source.value: source for source in Source}
_make = maker(Kline)
BEFORE_NAMES = tuple(f"before_{name}" for name in NAMES[1:])
"""Columns of a revision that hold the values before."""


def columns_of(table: str) -> str:
    """The columns with the name of their table before each."""
    return ", ".join(f"{table}.{name}" for name in NAMES)


def to_row(k: Kline) -> tuple[Any, ...]:
    taker, taker_quote = k.taker_buy_volume, k.taker_buy_quote_volume
    if taker is None or taker_quote is None:
        texts = _texts(k.open, k.high, k.low, k.close, k.volume, k.quote_volume)
        takers = [None if each is None else plain(each) for each in (taker, taker_quote)]
    else:
        texts = _texts(k.open, k.high, k.low, k.close, k.volume, k.quote_volume, taker, taker_quote)
        takers = [texts.pop(6), texts.pop()]
    return (
        k.open_ms,
        *texts,
        k.trades,
        k.source.value,
        k.event_ms,
        int(k.complete),
        k.last_stream_id,
        *takers,
        k.first_trade_id,
        k.last_trade_id,
    )


def _texts(*values: Decimal) -> list[Any]:
    """:func:`plain` of each; looked at together, for hardly any has an exponent."""
    texts = list(map(str, values))
    return list(map(plain, values)) if "E" in "".join(texts) else texts


def from_row(row: tuple[Any, ...]) -> Kline:
    """The first columns of ``row`` -> a closed candle."""
    return from_rows((row[: len(NAMES)],))[0]


def from_rows(rows: Iterable[tuple[Any, ...]]) -> list[Kline]:
    """Rows of exactly these columns -> closed candles.  A thousand at once are asked for: so the
    arguments go by position and each column by its own name."""
    sources, make = _SOURCES, _make
    return [
        make(
            open_ms,
            Decimal(o),
            Decimal(high),
            Decimal(low),
            Decimal(close),
            Decimal(volume),
            Decimal(quote),
            trades,
            True,  # closed
            sources[source],
            event_ms,
            complete != 0,
            stream_id,
            first_id,
            last_id,
            None if taker is None else Decimal(taker),
            None if taker_quote is None else Decimal(taker_quote),
        )
        for (
            open_ms, o, high, low, close, volume, quote, trades, source, event_ms, complete,
            stream_id, taker, taker_quote, first_id, last_id,
        ) in rows
    ]  # fmt: skip
