"""One symbol's trades: in order, into candles, and what proves that a candle is over.  Pure.

A built candle closes when the evidence says so (architecture, "Evidence, not clocks"):

1. a later trade with the next id came (:mod:`.bars` does that by itself);
2. the exchange's own candle names a last trade id that we have, or has the volume that we have;
3. a REST answer says that there is nothing newer than what we have.

Our clock only decides when to *ask* for the third.  While the stream is behind, candles wait.

Where the exchange's 1m candles are taken too, those made here are compared with them: a difference
means that one of the two missed something, and the exchange's row decides (:mod:`.audit`).
"""

from collections.abc import Iterable, Sequence

from attrs import define, field, frozen

from ..instants import NEVER, Mono, Now
from ..model import Interval, Kline, Trade
from . import calendar
from .bars import FAR_MS, Built, TradeBars
from .reconcile import Difference, Match, OneSided, Reconciler, Verdict
from .sequence import DISORDER_MS, Break, TradeSequence

ODD_TIME_MS = 60_000
"""An event's time that is further from the exchange's than this orders nothing."""
_IN_FLIGHT_MS = 250
"""Trades come in batches of 100 ms: a candle's state may know a trade that is on its way."""
_WITNESS_GRACE_S = 65.0
"""With the exchange's own minutes at hand, their closes prove a quiet minute for nothing."""
_QUIET_MAX_S = 60.0
REST_BEHIND_S = 30.0
"""An answer may be so old, whatever its ``Date`` says: exchanges serve stale pages, and REST comes
behind the stream."""


@frozen
class Taken:
    """What became of what came: trades in order, and losses."""

    trades: Sequence[Trade] = ()
    breaks: tuple[Break, ...] = ()


