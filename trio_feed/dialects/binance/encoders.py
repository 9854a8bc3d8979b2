"""Binance's market messages, written from our values: spot and USD-M.  Pure.

Sources: github binance/binance-spot-api-docs (2026-07-21), "Websocket Market Streams" of the USD-M
pages (2026-05-28).  Numbers have the exchange's own decimals; the order of fields is the pages'.
Each function returns one JSON object, or None where such clients do not get this message.

What our values do not have is left out, never guessed; see docs/dialects.md for the list.
"""

from collections.abc import Iterable
from decimal import Decimal

from ...core import calendar
from ...model import (
    EXACT,
    BookTop,
    BookView,
    Interval,
    Kline,
    Level,
    Liquidation,
    MarkPrice,
    OpenInterest,
    Ticker,
    Trade,
    plain,
)
from ...push.protocol import quote

_UM = 1
"""``st`` of USD-M."""
_PERCENT = Decimal("0.001")
_DAY_MS = 86_400_000
_DECIMALS = 8


def kline(symbol: str, interval: Interval, k: Kline, sent_ms: int) -> str:
    """``kline``; a candle that came by REST has no event time but ours."""
    return (
        f'{{"e":"kline","E":{k.event_ms or sent_ms},"s":{quote(symbol)},'
        f'"k":{_bar(interval, k, symbol)}}}'
    )


def continuous_kline(symbol: str, interval: Interval, k: Kline, sent_ms: int) -> str:
    """``continuous_kline`` of a perpetual contract."""
    return (
        f'{{"e":"continuous_kline","E":{k.event_ms or sent_ms},"ps":{quote(symbol)},'
        f'"ct":"PERPETUAL","k":{_bar(interval, k, None)}}}'
    )


def _bar(interval: Interval, k: Kline, symbol: str | None) -> str:
    own = "" if symbol is None else f'"s":{quote(symbol)},'
    return (
        f'{{"t":{k.open_ms},"T":{close_ms(interval, k)},{own}"i":"{interval.value}",'
        f'"f":{_id(k.first_trade_id)},"L":{_id(k.last_trade_id)},'
        f'"o":"{plain(k.open)}","c":"{plain(k.close)}","h":"{plain(k.high)}","l":"{plain(k.low)}",'
        f'"v":"{plain(k.volume)}","n":{k.trades},"x":{_bool(k.closed)},'
        f'"q":"{_worth(k.quote_volume)}","V":{_maybe(k.taker_buy_volume)},'
        f'"Q":{_maybe_worth(k.taker_buy_quote_volume)},"B":"0"}}'
    )


def row(interval: Interval, k: Kline) -> str:
    """The 12 columns of REST."""
    return (
        f'[{k.open_ms},"{plain(k.open)}","{plain(k.high)}","{plain(k.low)}","{plain(k.close)}",'
        f'"{plain(k.volume)}",{close_ms(interval, k)},"{_worth(k.quote_volume)}",{k.trades},'
        f'{_maybe(k.taker_buy_volume)},{_maybe_worth(k.taker_buy_quote_volume)},"0"]'
    )


def close_ms(interval: Interval, k: Kline) -> int:
    return calendar.next_open(interval, k.open_ms) - 1


def agg_trade(symbol: str, t: Trade, sent_ms: int, *, spot: bool) -> str:
    tail = ',"M":true' if spot else f',"st":{_UM}'
    return (
        f'{{"e":"aggTrade","E":{t.event_ms or sent_ms},"s":{quote(symbol)},"a":{t.trade_id},'
        f'"p":"{plain(t.price)}","q":"{plain(t.quantity)}","f":{t.first_id},"l":{t.last_id},'
        f'"T":{t.time_ms},"m":{_bool(t.buyer_is_maker)}{tail}}}'
    )


def agg_row(t: Trade, *, spot: bool) -> str:
    """An ``aggTrades`` row of REST."""
    tail = ',"M":true' if spot else ""
    return (
        f'{{"a":{t.trade_id},"p":"{plain(t.price)}","q":"{plain(t.quantity)}","f":{t.first_id},'
        f'"l":{t.last_id},"T":{t.time_ms},"m":{_bool(t.buyer_is_maker)}{tail}}}'
    )


