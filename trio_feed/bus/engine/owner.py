"""The writing side of one shard: what is appended next, and what an answer means.  Pure.

One append is under way; what comes meanwhile is the next batch.  Each names the entry before it, so
that the log is a chain, and an append that is tried again does nothing.  Numbers of entries are
those of the epoch: who wrote last in an older one cannot write any more.
"""

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum

from attrs import define, field, frozen

from .. import wire
from .base import Append, EntryId

_MOST_ITEMS = 2_000
"""Of one entry: a reader takes it in one go."""
_MOST_AGAIN, _MOST_AGAIN_BYTES = 100, 2**20
"""Of what is appended again in one round trip; one entry at least."""


class Told(Enum):
    """What an answer of the engine means."""

    DONE = "done"
    """The entry is in, or appended before."""
    AGAIN = "again"
    """The log forgot some of its end: that is appended once more."""
    FENCED = "fenced"
    """Another node owns the shard."""
    FORGOTTEN = "forgotten"
    """The log forgot more than is kept here: only a new epoch can go on."""


@frozen
class _Kept:
    append: Append = field(repr=False)
    until: float


@define(eq=False)
class Owner:
    """Of a shard whose log ended with ``previous`` when its ``epoch`` began.

    It begins with :meth:`start`.  ``keep_s`` and ``keep_bytes`` bound what is kept for a log that
    forgets, ``buffer_bytes`` what waits for an engine that is away.  ``checkpoint()``: how the
    shard's streams stand now.
    """

    shard: str
    epoch: int
    previous: EntryId
    checkpoint: Callable[[], wire.Checkpoint] = field(repr=False)
    keep_s: float = 30.0
    keep_bytes: int = 64 * 2**20
    buffer_bytes: int = 64 * 2**20
    overflown: bool = False
    """More waited than may: what was published since is in no entry; a new epoch has to begin."""
    forgotten: bool = False
    """The log cannot go on in this epoch, and what it lacks is known; a new one has to begin."""
    is_sealed: bool = False
    """See :meth:`seal`."""
    _items: list[wire.Item] = field(factory=list)
    _bytes: int = 0
    _sequence: int = 0
    _opened: bool = False
    _under_way: Append | None = None
    _again: deque[Append] = field(factory=deque)
    _kept: deque[_Kept] = field(factory=deque)
    _kept_bytes: int = 0
    _asked: bool = False
    _beat: bool = False
    _held: list[wire.Item] | None = None
    """See :meth:`follow`."""

    @property
    def needs_epoch(self) -> bool:
        """Nothing more is appended in this one."""
        return self.overflown or self.forgotten

    @property
    def is_empty(self) -> bool:
        """Everything that was put is in the log."""
        return not (self._items or self._under_way or self._again)

    @property
    def waiting(self) -> tuple[int, int]:
        """Messages that are in no entry yet; their bytes and those of entries not in the log."""
        tried = [each for each in (self._under_way, *self._again) if each is not None]
        return len(self._items), self._bytes + sum(len(each.body) for each in tried)

    def put(self, item: wire.Item) -> None:
        """Of the shard, in order.  Before :meth:`start` nothing is kept, but see :meth:`follow`."""
        into = self._items if self._opened else self._held
        if into is None or self.overflown or self.is_sealed:
            return
        into.append(item)
        self._bytes += _size_of(item)
        if self._bytes > self.buffer_bytes:
            self._items.clear()
            self._held = None
            self._bytes, self.overflown = 0, True

    def follow(self, before: "Owner | None") -> None:
        """This node owned the shard already, and goes on: nothing that it has to say is lost, if
        all of it is known still.  ``before``: of the epoch before this one."""
        if before is None or before.overflown or before.is_sealed:
            return
        if not before._opened:
            held = before._held
        else:
            tried = before._under_way
            held = [*([] if tried is None else wire.read_entry(tried.body)), *before._items]
        if held is not None:
            self._held, self._bytes = list(held), sum(map(_size_of, held))

    def take_held(self) -> list[wire.Item] | None:
        """What is in no log, of the epoch before and since; None: that is not known."""
        held, self._held = self._held, None
        return held

    def start(self, opening: wire.Checkpoint) -> None:
        """The first entry says how the streams stand; what is put from now on follows it."""
        self._items, self._opened = [opening], not self.is_sealed
        self._bytes = _size_of(opening)

    def seal(self) -> None:
        """What was put is still appended, and nothing more is put: not how the streams stand
        either, for the feed closes them."""
        self.is_sealed, self._asked, self._beat = True, False, False

    def ask_checkpoint(self) -> None:
        """The next entry says how all streams stand."""
        self._asked = not self.is_sealed

    def beat(self) -> None:
        """Let readers hear something, also where nothing is published."""
        if self.is_empty and not self.is_sealed:
            self._beat = True

    def next_append(self) -> Append | None:
        """What is to be tried now; None: nothing.  The same again until it was answered."""
        if self.needs_epoch:
            return None
        if self._again:
            return self._again[0]
        if self._under_way is None:
            self._under_way = self._next_batch()
        return self._under_way

    @property
    def again(self) -> int:
        """Entries that are to be appended once more."""
        return len(self._again)

    def next_appends(self) -> list[Append]:
        """Those that may be tried in one round trip, in this order; of what is appended again
        several, for all waits for it."""
        found, size = list[Append](), 0
        for each in () if self.needs_epoch else self._again:
            size += len(each.body)
            if found and (len(found) == _MOST_AGAIN or size > _MOST_AGAIN_BYTES):
                break
            found.append(each)
        if not found and (one := self.next_append()) is not None:
            found.append(one)
        return found

    def is_tried(self, append: Append) -> bool:
        """Whether an answer to that one is awaited: not where an earlier one of the same round trip
        was not taken."""
        awaited = self._again[0] if self._again else self._under_way
        return append is awaited and not self.needs_epoch

    def answered(self, last: EntryId | None, now: float) -> Told:
        """The engine told the last id of the log, after :meth:`next_append` was tried; None: it
        takes none of this epoch where that ends."""
        tried = self._again[0] if self._again else self._under_way
        assert tried is not None, "something was tried"
        if last is None:
            return Told.FORGOTTEN
        if last == tried.entry_id:
            self._confirm(tried, now)
            return Told.DONE
        if self._again and tried.entry_id < last <= self._again[-1].entry_id:
            # They are in since a round trip whose answers were lost.
            while self._again and self._again[0].entry_id <= last:
                self._again.popleft()
            return Told.DONE
        if last[0] > self.epoch or last > tried.entry_id:
            return Told.FENCED
        return self._repeat(last)

    def _next_batch(self) -> Append | None:
        if not self._opened or not (self._items or self._asked or self._beat):
            return None
        self._beat, first = False, self._sequence == 0
        items, self._items = self._items[:_MOST_ITEMS], self._items[_MOST_ITEMS:]
        if asked := self._asked and not self._items:
            self._asked = False
            items.append(self.checkpoint())
        self._bytes = sum(map(_size_of, self._items))
        return self._append(items, checkpoint=asked or first)

    def _append(self, items: Sequence[wire.Item], *, checkpoint: bool) -> Append:
        self._sequence += 1
        entry_id = self.epoch, self._sequence
        return Append(self.shard, self.previous, entry_id, wire.entry(items), checkpoint)

    def _confirm(self, done: Append, now: float) -> None:
        if self._again:
            self._again.popleft()
            return
        self.previous, self._under_way = done.entry_id, None
        self._kept.append(_Kept(done, now + self.keep_s))
        self._kept_bytes += len(done.body)
        while self._kept[0].until < now or self._kept_bytes > self.keep_bytes:
            self._kept_bytes -= len(self._kept.popleft().append.body)
            if not self._kept:
                break

    def _repeat(self, last: EntryId) -> Told:
        """Everything kept that follows ``last``; each names its predecessor already."""
        following = [kept.append for kept in self._kept if kept.append.entry_id > last]
        first = following[0] if following else self._under_way
        if first is None or first.previous != last:
            return Told.FORGOTTEN
        self._again = deque(following)
        return Told.AGAIN


def _size_of(item: wire.Item) -> int:
    return 80 + len(item.body) if isinstance(item, wire.Candle | wire.Line) else 300