@define(eq=False)
class SymbolTrades:
    """``intervals`` are the candles that are made of the trades; ``checks``: 1m candles are made
    too, to be compared with the exchange's.  ``grace_s``: how long after the earliest time at which
    an answer can prove a candle over the exchange is asked for one.
    """

    intervals: tuple[Interval, ...]
    checks: bool
    grace_s: float
    refill: bool = True
    sequence: TradeSequence = field(init=False)
    bars: TradeBars = field(init=False)
    _pairs: Reconciler = field(factory=Reconciler)
    _compared_from_ms: int | None = None
    _not_before: Mono = Mono(0.0)
    _stored_to: int = -1
    """Stored candles have the trades up to this one, which come once more, for no candle."""
    _stored_end_ms: int = 0
    """When the last of these candles ends."""
    _quiet: int = 0
    """Proofs in a row: the longer a market is quiet, the rarer it is asked about."""

    def __attrs_post_init__(self) -> None:
        self.sequence = TradeSequence(self.refill)
        extra = (Interval.M1,) if self.checks and Interval.M1 not in self.intervals else ()
        self.bars = TradeBars((*self.intervals, *extra))

    def resume(self, ends: Iterable[tuple[Interval, Kline]]) -> None:
        """Go on behind stored candles."""
        for interval, last in sorted(ends, key=lambda end: calendar.length_ms(end[0])):
            # The longest has the last word: its last trade is the earliest, none is left out.
            if last.last_stream_id:
                self.sequence.resume(last.last_stream_id, last.event_ms)
                self.bars.resume(last, interval)
                self._stored_end_ms = calendar.next_open(interval, last.open_ms)

    def go_on(self, last_id: int, last_ms: int) -> None:
        """Behind a trade up to which they were told.  Stored candles may have more of them than
        that, or fewer: then those between come for the candles only.

        One with an earlier id than they have is in them, or the ids began anew.  A candle's
        ``event_ms`` does not tell: trades that were fetched have none."""
        stored = self.sequence.last_id
        if stored is None:
            self.sequence.resume(last_id, last_ms)
        elif last_id < stored and last_ms < self._stored_end_ms + DISORDER_MS:
            self._stored_to = stored
            self.sequence.go_back(last_id, last_ms)
        elif last_id > stored and last_ms < self._stored_end_ms - DISORDER_MS:
            # One with a later id is behind them, or the ids began anew inside of them: that shows
            # by what comes, as it does to who was there.
            self.bars.lose()
            self.sequence.resume(last_id, last_ms)

    def take_plain(self, trades: Sequence[Trade], now: Now) -> Sequence[Trade]:
        """Take as many of the first ones as are plain, which nearly all are: the next id each, no
        time before the last one's or one that has not come, no candle that ends.  Returns them."""
        from_ms, last_id = self.sequence.plain_from_ms, self.sequence.last_id
        if from_ms is None or last_id is None or last_id < self._stored_to:
            return ()
        exchange_ms = float(now.exchange)
        begin_ms, until_ms = self.bars.plain_span()
        from_ms, until_ms = max(from_ms, begin_ms), min(until_ms, int(exchange_ms + FAR_MS) + 1)
        oldest_ms, newest_ms = exchange_ms - ODD_TIME_MS, exchange_ms + ODD_TIME_MS
        due = first = last_id + 1
        for trade in trades:
            time_ms, event_ms = trade.time_ms, trade.event_ms
            if (
                trade.trade_id != due
                or not from_ms <= time_ms < until_ms
                or (event_ms and not oldest_ms <= event_ms <= newest_ms)
            ):
                break
            from_ms = time_ms
            due += 1
        if due == first:
            return ()
        plain = trades if due - first == len(trades) else trades[: due - first]
        self._quiet = 0
        self.sequence.accept_plain(plain)
        self.bars.add_plain(plain)
        return plain

    def take(self, trade: Trade, now: Now) -> Taken:
        """A live trade, whatever it does."""
        steps = self.sequence.take(trade, now)
        if len(steps) == 1 and steps[0] is trade:
            self._quiet = 0
            self._put(trade, float(now.exchange) + FAR_MS)
            return Taken((trade,))
        return self._add(steps, now)

    def fill(self, trades: Iterable[Trade], now: Now) -> Taken:
        """The exchange's answer to what was missing."""
        return self._add(self.sequence.fill(trades, now), now)

    def failed(self, now: Now) -> Taken:
        """There was no answer about what is missing."""
        return self._add(self.sequence.failed(now), now)

    def collect(self, *, running: bool = True) -> tuple[list[Built], list[Built], list[Built]]:
        """See :meth:`.bars.TradeBars.collect`."""
        return self.bars.collect(running=running)

    def note_candle(self, interval: Interval, kline: Kline, now: Now) -> None:
        """A state of the exchange's own candle: does it prove that we have every trade until then?

        The volume of the minute is compared, where minutes are made here too: the same volume is
        made of the same trades.  Else a candle that names its last trade (spot) will do.
        """
        until = calendar.next_open(interval, kline.open_ms) if kline.closed else kline.event_ms
        if not kline.closed:
            until -= _IN_FLIGHT_MS
        if until < self.bars.next_end_ms or self.sequence.waiting or self.sequence.unsure:
            return
        if until > float(now.exchange) + FAR_MS:
            return  # of a time that has not come: not believed
        if interval is Interval.M1 and self.checks:
            ours = self.bars.volume_of(Interval.M1, kline.open_ms)
            proven = ours is not None and ours == kline.volume
        elif kline.last_trade_id is not None:
            # A candle that began after our last trade and has trades has others than ours,
            # whatever their ids are (which may have begun anew).
            later = kline.trades > 0 and kline.open_ms > self.bars.last_ms
            later = later or (kline.first_trade_id or 0) > kline.last_trade_id  # anew inside of it
            proven = not later and kline.last_trade_id <= self.bars.last_trade_id
        else:
            proven = False
        if proven:
            self.bars.prove(until)

    def latest(self, trade: Trade | None, until_ms: float | None, now: Now) -> bool:
        """The exchange's newest trade, asked at ``until_ms`` by its own time.  True: the market is
        quiet, and what ended by then is closed.

        That the stream has told nothing newer either does not help: it may be dead, or was down
        when it happened.  So an answer proves what lies :data:`REST_BEHIND_S` before it.
        """
        last = self.sequence.last_id
        unsure = self.sequence.waiting or self.sequence.unsure
        if trade is None or until_ms is None or last is None or unsure:
            self._wait(now)
            return False
        if trade.trade_id != max(last, self._stored_to):
            # The stream is behind, the answer is, or the ids began anew: candles wait.
            self._wait(now)
            return False
        self.bars.confirm(trade, until_ms)
        self.bars.prove(min(until_ms, float(now.exchange) + FAR_MS) - REST_BEHIND_S * 1000)
        self._wait(now)
        return True

    def not_answered(self, now: Now) -> None:
        """The exchange could not be asked for its newest trade."""
        self._wait(now)

    def proof_due(self, now: Now, *, witnessed: bool) -> Mono:
        """When to ask for the newest trade, so that candles of a quiet market close."""
        end_ms = self.bars.next_end_ms
        if end_ms == float("inf") or self.sequence.waiting or not self.intervals:
            return NEVER
        grace_s = _WITNESS_GRACE_S if witnessed else REST_BEHIND_S + self.grace_s
        at = now.mono + ((end_ms - float(now.exchange)) / 1000 + grace_s)
        return max(at, self._not_before)

    def compare_built(self, kline: Kline, now: Now) -> list[Verdict]:
        """A 1m candle made here closed."""
        if not self.checks:
            return []
        if self._compared_from_ms is None:
            self._compared_from_ms = kline.open_ms
        return self._pairs.add_built(kline, now=float(now.mono) * 1000)

    def compare_official(self, kline: Kline, now: Now) -> list[Verdict]:
        """The exchange's own closed.  None is expected here for one from before the trades began,
        such as those of the history at a start."""
        if not self.checks:
            return []
        at = float(now.mono) * 1000
        if self._compared_from_ms is None:
            self._compared_from_ms = self.bars.complete_from(Interval.M1)
        if self._compared_from_ms is None or kline.open_ms < self._compared_from_ms:
            return self._pairs.expire(at)
        return [*self._pairs.add_official(kline, now=at), *self._pairs.expire(at)]

    def _add(self, steps: Sequence[Trade | Break], now: Now) -> Taken:
        limit_ms = float(now.exchange) + FAR_MS
        trades: list[Trade] = []
        breaks: list[Break] = []
        for step in steps:
            if isinstance(step, Break):
                if step.candles:
                    self._stored_to = -1  # ids may have begun anew
                    self.bars.lose()
                breaks.append(step)
            else:
                self._put(step, limit_ms)
                trades.append(step)
        return Taken(tuple(trades), tuple(breaks))

    def _put(self, trade: Trade, limit_ms: float) -> None:
        # One from behind the end of the stored candles is in none of them, whatever its id is.
        if trade.trade_id > self._stored_to or trade.time_ms >= self._stored_end_ms:
            self.bars.add(trade, limit_ms)

    def _wait(self, now: Now) -> None:
        wait_s = min(self.grace_s * 2 ** min(self._quiet, 10), _QUIET_MAX_S)
        self._quiet += 1
        self._not_before = now.mono + wait_s


__all__ = ["Difference", "Match", "OneSided", "SymbolTrades", "Taken", "Verdict"]
