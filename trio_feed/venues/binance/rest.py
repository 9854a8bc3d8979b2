"""What Binance's spot and USD-M futures have in common over REST: rows, snapshots, listings.

A candle's row is final once a later row stands behind it, whatever any clock says, because the
last row of an answer that reaches the present is the running candle.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import attrs
import msgspec

from ...errors import BadMessage
from ...model import (
    BookUpdate,
    Bounds,
    Instrument,
    Kline,
    OpenInterest,
    Source,
    Trade,
    parse_decimal,
    parse_time_ms,
)
from ...rest_dialects import MALFORMED
from ..rows import Rows, read_rows
from .events import CONTRACTS, aggregate, decode_depth, snapshot
from .forms import AggRow, Count, Form, Whole
from .messages import sample


class _Listed(Form):
    symbol: str
    status: str
    baseAsset: str
    quoteAsset: str
    filters: list[dict[str, Any]]
    contractType: str | None = None
    contractSize: Any = None


class _ExchangeInfo(Form):
    symbols: msgspec.Raw


class _Row(msgspec.Struct, array_like=True):
    """Further columns are welcome."""

    open_ms: Whole
    open: str
    high: str
    low: str
    close: str
    volume: str
    close_ms: Whole
    quote_volume: str
    trades: Count
    taker_buy_volume: str
    taker_buy_quote_volume: str
    unused: Any


class _OpenInterest(Form):
    openInterest: str
    time: Whole


_open_interest = msgspec.json.Decoder(_OpenInterest).decode
_rows = msgspec.json.Decoder(list[_Row]).decode
_row = msgspec.json.Decoder(_Row).decode
_trade_rows = msgspec.json.Decoder(list[AggRow]).decode
_trade_row = msgspec.json.Decoder(AggRow).decode
_listed_rows = msgspec.json.Decoder(list[_Listed]).decode
_listed_row = msgspec.json.Decoder(_Listed).decode
_exchange_info = msgspec.json.Decoder(_ExchangeInfo).decode


def parse_klines(body: bytes, _instrument: Instrument) -> Rows[Kline]:
    """Rows ascending; all but the last that can be read are closed.  Raises BadMessage."""
    rows = read_rows(body, _rows, _row, _kline, key=lambda kline: kline.open_ms)
    if rows.good:
        rows.good[-1] = attrs.evolve(rows.good[-1], closed=False)
    return rows


def _kline(row: _Row) -> Kline:
    return Kline(
        open_ms=parse_time_ms(row.open_ms),
        open=parse_decimal(row.open),
        high=parse_decimal(row.high),
        low=parse_decimal(row.low),
        close=parse_decimal(row.close),
        volume=parse_decimal(row.volume),
        quote_volume=parse_decimal(row.quote_volume),
        trades=row.trades,
        closed=True,
        source=Source.BACKFILL,
        taker_buy_volume=parse_decimal(row.taker_buy_volume),
        taker_buy_quote_volume=parse_decimal(row.taker_buy_quote_volume),
    )


def parse_trades(body: bytes, instrument: Instrument) -> Rows[Trade]:
    """Aggregated trades, ascending by id.  Raises BadMessage."""

    def make(row: AggRow) -> Trade:
        return aggregate(instrument, row, row.T)

    return read_rows(body, _trade_rows, _trade_row, make, key=lambda trade: trade.trade_id)


def parse_book(body: bytes, instrument: Instrument) -> BookUpdate:
    """A depth snapshot.  Raises BadMessage."""
    try:
        return snapshot(instrument, decode_depth(body))
    except MALFORMED as error:
        raise BadMessage(f"malformed depth: {error}", sample(body)) from None


def parse_instruments(body: bytes, venue: str) -> Rows[Instrument]:
    """exchangeInfo.  Raises BadMessage."""
    try:
        listed = _exchange_info(body).symbols
    except MALFORMED as error:
        raise BadMessage(f"malformed exchangeInfo: {error}", sample(body)) from None
    return read_rows(listed, _listed_rows, _listed_row, lambda row: _instrument(row, venue))


def _instrument(row: _Listed, venue: str) -> Instrument:
    filters = {str(entry.get("filterType")): entry for entry in row.filters}
    kind = "spot"
    if row.contractType is not None:
        kind = CONTRACTS.get(row.contractType, "future")
    if not row.symbol:
        raise BadMessage("an instrument without a name")
    return Instrument(
        venue=venue,
        symbol=row.symbol,
        native=row.symbol,
        kind=kind,
        base=row.baseAsset,
        quote=row.quoteAsset,
        tick_size=parse_decimal(filters.get("PRICE_FILTER", {}).get("tickSize", "0")),
        step_size=parse_decimal(filters.get("LOT_SIZE", {}).get("stepSize", "0")),
        trading=row.status == "TRADING",
        unavailable="" if row.contractSize is None else _COIN_M,
        bounds=_bounds(filters),
    )


def _bounds(filters: Mapping[str, dict[str, Any]]) -> Bounds:
    """The names of filters are those of both markets ("Filters" of spot, 2026-07-21)."""
    price, lot = filters.get("PRICE_FILTER", {}), filters.get("LOT_SIZE", {})
    market = filters.get("MARKET_LOT_SIZE", {})
    worth = filters.get("NOTIONAL", filters.get("MIN_NOTIONAL", {}))
    return Bounds(
        min_price=_bound(price, "minPrice"),
        max_price=_bound(price, "maxPrice"),
        min_size=_bound(lot, "minQty"),
        max_size=_bound(lot, "maxQty"),
        market_min=_bound(market, "minQty"),
        market_max=_bound(market, "maxQty"),
        min_worth=_bound(worth, "minNotional" if "minNotional" in worth else "notional"),
    )


def _bound(entry: dict[str, Any], name: str) -> Decimal:
    """One that cannot be read does not spoil the instrument."""
    try:
        return parse_decimal(entry.get(name, "0"))
    except (TypeError, *MALFORMED, BadMessage):
        return Decimal(0)


_COIN_M = "a COIN-M contract: its volumes are contracts, not base currency"


def parse_open_interest(body: bytes, instrument: Instrument) -> OpenInterest:
    """Of one contract.  Raises BadMessage."""
    try:
        found = _open_interest(body)
        amount, time_ms = parse_decimal(found.openInterest), parse_time_ms(found.time)
    except MALFORMED as error:
        raise BadMessage(f"malformed answer: {error}", sample(body)) from None
    return OpenInterest(instrument.symbol, amount, None, time_ms)
