"""Where the next start goes on in a program's chain.  Pure.

Two moments are kept.  Up to ``settled_ms`` every price was taken and is in the stored candles;
candles that end later may lack one that was not looked up yet, or are not stored at all.  So these
are made anew, and for that the chain is read again from an earlier transaction: one before the
longest candle that was running at ``settled_ms`` (at most five minutes, the longest interval made
of prices).

Clients have been told these prices before.  Which ones, ``told_slot`` and ``told`` know.
"""

import json
from collections import deque
from collections.abc import Collection, Mapping, Sequence

from attrs import define, evolve, field, fields, frozen

from ..model import Interval
from . import calendar

_MARKS = 1_000
_MOST_TOLD = 2_000


@frozen
class ChainCursor:
    """``signature`` and ``slot``: the chain is read on behind this transaction; prices behind it
    count at ``time_ms`` or later.  ``since_ms``: none was missed from then on, of ``symbols`` (with
    ``*``: of all).  ``told_slot``: clients know everything up to it, and ``told`` (signatures) of
    later slots.
    """

    signature: str
    slot: int
    time_ms: int
    settled_ms: int
    since_ms: int
    symbols: tuple[str, ...] = ()
    told_slot: int = 0
    told: tuple[str, ...] = ()

    @property
    def last(self) -> tuple[str, int]:
        return self.signature, self.slot

    def covers(self, symbol: str, newest_ms: int) -> bool:
        """Whether its stored candles, of which the newest opens then, lack no price up to here."""
        return newest_ms >= self.since_ms and not {symbol, "*"}.isdisjoint(self.symbols)

    def made_anew_from(self, interval: Interval) -> int:
        """Open time of the first candle that is not certain."""
        return calendar.open_of(interval, self.settled_ms)

    def with_told(self, slots: Mapping[str, int]) -> "ChainCursor":
        """Clients know these transactions (signature -> slot), and all that are settled."""
        later = [signature for signature, slot in slots.items() if slot > self.told_slot]
        return evolve(self, told=tuple(later[-_MOST_TOLD:]))

    def was_told(self, signature: str, slot: int) -> bool:
        """Whether clients know the prices of this transaction."""
        return slot <= self.told_slot or signature in self.told

    def text(self) -> str:
        """For the store."""
        return json.dumps({name: getattr(self, name) for name in _NAMES})

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
                int(found.get("told_slot", 0)),
                tuple(map(str, found.get("told", ()))),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a cursor: {error!r}") from None


_NAMES = tuple(attribute.name for attribute in fields(ChainCursor))


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
        told = max(transaction[1], 0 if self.last is None else self.last.told_slot)
        cursor = ChainCursor(signature, slot, time_ms, settled_ms, since_ms, tuple(symbols), told)
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
