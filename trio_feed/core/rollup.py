"""1m candles become those of every longer interval, in calendar time.

One minute after the other is folded into the running candle of each interval: open of the first,
close of the last, extremes, sums (exact, however many digits the volumes have).  A candle is
``complete`` when every one of its minutes was there and complete itself; ``event_ms`` is the last
minute's.  It closes with its last minute or, where that one is missing (a hole of the exchange),
with the first minute after it.  A candle without any minute does not exist.

A minute without a trade is flat at the close before it, and counts for the time alone as long as
another has trades: an exchange opens a longer candle at the first trade inside it, and makes it
flat at the close before only where it has none at all.

Where the minutes are ``sparse`` one without a price has no row and is flat at the close before it
(:mod:`.price_bars`): a missing minute makes a candle incomplete only inside of a gap
(:meth:`RollUp.unsure`), and time closes a candle (:meth:`RollUp.passed`).

A minute that is revised changes every candle that holds it.  A fold cannot be undone, so such a
candle is made anew from its stored minutes (:func:`roll`, :meth:`RollUp.reseed`).  What is stored
may lack the revision: it was read before, or a node in hot standby heard it and does not write.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import copy
from decimal import Decimal

from attrs import define

from ..model import EXACT, Interval, Kline, Source
from . import calendar
from .calendar import Grid, grid_of

_MINUTE = calendar.length_ms(Interval.M1)
TARGETS = tuple(i for i in Interval if i not in (Interval.S1, Interval.S30, Interval.M1))
"""What minutes roll up to: 3m .. 1M."""
Rolled = tuple[Interval, Kline]
_GAPS = 100
_REVISED = 100
_LATEST = 16
"""Closed minutes that are remembered: those that close while stored ones are being read."""


def roll(
    grid: Grid, minutes: Sequence[Kline], *, over: bool = False, sparse: bool = False
) -> Kline:
    """The minutes of one candle, ascending and each once -> that candle.

    It is closed when its last minute is there and closed, or when the caller knows that it is
    ``over``.  Raises ValueError without minutes, or with some of another candle.
    """
    if not minutes:
        raise ValueError(f"a {grid.interval} candle of no minutes")
    bar = _Bar(grid, minutes[0], sparse=sparse)
    before = minutes[0].open_ms
    for minute in minutes[1:]:
        if not before < minute.open_ms < bar.end_ms:
            raise ValueError(
                f"{minute.open_ms} does not follow {before} in a {grid.interval} candle"
            )
        before = minute.open_ms
        bar.add(minute)
    return bar.kline(closed=over or (bar.is_full and minutes[-1].closed))


class RollUp:
    """The minutes of one symbol, ascending, become candles of several intervals.

    ``repeated`` counts minutes that were in already.  ``grids``: where candles open, the usual
    grid where an interval is not in it; None: not known yet, and nothing is made of it.  Raises
    ValueError for intervals that minutes cannot roll up to.
    """

    def __init__(
        self,
        intervals: Sequence[Interval],
        grids: Mapping[Interval, Grid | None] | None = None,
        *,
        sparse: bool = False,
    ) -> None:
        wrong = [i.value for i in intervals if i not in TARGETS]
        if wrong:
            raise ValueError(f"minutes do not roll up to {', '.join(wrong)}")
        self.intervals = tuple(intervals)
        self.repeated = 0
        known = grids or {}
        self._gaps: deque[tuple[int, int]] | None = deque(maxlen=_GAPS) if sparse else None
        self._rolling = {
            i: _Rolling(known[i] if i in known else grid_of(i), self._gaps) for i in intervals
        }
        self._latest: deque[Kline] = deque(maxlen=_LATEST)
        self._revised: dict[int, Kline] = {}
        """The last minutes that were revised here, by open time."""

    def grid(self, interval: Interval) -> Grid | None:
        """None: not known yet."""
        return self._rolling[interval].grid

    def learn(self, interval: Interval, grid: Grid) -> None:
        """Where the candles of this interval open; they begin with the next minute."""
        self._rolling[interval] = _Rolling(grid, self._gaps)

    def unsure(self, first_ms: int, until_ms: int) -> None:
        """Of sparse minutes: some between may be missing for good."""
        if self._gaps is not None:
            self._gaps.append((first_ms, until_ms))
        for rolling in self._rolling.values():
            if rolling.bar is not None and rolling.bar.overlaps(first_ms, until_ms):
                rolling.bar.complete = False

    def passed(self, until_ms: int) -> list[Rolled]:
        """Of sparse minutes: none before ``until_ms`` is to come any more.  What closes by it."""
        return [
            (interval, kline)
            for interval, rolling in self._rolling.items()
            for kline in rolling.passed(until_ms)
        ]

    def add(self, minute: Kline) -> list[Rolled]:
        """Take one minute in.  Returns per interval what closed, then the running candle.

        An open minute is only looked at: the running candles as they are with it so far.
        """
        fresh = [
            (interval, rolling)
            for interval, rolling in self._rolling.items()
            if rolling.grid is not None and minute.open_ms > rolling.last_ms
        ]
        self.repeated += bool(self._rolling) and not fresh
        if minute.closed and fresh:
            self._latest.append(minute)
            if self._revised:  # what was kept of it before it closed
                self._revised.pop(minute.open_ms, None)
        out: list[Rolled] = []
        for interval, rolling in fresh:
            if not minute.closed:
                out += [(interval, row) for row in rolling.running(minute)]
                continue
            out += [(interval, row) for row in rolling.fold(minute)]
            if rolling.bar is not None:
                out.append((interval, rolling.bar.kline(closed=False)))
        return out

    def reseed(self, interval: Interval, minutes: Iterable[Kline]) -> list[Kline]:
        """Forget the running candle and begin with stored minutes, ascending, at least those since
        it opened.  Minutes that closed while they were read are added from memory.

        Returns the candles that closed among them, for a caller who is not sure that they were
        kept.
        """
        grid = self._rolling[interval].grid
        if grid is None:
            return []
        rolling = self._rolling[interval] = _Rolling(grid, self._gaps)
        stored = self.newest(minutes)
        out = [row for minute in stored if minute.closed for row in rolling.fold(minute)]
        return out + [
            row
            for minute in self._latest
            if minute.open_ms > rolling.last_ms
            for row in rolling.fold(minute)
        ]

    def newest(self, minutes: Iterable[Kline]) -> list[Kline]:
        """Stored minutes as they are after the revisions that were learned here."""
        return [self._revised.get(minute.open_ms, minute) for minute in minutes]

    def revised(self, minute: Kline) -> list[tuple[Interval, int, int]]:
        """A closed minute has other values now: (interval, open, end) of every candle with it, also
        of one that was closed, or begun, before anything was added here."""
        self._revised.pop(minute.open_ms, None)
        self._revised[minute.open_ms] = minute
        if len(self._revised) > _REVISED:
            del self._revised[next(iter(self._revised))]
        for at, old in enumerate(self._latest):
            if old.open_ms == minute.open_ms:
                self._latest[at] = minute
        return [
            (interval, open_ms, rolling.grid.next(open_ms))
            for interval, rolling in self._rolling.items()
            if rolling.grid is not None
            for open_ms in (rolling.grid.open_of(minute.open_ms),)
        ]

    def is_running(self, interval: Interval, open_ms: int) -> bool:
        """Whether the candle of this open time is not closed yet."""
        bar = self._rolling[interval].bar
        return bar is not None and bar.open_ms == open_ms


class _Bar:
    """The running candle of one interval."""

    def __init__(self, grid: Grid, minute: Kline, *, sparse: bool = False) -> None:
        self.sparse = sparse
        self.open_ms = grid.open_of(minute.open_ms)
        self.end_ms = grid.next(self.open_ms)
        self.open, self.high, self.low = minute.open, minute.high, minute.low
        self.close, self.idle = minute.close, _is_idle(minute)
        self.volume = self.quote_volume = Decimal(0)
        self.taker_buy: Decimal | None = Decimal(0)
        self.taker_buy_quote: Decimal | None = Decimal(0)
        self.first_trade_id: int | None = None
        self.last_trade_id: int | None = None
        self.trades = self.minutes = 0
        self.complete, self.simulated = True, False
        self.add(minute)

    @property
    def is_full(self) -> bool:
        """The last minute is in (others may be missing)."""
        return self.last_ms + _MINUTE >= self.end_ms

    def overlaps(self, first_ms: int, until_ms: int) -> bool:
        return first_ms < self.end_ms and self.open_ms < until_ms

    def add(self, minute: Kline) -> None:
        if not _is_idle(minute):
            self._price(minute)
        self.volume = EXACT.add(self.volume, minute.volume)
        self.quote_volume = EXACT.add(self.quote_volume, minute.quote_volume)
        self.taker_buy = _sum(self.taker_buy, minute.taker_buy_volume)
        self.taker_buy_quote = _sum(self.taker_buy_quote, minute.taker_buy_quote_volume)
        self.trades += minute.trades
        if self.first_trade_id is None:
            self.first_trade_id = minute.first_trade_id
        if minute.last_trade_id is not None:
            self.last_trade_id = minute.last_trade_id
        self.complete = self.complete and minute.complete
        self.simulated = self.simulated or minute.source is Source.SIMULATED
        self.event_ms, self.last_ms = minute.event_ms, minute.open_ms
        self.minutes += 1

    def _price(self, minute: Kline) -> None:
        """The prices of a minute with trades.  The first takes the place of a flat one's."""
        if self.idle:
            self.open, self.high, self.low, self.idle = minute.open, minute.high, minute.low, False
        self.high = max(self.high, minute.high)
        self.low = min(self.low, minute.low)
        self.close = minute.close

    def kline(self, *, closed: bool) -> Kline:
        """``complete`` means: up to the last minute, or where closed up to the end."""
        end = self.end_ms if closed else self.last_ms + _MINUTE
        due = calendar.count(Interval.M1, self.open_ms, end)
        return Kline(
            open_ms=self.open_ms,
            open=self.open,
            high=self.high,
            low=self.low,
            close=self.close,
            volume=self.volume,
            quote_volume=self.quote_volume,
            trades=self.trades,
            closed=closed,
            source=Source.SIMULATED if self.simulated else Source.ROLLUP,
            event_ms=self.event_ms,
            complete=self.complete and (self.sparse or self.minutes == due),
            first_trade_id=self.first_trade_id,
            last_trade_id=self.last_trade_id,
            taker_buy_volume=self.taker_buy,
            taker_buy_quote_volume=self.taker_buy_quote,
        )


