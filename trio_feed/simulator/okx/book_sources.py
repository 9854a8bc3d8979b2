"""What OKX's order book channels push and when, pure: time is an argument.  See :mod:`.sources`."""

from attrs import define, field

from ..market.books import STEP_MS, Level, Levels
from .rows import book_row, push
from .sources import ChannelSource

BOOK_LEVELS = 400
KEEP_ALIVE_MS = 60_000
"""After so long without a change ``books`` pushes an update with empty sides."""


@define(eq=False)
class TopFiveSource(ChannelSource):
    """``books5``: the five best levels, whole, each 100 ms in which they changed.

    Nothing before there is a book.
    """

    _levels: tuple[Levels, Levels] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._levels = self._look(self.pushed_ms)

    def snapshot(self) -> list[bytes]:
        return [self._message()] if any(self._levels) else []

    def news(self, now_ms: int) -> list[bytes]:
        before = self._levels
        self._levels = self._look(now_ms)
        return [] if self._levels == before else [self._message()]

    def _look(self, now_ms: int) -> tuple[Levels, Levels]:
        step = now_ms // STEP_MS
        self.pushed_ms, self.due_ms = step * STEP_MS, (step + 1) * STEP_MS
        return self.data.levels(self.instrument, step, 5)

    def _message(self) -> bytes:
        row = book_row(self.instrument, *self._levels, self.pushed_ms)
        seq_id = self.data.seq_id(self.instrument, self.pushed_ms)
        return push(self.channel, [row | {"instId": self.instrument.inst_id, "seqId": seq_id}])


@define(eq=False)
class BookSource(ChannelSource):
    """``books``: a snapshot of 400 levels, then what changes among the best 400.

    The snapshot waits until there is a book: before the first trade of a listing there is none.
    ``pushed_ms`` is of the last message, for the keep-alive.
    """

    step: int = field(init=False)
    seq_id: int = field(init=False)
    _sides: tuple[Levels, Levels] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.step = self.pushed_ms // STEP_MS
        self.seq_id = self.data.sequences.at(self.instrument.inst_id, self.step)
        self._sides = self.data.levels(self.instrument, self.step, BOOK_LEVELS)
        self._plan()

    def snapshot(self) -> list[bytes]:
        return [self._message("snapshot", self._sides, -1)] if any(self._sides) else []

    def news(self, now_ms: int) -> list[bytes]:
        sequences, inst_id = self.data.sequences, self.instrument.inst_id
        before, self.step = self._sides, now_ms // STEP_MS
        self._plan()
        self._sides = self.data.levels(self.instrument, self.step, BOOK_LEVELS)
        if not any(before):  # everybody here still waits for the snapshot
            self.pushed_ms = self.step * STEP_MS
            self.seq_id = sequences.at(inst_id, self.step)
            return self.snapshot()
        changes = _difference(before[0], self._sides[0]), _difference(before[1], self._sides[1])
        previous = self.seq_id
        if any(changes):
            self.seq_id = sequences.next(inst_id, self.step, previous)
        elif self.step * STEP_MS - self.pushed_ms < KEEP_ALIVE_MS:
            return []
        self.pushed_ms = self.step * STEP_MS
        if any(changes) and sequences.take_gap(inst_id):
            return []
        return [self._message("update", changes, previous)]

    def _plan(self) -> None:
        every_ms = max(STEP_MS, self.data.book_push_ms)
        self.due_ms = (self.step * STEP_MS // every_ms + 1) * every_ms

    def _message(self, action: str, sides: tuple[Levels, Levels], previous: int) -> bytes:
        row = book_row(self.instrument, *sides, self.step * STEP_MS)
        more = {"checksum": 0, "prevSeqId": previous, "seqId": self.seq_id}
        return push(self.channel, [row | more], action)


def _difference(before: Levels, after: Levels) -> Levels:
    """Absolute quantities that lead from one to the other, 0 = removed."""
    old, new = dict(before), dict(after)
    gone: list[Level] = [(price, old[price] * 0) for price in old if price not in new]
    return (*gone, *(level for level in after if old.get(level[0]) != level[1]))
