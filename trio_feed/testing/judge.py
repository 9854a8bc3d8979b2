"""Judges a run of the service: its store and its client against the simulated market.  Pure.

A candle is *wrong* if the last word about it, in the store or at the client, differs from the
truth while it says ``complete: true``.  One that says ``complete: false`` is *marked*; one that has
not come yet at the end of its series is *waiting*.  Both are fine, and counted.  A candle that is
missing before a later one is *lost*, one where there is none is *invented*.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from attrs import evolve, field, frozen

from ..model import Interval, Kline
from ..simulator.faults.context import Correction
from ..simulator.market.market import Market
from .calendar import Days, longest_ms
from .record import Record, SeriesRecord, Values, Word, stored_values, values_of
from .truth import Sums, corrected_values, days_of, exchange_values, rolled

Stored = Mapping[int, Kline]
"""By open time."""
_MARGIN_MS = 7_200_000
_ONLY_BUILT = frozenset({Interval.S1, Interval.S30})
ORIGINS = ("exchange", "built", "rolled")


@frozen
class Case:
    """What was run.  Times are unix ms of the exchange.

    ``origins``: where the candles of an interval come from, one of :data:`ORIGINS`.
    ``corrections``: 1m candles of ``symbol`` that the exchange changed, by open time; it changed
    every longer candle with them.
    ``late_trades``: times of trades that came to light after their candle had closed.
    """

    market: Market
    symbol: str
    start_ms: int
    end_ms: int
    origins: Mapping[Interval, str]
    history_bars: int
    corrections: Mapping[int, Correction]
    late_trades: Sequence[int] = ()
    only_built: frozenset[Interval] = _ONLY_BUILT
    """What the exchange has no candles of."""
    threes_ms: int | None = None
    """See :class:`.Days`."""
    sums: Sums = field(init=False)

    @property
    def days(self) -> Days:
        return days_of(self.market, self.symbol, self.threes_ms)

    def __attrs_post_init__(self) -> None:
        start_ms = max(self.start_ms - _MARGIN_MS, self.market.listed_of(self.symbol))
        sums = Sums(self.market, self.symbol, start_ms, self.end_ms + _MARGIN_MS)
        object.__setattr__(self, "sums", sums)


def judge_series(
    case: Case, interval: Interval, record: SeriesRecord, stored: Mapping[Interval, Stored]
) -> Counter[str]:
    """Counts of one series of the symbol."""
    return _Series(case, interval, record, stored).judge()


class _Series:
    def __init__(
        self,
        case: Case,
        interval: Interval,
        record: SeriesRecord,
        stored: Mapping[Interval, Stored],
    ) -> None:
        self.case, self.interval, self.record = case, interval, record
        self.origin = case.origins[interval]
        self.mine = stored.get(interval, {})
        self.minutes = stored.get(Interval.M1, {})
        self.days: Days = case.days
        if self.origin == "built":  # that the exchange's own open elsewhere is not their matter
            self.days = evolve(self.days, off_grid=())
        self.sums = case.sums
        self.finals = dict(record.finals)

    def judge(self) -> Counter[str]:
        expected = self._expected()
        counts: Counter[str] = Counter(
            expected=len(expected),
            in_store=sum(at in self.mine for at in expected),
            delivered=sum(at in self.finals for at in expected),
            duplicated=len(self.record.finals) - len(self.finals),
            out_of_order=sum(b < a for (a, _), (b, _) in pairwise(self.record.finals)),
        )
        last = max((at for at in self.finals), default=0)
        for at, end in expected.items():
            if at not in self.mine or at not in self.finals:
                counts[self._absent(at, last)] += 1
            counts[self._verdict(at, end)] += 1
        counts.update(self._others(expected))
        return counts

    def _expected(self) -> dict[int, int]:
        """Open -> end of each candle that there has to be."""
        case = self.case
        spans = self.days.candles(self.interval, case.start_ms, case.end_ms)
        if self.origin == "built":
            first = min((at for at, _ in self.record.finals), default=case.end_ms)
            return {at: end for at, end in spans if at >= first}
        if self.origin == "rolled":
            first = min(self.minutes, default=case.end_ms)
            return {at: end for at, end in spans if at >= first}
        past = self.days.last(self.interval, case.history_bars, case.start_ms)
        return dict([*past, *spans])

    def _absent(self, at: int, last: int) -> str:
        """What it is that a candle has not come."""
        # The exchange has every candle of its own: that one is missing was not said by who feeds.
        unsaid = () if self.origin == "exchange" else self.record.unsaid
        if any(first <= at <= until for first, until in (*self.record.holes, *unsaid)):
            return "marked"
        if self.origin == "exchange" or at < last:
            return "lost"
        return "waiting"

    def _verdict(self, at: int, end: int) -> str:
        """``right``, ``wrong_values`` or ``marked``."""
        known, wanted = self._truths(at, end)
        words = [w for w in (self._stored_word(at), self._told_word(at)) if w is not None]
        first = self.finals.get(at)
        if any(word.complete and word.values not in wanted for word in words):
            return "wrong_values"
        if first is not None and first.complete and first.values not in known:
            return "wrong_first"
        if self.origin == "exchange" and len({word.values for word in words if word.complete}) > 1:
            return "wrong_values"  # the store and the client were told different things
        return "marked" if any(not word.complete for word in words) else "right"

    def _stored_word(self, at: int) -> Word | None:
        kline = self.mine.get(at)
        return None if kline is None else Word(stored_values(kline), kline.complete)

    def _told_word(self, at: int) -> Word | None:
        revised = self.record.revised.get(at)
        return revised[-1] if revised else self.finals.get(at)

    def _truths(self, at: int, end: int) -> tuple[list[Values], list[Values]]:
        """What a candle may have been said to be at first, and what it has to be in the end."""
        if self.origin == "built":
            truths = self._built(at, end)
            return truths, truths
        if self.origin == "rolled":
            return self._rolled(at, end)
        if self.interval is not Interval.M1 and (changed := self._changed(at, end)):
            return self._corrected(at, end, changed)
        market, sums = self.case.market, self.sums
        truth = exchange_values(market, sums, self.interval, at, end, late=False)
        is_late = any(at <= time_ms < end for time_ms in self.case.late_trades)
        correction = self.case.corrections.get(at) if self.interval is Interval.M1 else None
        if correction is not None:
            # A trade that came to light before the correction is in all that the correction knew.
            first = [truth] if is_late else []
            return ([*first, *(values_of(k) for k in correction.known)],
                    [values_of(k) for k in correction.final])  # fmt: skip
        if not is_late:
            return [truth], [truth]
        late = exchange_values(market, sums, self.interval, at, end, late=True)
        return [truth, late], [late]

    def _changed(self, at: int, end: int) -> list[tuple[int, Correction]]:
        """(end, correction) of each minute of the candle that the exchange changed, ascending."""
        corrections = self.case.corrections
        if not any(at <= open_ms < end for open_ms in corrections):
            return []
        minutes = self.days.candles(Interval.M1, at, end)
        return [(until, corrections[m]) for m, until in minutes if m in corrections]

    def _corrected(
        self, at: int, end: int, changed: Sequence[tuple[int, Correction]]
    ) -> tuple[list[Values], list[Values]]:
        """Minutes are changed in order, each within a minute from its end.  A longer candle that
        was still running has them in its close; one that ended with the minute is pushed anew."""

        def states(late: bool) -> Iterator[Values]:
            """As it was before the first change, and after each."""
            now = [(until, change.known[0]) for until, change in changed]
            yield corrected_values(self.case.market, self.sums, (at, end), now, late=late)
            for place, (until, change) in enumerate(changed):
                for minute in change.known[1:]:
                    now[place] = until, minute
                    yield corrected_values(self.case.market, self.sums, (at, end), now, late=late)

        early, late = [*states(False)], [*states(True)]
        is_late = any(at <= time_ms < end for time_ms in self.case.late_trades)
        until, newest = changed[-1]
        known = early
        if is_late:  # and as it was before anything came to light, which the first change knew
            market, sums = self.case.market, self.sums
            plain = exchange_values(market, sums, self.interval, at, end, late=False)
            known = [plain, *early, *late]
        if until == end and self.interval not in newest.longer:
            return known, late[-len(newest.known) :]
        return known, late[-1:]

    def _rolled(self, at: int, end: int) -> tuple[list[Values], list[Values]]:
        """What the minutes in the store make, where all are there (that those are right is judged
        with them); else what the exchange's own candle would be.  Where a minute was corrected that
        one is right in any case: it may have been looked at before the minute."""
        market, sums = self.case.market, self.sums
        whole = [
            exchange_values(market, sums, self.interval, at, end, late=late)
            for late in (False, True)
        ]
        newest = list[Values]()
        if changed := self._changed(at, end):
            known, final = self._corrected(at, end, changed)
            whole += known
            newest = final[-1:]
        opens = [open_ms for open_ms, _ in self.days.candles(Interval.M1, at, end)]
        if not all(open_ms in self.minutes for open_ms in opens):
            return whole, whole
        truth = rolled(self.minutes[open_ms] for open_ms in opens)
        return [*whole, truth], [truth, *newest]

    def _built(self, at: int, end: int) -> list[Values]:
        """From the trades alone; without one it is flat at the last price.

        Where the exchange has such candles, its own may stand in for one (a backfill): the
        simulated exchange counts quote volume in another way, and the trades that came to light
        late are in it.
        """
        built = self.sums.built(at, end)
        if built is None:
            flat = self.case.market.span(self.case.symbol, at, end, ghosts=False)
            built = (*[float(flat.close)] * 4, 0.0, 0.0)
        if self.interval in self.case.only_built:
            return [built]
        market, sums = self.case.market, self.sums
        return [
            built,
            *(
                exchange_values(market, sums, self.interval, at, end, late=late)
                for late in (False, True)
            ),
        ]

    def _others(self, expected: Mapping[int, int]) -> Iterator[str]:
        """What is to be said of the candles beyond those that there have to be."""
        others = {*self.mine, *self.finals} - expected.keys()
        if not others:
            return
        start_ms, end_ms = min(others) - 1, max(others) + longest_ms(self.interval)
        real = dict(self.days.candles(self.interval, start_ms, end_ms))
        for at in others:
            if at not in real:
                yield "flat_in_halt" if self._says_nothing(at) else "invented"
            elif real[at] <= self.sums.end_ms:
                verdict = self._verdict(at, real[at])
                yield "beyond" if verdict == "right" else verdict

    def _says_nothing(self, at: int) -> bool:
        """Nothing was traded during a halt, and that is what it says."""
        word = self._told_word(at) or self._stored_word(at)
        halted = any(since <= at < until for since, until in self.days.halts)
        return self.origin == "built" and halted and word is not None and not word.values[4]


def judge_stored(case: Case, interval: Interval, stored: Stored) -> Counter[str]:
    """Of a symbol that comes and goes: what the store has of it is right."""
    days, counts = case.days, Counter[str]()
    if not stored:
        return counts
    spans = dict(days.candles(interval, min(stored) - 1, max(stored) + longest_ms(interval)))
    for at, kline in stored.items():
        if at not in spans:
            counts["invented"] += 1
            continue
        truth = values_of(case.market.span(case.symbol, at, spans[at]))
        right = values_of(kline) == truth
        counts["right" if right else "wrong_values" if kline.complete else "marked"] += 1
    return counts


def latest_finals_s(case: Case, record: Record) -> dict[str, float]:
    """By interval: the longest time from the end of a candle to its final at the client.  Suspended
    time counts as none."""
    days, latest = case.days, dict[str, float]()
    for (name, interval), series in record.series.items():
        if name == case.symbol and interval in case.origins:
            ends = dict(days.candles(interval, case.start_ms, case.end_ms))
            waits = [
                came_s - (ends[at] - case.start_ms) / 1000
                for at, came_s in series.came.items()
                if at in ends
            ]
            latest[interval.value] = round(max(waits, default=0.0), 1)
    return latest


def first_updates_s(record: Record, symbol: str, moments_s: Sequence[float]) -> dict[str, float]:
    """By interval: the longest time from one of these moments (trio's clock) to the next message.
    -1: none came."""
    worst: dict[str, float] = {}
    for (name, interval), series in record.series.items():
        if name != symbol:
            continue
        for moment in moments_s:
            at = bisect_left(series.arrivals, moment)
            waited = series.arrivals[at] - moment if at < len(series.arrivals) else -1.0
            before = worst.get(interval.value, 0.0)
            worst[interval.value] = -1.0 if -1.0 in (waited, before) else max(before, waited)
    return {name: round(seconds, 1) for name, seconds in worst.items()}
