"""One symbol of the market: its trades and candles at any time, in ticks and lots and as Decimals.

See :mod:`.market` for what it is and :mod:`.prices` for how it is computed.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise

from attrs import frozen

from ...model import Kline, Source, Trade
from . import prices
from .listing import Listing
from .prices import DAY_MS, HOUR_MS, MINUTE_MS, Bar, Path, Ticks


@frozen
class Ghost:
    """A trade that candles have and no stream of trades shows (insurance fund, late booking).

    It came to light after its candle had closed.  Price in ticks, quantity in lots.  ``alone``:
    nothing else was traded in its minute.
    """

    time_ms: int
    ticks: int
    lots: int
    alone: bool = False


class SymbolMarket:
    """One symbol.  Each level is computed from the one above and kept in a bounded cache.

    Below it *raw* numbers count all trades that the prices would give, silenced ones too.
    """

    def __init__(
        self, seed: int, listing: Listing, count: int, listed_ms: int, *, turning: bool = False
    ) -> None:
        self.listed_ms = listed_ms
        self._key = (seed, listing.symbol)
        self._turning = turning
        self._listing = listing
        self._count = count
        self._units = max(listing.units, prices.fewest_units(count))
        self._silences: list[tuple[int, int]] = []
        self._silenced: list[tuple[int, int]] = []
        """The same in raw numbers."""
        self._eras: list[tuple[int, int]] = [(0, 0)]
        """(index, what is taken from it to get the id), from this index on."""
        self._ghosts: list[Ghost] = []
        self._day = lru_cache(maxsize=4096)(self._make_day)
        self._hours = lru_cache(maxsize=512)(self._make_hours)
        self._minutes = lru_cache(maxsize=256)(self._make_minutes)
        self._ticks = lru_cache(maxsize=min(64, 3 + 16_000 // count))(self._make_ticks)
        self._span = lru_cache(maxsize=256)(self._make_span)

    def silence(self, start: int, end: int) -> None:
        """No trades in [start, end)."""
        spans: list[tuple[int, int]] = []
        for first, last in sorted([*self._silences, (start, end)]):
            if spans and first <= spans[-1][1]:
                spans[-1] = (spans[-1][0], max(last, spans[-1][1]))
            else:
                spans.append((first, last))
        self._silences = spans
        self._silenced = [(self._raw_at(first), self._raw_at(last)) for first, last in spans]

    def restart_ids(self, index: int) -> None:
        self._eras.append((index, index - 1))

    def reveal(self, time_ms: int) -> Ghost:
        minute = time_ms - time_ms % MINUTE_MS
        bar = self.bar(minute, minute + MINUTE_MS)
        step = max(1, bar.high // 10_000)
        ghost = Ghost(time_ms, bar.high + step, max(1, bar.lots), not bar.trades)
        self._ghosts.append(ghost)
        return ghost

    def bar(self, start: int, stop: int, *, ghosts: bool = True) -> Bar:
        """The trades of [start, stop); flat, with count 0, where there are none."""
        if not self._silences and not self._ghosts:
            return self._stretch(start, stop)
        if ghosts and (minute := self._lone_minute(start, stop)) is not None:
            # It is a minute with a trade: a longer candle may open and close with it.
            cuts = (start, minute, minute + MINUTE_MS, stop)
            pieces = [self.bar(a, b) for a, b in pairwise(cuts) if a < b]
            return prices.merge([piece for piece in pieces if piece.trades])
        bars = [bar for a, b in self._live(start, stop) if (bar := self._stretch(a, b)).trades]
        if bars:
            bar = prices.merge(bars)
        else:
            last = next(self.trades(self.index(start) - 1, self.index(start))).price
            at = int(last.scaleb(self._listing.price_decimals))
            bar = Bar(at, at, at, at, 0, 0, 0)
        if ghosts:
            for ghost in self._ghosts:
                if start <= ghost.time_ms < stop:
                    bar = self._with(bar, ghost)
        return bar

    def _lone_minute(self, start: int, stop: int) -> int | None:
        """The first minute of a longer [start, stop) of which a ghost is the only trade."""
        minutes = (g.time_ms - g.time_ms % MINUTE_MS for g in self._ghosts if g.alone)
        inside = (m for m in minutes if start <= m and m + MINUTE_MS <= stop)
        return min(inside, default=None) if stop - start > MINUTE_MS else None

    def _with(self, bar: Bar, ghost: Ghost) -> Bar:
        quote = ghost.lots * self._reference(ghost.time_ms // DAY_MS)
        return bar._replace(
            high=max(bar.high, ghost.ticks), lots=bar.lots + ghost.lots, quote=bar.quote + quote,
            trades=bar.trades + 1,
        )  # fmt: skip

    def _live(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """[start, stop) without its silences."""
        for first, last in self._silences:
            if start < first < stop:
                yield start, first
            if first < stop and last > start:
                start = max(start, last)
        if start < stop:
            yield start, stop

    def _stretch(self, start: int, stop: int) -> Bar:
        """[start, stop), silent or not."""
        head = min(stop, -(-start // MINUTE_MS) * MINUTE_MS)
        whole = max(head, stop - stop % MINUTE_MS)
        bars = []
        if start < head:
            bars.append(self._piece(start, head))
        if head < whole:
            bars.append(self._span(head, whole))
        if whole < stop:
            bars.append(self._piece(whole, stop))
        return prices.merge([bar for bar in bars if bar.trades] or bars[:1])

    def trades(self, first: int, end: int) -> Iterator[Trade]:
        """Trades by index, [first, end)."""
        while first < end:
            raw = self._raw_of(first)
            minute, at = divmod(raw, self._count)
            loud = next((start for start, _ in self._silenced if start > raw), raw + self._count)
            until = min(self._count, at + end - first, at + loud - raw)
            yield from self._trades_in(minute, at, until, first)
            first += until - at

    def index(self, time_ms: int) -> int:
        """Of the first trade at or after ``time_ms``."""
        raw, silenced = self._raw_at(time_ms), 0
        for start, end in self._silenced:
            if raw > start:
                silenced += min(raw, end) - start
        return raw - silenced

    def trade_time(self, index: int) -> int:
        minute, at = divmod(self._raw_of(index), self._count)
        return minute * MINUTE_MS + self._ticks(minute).offsets[at]

    def id_of(self, index: int) -> int:
        return index - next(less for since, less in reversed(self._eras) if since <= index)

    def index_of(self, trade_id: int, time_ms: float | None) -> int:
        index = self._eras[-1][0] if time_ms is None else self.index(math.ceil(time_ms))
        since, less = next(era for era in reversed(self._eras) if era[0] <= index)
        return max(since, trade_id + less)

    def indexes_of(self, trade_id: int) -> list[int]:
        eras = sorted(self._eras)
        ends = [*(since for since, _ in eras[1:]), math.inf]
        places = zip(eras, ends, strict=True)
        return [trade_id + less for (since, less), end in places if since <= trade_id + less < end]

    def _raw_at(self, time_ms: int) -> int:
        minute, offset = divmod(time_ms, MINUTE_MS)
        at = bisect_left(self._ticks(minute).offsets, offset) if offset else 0
        return minute * self._count + at

    def _raw_of(self, index: int) -> int:
        for start, end in self._silenced:
            if index < start:
                break
            index += end - start
        return index

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

    def _trades_in(self, minute: int, first: int, end: int, index: int) -> Iterator[Trade]:
        ticks, start, number = self._ticks(minute), minute * MINUTE_MS, self.id_of(index) - first
        if len(self._eras) > 1 and self.id_of(index + end - first - 1) != number + end - 1:
            for at in range(first, end):  # ids begin anew inside
                yield from self._trades_in(minute, at, at + 1, index + at - first)
            return
        places, parts = self._listing.price_decimals, self._listing.quantity_decimals
        for i in range(first, end):
            yield Trade(
                symbol=self._listing.symbol,
                trade_id=number + i,
                first_id=number + i,
                last_id=number + i,
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
        key = prices.noise(49, *self._key, "hours", day)
        return prices.hours_of(self._day(day), key, units, self._turning)

    def _make_minutes(self, hour: int) -> Path:
        day, at = divmod(hour, 24)
        bar = self._hours(day).bar(at, at + 1, reference=0, count=0)
        key = prices.noise(121, *self._key, "minutes", hour)
        return prices.minutes_of(bar, key, self._turning)

    def _make_ticks(self, minute: int) -> Ticks:
        hour, at = divmod(minute, 60)
        bar = self._minutes(hour).bar(at, at + 1, reference=0, count=0)
        key = prices.noise(4 * self._count + 8, *self._key, "trades", minute)
        return prices.trades_of(bar, key, self._count)
