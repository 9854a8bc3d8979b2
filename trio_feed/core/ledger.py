"""The line of closed candles of one series: in order, without a hole, each once.

The ledger knows the last candle that closed; only its successor (``expected``) may follow.  The
running candle is a second thing: open states of ``expected`` are ordinary updates, open states of
a later candle are *provisional* while something before it is missing.

What is closed is concluded from what the exchange says, never from a clock: its closed flag, or a
REST answer.  A clock only decides when to ask, and that is all that ``due`` is for.

- ``observe`` takes a candle state of the stream.
- ``fill`` takes a REST answer.  A hole inside an answer is believed only after it was seen
  ``hole_confirmations`` times over ``hole_wait_s``, because exchanges serve stale pages.  A
  running candle in an answer shows a hole as well as a closed one does.
- ``revise`` takes another value of a closed candle: a revision, never a second close.

Opens off the usual grid are real (:class:`.calendar.Grid`): a REST row less than half a candle off
is the successor.  A stream frame off the grid waits until a REST row confirms it.
"""

from collections import deque
from collections.abc import Iterable

from attrs import define, field

from ..instants import NEVER, Mono, Now
from ..model import Hole, Kline, Series
from .asking import Asking, Policy
from .calendar import Grid
from .effects import CandleNews
from .later import Later

_REMEMBERED = 5
"""Closed candles of which a repetition is compared with what was published."""