def trade(symbol: str, t: Trade, sent_ms: int, *, spot: bool) -> str:
    """``trade`` of an aggregate: the trades of one taker order at one price come as one, with the
    id of the last of them, since aggregates are what is taken from the exchange."""
    head = f'{{"e":"trade","E":{t.event_ms or sent_ms},'
    body = f'"t":{t.last_id},"p":"{plain(t.price)}","q":"{plain(t.quantity)}"'
    maker = f'"m":{_bool(t.buyer_is_maker)}'
    if spot:
        return f'{head}"s":{quote(symbol)},{body},"T":{t.time_ms},{maker},"M":true}}'
    return f'{head}"T":{t.time_ms},"s":{quote(symbol)},{body},"X":"MARKET",{maker},"st":{_UM}}}'


def book_ticker(symbol: str, t: BookTop, sent_ms: int, *, spot: bool) -> str:
    """``bookTicker``; spot's has neither type nor times.  A side that is empty is 0."""
    prices = f'"b":"{_or_zero(t.bid)}","B":"{_or_zero(t.bid_size)}",'
    prices += f'"a":"{_or_zero(t.ask)}","A":"{_or_zero(t.ask_size)}"'
    if spot:
        return f'{{"u":{t.update_id},"s":{quote(symbol)},{prices}}}'
    at_ms = t.event_ms or sent_ms
    return (
        f'{{"e":"bookTicker","u":{t.update_id},"E":{at_ms},"T":{at_ms},"s":{quote(symbol)},'
        f'"ps":{quote(symbol)},{prices},"st":{_UM}}}'
    )


def book_ticker_row(symbol: str, t: BookTop, *, spot: bool) -> str:
    """Of REST."""
    tail = "" if spot else f',"time":{t.event_ms},"lastUpdateId":{t.update_id}'
    return (
        f'{{"symbol":{quote(symbol)},"bidPrice":"{_or_zero(t.bid)}",'
        f'"bidQty":"{_or_zero(t.bid_size)}","askPrice":"{_or_zero(t.ask)}",'
        f'"askQty":"{_or_zero(t.ask_size)}"{tail}}}'
    )


def _or_zero(value: Decimal | None) -> str:
    return "0" if value is None else plain(value)


def mini_ticker(symbol: str, t: Ticker, sent_ms: int, *, spot: bool) -> str:
    tail = "" if spot else f',"ps":{quote(symbol)},"st":{_UM}'
    return (
        f'{{"e":"24hrMiniTicker","E":{t.event_ms or sent_ms},"s":{quote(symbol)},'
        f'"c":"{plain(t.last)}","o":{_maybe(t.open)},"h":{_maybe(t.high)},"l":{_maybe(t.low)},'
        f'"v":{_maybe(t.volume)},"q":{_maybe(t.quote_volume)}{tail}}}'
    )


def ticker(symbol: str, t: Ticker, sent_ms: int, *, spot: bool) -> str:
    """``24hrTicker``."""
    at_ms, d = t.event_ms or sent_ms, t.details
    previous = size = last = ""
    if d is not None:
        previous = f'"x":"{plain(d.previous_close)}",' if d.previous_close is not None else ""
        size = f'"Q":"{plain(d.last_size)}",'
        last = f',"O":{d.open_ms},"C":{d.close_ms},"F":{d.first_id},"L":{d.last_id},"n":{d.trades}'
    change = _change(t)
    moved = "".join(f'"{key}":"{value}",' for key, value in zip("pPw", change, strict=True))
    top = (
        f'"b":{_maybe(t.bid)},"B":{_maybe(t.bid_size)},"a":{_maybe(t.ask)},"A":{_maybe(t.ask_size)},'
        if spot
        else ""
    )
    tail = "" if spot else f',"ps":{quote(symbol)},"st":{_UM}'
    return (
        f'{{"e":"24hrTicker","E":{at_ms},"s":{quote(symbol)},{moved}{previous}'
        f'"c":"{plain(t.last)}",{size}{top}'
        f'"o":{_maybe(t.open)},"h":{_maybe(t.high)},"l":{_maybe(t.low)},"v":{_maybe(t.volume)},'
        f'"q":{_maybe(t.quote_volume)}{last}{tail}}}'
    )


