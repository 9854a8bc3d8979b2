"""The ledger of one series: which candle may go out next, and which is missing.

A series is a line of candles without gaps in calendar time.  The ledger knows the last candle
that went out closed; only its successor (``expected``) may follow.  Everything else waits, is a
duplicate, or shows that something is missing:

- ``observe`` takes a candle state as it came in live.  Updates of the expected candle go out at
  once; a later candle is held (the latest open one, and closed ones up to a bound) until the hole
  before it is filled.
- ``due_ms`` says when the exchange must be asked: at once after a reconnect that crossed a
  candle's end, after a grace when a close never came.
- ``fill`` takes the exchange's answer.  A hole inside the answer is believed only after it was
  seen ``hole_confirmations`` times over ``hole_wait_ms``, because exchanges serve stale pages; then
  it is recorded as a :class:`trio_feed.model.Hole` and the series goes on.

- ``revise`` takes a candle that the exchange has changed after it had gone out closed: it goes out
  once more, as a revision and never as a second close.  ``observe`` does so by itself for the last
  few candles.

A candle is closed when the exchange says so (its closed flag, or its REST answer), never because
our clock does.
"""

from collections import deque
from collections.abc import Iterable

from attrs import define, field, frozen

from ..model import Hole, Kline, Series
from . import calendar
from .effects import CandleNews


@frozen
class Policy:
    """Waiting times in milliseconds; how often a hole must be confirmed; how many may wait."""

    close_grace_ms: float = 3_000
    retry_ms: float = 2_000
    retry_max_ms: float = 60_000
    hole_confirmations: int = 3
    hole_wait_ms: float = 30_000
    max_waiting: int = 1_000


_REMEMBERED = 5
"""Closed candles of which a repetition is compared with what had gone out."""


@define
class Counts:
    """What came in and was not news."""

    duplicates: int = 0
    outdated: int = 0
    revisions: int = 0
    held: int = 0


