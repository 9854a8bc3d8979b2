"""The roll-ups of one symbol as they depend on what is stored and on the exchange's grid.  Pure.

:mod:`.rollup` adds minutes up.  Here is what it needs beside the minutes that come: those that were
stored before the start, those of a closed candle that has to be made anew, and where the candles
of an interval open, which only the exchange's own rows say.
"""

from collections.abc import Iterable, Iterator, Mapping

from ..instants import Mono, Now
from ..model import Interval, Kline
from ..settings import ExchangeSettings
from .bars import Built
from .calendar import Grid
from .effects import Load
from .history import RETRY_S
from .ledger import Ledger
from .questions import CandleQuestion, Rules
from .rollup import RollUp, roll
from .streams import Kind

_GRID_BARS = 3


class Rolled:
    """``sparse``: silent minutes have no candle."""

    __slots__ = ("_grid_at", "_symbol", "_to_load", "_unread", "intervals", "rollup", "sparse")

    def __init__(self, rules: Rules, settings: ExchangeSettings, symbol: str, now: Now) -> None:
        self._symbol = symbol
        self.intervals = settings.rollup_intervals
        self.sparse = rules.trade_kind is Kind.PRICE
        chosen = frozenset(settings.rollup_intervals)
        learn = {Interval.D3} & chosen & rules.intervals
        self.rollup = RollUp(settings.rollup_intervals, dict.fromkeys(learn), sparse=self.sparse)
        self._grid_at: dict[Interval, Mono] = dict.fromkeys(learn, now.mono)
        self._to_load = set(chosen)
        self._unread = set(chosen) if self.sparse else set()
        """Those that wait for their stored minutes: a silent minute does not show that it lacks
        one."""

    def add(self, minute: Kline) -> Iterator[Built]:
        """A state of a minute -> states of the candles that hold it."""
        return self._known(self.rollup.add(minute))

    def passed(self, until_ms: int) -> Iterator[Built]:
        """No minute before ``until_ms`` is to come any more: what was made of them is over."""
        return self._known(self.rollup.passed(until_ms))

    def is_unread(self, interval: Interval) -> bool:
        """Its stored minutes have not been read yet."""
        return interval in self._unread

    def revised(self, minute: Kline) -> list[Load]:
        """Another value of a closed minute: candles that hold it are made anew."""
        return [
            Load(self._symbol, interval, start, end)
            for interval, start, end in self.rollup.revised(minute)
        ]

    def loads(self, ledgers: Mapping[Interval, Ledger], now: Now) -> list[Load]:
        """At the start running candles begin with the minutes that are stored of them."""
        out: list[Load] = []
        for interval in sorted(self._to_load):
            grid = self.rollup.grid(interval)
            if grid is None:
                continue
            self._to_load.discard(interval)
            start = ledgers[interval].expected
            # The minutes that are stored, however late it is by a clock that may be wrong.
            minutes = ledgers.get(Interval.M1)
            stored = 0 if minutes is None else minutes.expected
            end = max(int(now.exchange), grid.next(start), stored) + 1
            out.append(Load(self._symbol, interval, start, end))
        return out

    def begin(self, load: Load, minutes: Iterable[Kline]) -> list[Kline]:
        """The stored minutes of the running candle -> its states."""
        self._unread.discard(load.interval)
        return self.rollup.reseed(load.interval, minutes)

    def again(self, load: Load, minutes: Iterable[Kline], grid: Grid) -> Kline | None:
        """The stored minutes of a closed candle -> what it is now; None: none is stored, or not all
        are there yet of one that was fetched whole: what is made of it here begins anew."""
        self._unread.discard(load.interval)
        stored = self.rollup.newest(minutes)
        inside = [m for m in stored if load.start_ms <= m.open_ms < load.end_ms]
        if self.rollup.is_running(load.interval, load.start_ms):
            closed = self.rollup.reseed(load.interval, inside)
            return next((row for row in closed if row.open_ms == load.start_ms), None)
        return roll(grid, inside, over=True, sparse=self.sparse) if inside else None

    # Where the candles open.

    def dues(self) -> Iterator[tuple[Interval, Mono]]:
        """When to ask for the newest rows of an interval."""
        yield from self._grid_at.items()

    def question(self, interval: Interval, grid: Grid, now: Now) -> CandleQuestion:
        start = grid.back(grid.open_of(int(now.exchange)), _GRID_BARS - 1)
        return CandleQuestion(interval, start, _GRID_BARS)

    def not_answered(self, interval: Interval, now: Now) -> None:
        if interval in self._grid_at:
            self._grid_at[interval] = now.mono + RETRY_S

    def learn(self, interval: Interval, rows: Iterable[Kline], ledger: Ledger, now: Now) -> bool:
        """The newest rows -> whether the grid is known now."""
        opens = [row.open_ms for row in rows]
        if not opens:
            self._grid_at[interval] = now.mono + RETRY_S
            return False
        del self._grid_at[interval]
        grid = Grid(interval, opens[-1])
        self.rollup.learn(interval, grid)
        ledger.move_to(grid)
        return True

    def _known(self, built: Iterable[Built]) -> Iterator[Built]:
        return (each for each in built if each[0] not in self._unread)
