"""OKX's rows and frames, pure: the market's values in the documented forms.

Numbers are strings, sequence ids are not.  Forms: www.okx.com/docs-v5 "Tickers channel"
(2026-07-09), "Trades channel" (2026-07-22), "All trades channel" (2026-08-09), "Candlesticks
channel", "Order book channel" (2026-07-07); exchanges.md 5.4.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import msgspec
from attrs import evolve, frozen

from ...model import Interval, Kline, Trade
from ..market.books import Level, Levels
from ..market.market import Market
from .bars import Candles
from .listing import OkxInstrument, digits

_HOUR = 3_600_000
_DAY = 24 * _HOUR
WINDOW_MS = 100
"""Trades of one taker order, here: one side, one price, within such a stretch of time."""


@frozen
class Channel:
    """A subscription: ``candle1m`` of ``BTC-USDT``."""

    name: str
    inst_id: str


def push(channel: Channel, rows: Sequence[object], action: str | None = None) -> bytes:
    """A data message; ``action`` is snapshot or update, for ``books`` only."""
    message: dict[str, object] = {"arg": {"channel": channel.name, "instId": channel.inst_id}}
    if action is not None:
        message["action"] = action
    return msgspec.json.encode(message | {"data": rows})


def window_of(time_ms: int) -> int:
    """The end of the stretch (end - WINDOW_MS, end] that holds ``time_ms``."""
    return -(-time_ms // WINDOW_MS) * WINDOW_MS


def aggregates(trades: Iterable[Trade]) -> list[Trade]:
    """Trades -> those of one taker order, price and window as one: ``trade_id`` is the last id."""
    groups = groupby(trades, lambda t: (window_of(t.time_ms), t.buyer_is_maker, t.price))
    return [_joined([*group]) for _, group in groups]


def _joined(group: Sequence[Trade]) -> Trade:
    quantity = sum((trade.quantity for trade in group[1:]), group[0].quantity)
    return evolve(group[-1], first_id=group[0].first_id, quantity=quantity)


def single_row(instrument: OkxInstrument, trade: Trade) -> dict[str, Any]:
    """One match: ``trades-all`` and REST.  ``source`` 0 is an ordinary order."""
    return {
        "instId": instrument.inst_id, "tradeId": str(trade.trade_id), "px": digits(trade.price),
        "sz": instrument.size(trade.quantity), "side": "sell" if trade.buyer_is_maker else "buy",
        "source": "0", "ts": str(trade.time_ms),
    }  # fmt: skip


def aggregate_row(instrument: OkxInstrument, trade: Trade, seq_id: int) -> dict[str, Any]:
    """``trades``: ``tradeId`` is the last of ``count`` consecutive ids."""
    row = single_row(instrument, trade)
    count = trade.last_id - trade.first_id + 1
    return row | {"count": str(count), "source": row.pop("source"), "seqId": seq_id}


def candle_row(instrument: OkxInstrument, kline: Kline) -> list[str]:
    """``[ts,o,h,l,c,vol,volCcy,volCcyQuote,confirm]``."""
    prices = (kline.open, kline.high, kline.low, kline.close)
    return [
        str(kline.open_ms), *map(digits, prices), *instrument.volumes(kline),
        digits(kline.quote_volume), "1" if kline.closed else "0",
    ]  # fmt: skip


def level_row(instrument: OkxInstrument, level: Level) -> list[str]:
    """``[price, quantity, "0", orders]``; a removed level has no orders."""
    price, quantity = level
    orders = 1 + int(price.scaleb(4)) % 13 if quantity else 0
    return [digits(price), instrument.size(quantity), "0", str(orders)]


def book_row(instrument: OkxInstrument, bids: Levels, asks: Levels, ts: int) -> dict[str, Any]:
    """What all book channels have in common."""
    return {
        "asks": [level_row(instrument, level) for level in asks],
        "bids": [level_row(instrument, level) for level in bids],
        "ts": str(ts),
    }


_FIGURES = (
    "last", "lastSz", "askPx", "askSz", "bidPx", "bidSz", "open24h", "high24h", "low24h",
    "sodUtc0", "sodUtc8", "volCcy24h", "vol24h",
)  # fmt: skip


def ticker_row(
    instrument: OkxInstrument,
    candles: Candles,
    best: Levels,
    now_ms: int,
) -> dict[str, Any]:
    """24 h statistics; ``best`` are bid and ask, ``sodUtc8`` is the price at 16:00 UTC.  Before
    the first trade every figure is an empty text."""
    market, symbol = candles.market, instrument.symbol
    last = last_trade(market, symbol, now_ms)
    if last is None:
        names = {"instType": instrument.inst_type, "instId": instrument.inst_id}
        return names | dict.fromkeys(_FIGURES, "") | {"ts": str(now_ms)}
    day = candles.last_day(symbol, now_ms)
    volume, volume_ccy = instrument.volumes(day)
    (bid, bid_size), (ask, ask_size) = best
    midnight = now_ms - now_ms % _DAY
    midnight8 = now_ms - (now_ms + 8 * _HOUR) % _DAY
    return {
        "instType": instrument.inst_type, "instId": instrument.inst_id,
        "last": digits(last.price), "lastSz": instrument.size(last.quantity),
        "askPx": digits(ask), "askSz": instrument.size(ask_size),
        "bidPx": digits(bid), "bidSz": instrument.size(bid_size),
        "open24h": digits(day.open), "high24h": digits(day.high), "low24h": digits(day.low),
        "sodUtc0": _opening(market, symbol, midnight),
        "sodUtc8": _opening(market, symbol, midnight8),
        "volCcy24h": volume_ccy, "vol24h": volume, "ts": str(now_ms),
    }  # fmt: skip


def last_trade(market: Market, symbol: str, now_ms: int) -> Trade | None:
    """The newest trade at ``now_ms``; None before the first."""
    newest = market.first_id(symbol, now_ms + 1) - 1
    trade = next(market.trades_from(symbol, newest, 1))
    return trade if trade.time_ms <= now_ms else None


def _opening(market: Market, symbol: str, midnight_ms: int) -> str:
    """The price at midnight; of a listing since then that of its first trade."""
    if midnight_ms < market.listed_of(symbol):
        return digits(next(market.trades_from(symbol, 0, 1)).price)
    return digits(market.candle(symbol, Interval.M1, midnight_ms).open)
