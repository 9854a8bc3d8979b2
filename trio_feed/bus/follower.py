"""A node's guard over a series: each closed candle once, in order, none missing.  Pure.

A node reads what an owner wrote.  What comes may have been there before (a log that forgot has it
again) and may lack something before it (trimmed, or lost).  The guard knows the last closed candle;
every candle names the closed one before it (``after_ms``), and a checkpoint the last revision.
What is missing is asked of the store; until it is there the series waits, and nothing else does.
"""

from collections.abc import Iterable, Sequence

import msgspec
from attrs import define, evolve, field, frozen

from .wire import Candle, Flags

_MOST_WAITING = 1_000
PATIENCE_S = 10.0
"""A series that waits longer for what is missing is given up."""


Number = tuple[int, int]
"""Epoch and offset."""
_NEVER: Number = (0, 0)


@frozen
class Missing:
    """Closed candles with after_ms < open <= until_ms are not here yet; nor are revisions up to
    ``number``, of which ``revised`` is the last, (0, 0): it is not known whether there are any."""

    after_ms: int
    until_ms: int
    number: Number
    revised: Number = _NEVER

    def has(self, open_ms: int, number: Number, *, revision: bool) -> bool:
        """Whether a row of the store is what is missing here."""
        return number <= self.number if revision else open_ms <= self.until_ms


@define(eq=False)
class Guard:
    """Of a series that stands at ``closed_ms``, the open time of its last closed candle (None: not
    known), and ``number``, epoch and offset of its last message."""

    closed_ms: int | None
    number: Number
    missing: Missing | None = None
    _waiting: list[Candle] = field(factory=list)
    _since: float = 0.0

    def take(self, item: Candle, now: float) -> Sequence[Candle]:
        """What is to be handed out now: the item, or nothing where it was there already or where
        something before it is missing."""
        if item.flags & Flags.EPHEMERAL:
            return [item]
        if self.missing is not None:
            return self._wait(item)
        if self._lacks(item):
            assert item.after_ms is not None, "else nothing lacks"
            self.want(item.after_ms, (item.epoch, item.offset - 1), now)
            return self._wait(item)
        return self._pass(item)

    def want(self, until_ms: int, number: Number, now: float, revised: Number = _NEVER) -> None:
        """Up to that number there are closed candles up to that open time, and the revision with
        the number ``revised``."""
        if self.closed_ms is None or (until_ms <= self.closed_ms and revised <= self.number):
            return
        if self.missing is None:
            self._since = now
            self.missing = Missing(self.closed_ms, max(until_ms, self.closed_ms), number, revised)
            return
        if self._waiting and number <= _number(self._waiting[-1]):
            return  # what came since it waits is here
        self.missing = Missing(
            self.closed_ms,
            max(until_ms, self.missing.until_ms),
            max(number, self.missing.number),
            max(revised, self.missing.revised),
        )

    def repair(self, rows: Iterable[Candle], now: float) -> Sequence[Candle]:
        """The store has answered with ``rows``, ascending: what is to be handed out now.  What the
        answer lacks stays missing."""
        missing = self.missing
        if missing is None:
            return []
        out = self._filled(rows, missing)
        if self.closed_ms is not None and self.closed_ms < missing.until_ms:
            self.missing = evolve(missing, after_ms=self.closed_ms)
            return out
        return [*out, *self._go_on(now)]

    def settle(self, rows: Iterable[Candle], now: float) -> Sequence[Candle]:
        """The same with all that was published of what is missing: what ``rows`` lack there, nobody
        was told of (silent candles of a sparse series)."""
        missing = self.missing
        if missing is None:
            return []
        out = self._filled(rows, missing)
        self.closed_ms = missing.until_ms
        return [*out, *self._go_on(now)]

    def give_up(self, now: float) -> Sequence[Candle]:
        """Go on without what is missing: what waits is handed out."""
        missing, waiting = self.missing, self._waiting
        if missing is None:
            return []
        self.missing, self._waiting = None, []
        # A later jump made more of it missing than lies before what waits.
        until_ms = waiting[0].after_ms if waiting else missing.until_ms
        self.closed_ms = max(missing.after_ms, until_ms or 0)
        out: list[Candle] = []
        for item in waiting:
            out += self.take(item, now)
        if self.missing is None:
            self.number = max(missing.number, self.number)
        return out

    def overdue(self, now: float) -> bool:
        """Whether it has waited too long, or too much waits."""
        if self.missing is None:
            return False
        return now - self._since >= PATIENCE_S or len(self._waiting) >= _MOST_WAITING

    def _filled(self, rows: Iterable[Candle], missing: Missing) -> list[Candle]:
        out: list[Candle] = []
        for row in rows:
            revision = bool(row.flags & Flags.REVISION)
            if missing.has(row.open_ms, _number(row), revision=revision):
                out += self._pass(row if revision else self._numbered(row, missing))
        return out

    def _numbered(self, row: Candle, missing: Missing) -> Candle:
        """Where a failover lost the entries that sealed an epoch, an owner of before may append
        late, and the next one finds that.  Clients would take its number for an old one: it gets
        one that nobody else gave, between those of the two epochs that this node knows."""
        if _number(row) > self.number:
            return row
        epoch, offset = max(self.number, (missing.number[0] - 1, 0))
        return msgspec.structs.replace(row, epoch=epoch, offset=offset + 1)

    def _go_on(self, now: float) -> Sequence[Candle]:
        waiting, self._waiting, self.missing = self._waiting, [], None
        out: list[Candle] = []
        for item in waiting:
            out += self.take(item, now)
        return out

    def _wait(self, item: Candle) -> Sequence[Candle]:
        if len(self._waiting) < _MOST_WAITING:
            self._waiting.append(item)
        return []

    def _pass(self, item: Candle) -> Sequence[Candle]:
        revision, number = item.flags & Flags.REVISION, _number(item)
        if revision and number <= self.number:
            return []  # the store gave it, with what is behind it
        if not revision and self.closed_ms is not None and item.open_ms <= self.closed_ms:
            return []
        self.number = max(self.number, number)
        if item.flags & Flags.CLOSED and not revision:
            self.closed_ms = item.open_ms
        return [item]

    def _lacks(self, item: Candle) -> bool:
        """Within an epoch a number that follows the last one says that nothing is missing, also
        where candles lie between that were stored and never published (a sparse series)."""
        if self.closed_ms is None or item.after_ms is None or item.after_ms <= self.closed_ms:
            return False
        return (item.epoch, item.offset) != (self.number[0], self.number[1] + 1)


def _number(item: Candle) -> Number:
    return item.epoch, item.offset
