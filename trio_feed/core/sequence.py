"""One symbol's trades in the order of their ids: each once, holes refilled, restarts noticed.

For venues whose trade ids are dense (each is the one before plus one).  A missing id is fetched by
REST while live trades wait, bounded, so that what comes out is in order.  A hole that is too large
or that the exchange does not fill is given up, and said: :class:`Break`.

One trade alone changes nothing: an id far off, below or above, is believed when ``AGREE`` trades
in a row go on from it (a relisting, a test network that begins anew), and dropped as odd when the
old sequence goes on.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence

from attrs import define, field, frozen

from ..instants import Mono, Now
from ..model import Trade

MAX_HOLE = 20_000
"""Ids that are fetched at most."""
MAX_WAITING = 50_000
TRIES = 5
"""Answers without what is missing; then the exchange does not have it."""
PATIENCE_S = 60.0
"""So long, and for some tries, a hole about which nobody can be asked holds up the live trades;
while a ban forbids to ask it goes on holding."""
RETRY_S = 2.0
AGREE = 3
DISORDER_MS = 1_000
"""Trades of one sequence may be out of order in time by this much."""


def is_before(trade: Trade, last: Trade) -> bool:
    """It is that one, or was told before it.  Where ids began anew smaller ones are later."""
    return trade.trade_id <= last.trade_id and trade.time_ms <= last.time_ms + DISORDER_MS


@frozen
class Break:
    """Trades between these times (unix ms) are missing for good, or their number is unknown.
    ``candles``: also in the candles that are made of them."""

    first_ms: int
    last_ms: int
    reason: str
    candles: bool = True


Step = Trade | Break


@define(eq=False)
class TradeSequence:
    """``last_id`` is the last id accepted, ``reached_ms`` the latest time that two trades in a row
    have reached (it falls again where ``AGREE`` in a row lie before it: absurd times come in pairs
    as well).  ``due``: when to ask for
    ``wanted_id`` and what follows; both None while nothing is missing.  ``refill`` False: the
    exchange cannot be asked by id.  ``refilled`` counts what was fetched.
    """

    refill: bool = True
    last_id: int | None = None
    reached_ms: int = 0
    due: Mono | None = None
    refilled: int = 0
    repeated: int = 0
    odd: int = 0
    restarts: int = 0
    _waiting: deque[Trade] = field(factory=deque)
    _other: list[Trade] = field(factory=list)
    """Trades in a row of what may be another sequence."""
    _newest_ms: int = 0
    """Of the last trade."""
    _before: int = 0
    """Trades in a row that lie before ``reached_ms``."""
    _went_on: bool = False
    """The old sequence went on by live trades since the hole was seen."""
    _stored: tuple[int, int] | None = None
    """Id and time of a later trade, up to which the candles have them all."""
    _tries: int = 0
    _failures: int = 0
    _since: Mono = Mono(0.0)

    @property
    def waiting(self) -> bool:
        """Live trades wait for a hole before them."""
        return bool(self._waiting)

    @property
    def unsure(self) -> bool:
        """Trades came that may belong to another sequence: what is newest is not known."""
        return bool(self._other)

    @property
    def wanted_id(self) -> int | None:
        """The first missing id."""
        return self.last_id + 1 if self._waiting and self.last_id is not None else None

    @property
    def gap_ms(self) -> tuple[int, int] | None:
        """Between which times trades are missing that are being fetched."""
        if not self._waiting:
            return None
        first_ms = self._waiting[0].time_ms
        return (self._lost_from(first_ms), first_ms)

    @property
    def plain_from_ms(self) -> int | None:
        """A trade with the next id that is not before this time is plain: all that it does is to
        follow.  None: it would do more, because others wait or are odd."""
        if self.last_id is None or self._waiting or self._other:
            return None
        return max(self.reached_ms, self._newest_ms)

    def accept_plain(self, trades: Sequence[Trade]) -> None:
        """Plain ones, none of which lies before the one before it."""
        last, before_ms = trades[-1], self._newest_ms
        if len(trades) > 1 or not before_ms:
            before_ms = trades[max(0, len(trades) - 2)].time_ms
        self.last_id, self._newest_ms, self._before = last.trade_id, last.time_ms, 0
        self.reached_ms = max(self.reached_ms, before_ms)

    def resume(self, last_id: int, last_ms: int) -> None:
        """Go on after a stored id: what was traded since shows as missing, and is fetched."""
        self.last_id = last_id
        self.reached_ms = self._newest_ms = last_ms

    def go_back(self, last_id: int, last_ms: int) -> None:
        """Go on after an earlier id than it was resumed at.  Where the exchange does not give what
        lies between, it goes on where it was resumed."""
        assert self.last_id is not None, "it was resumed"
        self._stored = self.last_id, self.reached_ms
        self.resume(last_id, last_ms)

    def take(self, trade: Trade, now: Now) -> list[Step]:
        """A live trade -> what is next in order."""
        last = self.last_id
        if not self._waiting and (last is None or trade.trade_id == last + 1):
            if self._other:
                self._drop_other()
            self._accept(trade)
            return [trade]
        assert last is not None, "trades wait for those after last_id"
        if trade.trade_id <= last:
            if trade.time_ms <= self.reached_ms or trade.trade_id == last:
                self.repeated += 1  # a second connection, or a page that overlaps
                return []
            return self._another(trade, now)
        newest = self._waiting[-1].trade_id if self._waiting else last
        if trade.trade_id - newest > (MAX_HOLE if self.refill else 1):
            return self._another(trade, now)
        if self._other:
            self._drop_other()
        if trade.trade_id == last + 1:
            self._went_on = True
            self._accept(trade)
            steps: list[Step] = [trade]
            self._drain(steps)
            self.due = (self.due or now.mono) if self._waiting else None
            return steps
        return self._wait(trade, now)

    def fill(self, trades: Iterable[Trade], now: Now) -> list[Step]:
        """The exchange's answer: trades from ``wanted_id`` on, ascending."""
        steps: list[Step] = []
        before = self.wanted_id
        for trade in trades:
            if self.last_id is None or not self._waiting:
                break
            if trade.trade_id >= self._waiting[0].trade_id:
                break
            if trade.trade_id == self.last_id + 1:
                self.refilled += 1
                self._accept(trade)
                steps.append(trade)
        self._drain(steps)
        if self.wanted_id == before and self._waiting:
            self._tries += 1
            if self._tries >= TRIES:
                steps += self._give_up("the exchange does not have them", now)
            else:
                self.due = now.mono + RETRY_S * self._tries
            return steps
        self._tries = self._failures = 0
        self.due = now.mono if self._waiting else None
        return steps

    def failed(self, now: Now) -> list[Step]:
        """There was no answer; after a while the hole is given up."""
        if not self._failures:
            self._since = now.mono
        self._failures += 1
        if self._failures >= TRIES and now.mono - self._since >= PATIENCE_S:
            return self._give_up("the exchange could not be asked", now)
        self.due = now.mono + RETRY_S * max(1, self._tries)
        return []

    def _break(self, next_one: Trade, reason: str) -> Break:
        return Break(self._lost_from(next_one.time_ms), next_one.time_ms, reason)

    def _lost_from(self, until_ms: int) -> int:
        """The last trade's time, where it is not absurd."""
        newest = self._newest_ms
        return newest if self.reached_ms <= newest <= until_ms else self.reached_ms

    def _accept(self, trade: Trade) -> None:
        self.last_id = trade.trade_id
        # An absurd time of one trade is not one that the sequence has reached.
        reached = min(trade.time_ms, self._newest_ms or trade.time_ms)
        self._newest_ms = trade.time_ms
        is_before = trade.time_ms < self.reached_ms - DISORDER_MS
        self._before = self._before + 1 if is_before else 0
        if reached > self.reached_ms or self._before >= AGREE:
            self.reached_ms, self._before = reached, 0

    def _wait(self, trade: Trade, now: Now) -> list[Step]:
        """With two connections a trade may come behind later ones, and most come twice."""
        if not self._waiting:
            self._waiting.append(trade)
            self._tries = self._failures = 0
            self._went_on = False
            self.due = now.mono
            return []
        place = bisect_left(self._waiting, trade.trade_id, key=lambda other: other.trade_id)
        if place == len(self._waiting) or self._waiting[place].trade_id != trade.trade_id:
            self._waiting.insert(place, trade)
        if len(self._waiting) > MAX_WAITING:
            return self._give_up("too many trades wait", now)
        return []

    def _another(self, trade: Trade, now: Now) -> list[Step]:
        """A trade that does not belong to the sequence, as far as one can see."""
        other = self._other
        if other and (
            0 < trade.trade_id - other[-1].trade_id <= MAX_HOLE
            and trade.time_ms >= other[-1].time_ms - DISORDER_MS
        ):
            other.append(trade)
        elif not other or trade.trade_id != other[-1].trade_id:
            self.odd += len(other)
            self._other = [trade]
        if len(self._other) < AGREE:
            return []
        reason = "more was missed than can be fetched"
        if (skipped := self._skip(self._other[0], reason)) is not None:
            several, self._other = self._other, []
            return [skipped, *(step for each in several for step in self.take(each, now))]
        # Several in a row agree with each other and not with what was: the ids began anew, or
        # more was missed than can be fetched.
        down = self._other[0].trade_id <= (self.last_id or 0)
        reason = "trade ids began anew" if down else reason
        self.restarts += down
        steps: list[Step] = [self._break(self._other[0], reason)]
        self.odd += len(self._waiting)
        self._waiting.clear()
        self.due = None
        (first, *rest), self._other = self._other, []
        self._accept(first)
        steps.append(first)
        for each in rest:
            steps += self.take(each, now)  # what lies between them is a hole like any other
        return steps

    def _skip(self, next_one: Trade, reason: str) -> Break | None:
        """Go on behind what the candles have; None: it is there already."""
        stored, self._stored = self._stored, None
        if stored is None or (self.last_id or 0) >= stored[0]:
            return None
        # When the stored one was is not known: a candle's event time is not that of a fetched one.
        last_ms = max(self.reached_ms, next_one.time_ms)
        found = Break(self.reached_ms, last_ms, reason, candles=False)
        self.resume(*stored)
        self._tries = self._failures = 0
        return found

    def _drop_other(self) -> None:
        self.odd += len(self._other)
        self._other = []

    def _drain(self, steps: list[Step]) -> None:
        """Waiting trades, as far as they follow without a hole."""
        while self._waiting and self.last_id is not None:
            if self._waiting[0].trade_id > self.last_id + 1:
                break
            trade = self._waiting.popleft()
            if trade.trade_id == self.last_id + 1:
                self._accept(trade)
                steps.append(trade)

    def _give_up(self, reason: str, now: Now) -> list[Step]:
        steps: list[Step] = []
        if (skipped := self._skip(self._waiting[0], reason)) is not None:
            steps.append(skipped)
            self._drain(steps)
            self.due = now.mono if self._waiting else None
            return steps
        first = self._waiting.popleft()
        if self._went_on:
            self.odd += 1  # the sequence goes on below it: the id was a slip
        else:
            steps.append(self._break(first, reason))
            self._accept(first)
            steps.append(first)
        self._drain(steps)
        self._tries = 0
        self.due = now.mono if self._waiting else None
        return steps
