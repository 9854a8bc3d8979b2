"""The order book of one symbol, and the proof that it is whole.

A book is a snapshot and the updates after it, none missing.  Exchanges number their updates, each
in its own way; everything reduces to two numbers of an update: the id *before* it (``previous_id``,
or ``first_id - 1`` where the venue gives none) and its ``last_id``.  With ``held`` as our own id:

=================  ==========================================  =====================================
rule               the first update after a REST snapshot      every other
=================  ==========================================  =====================================
``dense``          before <= held < last                       before <= held < last
else               before <= held < last                       before == held; last may be equal
``first_repeats``  before <= held <= last                      (keep-alive) or lower (maintenance)
=================  ==========================================  =====================================

What is older is ignored, anything else is a gap.  Which rule is a venue's, and by which page of its
documents, stands beside the ``BOOK_RULE`` of each venue.

WAITING (no book yet, updates are buffered) -> LIVE -> STALE (a gap: the old book stays readable
and says so, updates are buffered) -> LIVE.  A live book wants a snapshot too while it is crossed,
and when the price has moved so far that few levels are left of those the last one covered
(cryptofeed #604); it stays live meanwhile.
"""

import math
from collections import deque
from enum import Enum, StrEnum

from attrs import define, field, frozen

from ..model import BookTop, BookUpdate, Level
from .levels import Side
from .streams import BookRule


class State(StrEnum):
    WAITING = "waiting"
    LIVE = "live"
    STALE = "stale"


class Outcome(StrEnum):
    """What became of an update or a snapshot."""

    APPLIED = "applied"
    IGNORED = "ignored"
    """Already in the book."""
    BUFFERED = "buffered"
    """Waits for the snapshot."""
    RESYNC = "resync"
    """Shows a gap: the book is stale from here on and wants a snapshot."""
    AGAIN = "again"
    """This snapshot does not fit: ask again when it is due."""


@frozen
class BookChange:
    """An outcome, and for RESYNC and AGAIN the reason in words."""

    outcome: Outcome
    reason: str = ""


_APPLIED, _IGNORED, _BUFFERED = map(
    BookChange, (Outcome.APPLIED, Outcome.IGNORED, Outcome.BUFFERED)
)