def _change(t: Ticker) -> tuple[str, str, str]:
    """Price change, its percentage, and the average price weighted by volume: the exchange's own
    average where it says it, else quote volume / volume with the decimals of the price."""
    opened = t.open if t.open is not None else t.last
    change = EXACT.subtract(t.last, opened)
    percent = EXACT.divide(change * 100, opened) if opened else Decimal(0)
    if t.details is not None:
        average = t.details.average
    elif t.volume and t.quote_volume is not None:
        average = EXACT.divide(t.quote_volume, t.volume).quantize(t.last)
    else:
        average = Decimal(0)
    return plain(change), plain(percent.quantize(_PERCENT)), plain(average)


def statistics(symbol: str, t: Ticker, sent_ms: int, *, spot: bool, full: bool = True) -> str:
    """``ticker/24hr`` of REST."""
    change, percent, average = _change(t)
    d = t.details
    fields: list[tuple[str, str]] = [("symbol", quote(symbol))]
    if full:
        fields += [
            ("priceChange", f'"{change}"'),
            ("priceChangePercent", f'"{percent}"'),
            ("weightedAvgPrice", f'"{average}"'),
        ]
        if spot and d is not None and d.previous_close is not None:
            fields.append(("prevClosePrice", f'"{plain(d.previous_close)}"'))
    fields.append(("lastPrice", f'"{plain(t.last)}"'))
    if full and d is not None:
        fields.append(("lastQty", f'"{plain(d.last_size)}"'))
    if full and spot:
        fields += [
            ("bidPrice", _maybe(t.bid)),
            ("bidQty", _maybe(t.bid_size)),
            ("askPrice", _maybe(t.ask)),
            ("askQty", _maybe(t.ask_size)),
        ]
    fields += [
        ("openPrice", _maybe(t.open)),
        ("highPrice", _maybe(t.high)),
        ("lowPrice", _maybe(t.low)),
        ("volume", _maybe(t.volume)),
        ("quoteVolume", _maybe(t.quote_volume)),
    ]
    close = d.close_ms if d is not None else t.event_ms or sent_ms
    fields += [
        ("openTime", str(d.open_ms if d is not None else close - _DAY_MS)),
        ("closeTime", str(close)),
    ]
    if d is not None:
        fields += [
            ("firstId", str(d.first_id)),
            ("lastId", str(d.last_id)),
            ("count", str(d.trades)),
        ]
    return "{" + ",".join(f'"{name}":{value}' for name, value in fields) + "}"


def partial_depth(view: BookView, count: int, number: int) -> str:
    """Spot's best levels."""
    return (
        f'{{"lastUpdateId":{number},"bids":{levels(view.bids[:count])},'
        f'"asks":{levels(view.asks[:count])}}}'
    )


def depth_update(
    symbol: str,
    bids: Iterable[Level],
    asks: Iterable[Level],
    first: int,
    last: int,
    event_ms: int,
    previous: int | None = None,
) -> str:
    """``depthUpdate``; ``previous``: USD-M's form, with ``pu``."""
    if previous is None:
        head = f'{{"e":"depthUpdate","E":{event_ms},"s":{quote(symbol)},"U":{first},"u":{last},'
        return f'{head}"b":{levels(bids)},"a":{levels(asks)}}}'
    return (
        f'{{"e":"depthUpdate","E":{event_ms},"T":{event_ms},"s":{quote(symbol)},"U":{first},'
        f'"u":{last},"pu":{previous},"b":{levels(bids)},"a":{levels(asks)},'
        f'"ps":{quote(symbol)},"st":{_UM}}}'
    )


