"""What a client that comes back has missed, out of the rows of a database.  Pure."""

from collections.abc import Callable, Iterable
from typing import Any

from attrs import frozen

from ..model import Kline, KlineMessage, Series

Number = tuple[int, int]
"""Epoch and offset."""
Row = tuple[Any, ...]
"""A candle's columns, with epoch and offset behind them."""


@frozen
class Walk:
    """``count``: candles after the number; ``first``: open of the oldest of them.  ``last_known``:
    the largest offset of the number's epoch among those that were met."""

    count: int
    first: int | None
    last_known: int | None

    def is_known(self, offset: int, revised: int | None) -> bool:
        """Of an epoch that was not written to its end: whether everything up to ``offset`` was.
        ``revised``: the largest offset among the revisions of the series in that epoch."""
        return any(last is not None and offset <= last for last in (self.last_known, revised))


def walk_back(numbers: Iterable[tuple[int, int, int]], number: Number, limit: int) -> Walk:
    """From the newest candle back to the first that is not after ``number``, or past ``limit``:
    candles are published in the order of their opens.

    ``numbers``: open, epoch and offset, the newest first; no more are read than are needed.  What
    was never published is passed over, up to ``limit`` rows of it: more count as too many."""
    count, first, last_known, passed = 0, None, None, 0
    for open_ms, epoch, offset in numbers:
        if not offset:
            passed += 1
            if passed > limit:
                count = limit + 1
                break
            continue
        if epoch == number[0] and last_known is None:
            last_known = offset
        if (epoch, offset) <= number or count > limit:
            break
        count, first = count + 1, open_ms
    return Walk(count, first, last_known)


def messages_of(
    series: Series,
    candles: Iterable[Row],
    revised: Iterable[Row],
    from_row: Callable[[Row], Kline],
    limit: int,
) -> list[KlineMessage] | None:
    """The messages, None where there are more than ``limit``.  A revision of a candle that was
    unknown is both: one message, the revision."""
    rows = {row[-2:]: (row, False) for row in candles}
    rows |= {row[-2:]: (row, True) for row in revised}
    if len(rows) > limit:
        return None
    return [
        KlineMessage(series, from_row(row), row[-2], row[-1], 1, 0.0, revision)
        for row, revision in rows.values()
    ]
