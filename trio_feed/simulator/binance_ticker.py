"""One task pushes for the whole exchange: it sleeps until the next event, whatever it is.

Push times lie on a grid (every 250 ms for candles, every 100 ms for trades).  A candle stream is
due at the first grid point after its next trade, and at its candle's end; a trade stream at the
first grid point after its next trade.  The market can tell when the next trade comes, so nothing
is ever polled, and a quiet market costs nothing however fine the grid is.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

import trio
from attrs import define, field

from ..market.calendar import next_open, open_of
from ..model import Kline
from .binance_streams import Stream, agg_trade_payload, combined, kline_payload
from .market import Market
from .wire import text_frame

_TRADE_PUSH_MS = 100
_MOST_MISSED = 100
"""Candles of a stream that are closed late after the machine slept; older ones are REST's."""


class Taker(Protocol):
    """Who gets frames: one connection.  ``combined`` says in which of the two forms."""

    @property
    def combined(self) -> bool: ...

    def offer(self, frame: bytes) -> None:
        """Take one encoded frame without waiting."""


@define(eq=False)
class _Line:
    """A live stream: everything up to ``pushed_ms`` has gone out."""

    stream: Stream
    pushed_ms: int
    due_ms: int = 0
    open_ms: int = 0
    """Of the candle whose closing frame comes next."""
    takers: dict[Taker, None] = field(factory=dict)


@define(eq=False)
class Ticker:
    """``run()`` pushes to whoever ``follow``s a stream.  ``now_ms`` is unix ms."""

    market: Market
    now_ms: Callable[[], float]
    kline_push_ms: int
    _lines: dict[str, _Line] = field(factory=dict)
    _changed: trio.Event = field(factory=trio.Event)

    def follow(self, stream: Stream, taker: Taker) -> None:
        """From its next change on, the stream's frames are offered to ``taker``."""
        line = self._lines.get(stream.name)
        if line is None:
            now = math.floor(self.now_ms())
            line = self._lines[stream.name] = _Line(stream, now)
            if stream.interval is not None:
                line.open_ms = open_of(stream.interval, now)
            line.due_ms = self._next_due(line)
            self._changed.set()
        line.takers[taker] = None

    def leave(self, name: str, taker: Taker) -> None:
        """No more of this stream for ``taker``; unknown names are fine."""
        line = self._lines.get(name)
        if line is not None:
            line.takers.pop(taker, None)
            if not line.takers:
                del self._lines[name]

    async def run(self) -> None:
        """Push for ever."""
        now = 0.0
        while True:
            now = max(now, self.now_ms())
            wake_ms = min((line.due_ms for line in self._lines.values()), default=math.inf)
            if now < wake_ms:
                if not await self._sleep((wake_ms - now) / 1000):
                    continue
                now = max(self.now_ms(), wake_ms)  # a timer may end a hair before its time
            for line in [*self._lines.values()]:
                if line.due_ms <= now:
                    self._push(line, math.floor(now))
            await trio.lowlevel.checkpoint()

    async def _sleep(self, seconds: float) -> bool:
        """False: woken early, there are other streams now."""
        self._changed = trio.Event()
        with trio.move_on_after(seconds):
            await self._changed.wait()
            return False
        return True

    def _push(self, line: _Line, now: int) -> None:
        for payload in self._news(line, now):
            if line.stream.symbol not in self.market.delisted:
                _hand_out(line, payload)
        line.pushed_ms = now
        line.due_ms = self._next_due(line)

    def _next_due(self, line: _Line) -> int:
        trade_ms = self._next_trade(line.stream.symbol, line.pushed_ms)
        if line.stream.interval is None:
            return _grid(trade_ms, _TRADE_PUSH_MS)
        end = next_open(line.stream.interval, line.open_ms)
        return min(end, _grid(trade_ms, self.kline_push_ms))

    def _next_trade(self, symbol: str, after_ms: int) -> int:
        return self.market.trade_time(symbol, self.market.first_id(symbol, after_ms + 1))

    def _news(self, line: _Line, now: int) -> Iterator[bytes]:
        """What happened in (pushed_ms, now]: trades, or closing frames and the open candle."""
        stream, market = line.stream, self.market
        if stream.interval is None:
            for trade in market.trades(stream.symbol, line.pushed_ms + 1, now + 1):
                yield agg_trade_payload(trade, now)
            return
        ended: deque[int] = deque(maxlen=_MOST_MISSED)
        while (end := next_open(stream.interval, line.open_ms)) <= now:
            ended.append(line.open_ms)
            line.open_ms = end
        for open_ms in ended:
            yield self._encode(stream, market.candle(stream.symbol, stream.interval, open_ms), now)
        if self._next_trade(stream.symbol, max(line.pushed_ms, line.open_ms - 1)) <= now:
            partial = market.partial(stream.symbol, stream.interval, line.open_ms, now)
            if partial is not None:
                yield self._encode(stream, partial, now)

    def _encode(self, stream: Stream, kline: Kline, now: int) -> bytes:
        since = max(kline.open_ms, self.market.listed_ms)
        return kline_payload(stream, kline, self.market.first_id(stream.symbol, since), now)


def _grid(time_ms: int, step_ms: int) -> int:
    return -(-time_ms // step_ms) * step_ms


def _hand_out(line: _Line, payload: bytes) -> None:
    """Encode each of the two forms at most once.  A taker may leave while it is offered one."""
    raw = wrapped = b""
    for taker in [*line.takers]:
        if taker.combined:
            wrapped = wrapped or text_frame(combined(line.stream.name, payload))
            taker.offer(wrapped)
        else:
            raw = raw or text_frame(payload)
            taker.offer(raw)