def mark_price(symbol: str, m: MarkPrice) -> str:
    settle = "" if m.settle is None else f'"P":"{plain(m.settle)}",'
    index = "" if m.index is None else f'"i":"{plain(m.index)}",'
    rate = '""' if m.funding_rate is None else f'"{plain(m.funding_rate)}"'
    return (
        f'{{"e":"markPriceUpdate","E":{m.event_ms},"s":{quote(symbol)},"p":"{plain(m.mark)}",'
        f'{index}{settle}"r":{rate},"T":{m.next_funding_ms},"st":{_UM}}}'
    )


def premium_index(symbol: str, m: MarkPrice) -> str:
    """``premiumIndex`` of REST."""
    settle = "" if m.settle is None else f'"estimatedSettlePrice":"{plain(m.settle)}",'
    index = "" if m.index is None else f'"indexPrice":"{plain(m.index)}",'
    rate = '""' if m.funding_rate is None else f'"{plain(m.funding_rate)}"'
    return (
        f'{{"symbol":{quote(symbol)},"markPrice":"{plain(m.mark)}",{index}{settle}'
        f'"lastFundingRate":{rate},"nextFundingTime":{m.next_funding_ms},"time":{m.event_ms}}}'
    )


def open_interest(symbol: str, i: OpenInterest) -> str:
    """``openInterest`` of REST."""
    return f'{{"openInterest":"{plain(i.amount)}","symbol":{quote(symbol)},"time":{i.time_ms}}}'


def force_order(symbol: str, f: Liquidation, sent_ms: int, *, wide: bool = False) -> str:
    """``forceOrder``; ``wide``: of ``!forceOrder@arr``.  Liquidations are limit orders that are
    filled or killed, and a message of one has its last state (the page's own words), so these
    fields are the same in each."""
    size = plain(f.quantity)
    tail = f',"ps":{quote(symbol)},"st":{_UM}' if wide else ""
    return (
        f'{{"e":"forceOrder","E":{sent_ms},"o":{{"s":{quote(symbol)},'
        f'"S":"{"SELL" if f.sold else "BUY"}","o":"LIMIT","f":"IOC","q":"{size}",'
        f'"p":"{plain(f.price)}","ap":"{plain(f.average_price)}","X":"FILLED","l":"{size}",'
        f'"z":"{size}","T":{f.time_ms}}}{tail}}}'
    )


def levels(found: Iterable[Level]) -> str:
    return "[" + ",".join(f'["{plain(p)}","{plain(q)}"]' for p, q in found) + "]"


def _id(number: int | None) -> str:
    """-1 is Binance's own way to say that there is none."""
    return "-1" if number is None else str(number)


def _maybe(value: Decimal | None) -> str:
    return "null" if value is None else f'"{plain(value)}"'


def _worth(value: Decimal) -> str:
    """A price times a quantity: with the exchange's eight decimals, as far as only zeros follow
    them.  Ours, of spot, has the sixteen of its factors."""
    text = plain(value)
    excess = len(text) - text.find(".") - 1 - _DECIMALS if "." in text else 0
    return text[:-excess] if excess > 0 and text.endswith("0" * excess) else text


def _maybe_worth(value: Decimal | None) -> str:
    return "null" if value is None else f'"{_worth(value)}"'


def _bool(value: bool) -> str:
    return "true" if value else "false"


def trade_row(t: Trade, *, spot: bool) -> str:
    """A ``trades`` row of REST; like :func:`trade` of an aggregate."""
    total = (
        t.quote_quantity if t.quote_quantity is not None else EXACT.multiply(t.price, t.quantity)
    )
    flag = "isBestMatch" if spot else "isRPITrade"
    return (
        f'{{"id":{t.last_id},"price":"{plain(t.price)}","qty":"{plain(t.quantity)}",'
        f'"quoteQty":"{_worth(total)}","time":{t.time_ms},"isBuyerMaker":{_bool(t.buyer_is_maker)},'
        f'"{flag}":{_bool(spot)}}}'
    )


def event_ms(data: object) -> int:
    """The venue's time of a trade or ticker; 0: it gave none."""
    return int(getattr(data, "time_ms", 0) or getattr(data, "event_ms", 0))
