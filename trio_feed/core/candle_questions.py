"""What the candles of one symbol want asked: when, and each question as it stands.  Pure.

Of each series what has ended and did not come, a second look at what closed (:mod:`.audit`) and its
past (:mod:`.history`); of a roll-up where its candles open (:mod:`.rolled`).
"""

from collections.abc import Iterable, Mapping

from attrs import define

from ..instants import Mono, Now
from ..model import Interval
from .audit import Audit
from .effects import Fetch
from .history import FIRST_PAGE, History
from .ledger import Ledger
from .questions import CandleQuestion, Need, Rules
from .rolled import Rolled


@define(eq=False)
class CandleQuestions:
    """Its parts are those of :class:`.series.CandleSeries`, which takes the answers."""

    rules: Rules
    symbol: str
    ledgers: Mapping[Interval, Ledger]
    audits: Mapping[Interval, Audit]
    history: History
    rolled: Rolled

    def time_moved(self, now: Now) -> None:
        """The exchange's time is another one than we thought, so its past may reach farther."""
        for interval in self.audits:
            self.want_history(interval, now)

    def want_history(self, interval: Interval, now: Now, *, known: bool = True) -> None:
        """Its past is wanted.  ``known``: the store has some of it."""
        self.history.want(interval, self.ledgers[interval], now, known=known)

    def first_bars(self, interval: Interval, now: Now) -> int:
        """How many closed candles a series without history begins with."""
        if interval not in self.rules.intervals:
            return 0
        # The grid is not known yet: one more, so that none is missing where it is another one.
        bars = self.history.bars(interval, now)
        more = interval is Interval.D3 and bars > 0
        return min(bars, FIRST_PAGE) + more

    def dues(self, now: Now) -> Iterable[tuple[Fetch, Mono]]:
        """What to ask, and when."""
        for interval, audit in self.audits.items():
            ledger = self.ledgers[interval]
            yield Fetch(Need.CANDLES, self.symbol, interval), ledger.due(now)
            yield Fetch(Need.AUDIT, self.symbol, interval), audit.due(ledger.grid, now)
        for interval, at in self.history.dues():
            if self.ledgers[interval].first_ms is not None:
                yield Fetch(Need.HISTORY, self.symbol, interval), at
        for interval, at in self.rolled.dues():
            yield Fetch(Need.GRID, self.symbol, interval), at

    def ask(self, fetch: Fetch, now: Now) -> CandleQuestion | None:
        """The question as it stands now; None: there is nothing to ask after all."""
        interval = fetch.interval
        assert interval is not None, "a question about candles has an interval"
        ledger = self.ledgers[interval]
        grid, page = ledger.grid, self.rules.page
        if fetch.need is Need.CANDLES:
            ledger.begin_before(now, self.first_bars(interval, now))
            start = ledger.ask_from
            end = max(int(now.exchange), ledger.newest_ms)
            bars = grid.count(start, grid.next(grid.open_of(end)))
            return CandleQuestion(interval, start, max(1, min(bars, page)))
        if fetch.need is Need.AUDIT:
            wanted = self.audits[interval].wanted(grid, now)
            return None if wanted is None else CandleQuestion(interval, wanted[0], wanted[1])
        if fetch.need is Need.GRID:
            return self.rolled.question(interval, grid, now)
        return self.history.ask(interval, ledger, now)

    def failed(self, fetch: Fetch, now: Now) -> None:
        """There was no answer, or one that cannot be used."""
        interval = fetch.interval
        assert interval is not None, "a question about candles has an interval"
        match fetch.need:
            case Need.CANDLES:
                self.ledgers[interval].failed(now)
            case Need.AUDIT:
                self.audits[interval].failed(now)
            case Need.GRID:
                self.rolled.not_answered(interval, now)
            case _:
                self.history.failed(interval, now)
