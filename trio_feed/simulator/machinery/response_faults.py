"""Wrong answers of an exchange instead of the right ones.  Pure; schedules and tests set them.

What happens to connections that are already open (cut, close, mute) is done on the connection.
"""

from collections import deque
from collections.abc import Callable, Mapping
from itertools import repeat
from typing import Any

from attrs import define, field

_MOST = 100_000


@define
class ResponseFaults:
    """Answers to come instead of the right ones: each is given once, in order."""

    _upgrades: deque[int] = field(factory=deque)
    _rest: deque[int] = field(factory=deque)
    _stale_ms: deque[int] = field(factory=deque)
    _odd: deque[str] = field(factory=deque)
    _missing: int = 0
    behind_ms: int = 0
    """REST answers about candles and trades are so old, while it is set."""

    def refuse_upgrades(self, status: int, count: int = 1) -> None:
        """The next ``count`` WebSocket upgrades get this HTTP status (e.g. 403, 429, 503)."""
        self._upgrades.extend(repeat(_checked(status), min(count, _MOST)))

    def rest_status(self, status: int, count: int = 1) -> None:
        """The next ``count`` REST requests get this status (e.g. 418, 429, 451, 503)."""
        self._rest.extend(repeat(_checked(status), min(count, _MOST)))

    def rest_stale(self, age_s: float, count: int = 1) -> None:
        """The next ``count`` pages of candles are as they were ``age_s`` seconds ago."""
        self._stale_ms.extend(repeat(int(age_s * 1000), min(count, _MOST)))

    def rest_missing_row(self, count: int = 1) -> None:
        """The next ``count`` pages of candles lack their oldest row; never more than the largest
        ``count`` so far, so that it is there again after that."""
        self._missing = max(self._missing, min(count, _MOST))

    def odd_rows(self, form: str, count: int = 1) -> None:
        """The next ``count`` pages of candles are odd in one of :data:`ODD` forms."""
        if form not in ODD:
            raise ValueError(f"{form} is not one of {', '.join(ODD)}")
        self._odd.extend(repeat(form, min(count, _MOST)))

    def clear(self) -> None:
        """No fault any more."""
        self._upgrades.clear()
        self._rest.clear()
        self._stale_ms.clear()
        self._odd.clear()
        self._missing = self.behind_ms = 0

    def next_upgrade(self) -> int | None:
        """The status that this upgrade gets, None: let it in."""
        return self._upgrades.popleft() if self._upgrades else None

    def next_rest(self) -> int | None:
        """The status that this request gets, None: answer it."""
        return self._rest.popleft() if self._rest else None

    def rows(
        self, path: str, now_ms: int, read: Callable[[int], Any], *, newest_first: bool
    ) -> Any:
        """``read(now_ms)``, but for faults: an answer about trades or candles may be as of an
        earlier time, a page of candles may lack its oldest row or be odd."""
        if path.endswith("rades"):  # trades, aggTrades, history-trades
            return read(now_ms - self.behind_ms)
        if not path.endswith(("lines", "candles")):  # klines, continuousKlines, history-candles
            return read(now_ms)
        stale_ms = self._stale_ms.popleft() if self._stale_ms else 0
        rows = read(now_ms - self.behind_ms - stale_ms)
        if self._missing:
            self._missing -= 1
            rows = rows[:-1] if newest_first else rows[1:]
        return ODD[self._odd.popleft()](rows) if self._odd and rows else rows


def _twice(rows: list[Any]) -> list[Any]:
    middle = len(rows) // 2
    return [*rows[: middle + 1], *rows[middle:]]


def _wider(rows: list[Any]) -> list[Any]:
    return [[*row, "7", None] for row in rows]


def _null_row(rows: list[Any]) -> list[Any]:
    middle = len(rows) // 2
    return [*rows[:middle], None, *rows[middle + 1 :]]


def _null_field(rows: list[Any]) -> list[Any]:
    middle = len(rows) // 2
    row = [*rows[middle]]
    row[4] = None
    return [*rows[:middle], row, *rows[middle + 1 :]]


ODD: Mapping[str, Callable[[list[Any]], list[Any]]] = {
    "twice": _twice,
    "wider": _wider,
    "null_row": _null_row,
    "null_field": _null_field,
}
"""A row comes twice, all have further columns, one is null, one's close is null."""


def _checked(status: int) -> int:
    if not 300 <= status <= 599:
        raise ValueError(f"{status} is not an HTTP error status")
    return status
