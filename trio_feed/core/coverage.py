"""How much of what is due a ledger has published.  Pure."""

from .ledger import Ledger


def coverage(ledger: Ledger, since_ms: float, now: float) -> tuple[int, int]:
    """(due, published): closed candles that opened at ``since_ms`` or later and whose close is
    overdue by now or has come.  What the exchange does not have counts as due."""
    grid = ledger.grid
    first = grid.open_of(int(since_ms))
    if first < since_ms:
        first = grid.next(first)
    overdue = grid.open_of(int(now - 2000 * ledger.policy.close_grace_s))
    end = max(overdue, ledger.expected)
    if ledger.fresh or first >= end:
        return 0, 0
    due = grid.count(first, end)
    missing = grid.count(max(first, ledger.expected), end)
    for hole in ledger.holes:
        after = min(end, grid.next(hole.last_ms))
        missing += grid.count(max(first, hole.first_ms), after)
    return due, due - missing
