"""Who follows which stream of the Binance box, and the pushing to them.

Every stream that somebody follows has a source (:mod:`.binance_sources`) that knows when it will
have news.
"""

import math
from collections.abc import Callable
from typing import Protocol

from attrs import define, field

from ...model import Interval
from ..machinery.scheduler import Timetable
from ..machinery.wire import text_frame
from .dialect import Box, Stream
from .payloads import combined, encode
from .sources import Source, source_of, span_of


class Taker(Protocol):
    """Who gets frames: one connection.  ``combined`` says in which of the two forms."""

    @property
    def combined(self) -> bool: ...

    def offer(self, frame: bytes) -> None:
        """Take one encoded frame without waiting."""


@define(eq=False)
class _Line:
    """A stream that is followed."""

    stream: Stream
    source: Source
    due_ms: int
    takers: dict[Taker, None] = field(factory=dict)


@define(eq=False)
class Ticker:
    """``run()`` pushes to whoever ``follow``s a stream.  ``now_ms`` is unix ms."""

    box: Box
    now_ms: Callable[[], float]
    _lines: dict[str, _Line] = field(factory=dict)
    _timetable: Timetable = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._timetable = Timetable(self.now_ms)

    def follow(self, stream: Stream, taker: Taker) -> None:
        """From its next change on, the stream's frames are offered to ``taker``."""
        line = self._lines.get(stream.name)
        if line is None:
            source = source_of(self.box, stream, math.floor(self.now_ms()))
            line = self._lines[stream.name] = _Line(stream, source, source.due_ms)
            self._timetable.changed()
        line.takers[taker] = None

    def leave(self, name: str, taker: Taker) -> None:
        """No more of this stream for ``taker``; unknown names are fine."""
        line = self._lines.get(name)
        if line is not None:
            line.takers.pop(taker, None)
            if not line.takers:
                del self._lines[name]

    def tell_again(self, symbol: str, interval: Interval, open_ms: int) -> list[Taker]:
        """The closed candle goes out once more, as the market has it now; returns to whom."""
        market, now = self.box.market, math.floor(self.now_ms())
        told: list[Taker] = []
        for line in [*self._lines.values()]:
            if (line.stream.symbol, line.stream.interval) == (symbol, interval):
                kline = market.candle(symbol, interval, open_ms)
                span = span_of(market, symbol, interval, open_ms, now)
                payload = self.box.dialect.payloads.kline(line.stream, kline, span, now)
                told += line.takers
                _hand_out(line, encode(payload))
        return told

    def run_ahead(self, until_ms: float) -> None:
        """Push at once what is due up to ``until_ms``, as if each had gone out at its time."""
        self._timetable.run_ahead(until_ms, self._due_ms, self._push_due)

    def clock_changed(self) -> None:
        """``now_ms`` made a leap."""
        self._timetable.changed()

    async def run(self) -> None:
        """Push for ever."""
        await self._timetable.run(self._due_ms, self._push_due)

    def _due_ms(self) -> float:
        return min((line.due_ms for line in self._lines.values()), default=math.inf)

    def _push_due(self, now: float) -> None:
        for line in [*self._lines.values()]:
            if line.due_ms <= now:
                self._push(line, math.floor(now))

    def _push(self, line: _Line, now: int) -> None:
        for payload in line.source.news(now):
            if line.stream.symbol not in self.box.market.delisted:
                _hand_out(line, encode(payload))
        line.due_ms = line.source.due_ms


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
