"""1m candles become those of every longer interval, in calendar time.

One minute after the other is folded into the running candle of each interval: open of the first,
close of the last, extremes, sums (exact, however many digits the volumes have).  A candle is
``complete`` when every one of its minutes was there and complete itself; ``event_ms`` is the last
minute's.  It closes with its last minute or, where that one is missing (a hole of the exchange),
with the first minute after it.  A candle without any minute does not exist.
"""

from collections.abc import Iterable, Sequence
from copy import copy
from decimal import Decimal

from attrs import define, field

from ..model import EXACT, Interval, Kline, Source
from . import calendar

_MINUTE = calendar.length_ms(Interval.M1)
TARGETS = tuple(i for i in Interval if i not in (Interval.S1, Interval.S30, Interval.M1))
"""What minutes roll up to: 3m .. 1M."""


def roll(interval: Interval, minutes: Sequence[Kline], *, over: bool = False) -> Kline:
    """The minutes of one candle, ascending and each once -> that candle.

    It is closed when its last minute is there and closed, or when the caller knows that it is
    ``over``.  Raises ValueError without minutes, or with some of another candle.
    """
    if not minutes:
        raise ValueError(f"a {interval} candle of no minutes")
    bar = _Bar(interval, minutes[0])
    before = minutes[0].open_ms
    for minute in minutes[1:]:
        if not before < minute.open_ms < bar.end_ms:
            raise ValueError(f"{minute.open_ms} does not follow {before} in a {interval} candle")
        before = minute.open_ms
        bar.add(minute)
    return bar.kline(closed=over or (bar.is_full and minutes[-1].closed))


@define
class RollUp:
    """The minutes of one symbol, ascending, become candles of several intervals.

    ``repeated`` counts minutes that were in already.  Raises ValueError for intervals that
    minutes cannot roll up to.
    """

    intervals: Sequence[Interval]
    repeated: int = 0
    _lines: dict[Interval, "_Line"] = field(init=False)

    def __attrs_post_init__(self) -> None:
        wrong = [i.value for i in self.intervals if i not in TARGETS]
        if wrong:
            raise ValueError(f"minutes do not roll up to {', '.join(wrong)}")
        self._lines = {interval: _Line(interval) for interval in self.intervals}

    def add(self, minute: Kline) -> list[tuple[Interval, Kline]]:
        """Take one minute in.  Returns per interval what closed, then the running candle.

        An open minute is only looked at: the running candles as they are with it so far.  Raises
        ValueError for what is not a minute.
        """
        if minute.open_ms % _MINUTE:
            raise ValueError(f"{minute.open_ms} is not the open time of a minute")
        fresh = [line for line in self._lines.values() if minute.open_ms > line.last_ms]
        self.repeated += not fresh
        out: list[tuple[Interval, Kline]] = []
        for line in fresh:
            if not minute.closed:
                out += [(line.interval, row) for row in line.running(minute)]
                continue
            out += [(line.interval, row) for row in line.fold(minute)]
            if line.bar is not None:
                out.append((line.interval, line.bar.kline(closed=False)))
        return out

    def seed(self, interval: Interval, minutes: Iterable[Kline]) -> list[Kline]:
        """Forget the running candle and begin with stored minutes, ascending; after a restart at
        least those since ``open_of(interval, last stored minute)``.

        Returns the candles that closed among them, for a caller who is not sure that they were
        kept.
        """
        line = self._lines[interval] = _Line(interval)
        return [row for minute in minutes if minute.closed for row in line.fold(minute)]


@define(init=False)
class _Bar:
    """The running candle of one interval."""

    interval: Interval
    open_ms: int
    end_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    trades: int
    complete: bool
    event_ms: int
    last_ms: int
    minutes: int
    simulated: bool

    def __init__(self, interval: Interval, minute: Kline) -> None:
        self.interval = interval
        self.open_ms = calendar.open_of(interval, minute.open_ms)
        self.end_ms = calendar.next_open(interval, self.open_ms)
        self.open, self.high, self.low = minute.open, minute.high, minute.low
        self.volume = self.quote_volume = Decimal(0)
        self.trades = self.minutes = 0
        self.complete, self.simulated = True, False
        self.add(minute)

    @property
    def is_full(self) -> bool:
        """The last minute is in (others may be missing)."""
        return self.last_ms + _MINUTE == self.end_ms

    def add(self, minute: Kline) -> None:
        self.high = max(self.high, minute.high)
        self.low = min(self.low, minute.low)
        self.close = minute.close
        self.volume = EXACT.add(self.volume, minute.volume)
        self.quote_volume = EXACT.add(self.quote_volume, minute.quote_volume)
        self.trades += minute.trades
        self.complete = self.complete and minute.complete
        self.simulated = self.simulated or minute.source is Source.SIMULATED
        self.event_ms, self.last_ms = minute.event_ms, minute.open_ms
        self.minutes += 1

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
            complete=self.complete and self.minutes == due,
        )


@define
class _Line:
    """One interval's candles: the running one, and the last closed minute that is in."""

    interval: Interval
    last_ms: int = -1
    bar: _Bar | None = None

    def fold(self, minute: Kline) -> list[Kline]:
        """Take a closed minute in.  Returns what closed: two candles where a hole ends one and
        the minute is the other's last."""
        closed = []
        if self.bar is not None and minute.open_ms >= self.bar.end_ms:
            closed.append(self.bar.kline(closed=True))
            self.bar = None
        if self.bar is None:
            self.bar = _Bar(self.interval, minute)
        else:
            self.bar.add(minute)
        self.last_ms = minute.open_ms
        if self.bar.is_full:
            closed.append(self.bar.kline(closed=True))
            self.bar = None
        return closed

    def running(self, minute: Kline) -> list[Kline]:
        """The running candle with this open minute; none while the one before is not closed."""
        if self.bar is None:
            return [_Bar(self.interval, minute).kline(closed=False)]
        if minute.open_ms >= self.bar.end_ms:
            return []
        bar = copy(self.bar)
        bar.add(minute)
        return [bar.kline(closed=False)]
