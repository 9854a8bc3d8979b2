"""Candles of intervals in which nobody traded: implied where prices come one by one, not stored."""

from bisect import bisect_left
from collections.abc import Sequence
from decimal import Decimal

from ..model import Hole, Interval, Kline
from . import calendar

_ZERO = Decimal(0)


def flat(after: Kline, open_ms: int, *, complete: bool = True) -> Kline:
    """The closed candle of an interval without a price, some time behind ``after``."""
    price = after.close
    return Kline(
        open_ms,
        price,
        price,
        price,
        price,
        _ZERO,
        _ZERO,
        0,
        True,
        after.source,
        after.event_ms,
        complete,
    )


def fill_flat(
    rows: Sequence[Kline],
    interval: Interval,
    *,
    limit: int,
    end_ms: int,
    start_ms: int | None = None,
    before: Kline | None = None,
    first: bool = False,
    holes: Sequence[Hole] = (),
) -> list[Kline]:
    """Stored rows -> the answer to a client: silent intervals are flat at the close before them.

    ``rows`` are ascending: the last ``limit`` rows (or, with ``first``, the first ones) of start_ms
    <= open < end_ms; ``before`` is the last one before them, None where there is none.  ``end_ms``
    is at most the open time of the candle that runs.  At most ``limit`` candles are given, the last
    ones of the range, or the first ones; nothing before the first known candle.  Implied ones
    inside of ``holes`` are not complete.
    """
    known = [before, *rows] if before is not None else [*rows]
    if not known or limit < 1:
        return []
    opens = [row.open_ms for row in known]
    low_ms = max(known[0].open_ms, known[0].open_ms if start_ms is None else start_ms)
    if first:
        at = calendar.open_of(interval, low_ms)
        at = at if at >= low_ms else calendar.next_open(interval, at)
    else:
        last = calendar.open_of(interval, end_ms - 1)
        at = max(calendar.back(interval, last, limit - 1), calendar.open_of(interval, low_ms))
        at = at if at >= low_ms else calendar.next_open(interval, at)
    filled: list[Kline] = []
    while at < end_ms and len(filled) < limit:
        place = bisect_left(opens, at + 1) - 1
        row = known[place]
        if row.open_ms != at:
            hole = any(hole.first_ms <= at <= hole.last_ms for hole in holes)
            row = flat(row, at, complete=not hole)
        filled.append(row)
        at = calendar.next_open(interval, at)
    return filled
