"""Candles from prices that come without a quantity, sparse and revisable.

The rules are those of the K-line push document: a candle opens at the close of the one before it
(the very first one at its first price), volumes are 0, ``trades`` counts prices.  The document says
nothing about intervals without a price; here they are flat at the previous close, and **implied**:

- :class:`PriceBars` makes no candle for them, so a silent token costs nothing, in work or in rows.
- :func:`.flat.fill_flat` puts them into an answer to a client, no more than it asked for.
- A subscriber of a live series gets them one by one: :meth:`PriceBars.implied` gives the candle of
  an interval that has ended, to be published and never stored.

A price has a position in the chain (:class:`trio_feed.model.Price`).  One that comes late, and one
that is retracted, changes the candle that it belongs to: a closed one is given again, which is a
revision.  That changes the open of the next candle too, and no more.
"""

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from attrs import define, evolve, field, frozen

from ..model import Interval, Kline, Price, Source
from . import calendar
from .bars import Built
from .flat import flat
from .spans import joined

_ZERO = Decimal(0)
_MOST_GAPS = 100


@frozen(order=True)
class _Entry:
    """A price that can still be revised.  ``number`` is the order of arrival."""

    position: int
    number: int
    time_ms: int = field(eq=False)
    price: Decimal = field(eq=False)
    key: str = field(eq=False)


