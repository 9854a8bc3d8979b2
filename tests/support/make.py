"""Values for tests, short to write."""

from decimal import Decimal

from trio_feed.model import Interval, Kline, KlineMessage, Series, Source, Trade
from trio_feed.store.base import StoredEnd

MINUTE = 60_000
T0 = 1_700_000_040_000
"""A time on a minute's (and a five-minute's) boundary."""
SERIES = Series("binance_usdm", "BTCUSDT", Interval.M1)


def kline(
    open_ms: int = T0,
    close: str = "100.50",
    *,
    closed: bool = True,
    event_ms: int = 0,
    source: Source = Source.EXCHANGE,
    volume: str = "1.500",
) -> Kline:
    price = Decimal(close)
    return Kline(
        open_ms=open_ms,
        open=Decimal("100.00"),
        high=max(price, Decimal("101.00")),
        low=min(price, Decimal("99.00")),
        close=price,
        volume=Decimal(volume),
        quote_volume=Decimal("150.75"),
        trades=7,
        closed=closed,
        source=source,
        event_ms=event_ms or open_ms + (MINUTE if closed else 1),
    )


def message(
    row: Kline, series: Series = SERIES, *, epoch: int = 1, offset: int = 1, count: int = 1
) -> KlineMessage:
    return KlineMessage(series, row, epoch, offset, count, float(row.event_ms))


def stored_end(row: Kline) -> StoredEnd:
    """A stored series that ends with ``row``."""
    return StoredEnd(row, row.open_ms)


def trade(trade_id: int, time_ms: int, price: str = "100.0", quantity: str = "1.0") -> Trade:
    return Trade(
        "BTCUSDT",
        trade_id,
        trade_id,
        trade_id,
        Decimal(price),
        Decimal(quantity),
        time_ms,
        False,
        time_ms + 5,
    )
