"""What OKX's channels of trades, candles and best prices push and when, pure: time is an argument.

A line is one channel of one instrument, shared by all who subscribed to it.  ``due_ms`` is the
next moment at which there may be news, ``news`` says what happened since the last call, ``hello``
is what a new subscriber gets at once (as the real exchange does: the book's snapshot, the last
trade, the current ticker, the open candle).
"""

from collections import deque
from collections.abc import Iterator
from typing import Protocol

from attrs import define, field

from ..market.books import STEP_MS, Levels
from .bars import BARS, Bar
from .data import Sources
from .listing import OkxInstrument
from .rows import (
    WINDOW_MS,
    Channel,
    aggregate_row,
    aggregates,
    book_row,
    candle_row,
    last_trade,
    push,
    single_row,
    ticker_row,
    window_of,
)

_MOST_MISSED = 100
"""Candles that are closed late after the machine slept; older ones are REST's."""


class Line(Protocol):
    """One channel of one instrument.  Times are unix ms and never go back."""

    channel: Channel
    instrument: OkxInstrument
    due_ms: int

    def hello(self) -> list[bytes]:
        """For a new subscriber: the state as of the last ``news``."""

    def news(self, now_ms: int) -> list[bytes]:
        """For all: what happened since.  Sets ``due_ms``."""


@define(eq=False)
class TradesLine:
    """``trades`` (joined by taker order) and ``trades-all`` (one message per match)."""

    channel: Channel
    instrument: OkxInstrument
    sources: Sources
    pushed_ms: int
    due_ms: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.pushed_ms -= self.pushed_ms % WINDOW_MS
        self._plan()

    def hello(self) -> list[bytes]:
        """``trades`` begins with the last one before the subscription (seen in recordings)."""
        if self.channel.name == "trades-all":
            return []
        last = last_trade(self.sources.market, self.instrument.symbol, self.pushed_ms)
        end = window_of(last.time_ms)
        return [*self._between(end - WINDOW_MS, end)][-1:]

    def news(self, now_ms: int) -> list[bytes]:
        until = now_ms - now_ms % WINDOW_MS
        messages = [*self._between(self.pushed_ms, until)]
        self.pushed_ms = until
        self._plan()
        return messages

    def _between(self, after_ms: int, until_ms: int) -> Iterator[bytes]:
        instrument, sources = self.instrument, self.sources
        trades = sources.market.trades(instrument.symbol, after_ms + 1, until_ms + 1)
        if self.channel.name == "trades-all":
            for trade in trades:
                yield push(self.channel, [single_row(instrument, trade)])
            return
        for trade in aggregates(trades):
            seq_id = sources.seq_id(instrument, window_of(trade.time_ms))
            yield push(self.channel, [aggregate_row(instrument, trade, seq_id)])

    def _plan(self) -> None:
        self.due_ms = window_of(self.sources.next_trade_ms(self.instrument.symbol, self.pushed_ms))


@define(eq=False)
class TopLine:
    """``tickers`` and ``bbo-tbt``: in this market best prices change with trades and only then."""

    channel: Channel
    instrument: OkxInstrument
    sources: Sources
    pushed_ms: int
    due_ms: int = field(init=False)
    _best: tuple[Levels, Levels] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._best = self._look(self.pushed_ms)

    def hello(self) -> list[bytes]:
        return [self._message()]

    def news(self, now_ms: int) -> list[bytes]:
        before = self._best
        self._best = self._look(now_ms)
        if self._best == before and self.channel.name == "bbo-tbt":
            return []
        return [self._message()]

    def _message(self) -> bytes:
        instrument, sources, now_ms = self.instrument, self.sources, self.pushed_ms
        bids, asks = self._best
        if self.channel.name == "tickers":
            row = ticker_row(instrument, sources.candles, (bids[0], asks[0]), now_ms)
        else:
            row = book_row(instrument, bids, asks, now_ms)
            row["seqId"] = sources.seq_id(instrument, now_ms)
        return push(self.channel, [row])

    def _look(self, now_ms: int) -> tuple[Levels, Levels]:
        """Best bid and ask of this step; the next look is due after the next trade."""
        self.pushed_ms = now_ms - now_ms % STEP_MS
        trade_ms = self.sources.next_trade_ms(self.instrument.symbol, self.pushed_ms)
        self.due_ms = window_of(trade_ms)
        return self.sources.levels(self.instrument, self.pushed_ms // STEP_MS, 1)


@define(eq=False)
class CandleLine:
    """``candle<bar>``: a closing message right at its end, open states at most once a second."""

    channel: Channel
    instrument: OkxInstrument
    sources: Sources
    pushed_ms: int
    bar: Bar = field(init=False)
    open_ms: int = field(init=False)
    """Of the candle whose closing message comes next."""
    due_ms: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.bar = BARS[self.channel.name.removeprefix("candle")]
        self.open_ms = self.bar.open_of(self.pushed_ms)
        self._plan()

    def hello(self) -> list[bytes]:
        return [*self.state(self.open_ms, self.pushed_ms)]

    def news(self, now_ms: int) -> list[bytes]:
        ended: deque[int] = deque(maxlen=_MOST_MISSED)
        while (end := self.bar.next_open(self.open_ms)) <= now_ms:
            ended.append(self.open_ms)
            self.open_ms = end
        messages = [message for open_ms in ended for message in self.state(open_ms, now_ms)]
        since = max(self.pushed_ms, self.open_ms - 1)
        if self.sources.next_trade_ms(self.instrument.symbol, since) <= now_ms:
            messages += self.state(self.open_ms, now_ms)
        self.pushed_ms = now_ms
        self._plan()
        return messages

    def state(self, open_ms: int, now_ms: int) -> Iterator[bytes]:
        """One of its candles; nothing while nothing was traded in it."""
        kline = self.sources.candles.state(self.instrument.symbol, self.bar, open_ms, now_ms)
        if kline is not None:
            yield push(self.channel, [candle_row(self.instrument, kline)])

    def _plan(self) -> None:
        step = self.sources.candle_push_ms
        trade_ms = self.sources.next_trade_ms(self.instrument.symbol, self.pushed_ms)
        self.due_ms = min(self.bar.next_open(self.open_ms), -(-trade_ms // step) * step)
