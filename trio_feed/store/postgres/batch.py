"""What a batch of entries changes in the tables.  Pure: rows in, rows out.

The rows that a batch needs are read before (:func:`pairs_needed`), so that a batch costs the same
few statements however many entries it has.  A batch that is written a second time, because nobody
knows whether its COMMIT arrived, changes nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import define, field

from ...model import KlineMessage, Series
from ..base import CursorEntry, End, Entry, HoleEntry, LostEntry
from .rows import to_row, why_no_row

Pair = tuple[int, int]
"""Key of a series and open time: the key of a candle's row."""
Number = tuple[int, int]


@define
class StoredRow:
    """A row of ``klines``.  ``values`` as :func:`.rows.to_row` gives them."""

    values: Sequence[Any]
    number: Number


@define
class StoredEnd(End):
    """A row of ``ends``.  ``forgotten``: see :mod:`.schema`."""

    candles: int = 0
    forgotten: Number = (-1, -1)

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> "StoredEnd":
        """Of the columns behind ``series_id``."""
        first, last, settled, last_id, candles, epoch, offset = row
        return cls(first, last, settled, last_id, None, candles, (epoch, offset))

    def row(self) -> tuple[Any, ...]:
        ends = self.first_open_ms, self.last_open_ms, self.settled_ms, self.last_stream_id
        return (*ends, self.candles, *self.forgotten)


def series_of(batch: Sequence[Entry]) -> set[Series]:
    return {entry.series for entry in batch if not isinstance(entry, CursorEntry)}


def pairs_needed(
    batch: Iterable[Entry], ids: Mapping[Series, int], ends: Mapping[int, StoredEnd]
) -> set[Pair]:
    """The rows that have to be known: of candles that are not the newest of their series."""
    last = {key: end.last_open_ms for key, end in ends.items()}
    needed = set()
    for entry in batch:
        if isinstance(entry, KlineMessage):
            key, open_ms = ids[entry.series], entry.kline.open_ms
            newest = last.get(key)
            if newest is None or open_ms > newest:
                last[key] = open_ms
            else:
                needed.add((key, open_ms))
    return needed


@define
class Change:
    """What is to be written: ``fresh`` rows of candles that are not there, ``changed`` of those
    that are, and the rest as rows of their tables.  ``refused``: a series and why, per candle that
    cannot be kept."""

    _ids: Mapping[Series, int]
    ends: dict[int, StoredEnd]
    _known: Mapping[Pair, StoredRow]
    _rows: dict[Pair, StoredRow] = field(factory=dict)
    revisions: dict[tuple[int, Number], tuple[Any, ...]] = field(factory=dict)
    holes: dict[Pair, int] = field(factory=dict)
    cursors: dict[str, str] = field(factory=dict)
    refused: list[tuple[Series, str]] = field(factory=list)

    def add(self, entry: Entry) -> None:
        if isinstance(entry, CursorEntry):
            self.cursors[entry.name] = entry.text
            return
        key = self._ids[entry.series]
        end = self.ends.get(key)
        if end is None:
            end = self.ends[key] = StoredEnd()
        if isinstance(entry, KlineMessage):
            self._add_candle(key, end, entry)
        elif isinstance(entry, HoleEntry):
            self.holes[key, entry.hole.first_ms] = entry.hole.last_ms
            end.add_hole(entry.hole)
        elif isinstance(entry, LostEntry):
            end.forgotten = max(end.forgotten, (entry.epoch, entry.offset))

    def fresh(self) -> list[tuple[Any, ...]]:
        return [_flat(pair, row) for pair, row in self._rows.items() if pair not in self._known]

    def changed(self) -> list[tuple[Any, ...]]:
        return [_flat(pair, row) for pair, row in self._rows.items() if pair in self._known]

    def _add_candle(self, key: int, end: StoredEnd, message: KlineMessage) -> None:
        kline, number = message.kline, (message.epoch, message.offset)
        values = to_row(kline)
        if why := why_no_row(values):
            self.refused.append((message.series, why))
            end.forgotten = max(end.forgotten, number)
            return
        pair = key, kline.open_ms
        stored = self._rows.get(pair) or self._known.get(pair)
        newest = end.last_open_ms is None or kline.open_ms > end.last_open_ms
        if message.revision:
            before = (None,) * (len(values) - 1) if stored is None else stored.values[1:]
            row = key, kline.open_ms, *number, int(message.received_ms), *before
            self.revisions.setdefault((key, number), row)
        end.candles += stored is None
        if message.offset and not (
            newest or message.revision or (stored is not None and stored.number == number)
        ):
            # It came late or again: a walk back by open time does not find this number.
            end.forgotten = max(end.forgotten, number)
        end.add(kline)
        # A second time only the values count, not the number, but where it was not published.
        kept = stored.number if stored is not None and stored.number[1] else number
        self._rows[pair] = StoredRow(values, kept)


def _flat(pair: Pair, row: StoredRow) -> tuple[Any, ...]:
    return (pair[0], *row.values, *row.number)
