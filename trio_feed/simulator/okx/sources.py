"""What OKX's channels of trades, candles and best prices push and when, pure: time is an argument.

A source is one channel of one instrument, shared by all who subscribed to it.  A new subscriber
gets a snapshot at once, as on the real exchange: the book, the last trade, the current ticker, the
open candle.
"""

from abc import abstractmethod
from collections import deque
from collections.abc import Iterator

from attrs import define, field

from ...model import Interval
from ..machinery.publisher import Source
from ..market.books import STEP_MS, Levels
from .bars import BARS, Bar
from .data import MarketData
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


@define(eq=False)
class ChannelSource(Source):
    """``pushed_ms`` is the time up to which everything was pushed."""

    channel: Channel
    instrument: OkxInstrument
    data: MarketData
    rank: int
    pushed_ms: int
    due_ms: int = field(init=False)

    @property
    def symbol(self) -> str:
        return self.instrument.symbol

    @abstractmethod
    def snapshot(self) -> list[bytes]: ...

    @abstractmethod
    def news(self, now_ms: int) -> list[bytes]: ...

    def next_trade_ms(self, after_ms: int) -> int:
        """When the first trade after ``after_ms`` happens."""
        market = self.data.market
        return market.trade_time(self.symbol, market.first_id(self.symbol, after_ms + 1))


@define(eq=False)
class TradesSource(ChannelSource):
    """``trades`` (joined by taker order) and ``trades-all`` (one message per match)."""

    def __attrs_post_init__(self) -> None:
        self.pushed_ms -= self.pushed_ms % WINDOW_MS
        self._plan()

    def snapshot(self) -> list[bytes]:
        """``trades`` begins with the last one before the subscription (seen in recordings)."""
        if self.channel.name == "trades-all":
            return []
        last = last_trade(self.data.market, self.symbol, self.pushed_ms)
        if last is None:
            return []
        end = window_of(last.time_ms)
        return [*self._between(end - WINDOW_MS, end)][-1:]

    def news(self, now_ms: int) -> list[bytes]:
        until = now_ms - now_ms % WINDOW_MS
        messages = [*self._between(self.pushed_ms, until)]
        self.pushed_ms = until
        self._plan()
        return messages

    def _between(self, after_ms: int, until_ms: int) -> Iterator[bytes]:
        instrument, data = self.instrument, self.data
        trades = data.market.trades(self.symbol, after_ms + 1, until_ms + 1)
        if self.channel.name == "trades-all":
            for trade in trades:
                yield push(self.channel, [single_row(instrument, trade)])
            return
        for trade in aggregates(trades):
            seq_id = data.seq_id(instrument, window_of(trade.time_ms))
            yield push(self.channel, [aggregate_row(instrument, trade, seq_id)])

    def _plan(self) -> None:
        self.due_ms = window_of(self.next_trade_ms(self.pushed_ms))


@define(eq=False)
class TopSource(ChannelSource):
    """``tickers`` and ``bbo-tbt``: in this market best prices change with trades and only then.

    Nothing before there is a book.
    """

    _best: tuple[Levels, Levels] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._best = self._look(self.pushed_ms)

    def snapshot(self) -> list[bytes]:
        return [self._message()] if any(self._best) else []

    def news(self, now_ms: int) -> list[bytes]:
        before = self._best
        self._best = self._look(now_ms)
        if self._best == before and self.channel.name == "bbo-tbt":
            return []
        return self.snapshot()

    def _message(self) -> bytes:
        instrument, data, now_ms = self.instrument, self.data, self.pushed_ms
        bids, asks = self._best
        if self.channel.name == "tickers":
            row = ticker_row(instrument, data.candles, bids[:1] + asks[:1], now_ms)
        else:
            row = book_row(instrument, bids, asks, now_ms)
            row["seqId"] = data.seq_id(instrument, now_ms)
        return push(self.channel, [row])

    def _look(self, now_ms: int) -> tuple[Levels, Levels]:
        """Best bid and ask of this step; the next look is due after the next trade."""
        self.pushed_ms = now_ms - now_ms % STEP_MS
        self.due_ms = window_of(self.next_trade_ms(self.pushed_ms))
        return self.data.levels(self.instrument, self.pushed_ms // STEP_MS, 1)


@define(eq=False)
class CandleSource(ChannelSource):
    """``candle<bar>``: a closing message right at its end, open states at most once a second."""

    bar: Bar = field(init=False)
    open_ms: int = field(init=False)
    """Of the candle whose closing message comes next."""

    def __attrs_post_init__(self) -> None:
        self.bar = BARS[self.channel.name.removeprefix("candle")]
        self.open_ms = self.bar.open_of(self.pushed_ms)
        self._plan()

    @property
    def interval(self) -> Interval | None:
        return self.bar.interval

    def snapshot(self) -> list[bytes]:
        return [*self.candle(self.open_ms, self.pushed_ms)]

    def news(self, now_ms: int) -> list[bytes]:
        ended: deque[int] = deque(maxlen=_MOST_MISSED)
        while (end := self.bar.next_open(self.open_ms)) <= now_ms:
            ended.append(self.open_ms)
            self.open_ms = end
        messages = [message for open_ms in ended for message in self.candle(open_ms, now_ms)]
        since = max(self.pushed_ms, self.open_ms - 1)
        if self.next_trade_ms(since) <= now_ms:
            messages += self.candle(self.open_ms, now_ms)
        self.pushed_ms = now_ms
        self._plan()
        return messages

    def candle(self, open_ms: int, now_ms: int) -> Iterator[bytes]:
        """Nothing while nothing was traded in it."""
        kline = self.data.candles.state(self.symbol, self.bar, open_ms, now_ms)
        if kline is not None:
            yield push(self.channel, [candle_row(self.instrument, kline)])

    def _plan(self) -> None:
        step, trade_ms = self.data.candle_push_ms, self.next_trade_ms(self.pushed_ms)
        self.due_ms = min(self.bar.next_open(self.open_ms), -(-trade_ms // step) * step)
