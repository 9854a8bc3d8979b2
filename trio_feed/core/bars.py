"""Candles from trades, closed by evidence and never by a clock.

Rules (the exchange's own, so that the two can be compared):

- ``open`` and ``close`` are the first and last trade's price in the order of ids, ``high`` and
  ``low`` the extremes, ``volume`` the sum of quantities in base currency, ``quote_volume`` the sum
  in quote currency, ``trades`` the number of trades inside the aggregates.
- An interval without a trade is flat at the previous close.
- A candle closes when a trade of a later interval follows, or when :meth:`TradeBars.prove` says
  that everything up to some time is here.
- A trade of a candle that has closed is *late*: it makes a revision of its own candle.  Where a
  trade with an earlier id lies behind it, one of the two times is wrong: see below.
- ``complete`` is False where trades are known to be missing, and where it cannot be known to which
  candle a trade belongs.

One trade's time is not believed where it contradicts its neighbours, which are known by the ids:

- A time that has not come is not believed, however many trades have it (they may come in one
  frame): a trade further ahead than ``limit_ms`` waits until the limit, which follows the
  exchange's clock, has reached it, or the exchange confirms it (:meth:`TradeBars.confirm`).
- A trade that lies before the one before it counts where it says, and it or the other is wrong:
  every candle to which either may belong is marked.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from decimal import Decimal

from attrs import define, field

from ..model import Interval, Kline, Trade
from . import calendar
from .bar import Bar, flat_bar, lump_of
from .clock import TOLERANCE_MS

Built = tuple[Interval, Kline]
_REMEMBERED = 120
"""Closed candles per interval to which a late trade can still be added."""
_SMALL_MS = 100
"""A fall of the time from trade to trade that says nothing about others."""
FAR_MS = int(TOLERANCE_MS)
"""A trade that is further ahead of the exchange's time is not believed: as much as one message
moves our idea of that time.  So one that is dated too late, and believed, is so by about this much
at most, and so near to each other lie some that are misdated together."""
_MOST_FLAT = 10_000
"""A longer silence is a hole and not so many flat candles."""
_MOST_TOGETHER = 1_000
"""Plain trades that are added up at once."""


@define(eq=False)
class TradeBars:
    """One symbol's trades, in the order of their ids, become candles of several intervals.

    Take trades with :meth:`add`, then :meth:`collect` what closed, what was revised and what runs.
    ``late`` counts trades of closed candles, ``misdated`` those whose candle cannot be known.
    """

    intervals: tuple[Interval, ...]
    late: int = 0
    misdated: int = 0
    last_trade_id: int = 0
    """The last of the trades (not aggregates) that is in."""
    last_ms: int = 0
    _bars: dict[Interval, Bar] = field(factory=dict)
    _done: dict[Interval, deque[Bar]] = field(factory=dict)
    _closed: list[Built] = field(factory=list)
    _revised: dict[tuple[Interval, int], Bar] = field(factory=dict)
    _touched: bool = False
    _run: list[Trade] = field(factory=list)
    """Plain trades that the running candles do not have yet."""
    _far: list[Trade] = field(factory=list)
    _fell: bool = False
    """The last trade lay before the one before it."""
    _doubt_ms: int = 0
    """A misdated trade may belong to any candle that opens before this."""
    _next_end_ms: float = float("inf")
    _incomplete_from_here: bool = True
    """The next trade comes after an unknown number of others."""
    _stored: tuple[int, int] | None = None
    """The last trade and the end of the stored candle behind which this began, while trades come
    that it may have."""

    @property
    def next_end_ms(self) -> float:
        """When the next open candle ends; inf before the first trade."""
        return self._next_end_ms

    def volume_of(self, interval: Interval, open_ms: int) -> Decimal | None:
        """What was traded in a candle as far as we know, None where that is not known: before the
        first trade, and while the candle before it is open."""
        self._put_run()
        bar = self._bars.get(interval)
        if bar is not None and open_ms == bar.open_ms:
            return bar.volume if bar.complete else None
        done = self._done.get(interval, ())
        return next((b.volume for b in reversed(done) if b.open_ms == open_ms), None)

    def complete_from(self, interval: Interval) -> int | None:
        """The open time of the first candle, from now on, of which every trade is to come; None
        before the first trade."""
        bar = self._bars.get(interval)
        if bar is None:
            return None
        return bar.open_ms if bar.complete else bar.end_ms

    def resume(self, last: Kline, interval: Interval) -> None:
        """Go on behind a stored candle: whatever was traded since comes first.  Candles of longer
        intervals that run at its end are not complete."""
        end_ms = calendar.next_open(interval, last.open_ms)
        for each in self.intervals:
            open_ms = calendar.open_of(each, end_ms)
            bar = flat_bar(each, open_ms, last.close, last.event_ms, last.last_stream_id)
            bar.complete = open_ms == end_ms
            self._bars[each] = bar
        self._incomplete_from_here = False
        self._stored = None if last.last_trade_id is None else (last.last_trade_id, end_ms)
        self.last_ms = end_ms - 1  # what follows comes again, however far another interval was
        self._find_next_end()

    def lose(self) -> None:
        """An unknown number of trades is missing from here on until the next one.  By their times
        they may lie a little before, or behind."""
        for interval, bar in self._bars.items():
            bar.complete = False
            for done in self._done.get(interval, ()):
                if done.end_ms > self.last_ms - _SMALL_MS and done.complete:
                    done.complete = False
                    self._revised[interval, done.open_ms] = done
        self._incomplete_from_here = True

    def plain_span(self) -> tuple[int, float]:
        """A trade of a time in [first, second) that follows the last one is plain: it goes into
        every running candle and ends none."""
        if self._far or self._fell or self._incomplete_from_here:
            return 0, 0
        if len(self._bars) < len(self.intervals):
            return 0, 0
        return self.last_ms, self._next_end_ms

    def add_plain(self, trades: Sequence[Trade]) -> None:
        """Plain ones, none of which lies before the one before it.  They are added up when somebody
        wants to know what became of the candles."""
        if self.intervals:
            self._run += trades
        last = trades[-1]
        self.last_ms, self.last_trade_id = last.time_ms, last.last_id
        self._touched = True
        if len(self._run) > _MOST_TOGETHER:
            self._put_run()

    def add(self, trade: Trade, limit_ms: float) -> None:
        """The next trade.  ``limit_ms``: later times have not come."""
        if self._stored is not None and self._is_stored(trade, *self._stored):
            return
        if self._far or trade.time_ms > limit_ms:
            self._settle_far(trade, limit_ms)
            return
        self._put(trade, trade.time_ms, sure=True)

    def prove(self, until_ms: float) -> None:
        """All trades before ``until_ms`` are in: candles that end by then are closed."""
        if self._far or self._incomplete_from_here:
            return  # where those trades belong is not known yet
        if until_ms >= self._next_end_ms:
            self._roll(int(until_ms))

    def confirm(self, trade: Trade, limit_ms: float) -> None:
        """The exchange's own answer has ``trade`` as its newest one: so a time that was not
        believed of the stream is right, if it is the same, has come, and it is our newest too."""
        newest = self._far[-1] if self._far else None
        if newest is None or (newest.trade_id, newest.time_ms) != (trade.trade_id, trade.time_ms):
            return
        if max(each.time_ms for each in self._far) <= limit_ms:
            far, self._far = self._far, []
            for each in far:
                self._put(each, each.time_ms, sure=True)

    @property
    def touched(self) -> bool:
        """A trade came that no collected running candle has."""
        return self._touched

    def collect(self, *, running: bool = True) -> tuple[list[Built], list[Built], list[Built]]:
        """(closed in order of their ends, revised, running ones if a trade came) since last time.
        ``running`` False: those that run are left for later.

        A revised candle that closed since the last time is only among the closed.
        """
        closed, self._closed = self._closed, []
        revised: list[Built] = []
        if self._revised:
            revised = [(key[0], bar.kline(closed=True)) for key, bar in self._revised.items()]
            fresh = {(interval, kline.open_ms): at for at, (interval, kline) in enumerate(closed)}
            for interval, kline in list(revised):
                at = fresh.get((interval, kline.open_ms))
                if at is not None:
                    closed[at] = (interval, kline)
            revised = [built for built in revised if (built[0], built[1].open_ms) not in fresh]
            self._revised = {}
        open_ones: list[Built] = []
        if self._touched and running:
            self._touched = False
            self._put_run()
            open_ones = [(bar.interval, bar.kline(closed=False)) for bar in self._bars.values()]
        return closed, revised, open_ones

    def _settle_far(self, trade: Trade, limit_ms: float) -> None:
        """Of a time that has not come, or behind such ones."""
        if trade.time_ms > limit_ms:
            self._far.append(trade)
            return
        far, self._far = self._far, []
        for each in far:
            if each.time_ms <= limit_ms:
                self._put(each, each.time_ms, sure=True)
                continue
            # It happened between its neighbours, in any of the candles from the one to the other.
            self.misdated += 1
            for bar in self._bars.values():
                bar.complete = False
            if trade.time_ms >= self._next_end_ms:
                self._roll(trade.time_ms, sure=False)
            self._put(each, max(trade.time_ms, self.last_ms), sure=False)
        self._put(trade, trade.time_ms, sure=True)

    def _is_stored(self, trade: Trade, last_id: int, end_ms: int) -> bool:
        """The stored candle has it: one that was late there comes behind one of the next candle."""
        if trade.last_id > last_id:
            self._stored = None
            return False
        if trade.time_ms >= end_ms:
            return False
        self.last_trade_id = trade.last_id
        return True

    def _put_run(self) -> None:
        """The plain ones that came since, into each candle at once."""
        if self._run:
            lump, self._run = lump_of(self._run), []
            for bar in self._bars.values():
                bar.add(lump)

    def _put(self, trade: Trade, time_ms: float, *, sure: bool) -> None:
        self._put_run()
        time_ms = int(time_ms)
        falls = time_ms < self.last_ms
        if falls:
            self._fall(time_ms)
        elif self._fell:
            self._fell = False
            self._doubt_ms = max(self._doubt_ms, time_ms + 1)  # it may have been as late as this
        if self._incomplete_from_here and self.last_ms:  # so may those that are missing
            self._doubt_ms = max(self._doubt_ms, time_ms + _SMALL_MS)
        if time_ms >= self._next_end_ms:
            self._roll(time_ms)
        if not falls:
            self.last_ms = time_ms
        lump = lump_of((trade,))
        for interval in self.intervals:
            bar = self._bars.get(interval)
            if bar is None:
                bar = self._begin(interval, trade, time_ms)
            elif time_ms < bar.open_ms:
                self._add_late(interval, bar, trade, time_ms, sure=sure and not falls)
                continue
            if self._incomplete_from_here or not sure:
                bar.complete = False
            bar.add(lump)
        self._incomplete_from_here = False
        self.last_trade_id = trade.last_id
        self._touched = True

    def _fall(self, time_ms: int) -> None:
        """This trade lies before the one before it: its time is wrong, or that of some before."""
        if self.last_ms - time_ms <= _SMALL_MS:
            return
        self._fell = True
        self._doubt_ms = self.last_ms + FAR_MS
        start_ms = max(time_ms, self.last_ms - FAR_MS) - FAR_MS
        for interval, bar in self._bars.items():
            if start_ms >= bar.open_ms and bar.end_ms > self._doubt_ms:
                continue  # wherever it belongs is in this one
            for each in (*self._done.get(interval, ()), bar):
                if each.end_ms > start_ms and each.complete:
                    each.complete = False
                    if each is not bar:
                        self._revised[interval, each.open_ms] = each

    def _begin(self, interval: Interval, trade: Trade, time_ms: int) -> Bar:
        open_ms = calendar.open_of(interval, time_ms)
        bar = flat_bar(interval, open_ms, trade.price, trade.event_ms, trade.trade_id)
        self._bars[interval] = bar
        self._find_next_end()
        return bar

    def _add_late(
        self, interval: Interval, bar: Bar, trade: Trade, time_ms: int, *, sure: bool
    ) -> None:
        """Into its own candle, which is closed; flat ones after it move with its close."""
        self.late += 1
        if not sure:
            bar.complete = False
        done = self._done.get(interval, ())
        own = next((b for b in reversed(done) if b.open_ms <= time_ms < b.end_ms), None)
        if own is None:
            # Too late for its own candle: it must not get lost, so it marks this one.
            self.misdated += 1
            bar.complete = False
            bar.add(lump_of((trade,)))
            return
        behind = [*(b for b in done if b.open_ms > own.open_ms), bar]
        # Who goes on behind a stored candle has every trade from its ``last_id`` on come again:
        # that of a later candle with a smaller id than this one has to be among them.
        is_last, before_id = not any(later.trades for later in behind), own.last_id
        own.add(lump_of((trade,)))
        if not is_last:
            own.last_id = before_id
        own.complete = own.complete and sure
        self._revised[interval, own.open_ms] = own
        for later in behind:
            if later.trades:
                break
            later.rebase(own.close)
            if is_last:
                later.last_id = max(later.last_id, trade.trade_id)
            if later is not bar:
                self._revised[interval, later.open_ms] = later

    def _roll(self, time_ms: int, *, sure: bool = True) -> None:
        """Close every candle that ends by ``time_ms``; flat ones follow while nothing is
        missing."""
        self._put_run()
        for interval, bar in list(self._bars.items()):
            if bar.end_ms > time_ms:
                continue
            known = not self._incomplete_from_here
            if self._doubt_ms > bar.end_ms:
                bar.complete = False
            if bar.trades or known:
                self._close(bar)
            if not known:
                del self._bars[interval]  # a trade of unknown distance begins the next one
                continue
            flat = calendar.count(interval, bar.end_ms, calendar.open_of(interval, time_ms))
            if flat > _MOST_FLAT:
                open_ms = calendar.open_of(interval, time_ms)
                bar = flat_bar(interval, open_ms, bar.close, bar.event_ms, bar.last_id)
                bar.complete = open_ms >= self._doubt_ms
            else:
                for _ in range(flat):
                    bar = flat_bar(interval, bar.end_ms, bar.close, bar.event_ms, bar.last_id)
                    bar.complete = sure and bar.open_ms >= self._doubt_ms
                    self._close(bar)
                bar = flat_bar(interval, bar.end_ms, bar.close, bar.event_ms, bar.last_id)
                bar.complete = bar.open_ms >= self._doubt_ms
            self._bars[interval] = bar
        if len(self._closed) > 1:
            self._closed.sort(key=_end)
        self._find_next_end()

    def _close(self, bar: Bar) -> None:
        done = self._done.get(bar.interval)
        if done is None:
            done = self._done[bar.interval] = deque(maxlen=_REMEMBERED)
        done.append(bar)
        self._closed.append((bar.interval, bar.kline(closed=True)))

    def _find_next_end(self) -> None:
        ends: Iterable[int] = (bar.end_ms for bar in self._bars.values())
        self._next_end_ms = min(ends, default=float("inf"))


def _end(built: Built) -> int:
    return calendar.next_open(built[0], built[1].open_ms)
