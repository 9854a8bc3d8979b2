"""Where the next start goes on in a program's chain.  Pure.

Two moments are kept.  Up to ``settled_ms`` every price was taken and is in the stored candles;
candles that end later may lack one that was not looked up yet, or are not stored at all.  So these
are made anew, and for that the chain is read again from an earlier transaction: one before the
longest candle that was running at ``settled_ms`` (at most five minutes, the longest interval made
of prices).

A live price counts when it arrives, about a second after its block, a fetched one in the second of
its block.  ``bounds`` keep which slots were told before a candle began, so that a price which is
fetched now counts in the candle in which it was live.
"""

import json
from collections import deque
from collections.abc import Collection, Sequence

from attrs import define, field, frozen

from ..model import Interval
from . import calendar

_MARKS = 1_000
_MOVED_MS = 5_000
"""A time that is further from a bound than this was not moved over it by the way of a message."""


@frozen
class ChainCursor:
    """``signature`` and ``slot``: the chain is read on behind this transaction; prices behind it
    count at ``time_ms`` or later.  ``since_ms``: none was missed from then on, of ``symbols`` (with
    ``*``: of all).  ``bounds``: (time, last slot of which all prices count before it), ascending.
    """

    signature: str
    slot: int
    time_ms: int
    settled_ms: int
    since_ms: int
    symbols: tuple[str, ...] = ()
    bounds: tuple[tuple[int, int], ...] = ()

    @property
    def last(self) -> tuple[str, int]:
        return self.signature, self.slot

    def covers(self, symbol: str, newest_ms: int) -> bool:
        """Whether its stored candles, of which the newest opens then, lack no price up to here."""
        return newest_ms >= self.since_ms and not {symbol, "*"}.isdisjoint(self.symbols)

    def made_anew_from(self, interval: Interval) -> int:
        """Open time of the first candle that is not certain."""
        return calendar.open_of(interval, self.settled_ms)

    def placed(self, slot: int, time_ms: int) -> int:
        """The time at which a fetched price counts."""
        for bound_ms, last_slot in self.bounds:
            if abs(time_ms - bound_ms) <= _MOVED_MS:
                before = slot <= last_slot
                time_ms = min(time_ms, bound_ms - 1) if before else max(time_ms, bound_ms)
        return time_ms

    def text(self) -> str:
        """For the store."""
        names = ("signature", "slot", "time_ms", "settled_ms", "since_ms", "symbols", "bounds")
        return json.dumps({name: getattr(self, name) for name in names})

    @classmethod
    def parse(cls, text: str) -> "ChainCursor":
        """Raises ValueError."""
        try:
            found = json.loads(text)
            return cls(
                str(found["signature"]),
                int(found["slot"]),
                int(found["time_ms"]),
                int(found["settled_ms"]),
                int(found["since_ms"]),
                tuple(map(str, found["symbols"])),
                tuple((int(at), int(slot)) for at, slot in found["bounds"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a cursor: {error!r}") from None


@define
class CursorKeeper:
    """``intervals`` are made of prices.  ``last``: where this run began to read."""

    intervals: Sequence[Interval]
    last: ChainCursor | None = None
    _marks: deque[tuple[str, int, int]] = field(factory=deque)
    """Settled transactions, ascending, and the time before which their prices count."""

    def __attrs_post_init__(self) -> None:
        if self.last is not None:
            self._marks.append((*self.last.last, self.last.time_ms))

    def settled(
        self,
        transaction: tuple[str, int],
        taken: Sequence[tuple[int, int]],
        since_ms: int,
        symbols: Collection[str],
    ) -> ChainCursor | None:
        """Nothing is missing up to this transaction.  ``taken``: slots and times of the prices,
        ascending.  Returns the cursor where it is another one than before."""
        slot = transaction[1]
        before_ms = self._marks[-1][2] if self._marks else since_ms
        settled_ms = _after_last(taken, slot, before_ms)
        if (not self._marks or self._marks[-1][:2] != transaction) and len(self._marks) < _MARKS:
            self._marks.append((*transaction, settled_ms))
        opens = sorted({calendar.open_of(interval, settled_ms) for interval in self.intervals})
        while len(self._marks) > 1 and opens and self._marks[1][2] <= opens[0]:
            self._marks.popleft()
        signature, slot, time_ms = self._marks[0]
        bounds = [(time_ms, slot)]
        for at in opens:
            earlier = next((told for told, told_ms in reversed(taken) if told_ms < at), slot)
            bounds.append((at, max(slot, earlier)))
        cursor = ChainCursor(
            signature, slot, time_ms, settled_ms, since_ms, tuple(symbols), tuple(sorted(bounds))
        )
        if cursor == self.last:
            return None
        self.last = cursor
        return cursor


def _after_last(prices: Sequence[tuple[int, int]], slot: int, otherwise: int) -> int:
    """Just behind the last price of slots up to this one."""
    for told, told_ms in reversed(prices):
        if told <= slot:
            return max(told_ms + 1, otherwise)
    return otherwise
