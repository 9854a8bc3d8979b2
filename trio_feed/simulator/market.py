"""A seeded market that is a pure function of (seed, symbol, time): no clock, no trio, no state.

Any candle or trade of any moment can be asked for without anything having run before it, the
answer is always the same, and every answer fits every other: trades add up to their minute,
minutes to hours, days, weeks and months, each candle opens where the one before it closed.
How, is in :mod:`.prices`; here are symbols, calendar and Decimals.

Quote volume is volume x the day's reference price for every candle and every trade: not what
the prices would give, but it adds up exactly in every roll-up.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from decimal import Decimal
from functools import lru_cache

from ..core.calendar import next_open, open_of
from ..model import Interval, Kline, Source, Trade
from . import prices
from .listing import LISTED_MS, Listing, listing_of
from .prices import DAY_MS, HOUR_MS, MINUTE_MS, Bar, Path, Ticks

_FEWEST_TRADES = 4
"""A minute needs four trades to have an open, a high, a low and a close of its own."""
_SECONDS = (Interval.S1, Interval.S30)


class Market:
    """All symbols of the box.

    ``trades_per_minute`` is constant per symbol; fewer than 4 are raised to 4.  Methods raise
    KeyError for a symbol that is not listed and ValueError for a time that is not an open time
    or lies before ``listed_ms``.  Times are unix milliseconds.
    """

    listed_ms = LISTED_MS

    def __init__(self, seed: int, symbols: Iterable[str], trades_per_minute: int) -> None:
        self.trades_per_minute = max(_FEWEST_TRADES, trades_per_minute)
        self.listings: dict[str, Listing] = {}
        self.delisted: set[str] = set()
        self._corrected: dict[tuple[str, Interval, int], Kline] = {}
        self._seed = seed
        self._lines: dict[str, _Line] = {}
        for symbol in symbols:
            self.list_symbol(symbol)

    def list_symbol(self, symbol: str) -> None:
        """List a new symbol, or one again that was delisted."""
        listing = self.listings[symbol] = listing_of(symbol)
        self._lines[symbol] = _Line(self._seed, listing, self.trades_per_minute)
        self.delisted.discard(symbol)

    def delist(self, symbol: str) -> None:
        """It stays known, does not trade any more, and nothing of it is pushed."""
        self.delisted.add(symbol)

    def candle(self, symbol: str, interval: Interval, open_ms: int) -> Kline:
        """The closed candle that opens at ``open_ms``.

        A second without a trade is a flat candle at the last price.  The candle that is open at
        ``listed_ms`` holds what was traded from then on.
        """
        corrected = self._corrected.get((symbol, interval, open_ms))
        if corrected is not None:
            return corrected
        line, start, end = self._bounds(symbol, interval, open_ms)
        return line.kline(line.bar(interval, start, end), open_ms, closed=True)

    def correct(self, symbol: str, interval: Interval, kline: Kline) -> None:
        """From now on this is what the closed candle was.  The one thing that fits nothing else:
        longer candles and trades stay as they are."""
        self._corrected[symbol, interval, kline.open_ms] = kline

    def partial(self, symbol: str, interval: Interval, open_ms: int, now_ms: float) -> Kline | None:
        """The candle from its open to ``now_ms``, a trade at ``now_ms`` included.

        None before its first trade; its last state, still not ``closed``, after its end.
        """
        line, start, end = self._bounds(symbol, interval, open_ms)
        stop = min(math.floor(now_ms) + 1, end)
        bar = line.bar(interval, start, stop) if stop > start else None
        if bar is None or bar.trades == 0:
            return None
        return line.kline(bar, open_ms, closed=False)

    def trades(self, symbol: str, from_ms: float, to_ms: float) -> Iterator[Trade]:
        """The trades of [from_ms, to_ms), in order."""
        line = self._lines[symbol]
        first = line.first_id(max(math.ceil(from_ms), LISTED_MS))
        return line.trades(first, line.first_id(math.ceil(to_ms)))

    def trades_from(self, symbol: str, trade_id: int, limit: int) -> Iterator[Trade]:
        """``limit`` trades, the first one has ``trade_id`` (or is the very first there was)."""
        first = max(trade_id, self.first_id(symbol, LISTED_MS))
        return self._lines[symbol].trades(first, first + limit)

    def first_id(self, symbol: str, time_ms: float) -> int:
        """The id of the first trade at or after ``time_ms``."""
        return self._lines[symbol].first_id(math.ceil(time_ms))

    def trade_time(self, symbol: str, trade_id: int) -> int:
        """When the trade ``trade_id`` happens."""
        return self._lines[symbol].trade_time(trade_id)

    def exists(self, interval: Interval, open_ms: int) -> bool:
        """Whether the candle that opens at ``open_ms`` holds trades, past or future."""
        return next_open(interval, open_ms) > LISTED_MS

    def _bounds(self, symbol: str, interval: Interval, open_ms: int) -> tuple["_Line", int, int]:
        line = self._lines[symbol]
        if open_of(interval, open_ms) != open_ms:
            raise ValueError(f"{open_ms} is not an open time of {interval.value}")
        if not self.exists(interval, open_ms):
            raise ValueError(f"{open_ms} is before the listing of {symbol}")
        return line, max(open_ms, LISTED_MS), next_open(interval, open_ms)


class _Line:
    """One symbol.  Each level is computed from the one above and kept in a bounded cache."""

    def __init__(self, seed: int, listing: Listing, count: int) -> None:
        self._key = (seed, listing.symbol)
        self._listing = listing
        self._count = count
        self._units = max(listing.units, prices.fewest_units(count))
        self._day = lru_cache(maxsize=4096)(self._make_day)
        self._hours = lru_cache(maxsize=512)(self._make_hours)
        self._minutes = lru_cache(maxsize=256)(self._make_minutes)
        self._ticks = lru_cache(maxsize=min(64, 3 + 16_000 // count))(self._make_ticks)
        self._span = lru_cache(maxsize=256)(self._make_span)

    def bar(self, interval: Interval, start: int, stop: int) -> Bar:
        """The trades of [start, stop) of one candle; count 0 where there are none."""
        if interval in _SECONDS:
            return self._piece(start, stop)
        whole = stop - stop % MINUTE_MS
        if whole == stop:
            return self._span(start, stop)
        tail = self._piece(whole, stop)
        if whole == start:
            return tail
        body = self._span(start, whole)
        return body if tail.trades == 0 else prices.merge([body, tail])

    def trades(self, first: int, end: int) -> Iterator[Trade]:
        """Trades by id, [first, end)."""
        while first < end:
            minute, at = divmod(first, self._count)
            until = min(self._count, at + end - first)
            yield from self._trades_in(minute, at, until)
            first += until - at

    def first_id(self, time_ms: int) -> int:
        minute, offset = divmod(time_ms, MINUTE_MS)
        at = bisect_left(self._ticks(minute).offsets, offset) if offset else 0
        return minute * self._count + at

    def trade_time(self, trade_id: int) -> int:
        minute, at = divmod(trade_id, self._count)
        return minute * MINUTE_MS + self._ticks(minute).offsets[at]

    def kline(self, bar: Bar, open_ms: int, *, closed: bool) -> Kline:
        places, parts = self._listing.price_decimals, self._listing.quantity_decimals
        return Kline(
            open_ms,
            Decimal(bar.open).scaleb(-places),
            Decimal(bar.high).scaleb(-places),
            Decimal(bar.low).scaleb(-places),
            Decimal(bar.close).scaleb(-places),
            Decimal(bar.lots).scaleb(-parts),
            Decimal(bar.quote).scaleb(-places - parts),
            bar.trades,
            closed,
            Source.SIMULATED,
        )

    def _trades_in(self, minute: int, first: int, end: int) -> Iterator[Trade]:
        ticks, start, base = self._ticks(minute), minute * MINUTE_MS, minute * self._count
        places, parts = self._listing.price_decimals, self._listing.quantity_decimals
        for i in range(first, end):
            yield Trade(
                symbol=self._listing.symbol,
                trade_id=base + i,
                first_id=base + i,
                last_id=base + i,
                price=Decimal(ticks.prices[i]).scaleb(-places),
                quantity=Decimal(ticks.lots[i]).scaleb(-parts),
                time_ms=start + ticks.offsets[i],
                buyer_is_maker=ticks.sells[i],
            )

    def _piece(self, start: int, stop: int) -> Bar:
        """A part of one minute, from its trades; flat at the last price without any."""
        minute, offset = divmod(start, MINUTE_MS)
        ticks = self._ticks(minute)
        first = bisect_left(ticks.offsets, offset)
        end = bisect_right(ticks.offsets, offset + stop - start - 1)
        if first < end:
            return ticks.bar(first, end, reference=self._reference(minute * MINUTE_MS // DAY_MS))
        last = ticks.prices[max(0, first - 1)]
        return Bar(last, last, last, last, 0, 0, 0)

    def _make_span(self, start: int, stop: int) -> Bar:
        """Whole minutes, as few and as large pieces as there are."""
        bars, at = [], start
        while at < stop:
            day = at // DAY_MS
            if at % DAY_MS == 0 and at + DAY_MS <= stop:
                bars.append(self._day(day))
                at += DAY_MS
            elif at % HOUR_MS == 0 and at + HOUR_MS <= stop:
                until = min(stop - stop % HOUR_MS, (day + 1) * DAY_MS)
                bars.append(self._part(self._hours(day), day * DAY_MS, HOUR_MS, at, until))
                at = until
            else:
                hour = at // HOUR_MS
                until = min(stop, (hour + 1) * HOUR_MS)
                bars.append(self._part(self._minutes(hour), hour * HOUR_MS, MINUTE_MS, at, until))
                at = until
        return prices.merge(bars)

    def _part(self, path: Path, origin: int, length: int, start: int, stop: int) -> Bar:
        first, end = (start - origin) // length, (stop - origin) // length
        return path.bar(
            first, end,
            reference=self._reference(start // DAY_MS), count=self._count * length // MINUTE_MS,
        )  # fmt: skip

    def _reference(self, day: int) -> int:
        bar = self._day(day)
        return (bar.high + bar.low) // 2

    def _make_day(self, day: int) -> Bar:
        start, end = (
            prices.level(*self._key, at, self._listing.base_ticks) for at in (day, day + 1)
        )
        up, down, busy = (prices.number(*self._key, name, day) for name in ("up", "down", "busy"))
        high = max(start, end) + start * (20 + up % 180) // 10_000
        low = min(start, end) - start * (20 + down % 180) // 10_000
        lots = prices.day_volume(self._units_of(busy))
        return Bar(start, high, low, end, lots, lots * ((high + low) // 2), 1440 * self._count)

    def _units_of(self, busy: int) -> int:
        return self._units + self._units * (busy % 100) // 100

    def _make_hours(self, day: int) -> Path:
        units = self._units_of(prices.number(*self._key, "busy", day))
        return prices.hours_of(self._day(day), prices.noise(49, *self._key, "hours", day), units)

    def _make_minutes(self, hour: int) -> Path:
        day, at = divmod(hour, 24)
        bar = self._hours(day).bar(at, at + 1, reference=0, count=0)
        return prices.minutes_of(bar, prices.noise(121, *self._key, "minutes", hour))

    def _make_ticks(self, minute: int) -> Ticks:
        hour, at = divmod(minute, 60)
        bar = self._minutes(hour).bar(at, at + 1, reference=0, count=0)
        key = prices.noise(4 * self._count + 8, *self._key, "trades", minute)
        return prices.trades_of(bar, key, self._count)
