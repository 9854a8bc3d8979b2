"""Statistics of a rolling window, and the average price, out of our minutes.  Pure.

As at the exchange a window begins with a whole minute, so that it is up to a minute longer than its
name ("Rolling window price change statistics" of binance-spot-api-docs, 2026-07-21).  The average
price is that of the last five minutes, the open one included, weighted by volume.
"""

import re
from collections.abc import Sequence
from decimal import Decimal

from attrs import frozen

from ...model import EXACT, Kline, plain
from ...push.protocol import quote

MINUTE_MS = 60_000
AVERAGE_MINUTES = 5
STREAMED = {"1h": 60, "4h": 240, "1d": 1440}
"""Windows that have streams, in minutes."""
_UNITS = {"m": (59, 1), "h": (23, 60), "d": (7, 1440)}
_NAME = re.compile(r"([1-9][0-9]?)([mhd])")
_PERCENT = Decimal("0.001")


@frozen
class Window:
    """``open_ms``: of its first minute; ``close_ms``: the moment it is made for."""

    open_ms: int
    close_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    last: Decimal
    volume: Decimal
    quote_volume: Decimal
    first_id: int
    last_id: int
    trades: int


def minutes_of(name: str) -> int | None:
    """``1m`` to ``59m``, ``1h`` to ``23h``, ``1d`` to ``7d``; None: it is none."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    count, (most, minutes) = int(match[1]), _UNITS[match[2]]
    return count * minutes if count <= most else None


def begin_ms(now_ms: int, minutes: int) -> int:
    """Open time of the first minute of a window that ends now."""
    return (now_ms - minutes * MINUTE_MS) // MINUTE_MS * MINUTE_MS


def window_of(minutes: Sequence[Kline], first_ms: int, close_ms: int) -> Window | None:
    """``minutes`` ascending, of which those before ``first_ms`` do not count; None: they do not
    reach back so far, or one is missing."""
    inside = [minute for minute in minutes if minute.open_ms >= first_ms]
    if not inside or inside[0].open_ms != first_ms:
        return None
    if inside[-1].open_ms - first_ms != (len(inside) - 1) * MINUTE_MS:
        return None
    ids = [m for m in inside if m.trades and m.first_trade_id is not None]
    return Window(
        first_ms,
        close_ms,
        inside[0].open,
        max(minute.high for minute in inside),
        min(minute.low for minute in inside),
        inside[-1].close,
        sum((minute.volume for minute in inside), Decimal(0)),
        sum((minute.quote_volume for minute in inside), Decimal(0)),
        _id(ids[0].first_trade_id if ids else None),
        _id(ids[-1].last_trade_id if ids else None),
        sum(minute.trades for minute in inside),
    )


def average(minutes: Sequence[Kline]) -> Decimal | None:
    """The average price of the last of these; None: there are none."""
    last = minutes[-AVERAGE_MINUTES:]
    if not last:
        return None
    volume = sum((minute.volume for minute in last), Decimal(0))
    if not volume:
        return last[-1].close
    worth = sum((minute.quote_volume for minute in last), Decimal(0))
    return EXACT.divide(worth, volume).quantize(last[-1].close)


def streamed(
    symbol: str, name: str, closed: Sequence[Kline], running: Kline, sent_ms: int
) -> str | None:
    """The event of a window up to the ``running`` minute; None: minutes are missing."""
    known = [*(minute for minute in closed if minute.open_ms < running.open_ms), running]
    first_ms, at_ms = running.open_ms - STREAMED[name] * MINUTE_MS, running.event_ms or sent_ms
    window = window_of(known, first_ms, at_ms)
    return None if window is None else event(symbol, name, window, at_ms)


def streamed_average(
    symbol: str, closed: Sequence[Kline], running: Kline, sent_ms: int
) -> str | None:
    """The event of the average price up to the ``running`` minute."""
    known = [*(minute for minute in closed if minute.open_ms < running.open_ms), running]
    price = average(known)
    if price is None:
        return None
    return average_event(symbol, price, running.event_ms or sent_ms, sent_ms)


def _id(number: int | None) -> int:
    return -1 if number is None else number


def _change(w: Window) -> tuple[str, str, str]:
    """Change, in percent, and the average weighted by volume."""
    change = EXACT.subtract(w.last, w.open)
    percent = EXACT.divide(change * 100, w.open) if w.open else Decimal(0)
    mean = EXACT.divide(w.quote_volume, w.volume).quantize(w.last) if w.volume else Decimal(0)
    return plain(change), plain(percent.quantize(_PERCENT)), plain(mean)


def event(symbol: str, name: str, w: Window, event_ms: int) -> str:
    """``<name>Ticker`` of a stream."""
    change, percent, mean = _change(w)
    return (
        f'{{"e":"{name}Ticker","E":{event_ms},"s":{quote(symbol)},"p":"{change}","P":"{percent}",'
        f'"o":"{plain(w.open)}","h":"{plain(w.high)}","l":"{plain(w.low)}","c":"{plain(w.last)}",'
        f'"w":"{mean}","v":"{plain(w.volume)}","q":"{plain(w.quote_volume)}","O":{w.open_ms},'
        f'"C":{w.close_ms},"F":{w.first_id},"L":{w.last_id},"n":{w.trades}}}'
    )


def answer(symbol: str, w: Window, *, full: bool) -> str:
    """``ticker`` of REST."""
    change, percent, mean = _change(w)
    more = (
        f'"priceChange":"{change}","priceChangePercent":"{percent}","weightedAvgPrice":"{mean}",'
        if full
        else ""
    )
    return (
        f'{{"symbol":{quote(symbol)},{more}"openPrice":"{plain(w.open)}",'
        f'"highPrice":"{plain(w.high)}","lowPrice":"{plain(w.low)}","lastPrice":"{plain(w.last)}",'
        f'"volume":"{plain(w.volume)}","quoteVolume":"{plain(w.quote_volume)}",'
        f'"openTime":{w.open_ms},"closeTime":{w.close_ms},"firstId":{w.first_id},'
        f'"lastId":{w.last_id},"count":{w.trades}}}'
    )


def average_event(symbol: str, price: Decimal, at_ms: int, event_ms: int) -> str:
    """``avgPrice`` of a stream; ``at_ms``: until when."""
    return (
        f'{{"e":"avgPrice","E":{event_ms},"s":{quote(symbol)},"i":"{AVERAGE_MINUTES}m",'
        f'"w":"{plain(price)}","T":{at_ms}}}'
    )


def average_answer(price: Decimal, at_ms: int) -> str:
    """``avgPrice`` of REST."""
    return f'{{"mins":{AVERAGE_MINUTES},"price":"{plain(price)}","closeTime":{at_ms}}}'