def _is_idle(minute: Kline) -> bool:
    """Nothing was traded in it.  Not every venue says how many trades there were (OKX, 0 in all
    rows): then the volume does."""
    return not minute.trades and not minute.volume


def _sum(total: Decimal | None, part: Decimal | None) -> Decimal | None:
    """None as soon as one part is not known."""
    return None if total is None or part is None else EXACT.add(total, part)


@define
class _Rolling:
    """One interval's candles: the running one, and the last closed minute that is in."""

    grid: Grid | None
    gaps: Collection[tuple[int, int]] | None = None
    """None: the minutes are not sparse."""
    last_ms: int = -1
    bar: _Bar | None = None

    def fold(self, minute: Kline) -> list[Kline]:
        """Take a closed minute in.  Returns what closed: two candles where a hole ends one and
        the minute is the other's last."""
        assert self.grid is not None, "minutes are folded where the grid is known"
        closed = []
        if self.bar is not None and minute.open_ms >= self.bar.end_ms:
            closed.append(self.bar.kline(closed=True))
            self.bar = None
        if self.bar is None:
            self.bar = self._begun(self.grid, minute)
        else:
            self.bar.add(minute)
        self.last_ms = minute.open_ms
        if self.bar.is_full:
            closed.append(self.bar.kline(closed=True))
            self.bar = None
        return closed

    def running(self, minute: Kline) -> list[Kline]:
        """The running candle with this open minute; none while the one before is not closed."""
        assert self.grid is not None, "minutes are folded where the grid is known"
        if self.bar is None:
            return [self._begun(self.grid, minute).kline(closed=False)]
        if minute.open_ms >= self.bar.end_ms:
            return []
        bar = copy(self.bar)
        bar.add(minute)
        return [bar.kline(closed=False)]

    def passed(self, until_ms: int) -> list[Kline]:
        """Close the running candle if it has ended by then."""
        bar = self.bar
        if bar is None or bar.end_ms > until_ms:
            return []
        self.bar, self.last_ms = None, bar.end_ms - _MINUTE
        return [bar.kline(closed=True)]

    def _begun(self, grid: Grid, minute: Kline) -> _Bar:
        bar = _Bar(grid, minute, sparse=self.gaps is not None)
        if any(bar.overlaps(*gap) for gap in self.gaps or ()):
            bar.complete = False
        return bar
