"""Candles: their intervals, their series, where they came from."""

from decimal import Decimal
from enum import StrEnum

from attrs import frozen

from .quick import quick


class Interval(StrEnum):
    """A candle's length.  The value is the common notation (``1m``), ``alias`` is ``m1``."""

    S1 = "1s"
    S30 = "30s"
    M1 = "1m"
    M3 = "3m"
    M5 = "5m"
    M15 = "15m"
    M30 = "30m"
    H1 = "1h"
    H2 = "2h"
    H4 = "4h"
    H6 = "6h"
    H8 = "8h"
    H12 = "12h"
    D1 = "1d"
    D3 = "3d"
    W1 = "1w"
    MO1 = "1M"

    @property
    def alias(self) -> str:
        return self.value[-1] + self.value[:-1]

    @classmethod
    def parse(cls, text: str) -> "Interval":
        """Either notation -> Interval.  Raises ValueError."""
        found = _BY_NOTATION.get(text)
        if found is None:
            raise ValueError(f"{text!r} is not one of {' '.join(i.value for i in cls)}")
        return found


_BY_NOTATION = {i.value: i for i in Interval} | {i.alias: i for i in Interval}


class Source(StrEnum):
    """Where a candle came from; on every message that carries one."""

    EXCHANGE = "exchange"
    TRADES = "trades"
    ROLLUP = "rollup"
    BACKFILL = "backfill"
    SIMULATED = "simulated"


@frozen(order=True, cache_hash=True)
class Series:
    """One line of candles: venue, unified symbol (``BTCUSDT``), interval.  Hashable key."""

    venue: str
    symbol: str
    interval: Interval

    def __str__(self) -> str:
        return f"{self.venue}:{self.symbol}:{self.interval}"


@quick
@frozen(weakref_slot=False)
class Kline:
    """One candle, open or closed.

    ``open_ms`` is the start of its interval; volumes are in base and quote currency; ``trades``
    counts them.  ``event_ms`` is the exchange's time of this state (0: it gave none).
    ``complete`` is False where some of its trades are known to be missing.

    ``first_trade_id`` and ``last_trade_id`` are the exchange's trade ids,
    ``taker_buy_volume`` (base) and ``taker_buy_quote_volume`` (quote) what takers bought; None
    where the source does not say.  ``last_stream_id`` is the id, in the trade stream that the
    candle was built from, of the last trade before its end (an aggregate's, where the stream has
    aggregates); 0 unless it was built here.
    """

    open_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    trades: int
    closed: bool
    source: Source
    event_ms: int = 0
    complete: bool = True
    last_stream_id: int = 0
    first_trade_id: int | None = None
    last_trade_id: int | None = None
    taker_buy_volume: Decimal | None = None
    taker_buy_quote_volume: Decimal | None = None

    def same_values(self, other: "Kline") -> bool:
        """Equal in everything the market said (not in source or event time); a number of trades
        counts only where both sides have one (OKX does not count)."""
        return (
            self.open_ms == other.open_ms
            and self.open == other.open
            and self.high == other.high
            and self.low == other.low
            and self.close == other.close
            and self.volume == other.volume
            and (self.trades == other.trades or not self.trades or not other.trades)
        )


@frozen
class Hole:
    """Candles [first_ms, last_ms] (open times) that the exchange itself does not have."""

    first_ms: int
    last_ms: int
