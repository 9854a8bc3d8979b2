"""What Binance's spot and USD-M futures have in common over REST: rows, snapshots, listings.

A candle's row is final once a later row stands behind it, whatever any clock says, because the
last row of an answer that reaches the present is the running candle.
"""

from itertools import pairwise
from typing import Any

import msgspec

from ..errors import BadMessage
from ..model import BookUpdate, Instrument, Kline, Source, Trade, parse_decimal, parse_time_ms
from .binance_forms import AggRow, Wire
from .binance_wire import MALFORMED, aggregate, decode_depth, sample, snapshot


class _Listed(Wire):
    symbol: str
    status: str
    baseAsset: str
    quoteAsset: str
    filters: list[dict[str, Any]]
    contractType: str | None = None
    pair: str | None = None


class _ExchangeInfo(Wire):
    symbols: list[_Listed]


_Row = tuple[int, str, str, str, str, str, int, str, int, str, str, str]

_rows = msgspec.json.Decoder(list[_Row]).decode
_trade_rows = msgspec.json.Decoder(list[AggRow]).decode
_exchange_info = msgspec.json.Decoder(_ExchangeInfo).decode


def parse_klines(body: bytes, _instrument: Instrument) -> list[Kline]:
    """Rows ascending; all but the last are closed.  Raises BadMessage."""
    try:
        rows = _rows(body)
    except MALFORMED as error:
        raise BadMessage(f"malformed candles: {error}", sample(body)) from None
    if any(later[0] <= row[0] for row, later in pairwise(rows)):
        raise BadMessage("candles are not in ascending order", sample(body))
    last = len(rows) - 1
    return [_row_kline(row, closed=index < last) for index, row in enumerate(rows)]


def _row_kline(row: _Row, *, closed: bool) -> Kline:
    o, h, low, c, v = (parse_decimal(text) for text in row[1:6])
    opened = parse_time_ms(row[0])
    return Kline(opened, o, h, low, c, v, parse_decimal(row[7]), row[8], closed, Source.BACKFILL)


def parse_trades(body: bytes, instrument: Instrument) -> list[Trade]:
    """Aggregated trades, ascending by id.  Raises BadMessage."""
    try:
        return [aggregate(instrument, row, row.T) for row in _trade_rows(body)]
    except MALFORMED as error:
        raise BadMessage(f"malformed trades: {error}", sample(body)) from None


def parse_book(body: bytes, instrument: Instrument) -> BookUpdate:
    """A depth snapshot.  Raises BadMessage."""
    try:
        return snapshot(instrument, decode_depth(body))
    except MALFORMED as error:
        raise BadMessage(f"malformed depth: {error}", sample(body)) from None


def parse_instruments(body: bytes, venue: str) -> list[Instrument]:
    """exchangeInfo.  Raises BadMessage."""
    try:
        listed = _exchange_info(body).symbols
        return [_instrument(row, venue) for row in listed]
    except (*MALFORMED, KeyError, TypeError) as error:
        raise BadMessage(f"malformed exchangeInfo: {error}", sample(body)) from None


def _instrument(row: _Listed, venue: str) -> Instrument:
    filters = {entry.get("filterType"): entry for entry in row.filters}
    tick = filters.get("PRICE_FILTER", {}).get("tickSize", "0")
    step = filters.get("LOT_SIZE", {}).get("stepSize", "0")
    kind = "spot" if row.contractType is None else _KINDS.get(row.contractType, "future")
    return Instrument(
        venue=venue,
        symbol=row.symbol,
        native=row.symbol,
        kind=kind,
        base=row.baseAsset,
        quote=row.quoteAsset,
        tick_size=parse_decimal(tick),
        step_size=parse_decimal(step),
        trading=row.status == "TRADING",
    )


_KINDS = {"PERPETUAL": "perpetual", "TRADIFI_PERPETUAL": "tradifi_perpetual"}
