"""One symbol's prices without quantities, each event once, become candles.

For venues that tell a price per event (Spin Pet on Solana).  The same event may come twice, from
two connections or after a reconnect: its key decides.
"""

from collections import deque
from collections.abc import Mapping
from decimal import Decimal

from ..core.candles import Built
from ..core.price_candles import PriceCandles
from ..model import Interval, Price

GRACE_MS = 1_000
"""A candle is closed by time alone only this long after its end."""
_REMEMBERED = 20_000
"""Keys per symbol; an event that comes again after that many others counts twice."""
_PAGE = 1_000


class PriceLine:
    """``last_close`` is where the stored candles end, per interval: open time and close."""

    def __init__(
        self,
        intervals: tuple[Interval, ...],
        last_close: Mapping[Interval, tuple[int, Decimal]],
    ) -> None:
        self._candles = PriceCandles(intervals, last_close)
        self._seen: set[str] = set()
        self._order: deque[str] = deque()
        self._up = False

    @property
    def next_close_ms(self) -> float | None:
        """When :meth:`advance` will close something, while the stream is up."""
        end = self._candles.next_end_ms
        return None if end is None or not self._up else end + GRACE_MS

    def take(self, price: Price, now: float) -> list[Built]:
        """A live price; the venue's time, or ours where it gives none."""
        if price.key in self._seen:
            return []
        self._remember(price.key)
        time_ms = price.time_ms or int(now)
        return [*self._catch_up(time_ms), *self._candles.add(price.price, time_ms)]

    def resumed(self, now: float) -> None:
        """The stream is up (again): what happened meanwhile is not known."""
        self._up = True
        self._candles.missed(int(now))

    def lost(self) -> None:
        """The stream is down: no candle is closed by time until it is back."""
        self._up = False

    def advance(self, now: float) -> list[Built]:
        """Close candles that ended ``GRACE_MS`` ago, at most a page of them."""
        return self._candles.advance(int(now) - GRACE_MS, _PAGE) if self._up else []

    def _catch_up(self, time_ms: int) -> list[Built]:
        built: list[Built] = []
        while page := self._candles.advance(time_ms, _PAGE):
            built += page
        return built

    def _remember(self, key: str) -> None:
        self._seen.add(key)
        self._order.append(key)
        if len(self._order) > _REMEMBERED:
            self._seen.discard(self._order.popleft())
