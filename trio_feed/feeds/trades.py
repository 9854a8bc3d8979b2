"""One symbol's trade stream: live trades in, holes in the ids refilled, candles out.

While a hole is being fetched live trades wait (bounded), so that candles are built in order.  A
hole that is too large, or that the exchange does not fill, is given up: the candles it touches
are marked incomplete by the builder.  Synchronous; the time is an argument.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable

from ..core.candles import Built, TradeCandles
from ..model import Interval, Kline, Trade

GRACE_MS = 2_000
"""Trades come in batches of 100 ms; a candle is closed by time alone only this long after."""
MAX_HOLE = 20_000
"""Aggregate ids that are fetched at most (20 requests of weight 20)."""
MAX_WAITING = 50_000
TRIES = 5
"""Answers without what is missing; then the exchange does not have it."""
PATIENCE_MS = 60_000
"""So long, and for some tries, a hole about which nobody can be asked holds up the live trades;
while a ban forbids to ask it goes on holding."""
RETRY_MS = 2_000


class TradeLine:
    """``due_ms`` is when the exchange is to be asked for ``wanted_id`` and what follows; both are
    None while nothing is missing.  ``accepted`` is told of every trade, each once and in order,
    refilled ones included.  ``refill`` False: the exchange cannot be asked by id.  ``lost`` is
    told between which times (unix ms) trades were given up.  ``refilled`` counts what was fetched.
    """

    def __init__(
        self,
        intervals: tuple[Interval, ...],
        *,
        accepted: Callable[[Trade], None] = lambda trade: None,
        lost: Callable[[int, int], None] = lambda first_ms, last_ms: None,
        refill: bool = True,
    ) -> None:
        self._lost = lost
        self.refilled = 0
        self._last_ms = 0
        self._max_hole = MAX_HOLE if refill else 0
        self._accepted = accepted
        self.due_ms: float | None = None
        self._candles = TradeCandles(intervals)
        self._waiting: deque[Trade] = deque()
        self._up = False
        self._live = False
        self._tries = self._failures = 0
        self._since = 0.0

    @property
    def wanted_id(self) -> int | None:
        last = self._candles.last_id
        return last + 1 if self._waiting and last is not None else None

    @property
    def gap_ms(self) -> tuple[int, int] | None:
        """Between which times (unix ms) trades are missing that are being fetched."""
        return (self._last_ms, self._waiting[0].time_ms) if self._waiting else None

    def resume(self, last: Kline, interval: Interval) -> None:
        """Go on behind a stored candle: the first live trade shows what is missing since, and that
        is fetched."""
        self._candles.resume(last, interval)
        self._last_ms = last.event_ms

    @property
    def next_close_ms(self) -> float | None:
        """When ``advance`` will close something, while the stream is live."""
        end = self._candles.next_end_ms
        return end + GRACE_MS if self._live and end is not None and not self._waiting else None

    def take(self, trade: Trade, now: float) -> list[Built]:
        """A live trade."""
        self._live = self._up
        if self._waiting:
            return self._take_while_waiting(trade, now)
        missing = self._candles.missing_before(trade)
        if missing is None:
            return self._add(trade)
        if missing[1] - missing[0] >= self._max_hole:
            self._lost(self._last_ms, trade.time_ms)
            return self._add(trade)
        self._waiting.append(trade)
        self._tries = self._failures = 0
        self.due_ms = now
        return []

    def _take_while_waiting(self, trade: Trade, now: float) -> list[Built]:
        """With two connections a trade may come behind later ones, and most come twice."""
        if self._candles.missing_before(trade) is None:
            built = self._add(trade) + self._drain()
            self.due_ms = (self.due_ms or now) if self._waiting else None
            return built
        place = bisect_left(self._waiting, trade.trade_id, key=lambda other: other.trade_id)
        if place == len(self._waiting) or self._waiting[place].trade_id != trade.trade_id:
            self._waiting.insert(place, trade)
        return self._give_up() if len(self._waiting) > MAX_WAITING else []

    def fill(self, trades: list[Trade], now: float) -> list[Built]:
        """The exchange's answer: trades from ``wanted_id`` on, ascending."""
        built: list[Built] = []
        before = self.wanted_id
        for trade in trades:
            if self.wanted_id is None or trade.trade_id >= self._waiting[0].trade_id:
                break
            if self._candles.missing_before(trade) is None:
                self.refilled += 1
                built += self._add(trade)
        built += self._drain()
        if self.wanted_id == before and self._waiting:
            self._tries += 1
            return built + (self._give_up() if self._tries >= TRIES else self._later(now))
        self._tries = self._failures = 0
        self.due_ms = now if self._waiting else None
        return built

    def failed(self, now: float) -> list[Built]:
        """There was no answer; after a while the hole is given up."""
        if not self._failures:
            self._since = now
        self._failures += 1
        hopeless = self._failures >= TRIES and now - self._since >= PATIENCE_MS
        return self._give_up() if hopeless else self._later(now)

    def _later(self, now: float) -> list[Built]:
        self.due_ms = now + RETRY_MS * max(1, self._tries)
        return []

    def resumed(self, _now: float) -> None:
        """The connection is up: once a trade has come, time may close candles."""
        self._up = True

    def lost(self) -> None:
        """The connection is down: no candle is closed by time until a trade came again."""
        self._up = self._live = False

    def advance(self, now: float) -> list[Built]:
        """Close candles that ended ``GRACE_MS`` ago while the stream was live."""
        if not self._live or self._waiting:
            return []
        return self._candles.advance(int(now) - GRACE_MS)

    def _add(self, trade: Trade) -> list[Built]:
        if self._candles.last_id is None or trade.trade_id > self._candles.last_id:
            self._accepted(trade)
            self._last_ms = trade.time_ms
        return self._candles.add(trade)

    def _drain(self) -> list[Built]:
        """Waiting trades, as far as they follow without a hole."""
        built: list[Built] = []
        while self._waiting and self._candles.missing_before(self._waiting[0]) is None:
            built += self._add(self._waiting.popleft())
        return built

    def _give_up(self) -> list[Built]:
        self._lost(self._last_ms, self._waiting[0].time_ms)
        built = self._add(self._waiting.popleft())
        built += self._drain()
        self._tries = 0
        self.due_ms = None if not self._waiting else self.due_ms
        return built
