"""A node's guard over its series: each closed candle once, in order, none missing.  Pure.

A node reads what an owner wrote.  What comes may have been there before (a log that forgot has it
again) and may lack something before it (trimmed, or lost).  Per series the follower knows the last
closed candle; every candle names the closed one before it (``after_ms``).  What is missing is asked
of the store; until it is there the series waits, and nothing else does.
"""

from collections.abc import Iterable, Sequence

from attrs import define, field, frozen

from .wire import Candle, Flags

_MOST_WAITING = 1_000


@frozen
class Missing:
    """Closed candles with after_ms < open <= until_ms are not here yet."""

    stream: int
    after_ms: int
    until_ms: int


@define
class _Place:
    """Where a series stands.  ``since``: from when on it waits."""

    closed_ms: int | None
    number: tuple[int, int]
    waiting: list[Candle] = field(factory=list)
    missing: Missing | None = None
    since: float = 0.0


class Follower:
    """All series of a node.  ``patience_s``: a series that waits longer is given up."""

    def __init__(self, patience_s: float = 10.0) -> None:
        self._patience_s = patience_s
        self._places: dict[int, _Place] = {}

    def open(self, stream: int, closed_ms: int | None, number: tuple[int, int]) -> None:
        """The series stands there: its last closed candle (None: not known), its last number."""
        self._places[stream] = _Place(closed_ms, number)

    def close(self, stream: int) -> None:
        self._places.pop(stream, None)

    @property
    def missing(self) -> Sequence[Missing]:
        """What the store is to be asked for."""
        return [place.missing for place in self._places.values() if place.missing is not None]

    def take(self, item: Candle, now: float) -> Sequence[Candle]:
        """What is to be handed out now: the item, or nothing where it was there already or where
        something before it is missing."""
        place = self._places[item.stream]
        if item.flags & Flags.EPHEMERAL:
            return [item]
        if place.missing is not None:
            return self._wait(place, item)
        if _lacks(place, item):
            assert place.closed_ms is not None, "else nothing lacks"
            assert item.after_ms is not None, "else nothing lacks"
            place.missing = Missing(item.stream, place.closed_ms, item.after_ms)
            place.since = now
            return self._wait(place, item)
        return self._pass(place, item)

    def repair(self, stream: int, rows: Iterable[Candle], now: float) -> Sequence[Candle]:
        """The store has answered with ``rows``, ascending: what is to be handed out now.  What the
        answer lacks stays missing."""
        place = self._places[stream]
        missing = place.missing
        if missing is None:
            return []
        out: list[Candle] = []
        for row in rows:
            if place.closed_ms is not None and place.closed_ms < row.open_ms <= missing.until_ms:
                out += self._pass(place, row)
        if place.closed_ms is not None and place.closed_ms < missing.until_ms:
            place.missing = Missing(stream, place.closed_ms, missing.until_ms)
            return out
        waiting, place.waiting, place.missing = place.waiting, [], None
        for item in waiting:
            out += self.take(item, now)
        return out

    def overdue(self, now: float) -> Sequence[int]:
        """Series that waited too long, or for whom too much waits: they are given up here."""
        found = [
            stream
            for stream, place in self._places.items()
            if place.missing is not None
            and (now - place.since >= self._patience_s or len(place.waiting) >= _MOST_WAITING)
        ]
        for stream in found:
            self.close(stream)
        return found

    def _wait(self, place: _Place, item: Candle) -> Sequence[Candle]:
        if len(place.waiting) < _MOST_WAITING:
            place.waiting.append(item)
        return []

    def _pass(self, place: _Place, item: Candle) -> Sequence[Candle]:
        closes = item.flags & Flags.CLOSED and not item.flags & Flags.REVISION
        before = place.closed_ms is not None and item.open_ms <= place.closed_ms
        if not item.flags & Flags.REVISION and before:
            return []
        place.number = max(place.number, (item.epoch, item.offset))
        if closes:
            place.closed_ms = item.open_ms
        return [item]


def _lacks(place: _Place, item: Candle) -> bool:
    """Within an epoch a number that follows the last one says that nothing is missing, also where
    candles lie between that were stored and never published (a sparse series)."""
    if place.closed_ms is None or item.after_ms is None or item.after_ms <= place.closed_ms:
        return False
    return (item.epoch, item.offset) != (place.number[0], place.number[1] + 1)