@define
class PriceBars:
    """One symbol's prices become candles of several intervals.

    ``last``: per interval the last closed candle that is stored.  ``window_ms``: a price that is
    older than the newest by more than that, and one of more than ``most`` before it, changes
    nothing any more (``late`` counts it) but that its candle, if it is still known, is not
    complete.
    """

    intervals: Sequence[Interval]
    last: Mapping[Interval, Kline] = field(factory=dict, repr=False)
    window_ms: int = 600_000
    most: int = 5_000
    late: int = 0
    hold_ms: int | None = None
    """Prices since then are awaited, so that the window reaches back to it (``most`` holds)."""
    newest_ms: int = 0
    """Time of the newest price: an owner retires a symbol that is idle for long."""
    _entries: list[_Entry] = field(factory=list)
    _bars: dict[Interval, dict[int, Kline]] = field(factory=dict)
    """Open time -> the candle as it was given last; ascending."""
    _closed_ms: dict[Interval, int] = field(factory=dict)
    """Candles that open before this are closed, silent ones included."""
    _frozen_ms: dict[Interval, int] = field(factory=dict)
    """Candles that open before this are not made anew: not all their prices are kept."""
    _watched_ms: int | None = None
    _gaps: list[tuple[int, int]] = field(factory=list)
    _number: int = 0
    _newest: int = 0
    """The largest position."""
    _stored_ms: dict[Interval, int] = field(factory=dict)
    """What opens before this is in the store since before."""

    def __attrs_post_init__(self) -> None:
        for interval in self.intervals:
            last = self.last.get(interval)
            self._bars[interval] = {} if last is None else {last.open_ms: last}
            self._closed_ms[interval] = (
                0 if last is None else calendar.next_open(interval, last.open_ms)
            )
            self._frozen_ms[interval] = self._stored_ms[interval] = self._closed_ms[interval]

    def begin_at(self, opens: Mapping[Interval, int]) -> None:
        """Candles that open before are as they are stored, later ones are made of prices."""
        for interval, open_ms in opens.items():
            for known in (self._closed_ms, self._frozen_ms, self._stored_ms):
                known[interval] = max(known[interval], open_ms)

    @property
    def next_end_ms(self) -> int | None:
        """When the next candle with a price ends; None while nothing is open."""
        ends = (calendar.next_open(i, at) for i in self.intervals if (at := self._open(i)))
        return min(ends, default=None)

    def watch(self, time_ms: int) -> None:
        """Prices are taken from now on: candles that opened before the first call are not
        complete."""
        if self._watched_ms is None:
            self._watched_ms = time_ms

    def take(self, price: Price) -> list[Built]:
        """One price, with its time.  Returns the candles that it closes, then those it changes: the
        open ones, and closed ones again where it is late.  Raises ValueError without a time."""
        if price.time_ms <= 0:
            raise ValueError("a price without a time belongs to no candle")
        self.watch(price.time_ms)
        self._number += 1
        position = price.position or self._newest
        entry = _Entry(position, self._number, price.time_ms, price.price, price.key)
        closed = self.advance(price.time_ms)
        ordered = position >= self._newest and price.time_ms >= self.newest_ms
        if not ordered and all(price.time_ms < at for at in self._frozen_ms.values()):
            return closed + self._too_late(price.time_ms)
        self._newest = max(self._newest, position)
        insort(self._entries, entry)
        self.newest_ms = max(self.newest_ms, price.time_ms)
        changed = self._append(entry) if ordered else self._rebuilt()
        self._trim()
        return closed + changed

    def retract(self, keys: Iterable[str]) -> list[Built]:
        """These prices are not in the chain.  Returns the candles that change, closed ones again; a
        candle that has no price left is flat."""
        gone = set(keys)
        kept = [entry for entry in self._entries if entry.key not in gone]
        if len(kept) == len(self._entries):
            return []
        self._entries = kept
        return self._rebuilt()

    def advance(self, until_ms: int) -> list[Built]:
        """Nothing before ``until_ms`` is to come any more: close what ended by then, in order of
        the end.  Silent intervals are passed over."""
        built = []
        for interval in self.intervals:
            at = self._open(interval)
            closes = calendar.open_of(interval, until_ms)
            if at is not None and at < closes:
                kline = self._bars[interval][at] = evolve(self._bars[interval][at], closed=True)
                built.append((interval, kline))
            self._closed_ms[interval] = max(self._closed_ms[interval], closes)
        return sorted(built, key=lambda item: calendar.next_open(item[0], item[1].open_ms))

    def missed(self, first_ms: int, until_ms: int) -> list[Built]:
        """Prices between may be lost.  Returns the candles that are no longer complete; implied
        ones are the caller's to keep as holes (:func:`.flat.fill_flat`)."""
        self._gaps = joined(self._gaps, (first_ms, until_ms))
        if len(self._gaps) > _MOST_GAPS:  # rather too much is marked than too little
            (first_ms, _), (_, until_ms) = sorted(self._gaps)[:2]
            self._gaps = joined(self._gaps, (first_ms, until_ms))
        return self._remarked()

    def first_after(self, time_ms: int) -> int | None:
        """Time of the first price at or after ``time_ms``, as far as prices are kept; None: there
        is none yet."""
        if self.newest_ms < time_ms:
            return None
        times = (entry.time_ms for entry in self._entries if entry.time_ms >= time_ms)
        return min(times, default=time_ms)

    def whole(self, first_ms: int, until_ms: int) -> list[Built]:
        """What :meth:`missed` said of this time was found after all."""
        self._gaps = [
            part
            for low, high in self._gaps
            for part in ((low, min(high, first_ms)), (max(low, until_ms), high))
            if part[0] < part[1]
        ]
        return self._remarked()

    def implied(self, interval: Interval, open_ms: int) -> Kline | None:
        """The candle of an interval without a price that is over; None where there was one, or
        where nothing came before it."""
        bars = self._bars[interval]
        if open_ms in bars or open_ms >= self._closed_ms[interval]:
            return None
        before = max((at for at in bars if at < open_ms), default=None)
        if before is None:
            return None
        return flat(bars[before], open_ms, complete=self._complete(interval, open_ms))

    def running(self, interval: Interval, price: Price) -> Kline | None:
        """The candle to which ``price`` would belong, without it; None where it is closed."""
        at = calendar.open_of(interval, price.time_ms)
        bars = self._bars[interval]
        newest = next(reversed(bars), None)
        if at < max(self._closed_ms[interval], newest or 0):
            return None
        if newest == at:
            return bars[at]
        opens = price.price if newest is None else bars[newest].close
        complete = self._complete(interval, at)
        return Kline(
            at, opens, opens, opens, opens, _ZERO, _ZERO, 0, False, Source.TRADES, 0, complete
        )

    def _open(self, interval: Interval) -> int | None:
        """Open time of the candle that runs."""
        newest = next(reversed(self._bars[interval]), None)
        return None if newest is None or newest < self._closed_ms[interval] else newest

    def _append(self, entry: _Entry) -> list[Built]:
        changed = []
        for interval in self.intervals:
            bars = self._bars[interval]
            at = calendar.open_of(interval, entry.time_ms)
            newest = next(reversed(bars), None)
            if at < max(self._stored_ms[interval], newest or 0):
                continue
            if newest == at:
                bars[at] = _with(bars[at], entry)
            else:
                opens = entry.price if newest is None else bars[newest].close
                bars[at] = self._first(interval, at, opens, entry)
            changed.append((interval, bars[at]))
        return changed

    def _first(self, interval: Interval, at: int, opens: Decimal, entry: _Entry) -> Kline:
        closed = at < self._closed_ms[interval]
        begun = Kline(at, opens, opens, opens, opens, _ZERO, _ZERO, 0, closed, Source.TRADES)
        return _with(evolve(begun, complete=self._complete(interval, at)), entry)

    def _rebuilt(self) -> list[Built]:
        """All candles of the prices that are kept, made anew: those that differ."""
        changed = []
        for interval in self.intervals:
            old = self._bars[interval]
            first = self._frozen_ms[interval]
            kept = {at: bar for at, bar in old.items() if at < first}
            groups: dict[int, list[_Entry]] = {}
            for entry in self._entries:
                at = calendar.open_of(interval, entry.time_ms)
                if at >= first:
                    groups.setdefault(at, []).append(entry)
            for at in sorted({*groups, *(at for at in old if at >= first)}):
                before = next(reversed(kept), None)
                bar = self._made(interval, at, groups.get(at, []), kept.get(before or -1))
                if bar is None:  # the very first price is not in the chain
                    continue
                kept[at] = bar
                if bar != old.get(at):
                    changed.append((interval, bar))
            self._bars[interval] = kept
        return changed

    def _made(
        self, interval: Interval, at: int, entries: list[_Entry], before: Kline | None
    ) -> Kline | None:
        if not entries:
            if before is None:
                return None
            closed = at < self._closed_ms[interval]
            return evolve(flat(before, at, complete=self._complete(interval, at)), closed=closed)
        opens = entries[0].price if before is None else before.close
        bar = self._first(interval, at, opens, entries[0])
        for entry in entries[1:]:
            bar = _with(bar, entry)
        return bar

    def _too_late(self, time_ms: int) -> list[Built]:
        self.late += 1
        return self.missed(time_ms, time_ms + 1)

    def _remarked(self) -> list[Built]:
        changed = []
        for interval, bars in self._bars.items():
            for at, bar in bars.items():
                complete = self._complete(interval, at)
                if bar.complete != complete and bar is not self.last.get(interval):
                    bars[at] = evolve(bar, complete=complete)
                    changed.append((interval, bars[at]))
        return changed

    def _complete(self, interval: Interval, at: int) -> bool:
        end = calendar.next_open(interval, at)
        if self._watched_ms is not None and at < self._watched_ms:
            return False
        return not any(low < end and at < high for low, high in self._gaps)

    def _trim(self) -> None:
        """Forget what is too old to be revised: whole candles of the longest interval."""
        longest = max(self.intervals, key=calendar.length_ms)
        old_ms = self.newest_ms - self.window_ms
        if self.hold_ms is not None:
            old_ms = min(old_ms, self.hold_ms)
        if len(self._entries) > self.most:
            old_ms = max(old_ms, self._entries[-self.most].time_ms)
        cut_ms = calendar.open_of(longest, max(old_ms, 0))
        firsts = {i: calendar.open_of(i, cut_ms) for i in self.intervals}
        if len(self._entries) > 2 * self.most:  # all in one candle, which cannot be made anew
            cut_ms = self.newest_ms + 1
            firsts = {i: calendar.next_open(i, calendar.open_of(i, cut_ms - 1)) for i in firsts}
        if not any(entry.time_ms < cut_ms for entry in self._entries[:1]):
            return
        self._entries = [entry for entry in self._entries if entry.time_ms >= cut_ms]
        for interval, bars in self._bars.items():
            newest = next(reversed(bars), None)
            first = firsts[interval]
            self._frozen_ms[interval] = max(self._frozen_ms[interval], first)
            before = [at for at in bars if at < first]
            keep = {before[-1] if before else newest, newest}
            for at in before:
                if at not in keep:
                    del bars[at]


def _with(bar: Kline, entry: _Entry) -> Kline:
    return with_price(bar, entry.price, entry.time_ms)


def with_price(bar: Kline, price: Decimal, time_ms: int) -> Kline:
    """The candle with one price more."""
    return evolve(
        bar,
        high=max(bar.high, price),
        low=min(bar.low, price),
        close=price,
        trades=bar.trades + 1,
        event_ms=time_ms,
    )
