"""OKX's rows and messages, written from our values.  Pure.

Sources: www.okx.com/docs-v5 "Tickers channel" (2026-07-09), "Trades channel" (2026-07-22), "All
trades channel" (2026-08-09), "Candlesticks channel", "Order book channel" (2026-07-07), "Mark price
channel", "Funding rate channel", "Open interest channel" (2026-07).  All numbers are strings but
sequence ids; an empty string says nothing.  The order of fields is the pages'.

What our values do not have is left out, never guessed; see docs/dialects.md for the list.
"""

from collections.abc import Iterable
from decimal import Decimal

from ...model import (
    BookTop,
    Instrument,
    Kline,
    Level,
    MarkPrice,
    OpenInterest,
    Ticker,
    Trade,
    plain,
)
from ...push.protocol import quote
from .units import contracts, inst_type, is_inverse, trade_size, volumes


def push(channel: str, inst_id: str, row: str, action: str = "") -> str:
    """A message of a channel; ``action``: snapshot or update, of ``books`` only."""
    does = f'"action":"{action}",' if action else ""
    arg = f'{{"channel":{quote(channel)},"instId":{quote(inst_id)}}}'
    return f'{{"arg":{arg},{does}"data":[{row}]}}'


def answer(rows: Iterable[str]) -> str:
    """Of REST."""
    return f'{{"code":"0","msg":"","data":[{",".join(rows)}]}}'


def candle(instrument: Instrument, k: Kline) -> str:
    """``[ts,o,h,l,c,vol,volCcy,volCcyQuote,confirm]``."""
    volume, volume_ccy = volumes(instrument, k)
    return (
        f'["{k.open_ms}","{plain(k.open)}","{plain(k.high)}","{plain(k.low)}","{plain(k.close)}",'
        f'"{volume}","{volume_ccy}","{plain(k.quote_volume)}","{k.closed:d}"]'
    )


def trade(instrument: Instrument, t: Trade, *, counted: bool) -> str:
    """``counted``: with the number of trades inside, as ``trades`` has it."""
    count = f',"count":"{t.last_id - t.first_id + 1}"' if counted else ""
    return (
        f'{{"instId":{quote(instrument.native)},"tradeId":"{t.last_id}","px":"{plain(t.price)}",'
        f'"sz":"{trade_size(instrument, t)}","side":"{"sell" if t.buyer_is_maker else "buy"}",'
        f'"ts":"{t.time_ms}"{count}}}'
    )


def ticker(instrument: Instrument, t: Ticker, sent_ms: int) -> str:
    """24 h statistics; what is unknown is an empty string."""
    opens, volume, volume_ccy = t.opens, t.volume, t.quote_volume
    if instrument.kind != "spot":
        volume, volume_ccy = (t.quote_volume if is_inverse(instrument) else t.volume), t.volume
    last_size = None if opens is None else opens.last_size
    figures = (
        ("last", plain(t.last)),
        ("lastSz", _size(instrument, last_size)),
        ("askPx", _number(t.ask)),
        ("askSz", _size(instrument, t.ask_size)),
        ("bidPx", _number(t.bid)),
        ("bidSz", _size(instrument, t.bid_size)),
        ("open24h", _number(t.open)),
        ("high24h", _number(t.high)),
        ("low24h", _number(t.low)),
        ("sodUtc0", _number(None if opens is None else opens.utc)),
        ("sodUtc8", _number(None if opens is None else opens.utc8)),
        ("volCcy24h", _number(volume_ccy)),
        ("vol24h", _size(instrument, volume)),
        ("ts", str(t.event_ms or sent_ms)),
    )
    return _names(instrument) + "".join(f',"{name}":"{text}"' for name, text in figures) + "}"


def sides(instrument: Instrument, bids: Iterable[Level], asks: Iterable[Level]) -> str:
    """What all books have, without its braces."""
    return f'"asks":{_levels(instrument, asks)},"bids":{_levels(instrument, bids)}'


def _levels(instrument: Instrument, found: Iterable[Level]) -> str:
    """``[price, size, "0", orders]``: the third is out of use, and how many orders there are is
    not kept here: 0."""
    rows = (f'["{plain(p)}","{contracts(instrument, q)}","0","0"]' for p, q in found)
    return "[" + ",".join(rows) + "]"


def top_sides(instrument: Instrument, t: BookTop) -> str:
    """The same of the best bid and ask; a side that is empty has no level."""
    bids = () if t.bid is None or t.bid_size is None else ((t.bid, t.bid_size),)
    asks = () if t.ask is None or t.ask_size is None else ((t.ask, t.ask_size),)
    return sides(instrument, bids, asks)


def mark_price(instrument: Instrument, m: MarkPrice, sent_ms: int) -> str:
    return f'{_names(instrument)},"markPx":"{plain(m.mark)}","ts":"{m.event_ms or sent_ms}"}}'


def funding_rate(instrument: Instrument, m: MarkPrice, sent_ms: int) -> str:
    """``fundingTime`` is the coming one; ``nextFundingRate`` is empty since OKX says one rate."""
    f = m.funding
    figures = [
        ("fundingRate", _number(m.funding_rate)),
        ("fundingTime", _time(m.next_funding_ms)),
        ("nextFundingRate", ""),
        ("nextFundingTime", _time(f.next_ms if f else 0)),
    ]
    if f is not None:
        figures += [
            ("interestRate", _number(f.interest)),
            ("maxFundingRate", _number(f.highest)),
            ("minFundingRate", _number(f.lowest)),
            ("premium", _number(f.premium)),
            ("prevFundingTime", _time(f.previous_ms)),
            ("settFundingRate", _number(f.settled)),
        ]
    figures.append(("ts", str((f.event_ms if f else m.event_ms) or sent_ms)))
    return _names(instrument) + "".join(f',"{name}":"{text}"' for name, text in figures) + "}"


def open_interest(instrument: Instrument, o: OpenInterest) -> str:
    """In contracts, coins and US dollars.  Contracts of an inverse one are so many dollars each."""
    counted = o.worth if is_inverse(instrument) else o.amount
    return (
        f'{_names(instrument)},"oi":"{_size(instrument, counted)}","oiCcy":"{plain(o.amount)}",'
        f'"oiUsd":"{_number(o.worth)}","ts":"{o.time_ms}"}}'
    )


def _names(instrument: Instrument) -> str:
    return f'{{"instType":"{inst_type(instrument)}","instId":{quote(instrument.native)}'


def _number(value: Decimal | None) -> str:
    return "" if value is None else plain(value)


def _size(instrument: Instrument, value: Decimal | None) -> str:
    return "" if value is None else contracts(instrument, value)


def _time(time_ms: int) -> str:
    return str(time_ms) if time_ms else ""
