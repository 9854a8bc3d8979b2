"""A node's guard over a series: each closed candle once, in order, none missing.  Pure.

A node reads what an owner wrote.  What comes may have been there before (a log that forgot has it
again) and may lack something before it (trimmed, or lost).  The guard knows the last closed candle;
every candle names the closed one before it (``after_ms``).  What is missing is asked of the store;
until it is there the series waits, and nothing else does.
"""

from collections.abc import Iterable, Sequence

from attrs import define, field, frozen

from .wire import Candle, Flags

_MOST_WAITING = 1_000
PATIENCE_S = 10.0
"""A series that waits longer for what is missing is given up."""


@frozen
class Missing:
    """Closed candles with after_ms < open <= until_ms are not here yet."""

    after_ms: int
    until_ms: int


@define(eq=False)
class Guard:
    """Of a series that stands at ``closed_ms``, the open time of its last closed candle (None: not
    known), and ``number``, epoch and offset of its last message."""

    closed_ms: int | None
    number: tuple[int, int]
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
            self.want(item.after_ms, now)
            return self._wait(item)
        return self._pass(item)

    def want(self, until_ms: int, now: float) -> None:
        """There are closed candles up to this open time."""
        if self.closed_ms is None or until_ms <= self.closed_ms:
            return
        if self.missing is None:
            self._since = now
        elif until_ms <= self.missing.until_ms:
            return
        self.missing = Missing(self.closed_ms, until_ms)

    def repair(self, rows: Iterable[Candle], now: float) -> Sequence[Candle]:
        """The store has answered with ``rows``, ascending: what is to be handed out now.  What the
        answer lacks stays missing."""
        missing = self.missing
        if missing is None:
            return []
        out = self._filled(rows, missing)
        if self.closed_ms is not None and self.closed_ms < missing.until_ms:
            self.missing = Missing(self.closed_ms, missing.until_ms)
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

    def overdue(self, now: float) -> bool:
        """Whether it has waited too long, or too much waits."""
        if self.missing is None:
            return False
        return now - self._since >= PATIENCE_S or len(self._waiting) >= _MOST_WAITING

    def _filled(self, rows: Iterable[Candle], missing: Missing) -> list[Candle]:
        out: list[Candle] = []
        for row in rows:
            if self.closed_ms is not None and self.closed_ms < row.open_ms <= missing.until_ms:
                out += self._pass(row)
        return out

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
        closes = item.flags & Flags.CLOSED and not item.flags & Flags.REVISION
        before = self.closed_ms is not None and item.open_ms <= self.closed_ms
        if not item.flags & Flags.REVISION and before:
            return []
        self.number = max(self.number, (item.epoch, item.offset))
        if closes:
            self.closed_ms = item.open_ms
        return [item]

    def _lacks(self, item: Candle) -> bool:
        """Within an epoch a number that follows the last one says that nothing is missing, also
        where candles lie between that were stored and never published (a sparse series)."""
        if self.closed_ms is None or item.after_ms is None or item.after_ms <= self.closed_ms:
            return False
        return (item.epoch, item.offset) != (self.number[0], self.number[1] + 1)
