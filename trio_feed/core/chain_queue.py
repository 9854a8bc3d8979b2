"""What waits for what: transactions are given out in the order of the chain, within bounds.

Two things stand before a transaction: one that the list names and that is being fetched, and a gap
of which nobody knows yet what is in it.  After ``hold_s``, or with more than ``held`` of them
waiting, the rest goes on without it (``released``) until nothing stands there any more.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator

from attrs import define, evolve, field

from ..instants import NEVER, Mono, Now
from .chain_items import ChainLimits, Gap, Item, Take
from .chain_order import Record
from .effects import Report


@define(eq=False)
class ChainQueue:
    """``gap_since``: a gap is open since then.  ``last_key``: of the newest that was given out.
    ``patience_s``: how long the first wait may be, where it is longer than the others'."""

    limits: ChainLimits
    patience_s: float = 0.0
    gap_since: Mono | None = None
    last_key: tuple[int, int] = (-1, 0)
    released: bool = False
    _blocked_since: Mono | None = None
    _waiting: list[Record] = field(factory=list)
    """By key.  All of them while held; once released only those that are being fetched."""
    _missing: int = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def due(self) -> Mono:
        if self._blocked_since is None or self.released:
            return NEVER
        return self._blocked_since + max(self.patience_s, self.limits.hold_s)

    @property
    def first_slot(self) -> int | None:
        """Of what waits."""
        return self._waiting[0].slot if self._waiting else None

    @property
    def missing_slot(self) -> int | None:
        """Of the first that is being fetched."""
        if not self._missing:
            return None
        return next((r.slot for r in self._waiting if r.transaction is None), None)

    def want(self, record: Record) -> None:
        """It is being fetched, and what is behind it waits."""
        insort(self._waiting, record, key=_key)
        self._missing += 1

    def come(self, record: Record) -> Iterator[Item]:
        """It has its transaction: one that was wanted, or a new one."""
        if self._remove(record):
            self._missing -= 1
        elif not self._waiting and self.gap_since is None:
            yield from self.give(record)
            return
        if self.released:
            yield from self.give(record)
        else:
            insort(self._waiting, record, key=_key)

    def drop(self, record: Record) -> None:
        """It is not in the chain."""
        if self._remove(record) and record.transaction is None:
            self._missing -= 1

    def sort(self) -> None:
        """Places inside of slots have changed."""
        self._waiting.sort(key=_key)

    def flush(self, now: Now) -> Iterator[Item]:
        """Give out what nothing stands before any more."""
        if self.gap_since is None and not self._missing:
            if self._blocked_since is not None:
                self.patience_s = 0.0
            self._blocked_since, self.released = None, False
        elif self._blocked_since is None:
            self._blocked_since = now.mono
        elif not self.released:
            yield from self._release(now)
        given = 0
        for record in self._waiting:
            if record.transaction is None:
                break
            if self.gap_since is not None and record.key > self.last_key:
                break
            given += 1
            yield from self.give(record)
        del self._waiting[:given]

    def give(self, record: Record) -> Iterator[Take]:
        """Its prices that were not given out yet."""
        transaction = record.transaction
        assert transaction is not None, "only what is there is given out"
        late = record.key < self.last_key or bool(record.taken)
        taken = set(record.taken)
        for number, price in enumerate(transaction.prices):
            if price.key not in taken:
                position = record.position(number)
                placed = evolve(price, time_ms=transaction.time_ms, position=position)
                yield Take(placed, late, record.signature)
        record.taken = tuple(dict.fromkeys([*record.taken, *(p.key for p in transaction.prices)]))
        record.done = True
        if not late and transaction.prices:
            self.last_key = record.key

    def _release(self, now: Now) -> Iterator[Item]:
        assert self._blocked_since is not None, "called where something is blocked"
        patience_s = max(self.patience_s, self.limits.hold_s)
        too_long = now.mono - self._blocked_since >= patience_s
        if not too_long and len(self._waiting) - self._missing <= self.limits.held:
            return
        self.released = True
        ready = [record for record in self._waiting if record.transaction is not None]
        slots = [record.slot for record in self._waiting if record.transaction is None]
        open_ended = False
        if self.gap_since is not None:
            behind = [record.slot for record in ready if record.key > self.last_key]
            slots += [max(self.last_key[0], 0), *behind[:1]]
            open_ended = not behind
        reason = "not fetched in time" if too_long else "too many wait for it"
        yield Gap(min(slots), 0 if open_ended else max(slots), reason, final=False)
        yield Report("chain.released", "warning", {"held": len(ready), "missing": self._missing})
        self._waiting = [record for record in self._waiting if record.transaction is None]
        for record in ready:
            yield from self.give(record)

    def _remove(self, record: Record) -> bool:
        at = bisect_left(self._waiting, record.key, key=_key)
        for index in range(at, len(self._waiting)):
            if self._waiting[index] is record:
                del self._waiting[index]
                return True
            if self._waiting[index].key != record.key:
                break
        return False


def _key(record: Record) -> tuple[int, int]:
    return record.key
