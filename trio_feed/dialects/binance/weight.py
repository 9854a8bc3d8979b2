"""The request weight that an address has used in the running minute.  Pure.

It is counted with the exchange's own weights and shown in ``x-mbx-used-weight-1m``, because clients
slow down by it, and in the old ``x-mbx-used-weight``, without which unicorn's depth cache fails.
What is really refused is the work gate's decision.
"""

from ...push.edge.admission import ip_group

_MINUTE_MS = 60_000
_CANDLES = (100, 1), (500, 2), (1001, 5)
"""USD-M: below so many rows a question weighs so much; else 10."""


def candles_weight(limit: int) -> int:
    """Of a question for USD-M's candles; of books it is the same."""
    return next((weight for below, weight in _CANDLES if limit < below), 10)


class UsedWeight:
    """Of all addresses; forgotten at the end of each minute of the calendar."""

    def __init__(self) -> None:
        self._minute = 0
        self._used: dict[str, int] = {}

    def add(self, host: str, weight: int, now_ms: float) -> None:
        self._turn(now_ms)
        group = ip_group(host)
        self._used[group] = self._used.get(group, 0) + weight

    def of(self, host: str, now_ms: float) -> int:
        self._turn(now_ms)
        return self._used.get(ip_group(host), 0)

    def _turn(self, now_ms: float) -> None:
        minute = int(now_ms // _MINUTE_MS)
        if minute != self._minute:
            self._minute = minute
            self._used.clear()
