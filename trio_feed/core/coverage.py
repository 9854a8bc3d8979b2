"""How much of what is due has gone out of a ledger.  Pure."""

from . import calendar
from .ledger import Ledger


def coverage(ledger: Ledger, since_ms: float, now: float) -> tuple[int, int]:
    """(due, gone out): closed candles that opened at ``since_ms`` or later and whose close is
    overdue by now or has come.  What the exchange does not have counts as due."""
    interval = ledger.series.interval
    first = calendar.open_of(interval, int(since_ms))
    if first < since_ms:
        first = calendar.next_open(interval, first)
    overdue = calendar.open_of(interval, int(now - 2 * ledger.policy.close_grace_ms))
    end = max(overdue, ledger.expected)
    if ledger.fresh or first >= end:
        return 0, 0
    due = calendar.count(interval, first, end)
    missing = calendar.count(interval, max(first, ledger.expected), end)
    for hole in ledger.holes:
        after = min(end, calendar.next_open(interval, hole.last_ms))
        missing += calendar.count(interval, max(first, hole.first_ms), after)
    return due, due - missing
