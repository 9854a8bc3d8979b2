"""``timeZone`` of candles: the same bars as those of UTC, or others.  Pure.

A zone moves where bars open ("Kline/Candlestick data" of binance-spot-api-docs, 2026-07-21).  Bars
of less than a day open at the same moments wherever their length divides the offset: every one of
them up to an hour in most zones, 4h in that of +08:00.  Others would have to be summed up anew.
"""

import re

from ...core.calendar import length_ms
from ...model import Interval

_MINUTE_MS = 60_000
_DAY_MS = 1440 * _MINUTE_MS
_NAME = re.compile(r"([+ -]?)([0-9]{1,2})(?::([0-5][0-9]))?", re.ASCII)
_LEAST_MS, _MOST_MS = -12 * 60 * _MINUTE_MS, 14 * 60 * _MINUTE_MS


def offset_of(text: str) -> int | None:
    """``8``, ``-1:00``, ``05:45`` -> ms; None: it is none.  A plus that was not escaped in a URL is
    a space."""
    match = _NAME.fullmatch(text)
    if match is None:
        return None
    size = (int(match[2]) * 60 + int(match[3] or 0)) * _MINUTE_MS
    offset = -size if match[1] == "-" else size
    return offset if _LEAST_MS <= offset <= _MOST_MS else None


def has_same_bars(interval: Interval, offset_ms: int) -> bool:
    """Bars of a zone open when those of UTC do."""
    length = length_ms(interval)
    return not offset_ms or (length < _DAY_MS and not offset_ms % length)


def other_bars(interval: Interval, zone: str) -> str:
    """Why those of a zone are not served."""
    return f"{interval.value} candles of days of {zone.strip()} are not kept here, those of UTC are"