@define
class Ledger:
    """State of one series; every method is synchronous and takes the time it should believe.

    ``closed_ms`` is the open time of the last candle that went out closed; ``fresh`` is True while
    nothing ever went out, so that a series may begin where the exchange's history begins.
    """

    series: Series
    closed_ms: int
    fresh: bool
    policy: Policy = Policy()
    counts: Counts = field(factory=Counts)
    holes: list[Hole] = field(factory=list)
    current: Kline | None = None
    _recent: deque[Kline] = field(factory=lambda: deque(maxlen=_REMEMBERED))
    _superseded: deque[Kline] = field(factory=lambda: deque(maxlen=_REMEMBERED))
    _waiting: dict[int, Kline] = field(factory=dict)
    _ahead: Kline | None = None
    _updates: int = 0
    _asked: int = 0
    """Questions in a row that brought nothing."""
    _sightings: int = 0
    """Answers that showed a hole where a candle is expected; the first one was at:"""
    _sighted_at: float = 0.0
    _retry_at: float | None = None
    _hurry_from: float | None = None

    @property
    def expected(self) -> int:
        """Open time of the candle that may go out next."""
        return calendar.next_open(self.series.interval, self.closed_ms)

    @property
    def due_ms(self) -> float:
        """When the exchange is to be asked for ``expected`` and what follows it."""
        if self._retry_at is not None:
            return self._retry_at
        if self._hurry_from is not None:
            return self._hurry_from
        end = calendar.next_open(self.series.interval, self.expected)
        return end + self.policy.close_grace_ms

    @property
    def holding(self) -> bool:
        """True while live candles wait for a hole to be filled."""
        return self._ahead is not None or bool(self._waiting)

    def behind(self, now: float) -> bool:
        """True while a candle is missing that ended more than two graces ago."""
        end = calendar.next_open(self.series.interval, self.expected)
        return now > end + 2 * self.policy.close_grace_ms

    def resumed(self, now: float) -> None:
        """The live stream is (back) up: what ended meanwhile is missing, ask at once."""
        if calendar.next_open(self.series.interval, self.expected) <= now:
            self._retry_at = now

    def observe(self, kline: Kline, *, now: float, received: float) -> list[CandleNews]:
        """A live candle state came in.  Returns what goes out, in order."""
        if kline.open_ms <= self.closed_ms:
            return self._repeated(kline, received)
        if kline.open_ms > self.expected:
            self._hold(kline, now)
            return []
        if not kline.closed and self._is_outdated(kline):
            self.counts.outdated += 1
            return []
        if not kline.closed:
            return [self._update(kline, received)]
        return [self._close(kline, received), *self._release(received)]

    def fill(
        self, rows: Iterable[Kline], *, now: float, until_ms: int | None = None
    ) -> list[CandleNews]:
        """The exchange's answer to "everything from ``expected`` on", ascending; open rows are
        ignored.  Returns what goes out, in order, and plans the next question.

        ``until_ms``: the question was about candles that open before it only, so an answer
        without any says that there are none.
        """
        out: list[CandleNews] = []
        before = self.expected
        for row in rows:
            if not row.closed or row.open_ms < self.expected:
                continue
            if row.open_ms > self.expected and not self._believe_hole(row.open_ms, now):
                break
            out.append(self._close(row, now))
        if until_ms is not None and self.expected == before:
            self._pass_empty(calendar.open_of(self.series.interval, until_ms), now)
        out.extend(self._release(now))
        self._plan(now, progress=self.expected > before)
        return out

    def revise(self, kline: Kline, *, received: float) -> CandleNews:
        """The exchange changed a candle that has gone out closed; the caller is sure of it."""
        self.counts.revisions += 1
        for at, told in enumerate(self._recent):
            if told.open_ms == kline.open_ms:
                self._superseded.append(told)  # a slower connection may still bring it
                self._recent[at] = kline
        return CandleNews(self.series, kline, 1, received, revision=True)

    def skip(self, to_ms: int) -> None:
        """Give up on what comes before ``to_ms`` (an open time): nobody can supply it."""
        if to_ms > self.expected:
            self._pass_over(to_ms)

    def failed(self, now: float) -> None:
        """The question could not be asked or was refused: ask again later."""
        self._plan(now, progress=False)

    def _plan(self, now: float, *, progress: bool) -> None:
        self._hurry_from = None
        if progress:
            self._asked = self._sightings = 0  # answers that follow at once may be of one page
            still = calendar.next_open(self.series.interval, self.expected) <= now
            self._retry_at = now if still or self.holding else None
            return
        self._asked += 1
        wait = self.policy.retry_ms * 2 ** min(self._asked - 1, 10)
        self._retry_at = now + min(wait, self.policy.retry_max_ms)

    def _believe_hole(self, next_ms: int, now: float) -> bool:
        """An answer shows a hole; only answers count, not questions that failed."""
        if not self._sightings:
            self._sighted_at = now
        self._sightings += 1
        enough = self._sightings >= self.policy.hole_confirmations
        enough = enough and now - self._sighted_at >= self.policy.hole_wait_ms
        if not (enough or self.fresh):
            return False
        self._pass_over(next_ms)
        return True

    def _pass_empty(self, until_ms: int, now: float) -> None:
        """Nothing opens before ``until_ms``: believed for what is long over, when confirmed."""
        if self.expected < until_ms <= now - 2 * self.policy.close_grace_ms:
            self._believe_hole(until_ms, now)

    def _pass_over(self, next_ms: int) -> None:
        last = calendar.previous_open(self.series.interval, next_ms)
        if not self.fresh:
            self.holes.append(Hole(self.expected, last))
        self.closed_ms = last
        self._sightings = 0
        self.current = None
        self._updates = 0

    def _repeated(self, kline: Kline, received: float) -> list[CandleNews]:
        """A state of a candle that is closed here."""
        told = next((k for k in self._recent if k.open_ms == kline.open_ms), None)
        if (
            not kline.closed
            or (told is not None and 0 < kline.event_ms < told.event_ms)
            or any(old.same_values(kline) for old in self._superseded)
        ):
            self.counts.outdated += 1
        elif told is None or told.same_values(kline):
            self.counts.duplicates += 1
        else:
            return [self.revise(kline, received=received)]
        return []

    def _hold(self, kline: Kline, now: float) -> None:
        self.counts.held += 1
        if self._hurry_from is None and self._retry_at is None:
            self._hurry_from = now + self.policy.close_grace_ms
        if kline.closed and len(self._waiting) < self.policy.max_waiting:
            self._waiting[kline.open_ms] = kline
        elif not kline.closed and (
            self._ahead is None
            or kline.open_ms > self._ahead.open_ms
            or (kline.open_ms == self._ahead.open_ms and kline.event_ms >= self._ahead.event_ms)
        ):
            self._ahead = kline

    def _is_outdated(self, kline: Kline) -> bool:
        """Older than what went out last, or the same once more, over another connection.  Where
        the exchange gives no time of the event the volume tells: it never shrinks."""
        current = self.current
        if current is None or kline.event_ms > current.event_ms:
            return False
        older = kline.event_ms < current.event_ms or kline.volume < current.volume
        return older or kline.same_values(current)

    def _release(self, now: float) -> list[CandleNews]:
        """What was held and has become the expected candle."""
        out: list[CandleNews] = []
        while (kline := self._waiting.pop(self.expected, None)) is not None:
            out.append(self._close(kline, now))
        for open_ms in [at for at in self._waiting if at <= self.closed_ms]:
            del self._waiting[open_ms]
        ahead = self._ahead
        if ahead is not None and ahead.open_ms <= self.expected:
            self._ahead = None
            if ahead.open_ms == self.expected:
                out.append(self._update(ahead, now))
        if not self.holding:
            self._hurry_from = None
        return out

    def _update(self, kline: Kline, received: float) -> CandleNews:
        self.current = kline
        return self._message(kline, received)

    def _close(self, kline: Kline, received: float) -> CandleNews:
        message = self._message(kline, received)
        self.closed_ms = kline.open_ms
        self.fresh = False
        self.current = None
        self._recent.append(kline)
        self._updates = 0
        self._asked = self._sightings = 0
        self._retry_at = None
        return message

    def _message(self, kline: Kline, received: float) -> CandleNews:
        self._updates += 1
        return CandleNews(self.series, kline, self._updates, received)


def open_ledger(
    series: Series,
    *,
    last_closed: int | None,
    history_bars: int,
    now: float,
    policy: Policy,
) -> Ledger:
    """A ledger that goes on after ``last_closed``, or, where the store knows nothing, begins
    ``history_bars`` closed candles before now."""
    fresh = last_closed is None
    if last_closed is None:
        running = calendar.open_of(series.interval, int(now))
        first = calendar.back(series.interval, running, history_bars)
        last_closed = calendar.previous_open(series.interval, first)
    return Ledger(series, last_closed, fresh, policy)
