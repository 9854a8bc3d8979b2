"""All candle series of one symbol: their ledgers, second looks, roll-ups and history.  Pure.

A series has one origin: the exchange's candle stream, our trades, or our minutes.  Whatever the
origin, what the exchange answers by REST has the last word where it answers at all.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from attrs import evolve

from ..instants import NEVER, Mono, Now
from ..model import Interval, Kline, Series, Source
from ..settings import ExchangeSettings
from . import reports
from .asking import Policy
from .audit import Audit
from .calendar import grid_of
from .candle_questions import CandleQuestions
from .effects import CandleNews, Effect, Fetch, Load, StoreHole, StoreRows
from .history import History
from .ledger import Ledger
from .opening import End, open_ledger, stopped_ms
from .questions import Need, Rules
from .rolled import Rolled

QUIET_S = 60.0
"""For a candle made here that the exchange has as well: in a quiet market one small question proves
many of them earlier (:data:`.trades.REST_BEHIND_S`)."""


class CandleSeries:
    """``ledgers`` by interval.  Methods return effects, in order.  ``questions``: what the candles
    want asked."""

    # Slots here and in what else a message of a symbol meets: among thousands of symbols each
    # object, and a __dict__ is one, is a miss of the processor's cache (docs/performance.md).
    __slots__ = (
        "_built", "_noted", "_rolls", "_simulated", "_unusual", "audits", "history", "ledgers",
        "questions", "rolled", "rules", "symbol",
    )  # fmt: skip

    def __init__(
        self,
        rules: Rules,
        settings: ExchangeSettings,
        symbol: str,
        ends: Mapping[Interval, End],
        now: Now,
        *,
        simulated: bool,
    ) -> None:
        self.rules, self.symbol = rules, symbol
        self.ledgers: dict[Interval, Ledger] = {}
        self.audits: dict[Interval, Audit] = {}
        self._simulated = simulated
        self.history = History(rules, settings.history_bars)
        self._noted: dict[Interval, int] = {}
        self._unusual: set[Interval] = set()
        self._built = frozenset(settings.trade_intervals)
        policy = Policy(close_grace_s=settings.close_grace_s)
        self.rolled = Rolled(rules, settings, symbol, now)
        self.questions = CandleQuestions(
            rules, symbol, self.ledgers, self.audits, self.history, self.rolled
        )
        rolled = settings.rollup_intervals
        self._rolls = bool(rolled)
        for interval in chain(settings.intervals, settings.trade_intervals, rolled):
            self._open(interval, ends, now, policy, settings.audit_after_s)

    def _open(
        self,
        interval: Interval,
        ends: Mapping[Interval, End],
        now: Now,
        policy: Policy,
        audit_after_s: float,
    ) -> None:
        end = ends.get(interval)
        fetched = interval in self.rules.intervals
        if interval in self._built:  # what is quiet is proven quiet before, by one small question
            policy = evolve(policy, quiet_s=QUIET_S)
        series = Series(self.rules.venue, self.symbol, interval)
        bars, grid = self.questions.first_bars(interval, now), grid_of(interval)
        ledger = self.ledgers[interval] = open_ledger(series, end, bars, grid, now, policy)
        if fetched:
            audit = Audit(series, audit_after_s, exact=interval not in self._built)
            self.audits[interval] = audit
            if end is not None:
                ledger.first_ms = end.first_ms
                audit.resume(end.recent, ledger.grid, stopped_ms(ends))
            self.questions.want_history(interval, now, known=end is not None)

    def holding(self) -> int:
        """Series whose later candles wait for what is missing before them."""
        return sum(ledger.holding for ledger in self.ledgers.values())

    def observe(self, interval: Interval, kline: Kline, now: Now) -> list[Effect]:
        """A candle state of the exchange's stream."""
        ledger = self.ledgers[interval]
        out = self._told(ledger, ledger.observe(self._labelled(kline), now), now)
        if interval is Interval.M1 and not kline.closed and self._rolls:
            out += self._roll(kline, now)
        return out

    def built(self, interval: Interval, kline: Kline, now: Now) -> list[Effect]:
        """A candle made here.  One that lacks something is left to be fetched where the exchange
        has it, and is published marked where it has not."""
        ledger = self.ledgers[interval]
        if interval in self.rules.intervals:
            return self.observe(interval, kline, now) if kline.complete or not kline.closed else []
        if not kline.complete and ledger.fresh:
            return []
        ledger.begin_at(kline.open_ms)
        before: list[Effect] = []
        if kline.open_ms > ledger.expected:
            ledger.skip(kline.open_ms)
            before = self._note_holes(ledger)
        return before + self.observe(interval, kline, now)

    def priced(self, interval: Interval, kline: Kline, now: Now) -> list[Effect]:
        """A candle made of prices: intervals without one have none."""
        ledger = self.ledgers[interval]
        out = self._told(ledger, ledger.made(self._labelled(kline), now), now)
        if interval is Interval.M1 and not kline.closed and self._rolls:
            out += self._roll(kline, now)
        return out

    def previewed(self, interval: Interval, kline: Kline, now: Now) -> list[Effect]:
        """A running candle with prices that may still belong to another one."""
        return [*self.ledgers[interval].preview(self._labelled(kline), now)]

    def passed(self, until_ms: int, now: Now) -> list[Effect]:
        """No minute before ``until_ms`` is to come any more: what was made of them is over."""
        out: list[Effect] = []
        for interval, kline in self.rolled.passed(until_ms):
            out += self.priced(interval, kline, now)
        return out

    def silent_until(self, interval: Interval, time_ms: int) -> None:
        """Nothing is missing before ``time_ms``."""
        ledger = self.ledgers[interval]
        if not self.rolled.is_unread(interval):
            ledger.silent_until(ledger.grid.open_of(time_ms))

    def kept(self, interval: Interval, rows: list[Kline], now: Now) -> list[Effect]:
        """Silent candles of which we are not sure: for the store alone."""
        ledger = self.ledgers[interval]
        if not rows or ledger.fresh:
            return []
        out: list[Effect] = [StoreRows(ledger.series, tuple(map(self._labelled, rows)))]
        if interval is Interval.M1 and self._rolls:
            again = (load for row in rows for load in self.rolled.revised(row))
            out += dict.fromkeys(again)
        return out

    def revise(self, interval: Interval, kline: Kline, now: Now) -> list[Effect]:
        """Another value of a closed candle, from a late trade or from the exchange."""
        ledger = self.ledgers[interval]
        if kline.open_ms > ledger.closed_ms:
            return []
        return self._told(ledger, [ledger.revise(self._labelled(kline), now)], now)

    def fill(
        self,
        interval: Interval,
        rows: Iterable[Kline],
        now: Now,
        *,
        until_ms: int | None,
        whole: bool,
    ) -> list[Effect]:
        """The exchange's answer to :attr:`.Need.CANDLES`."""
        ledger = self.ledgers[interval]
        labelled = [self._labelled(row) for row in rows]
        began_ms = ledger.expected if ledger.fresh else None
        news = ledger.fill(labelled, now, until_ms=until_ms, whole=whole)
        if began_ms is not None and not ledger.fresh and labelled[0].open_ms <= began_ms:
            # The exchange has more, and the time may be another one.
            self.questions.want_history(interval, now)
        holes = self._note_holes(ledger)
        out = [*holes, *self._told(ledger, news, now)]
        if interval not in self._unusual and not ledger.grid.usual:
            self._unusual.add(interval)
            out.append(reports.unusual_grid(ledger.series, ledger.grid.anchor_ms))
        closed = [each.kline for each in news if each.kline.closed]
        if closed:
            out.append(reports.filled("backfill.filled", ledger.series, closed))
        return out

    def answered(
        self, need: Need, interval: Interval, rows: Iterable[Kline], now: Now
    ) -> list[Effect]:
        """The exchange's answer to what is no hurry."""
        match need:
            case Need.AUDIT:
                return self.compare(interval, rows, now)
            case Need.GRID:
                return self.learn_grid(interval, rows, now)
        return self.deepen(interval, rows, now)

    def compare(self, interval: Interval, rows: Iterable[Kline], now: Now) -> list[Effect]:
        """The exchange's answer to :attr:`.Need.AUDIT`."""
        out: list[Effect] = []
        audit, grid = self.audits[interval], self.ledgers[interval].grid
        for row in audit.compare(map(self._labelled, rows), grid, now):
            out += self.revise(interval, row, now)
        if out and interval in self.rolled.intervals and Interval.M1 in self.audits:
            self.audits[Interval.M1].hurry(now)  # one of its minutes is another one, too
        return out

    def deepen(self, interval: Interval, rows: Iterable[Kline], now: Now) -> list[Effect]:
        """The exchange's answer to :attr:`.Need.HISTORY`: what lies before the line's beginning."""
        ledger = self.ledgers[interval]
        older = self.history.answered(interval, ledger, map(self._labelled, rows), now)
        if not older:
            return []
        report = reports.filled("history.filled", ledger.series, older)
        return [StoreRows(ledger.series, tuple(older)), report]

    def learn_grid(self, interval: Interval, rows: Iterable[Kline], now: Now) -> list[Effect]:
        """The exchange's answer to :attr:`.Need.GRID`: where the candles of a roll-up open."""
        known = self.rolled.learn(interval, rows, self.ledgers[interval], now)
        return self.loads(now) if known else []

    def loaded(self, load: Load, minutes: list[Kline], now: Now) -> list[Effect]:
        """Stored minutes of a rolled-up candle."""
        ledger = self.ledgers[load.interval]
        if load.end_ms > ledger.expected:
            rows = self.rolled.begin(load, minutes)
            take = ledger.made if self.rolled.sparse else ledger.observe
            return self._told(ledger, [n for r in rows for n in take(self._labelled(r), now)], now)
        row = self.rolled.again(load, minutes, ledger.grid)
        return [] if row is None else self.revise(load.interval, row, now)

    def recall(self, interval: Interval, stored: Sequence[Kline], now: Now) -> list[Effect]:
        """The last closed candles as a node told them that fed the series beside us: what was told
        is theirs.  Of those where we had something else the exchange is asked soon which is right;
        what is made of such a minute is made anew."""
        ledger, audit = self.ledgers[interval], self.audits.get(interval)
        found = {row.open_ms: row for row in ledger.recall(stored)}
        if audit is not None:
            found |= {row.open_ms: row for row in audit.recall(stored)}
        if not found:
            return []
        rows = [found[open_ms] for open_ms in sorted(found)]
        out: list[Effect] = [reports.disputed(ledger.series, rows)]
        if audit is not None:
            for row in rows:
                audit.told(row)
            audit.hurry(now)
        elif interval in self.rolled.intervals:
            next_ms = ledger.grid.next
            out += [Load(self.symbol, interval, at, next_ms(at)) for at in sorted(found)]
        if interval is Interval.M1 and self._rolls:
            out += dict.fromkeys(load for row in rows for load in self.rolled.revised(row))
        return out

    def resumed(self, intervals: Iterable[Interval], now: Now) -> None:
        """The streams of these series are (back) up."""
        for interval in intervals:
            self.ledgers[interval].resumed(now)

    def wants(self, now: Now, *, asked: frozenset[Fetch] | set[Fetch]) -> list[Effect]:
        """What is due: questions that are not asked yet, and stored minutes at the start."""
        out = self.loads(now)
        for fetch, at in self.questions.dues(now):
            if at <= now.mono and fetch not in asked:
                out.append(fetch)
        for ledger in self.ledgers.values():
            if ledger.held_until <= now.mono:
                out += self._told(ledger, ledger.begin_with_what_runs(now), now)
        return out

    def due(self, now: Now, *, asked: set[Fetch]) -> Mono:
        """When something will be due that is not asked for."""
        times = [at for fetch, at in self.questions.dues(now) if fetch not in asked]
        times += [ledger.held_until for ledger in self.ledgers.values()]
        return min(times, default=NEVER)

    def behind(self, now: Now) -> int:
        """Series of which a closed candle is overdue that the exchange can supply."""
        return sum(
            ledger.behind(now)
            for interval, ledger in self.ledgers.items()
            if interval in self.rules.intervals
        )

    def loads(self, now: Now) -> list[Effect]:
        """Stored minutes that are wanted at the start."""
        return [*self.rolled.loads(self.ledgers, now)]

    def _told(self, ledger: Ledger, news: Iterable[CandleNews], now: Now) -> list[Effect]:
        """News of a ledger, and what follows from them."""
        out: list[Effect] = []
        for each in news:
            out.append(each)
            kline, interval = each.kline, ledger.series.interval
            if not kline.closed:
                continue
            if (audit := self.audits.get(interval)) is not None:
                fetched = kline.source is Source.BACKFILL or self._simulated
                if each.revision or not (fetched and audit.had(kline, ledger.grid, now)):
                    audit.told(kline)
            out.append(reports.closed(each))
            if interval is Interval.M1 and self._rolls:
                out += self.rolled.revised(kline) if each.revision else self._roll(kline, now)
        return out

    def _roll(self, minute: Kline, now: Now) -> list[Effect]:
        out: list[Effect] = []
        take = self.priced if self.rolled.sparse else self.built
        for interval, kline in self.rolled.add(minute):
            out += take(interval, kline, now)
        return out

    def _note_holes(self, ledger: Ledger) -> list[Effect]:
        interval = ledger.series.interval
        noted = self._noted.get(interval, 0)
        self._noted[interval] = len(ledger.holes)
        out: list[Effect] = []
        for hole in ledger.holes[noted:]:
            number = ledger.grid.count(hole.first_ms, ledger.grid.next(hole.last_ms))
            out.append(StoreHole(ledger.series, hole))
            out.append(reports.hole(ledger.series, hole, number))
        return out

    def _labelled(self, kline: Kline) -> Kline:
        """A candle that says ``simulated`` where everything of this venue is."""
        return evolve(kline, source=Source.SIMULATED) if self._simulated else kline