@define(eq=False)
class Ledger:
    """State of one series.  Synchronous; every method takes the time it needs.

    ``closed_ms``: open time of the last candle that closed.  ``fresh``: nothing ever did, so the
    series may begin where the exchange's history begins.  ``first_ms``: open time of the first
    candle of this line, None before it.  ``holes`` are those found here, in order.
    """

    series: Series
    closed_ms: int
    fresh: bool
    grid: Grid
    policy: Policy = field(factory=Policy)
    holes: list[Hole] = field(factory=list)
    current: Kline | None = None
    first_ms: int | None = None
    told_ms: int | None = None
    """Open time of the closed candle before ``expected`` that is stored, None where none is."""
    _recent: deque[Kline] = field(factory=lambda: deque(maxlen=_REMEMBERED))
    _superseded: deque[Kline] = field(factory=lambda: deque(maxlen=_REMEMBERED))
    _odd: Kline | None = None
    """A frame that opens off the grid, until a REST row says whether it is real."""
    _early_ms: int = 0
    """Open time of a running candle that began before the last one would have ended."""
    _updates: int = 0
    _holding_since: Mono | None = None
    """When the first of the later candles that wait came; None: none waits.  Here and not with
    them, because every message looks at it."""
    asking: Asking = field(init=False)
    _later: Later = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.asking = Asking(self.policy)
        self._later = Later(self.policy.max_waiting)

    @property
    def expected(self) -> int:
        """Open time of the candle that closes next."""
        early = self._early_ms
        return early if early > self.closed_ms else self.grid.next(self.closed_ms)

    @property
    def ask_from(self) -> int:
        """Where a question for ``expected`` begins: right after the last open, because a candle
        that was cut short is followed by one before ``expected``."""
        return self.expected if self.fresh else self.closed_ms + 1

    @property
    def holding(self) -> bool:
        """Later candles wait for what is missing before them."""
        return self._holding_since is not None

    @property
    def held_until(self) -> Mono:
        """When a fresh series begins with what runs; NEVER: it is not fresh, or nothing waits."""
        since = self._holding_since
        return since + self.policy.fresh_hold_s if self.fresh and since is not None else NEVER

    @property
    def newest_ms(self) -> int:
        """Open time of the newest candle that is known of, closed or not."""
        return max(self.expected, self._later.newest_ms)

    def due(self, now: Now) -> Mono:
        """When to ask the exchange for ``expected`` and what follows."""
        presses = self.asking.due()
        if presses is not None:
            return presses
        overdue_ms = self.grid.next(self.expected) - float(now.exchange)
        return now.mono + (overdue_ms / 1000 + self.policy.close_grace_s + self.policy.quiet_s)

    def behind(self, now: Now) -> bool:
        """A candle is missing that ended more than two graces ago, and ``quiet_s`` where those come
        late."""
        overdue_ms = float(now.exchange) - self.grid.next(self.expected)
        return overdue_ms > 2000 * self.policy.close_grace_s + 1000 * self.policy.quiet_s

    def remember(self, stored: Iterable[Kline]) -> None:
        """These were told in an earlier life, ascending: the stream may say something else of them
        now."""
        self._recent.extend(stored)

    def recall(self, stored: Iterable[Kline]) -> list[Kline]:
        """Closed candles as somebody else told them, who fed the series beside us: they are what
        was told from now on.  Returns those of which we would have said something else."""
        told = {row.open_ms: row for row in stored}
        changed = [
            told[own.open_ms]
            for own in self._recent
            if own.open_ms in told and not own.same_values(told[own.open_ms])
        ]
        for row in changed:
            self._tell(row)
        return changed

    def resumed(self, now: Now) -> None:
        """The stream is (back) up: what ended meanwhile is missing, ask at once."""
        if self.grid.next(self.expected) <= float(now.exchange):
            self.asking.retry_at = now.mono

    def observe(self, kline: Kline, now: Now) -> list[CandleNews]:
        """A candle state of the stream -> what to publish, in order."""
        expected = self.expected
        if kline.open_ms <= self.closed_ms:
            if self.fresh:
                # Where the line begins was guessed by a clock that is ahead: ask anew.
                self.asking.hurry(now, 0.0)
                return []
            return self._repeated(kline, now)
        if kline.open_ms == expected:
            if not kline.closed:
                if self._is_outdated(kline):
                    return []
                if self._holding_since is not None:
                    self._later.drop()
                    self.asking.hurry_at = self._holding_since = None
                return [self._update(kline, now)]
            return [self._close(kline, now), *self._release(now)]
        if self.grid.open_of(kline.open_ms) != kline.open_ms:
            # One frame is not believed alone: the exchange is asked.
            self._odd = kline
            self.asking.hurry(now, 0.0)
            return []
        return self._hold(kline, now)

    def fill(
        self,
        rows: Iterable[Kline],
        now: Now,
        *,
        until_ms: int | None = None,
        whole: bool = True,
    ) -> list[CandleNews]:
        """The exchange's answer to "from ``expected`` on", ascending -> what to publish.

        ``until_ms``: the question was about candles that open before it only, so an answer
        without any says that there are none.  ``whole`` False: some rows could not be read, so
        what is absent proves nothing.
        """
        out: list[CandleNews] = []
        before = self.expected
        for row in rows:
            if row.open_ms <= self.closed_ms:
                continue
            follows = self.grid.follows(row.open_ms, self.closed_ms)
            if not follows and not (whole and self._believe_hole(row.open_ms, now)):
                break
            self.grid = self.grid.at(row.open_ms)
            if row.closed:
                out.append(self._close(row, now))
            else:
                # Everything before the running candle is here; it may sit off the old grid.
                if row.open_ms > self.expected:
                    self.closed_ms = self.grid.previous(row.open_ms)
                else:
                    self._early_ms = row.open_ms
                self._confirm_odd(row)
                break
        if until_ms is not None and whole and self.expected == before:
            self._pass_empty(self.grid.open_of(until_ms), now)
        out.extend(self._release(now))
        if self.expected > before:
            more = self.holding or self.grid.next(self.expected) <= float(now.exchange)
            self.asking.progressed(now, more=more)
        else:
            self.asking.in_vain(now)
        return out

    def move_to(self, grid: Grid) -> None:
        """Its candles open elsewhere: the one that is expected is the one that runs now."""
        if self.grid.at(grid.anchor_ms) is not self.grid:
            running = grid.open_of(self.expected)
            self.grid, self.closed_ms = grid, grid.previous(running)

    def begin_before(self, now: Now, bars: int) -> None:
        """A series without any history begins so many candles before now, as far as that is
        known."""
        if self.fresh and not self.holding:
            running = self.grid.open_of(int(now.exchange))
            self.closed_ms = self.grid.previous(self.grid.back(running, bars))

    def begin_at(self, open_ms: int) -> None:
        """A series that nobody can fill begins with this candle."""
        if self.fresh:
            self.closed_ms = self.grid.previous(open_ms)

    def begin_with_what_runs(self, now: Now) -> list[CandleNews]:
        """Of a fresh series whose history does not come: begin with the running candle, so that
        live updates do not wait for history.  Nothing where that is not so (yet)."""
        if now.mono < self.held_until:
            return []
        self.closed_ms = self.grid.previous(self._later.first_ms)
        self.fresh = False
        return self._release(now)

    def made(self, kline: Kline, now: Now) -> list[CandleNews]:
        """A candle made here of prices: one behind the line follows whatever silence lies
        between, one of the line is revised."""
        if kline.open_ms <= self.closed_ms and not self.fresh:
            return [self.revise(kline, now)] if kline.closed else []
        self.silent_until(kline.open_ms, begin=True)
        return [self._close(kline, now) if kline.closed else self._update(kline, now)]

    def preview(self, kline: Kline, now: Now) -> list[CandleNews]:
        """A running candle with what is not certain yet: ordinary where it is the expected one,
        provisional where others before it are not closed."""
        if kline.open_ms == self.expected and not self.fresh:
            return [self._update(kline, now)]
        if kline.open_ms <= self.closed_ms and not self.fresh:
            return []
        return [CandleNews(self.series, kline, 1, float(now.wall), provisional=True)]

    def silent_until(self, open_ms: int, *, begin: bool = False) -> None:
        """No candle opens before ``open_ms``, and none is missing."""
        moves = begin and open_ms != self.expected if self.fresh else open_ms > self.expected
        if moves:
            self.closed_ms = self.grid.previous(open_ms)
            self.current, self._updates = None, 0

    def revise(self, kline: Kline, now: Now) -> CandleNews:
        """Another value of a closed candle; the caller is sure of it."""
        self._tell(kline)
        return CandleNews(self.series, kline, 1, float(now.wall), revision=True)

    def _tell(self, kline: Kline) -> None:
        for at, told in enumerate(self._recent):
            if told.open_ms == kline.open_ms:
                self._superseded.append(told)  # a slower connection may still bring it
                self._recent[at] = kline

    def skip(self, to_ms: int) -> None:
        """Give up on what comes before ``to_ms`` (an open time): nobody can supply it."""
        if to_ms > self.expected:
            self._pass_over(to_ms)

    def failed(self, now: Now) -> None:
        """The question could not be answered: ask again later."""
        self.asking.in_vain(now)

    def _believe_hole(self, next_ms: int, now: Now) -> bool:
        """An answer shows a hole."""
        if not self.asking.sighted(now) and not self.fresh:
            return False
        self._pass_over(next_ms)
        return True

    def _pass_empty(self, until_ms: int, now: Now) -> None:
        """Nothing opens before ``until_ms``: believed for what is long over, when confirmed."""
        long_over = float(now.exchange) - 2000 * self.policy.close_grace_s
        if self.expected < until_ms <= long_over:
            self._believe_hole(until_ms, now)

    def _pass_over(self, next_ms: int) -> None:
        last = self.grid.at(next_ms).previous(next_ms)
        if not self.fresh:
            self.holes.append(Hole(self.expected, max(last, self.expected)))
        self.closed_ms = last
        self.asking.sightings = 0
        self.current = None
        self._updates = 0

    def _repeated(self, kline: Kline, now: Now) -> list[CandleNews]:
        """A state of a candle that is closed here."""
        told = next((k for k in self._recent if k.open_ms == kline.open_ms), None)
        if not kline.closed or told is None or told.same_values(kline):
            return []
        # An older state of it, over a slower connection.
        older = 0 < kline.event_ms < told.event_ms
        if older or any(old.same_values(kline) for old in self._superseded):
            return []
        return [self.revise(kline, now)]

    def _hold(self, kline: Kline, now: Now) -> list[CandleNews]:
        """A later candle, before the expected one is closed."""
        self.asking.hurry(now, self.policy.close_grace_s)
        if self._holding_since is None:
            self._holding_since = now.mono
        if not self._later.add(kline):
            return []
        updates, received_ms = self._later.updates, float(now.wall)
        return [CandleNews(self.series, kline, updates, received_ms, provisional=True)]

    def _confirm_odd(self, row: Kline) -> None:
        """The exchange has the running candle where a frame off the grid had it."""
        odd, self._odd = self._odd, None
        if odd is not None and odd.open_ms == row.open_ms and not odd.closed:
            self._later.confirm(odd)

    def _is_outdated(self, kline: Kline) -> bool:
        """Older than what was published last, or the same once more, over another connection.
        Where the exchange gives no time of the event the volume tells: it never shrinks."""
        current = self.current
        if current is None or kline.event_ms > current.event_ms:
            return False
        older = kline.event_ms < current.event_ms or kline.volume < current.volume
        return older or kline.same_values(current)

    def _release(self, now: Now) -> list[CandleNews]:
        """What was held and has become the expected candle."""
        out: list[CandleNews] = []
        while (kline := self._later.take_closed(self.expected)) is not None:
            out.append(self._close(kline, now))
        running = self._later.reach(self.closed_ms, self.expected)
        if running is not None:
            out.append(self._update(running, now))
        if not self._later.any:
            self.asking.hurry_at = self._holding_since = None
        return out

    def _update(self, kline: Kline, now: Now) -> CandleNews:
        self.current = kline
        return self._news(kline, now)

    def _close(self, kline: Kline, now: Now) -> CandleNews:
        news = self._news(kline, now)
        if self.first_ms is None:
            self.first_ms = kline.open_ms
        self.closed_ms = kline.open_ms
        self.told_ms = kline.open_ms
        self.fresh = False
        self.current = None
        self._recent.append(kline)
        self._updates = 0
        self.asking.closed()
        return news

    def _news(self, kline: Kline, now: Now) -> CandleNews:
        self._updates += 1
        return CandleNews(self.series, kline, self._updates, float(now.wall), after_ms=self.told_ms)