@frozen
class BookPolicy:
    """Sizes are levels per side or updates, times milliseconds.

    ``snapshot_levels``: how many a snapshot of this venue holds at most (a side as long as that
    goes on, unseen); None: it is always the whole book.  ``ids_restart_ms``: an update that is
    older by its id and this much younger by its time shows that the ids began again.
    """

    depth_kept: int = 5_000
    depth_exact: int = 50
    snapshot_levels: int | None = None
    max_buffered: int = 1_000
    retry_ms: float = 1_000
    retry_max_ms: float = 60_000
    ids_restart_ms: int = 10_000

    @property
    def enough(self) -> int:
        """With fewer exact levels on a side a new snapshot is wanted; never more than half of
        what one brings, or it would be wanted for ever."""
        brings = self.depth_kept if self.snapshot_levels is None else self.snapshot_levels
        return min(self.depth_exact, brings // 2, self.depth_kept // 2)


@define
class BookCounts:
    """``resyncs``: stale books made whole again.  ``refreshes``: snapshots taken while live.
    ``refused``: snapshots that did not fit.  ``resets``: ids set back in maintenance."""

    applied: int = 0
    ignored: int = 0
    gaps: int = 0
    resyncs: int = 0
    refreshes: int = 0
    refused: int = 0
    resets: int = 0


class Place(Enum):
    """Where an update stands, seen from the id that is held."""

    OLD = 0
    NEXT = 1
    GAP = 2


def place(rule: BookRule, held: int, update: BookUpdate, *, first: bool) -> Place:
    """The table above.  ``first``: nothing was applied since a snapshot by REST."""
    if rule.may_lack_ids and update.previous_id is None and not update.last_id:
        return Place.NEXT
    before, last = _before(update), update.last_id
    if before == held:
        return Place.NEXT
    if first:
        if last < held or (last == held and not rule.first_repeats):
            return Place.OLD
        return Place.NEXT if before < held else Place.GAP
    if before > held:
        return Place.GAP
    if last <= held:
        return Place.OLD
    return Place.NEXT if rule.dense else Place.GAP


def _before(update: BookUpdate) -> int:
    return update.first_id - 1 if update.previous_id is None else update.previous_id


@define(repr=False)
class Book:
    """State of one symbol's book; synchronous, and told the time where it matters.

    The caller feeds ``update`` with the stream and, when ``due_ms`` has come, asks the exchange
    (REST, or a new subscription where that brings one), says so with ``asked`` and hands a REST
    answer to ``snapshot``.
    """

    symbol: str
    rule: BookRule
    policy: BookPolicy = BookPolicy()
    state: State = State.WAITING
    last_id: int = 0
    event_ms: int = 0
    counts: BookCounts = field(factory=BookCounts)
    _bids: Side = field(factory=lambda: Side(True))
    _asks: Side = field(factory=lambda: Side(False))
    _buffer: deque[BookUpdate] = field(factory=deque)
    _since_ms: int = 0
    """The time that ids are held from; 0: not known yet (a snapshot that says none)."""
    _first: bool = False
    _recording: bool = False
    _questions: int = 0
    _asked_ms: float = -math.inf
    _next_ask_ms: float = 0.0

    @property
    def stale(self) -> bool:
        """What is readable may be wrong: a gap was seen and is not repaired yet."""
        return self.state is State.STALE

    @property
    def crossed(self) -> bool:
        """The best bid is not below the best ask: wrong, or an auction."""
        bids, asks = self._bids.prices, self._asks.prices
        return bool(bids and asks) and bids[-1] >= asks[0]

    @property
    def exact_levels(self) -> tuple[int, int]:
        """How many bids and asks, from the best one on, have no unknown level between them."""
        return self._bids.exact(), self._asks.exact()

    @property
    def wants_snapshot(self) -> bool:
        """A snapshot is needed (not live) or would do good (crossed, or few exact levels)."""
        if self.state is not State.LIVE:
            return not self.rule.streams_snapshots or bool(self._buffer)
        return self.crossed or self._is_shallow(self._bids) or self._is_shallow(self._asks)

    @property
    def due_ms(self) -> float | None:
        """When the exchange is to be asked for a snapshot; None while none is wanted."""
        return self._next_ask_ms if self.wants_snapshot else None

    def asked(self, now: float) -> None:
        """A snapshot was asked for: the next question waits, twice as long each time.

        The wait outlives success, so a book that breaks after every snapshot is asked about at
        most once per ``retry_max_ms``; it starts again after two quiet ones.
        """
        if now - self._asked_ms > 2 * self.policy.retry_max_ms:
            self._questions = 0
        wait = self.policy.retry_ms * 2 ** min(self._questions, 20)
        self._questions += 1
        self._asked_ms = now
        self._next_ask_ms = now + min(wait, self.policy.retry_max_ms)
        self._recording = True

    def interrupt(self) -> None:
        """The stream is gone, or not to be believed: what is readable is stale from here on."""
        if self.state is State.LIVE:
            self.state = State.STALE
        self._buffer.clear()

    def update(self, update: BookUpdate) -> BookChange:
        """The next message of the stream.  Raises ValueError for a partial book."""
        if update.partial:
            raise ValueError(f"{self.symbol}: partial books have no sequence and no place here")
        if update.snapshot:
            return self._take_streamed(update)
        if self.state is not State.LIVE:
            return self._collect(update)
        where = place(self.rule, self.last_id, update, first=self._first)
        if where is Place.GAP:
            return self._lose(update, f"expected what follows {self.last_id}")
        if where is Place.OLD:
            if self._restarted(self._since_ms, update):
                return self._lose(update, "the ids began again")
            self._since_ms = self._since_ms or update.event_ms
            self.counts.ignored += 1
            return _IGNORED
        if self._recording:
            self._remember(update)
        self._apply(update)
        return _APPLIED

    def snapshot(self, snapshot: BookUpdate) -> BookChange:
        """The exchange's answer by REST: APPLIED with what was buffered, or AGAIN (the book is
        as it was)."""
        later = [
            update
            for update in self._buffer
            if place(self.rule, snapshot.last_id, update, first=True) is not Place.OLD
        ]
        reason = ""
        if later and place(self.rule, snapshot.last_id, later[0], first=True) is Place.GAP:
            reason = f"snapshot {snapshot.last_id} ends before update {later[0].first_id} begins"
        elif self.state is State.LIVE and snapshot.last_id < self.last_id and not later:
            reason = f"snapshot {snapshot.last_id} is older than the live book {self.last_id}"
        if reason:
            self.counts.refused += 1
            return BookChange(Outcome.AGAIN, reason)
        self._load(snapshot, first=True)
        for update in later:
            self._apply(update)
        return _APPLIED

    def top(self) -> BookTop | None:
        """Best bid and ask; None before the first snapshot and while they are crossed."""
        if self.state is State.WAITING or self.crossed:
            return None
        bids, asks = self._bids, self._asks
        bid, bid_size = bids.levels[-1] if bids.levels else (None, None)
        ask, ask_size = asks.levels[0] if asks.levels else (None, None)
        return BookTop(self.symbol, bid, bid_size, ask, ask_size, self.last_id, self.event_ms)

    def levels(self, count: int) -> tuple[tuple[Level, ...], tuple[Level, ...]]:
        """Up to ``count`` bids and asks, best first, in the digits of the wire."""
        return self._bids.best(count), self._asks.best(count)

    def __repr__(self) -> str:
        size = f"{len(self._bids)}x{len(self._asks)}"
        return f"<Book {self.symbol} {self.state} id={self.last_id} {size} {self.counts}>"

    def _take_streamed(self, snapshot: BookUpdate) -> BookChange:
        """A snapshot out of the stream stands where it stands: all that came before is in it."""
        repeated = 0 < snapshot.last_id <= self.last_id and snapshot.event_ms <= self.event_ms
        if repeated and self.state is State.LIVE and not self.wants_snapshot:
            self.counts.ignored += 1
            return _IGNORED
        self._load(snapshot, first=False)
        return _APPLIED

    def _load(self, snapshot: BookUpdate, *, first: bool) -> None:
        if self.state is State.STALE:
            self.counts.resyncs += 1
        elif self.state is State.LIVE:
            self.counts.refreshes += 1
        self.state = State.LIVE
        self.last_id = snapshot.last_id
        self.event_ms = snapshot.event_ms or self.event_ms
        self._since_ms = snapshot.event_ms  # not the time of the book before: it may be long ago
        self._first, self._recording = first, False
        self._buffer.clear()
        for side, levels in ((self._bids, snapshot.bids), (self._asks, snapshot.asks)):
            side.load(levels, self.policy.snapshot_levels)
            side.cut(self.policy.depth_kept)

    def _apply(self, update: BookUpdate) -> None:
        self.counts.applied += 1
        if update.last_id < self.last_id:
            self.counts.resets += 1
        self.last_id = update.last_id
        self.event_ms = self._since_ms = update.event_ms
        self._first = False
        for side, levels in ((self._bids, update.bids), (self._asks, update.asks)):
            if levels:
                side.apply(levels)
                side.cut(self.policy.depth_kept)

    def _lose(self, update: BookUpdate, reason: str) -> BookChange:
        self.counts.gaps += 1
        self.state = State.STALE
        self._buffer.clear()
        self._remember(update)
        span = f"{update.first_id}..{update.last_id} after {_before(update)}"
        return BookChange(Outcome.RESYNC, f"{reason}, got {span}")

    def _collect(self, update: BookUpdate) -> BookChange:
        """Buffer what follows the buffer; after a gap in it only what comes later is of use."""
        if self._buffer:
            newest = self._buffer[-1]
            where = place(self.rule, newest.last_id, update, first=False)
            if where is Place.OLD and not self._restarted(newest.event_ms, update):
                self.counts.ignored += 1
                return _IGNORED
            if where is not Place.NEXT:
                self._buffer.clear()
        self._remember(update)
        return _BUFFERED

    def _remember(self, update: BookUpdate) -> None:
        if update.last_id < _before(update):  # set back: ids before it say nothing any more
            self._buffer.clear()
            return
        if len(self._buffer) >= self.policy.max_buffered:
            self._buffer.popleft()
        self._buffer.append(update)

    def _restarted(self, event_ms: int, update: BookUpdate) -> bool:
        return 0 < event_ms < update.event_ms - self.policy.ids_restart_ms

    def _is_shallow(self, side: Side) -> bool:
        return side.horizon is not None and side.exact() < self.policy.enough
