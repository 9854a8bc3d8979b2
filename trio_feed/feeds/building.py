"""Candles that are made here: of trades, of prices, of minutes.

Trades and prices become candles first, and lines for those who want them as they are; minutes roll
up into longer candles.  What trades are missing becomes a question for the backfill workers.
"""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import partial

from attrs import frozen

from ..core import calendar
from ..core.rollup import RollUp
from ..model import Channel, Instrument, Interval, Kline, Line, Price, Series, Trade
from ..settings import ExchangeSettings
from ..store.base import Tail
from ..venues import Kind, Stream, Venue
from .backfill import Job
from .candles import Candles
from .outlet import Outlet
from .prices import PriceLine
from .trades import TradeLine


@frozen
class TradesOf:
    """Key of a job that asks for trades."""

    symbol: str

    def __str__(self) -> str:
        return f"{self.symbol} trades"


class Building:
    """``trades`` and ``prices`` are the lines by symbol.

    ``accepted`` is told of every trade, each once and in order; ``lost`` of a symbol and between
    which times its trades were given up; ``refilled`` of a symbol and how many an answer brought.
    """

    def __init__(
        self,
        venue: Venue,
        settings: ExchangeSettings,
        outlet: Outlet,
        candles: Candles,
        *,
        now_ms: Callable[[], float],
        changed: Callable[[], None],
        accepted: Callable[[Trade], None],
        lost: Callable[[str, int, int], None],
        refilled: Callable[[str, int], None],
    ) -> None:
        self.trades: dict[str, TradeLine] = {}
        self.prices: dict[str, PriceLine] = {}
        self._rollups: dict[str, RollUp] = {}
        self._venue, self._settings = venue, settings
        self._outlet, self._candles = outlet, candles
        self._now_ms, self._changed = now_ms, changed
        self._tell_accepted, self._lost, self._refilled = accepted, lost, refilled
        self._refill = venue.trades_question(Instrument(venue.NAME, "", "", ""), 0) is not None
        self._received = 0.0
        if settings.rollup_intervals:
            outlet.on_closed.append(self._roll)

    def open(self, symbol: str, tails: Mapping[Series, Tail]) -> None:
        """Lines and builders of one symbol, going on where its stored series end."""
        settings, name = self._settings, self._venue.NAME
        built = settings.trade_intervals
        ends = {interval: tails.get(Series(name, symbol, interval)) for interval in built}
        last = {interval: tail.kline for interval, tail in ends.items() if tail is not None}
        if self._venue.TRADE_KIND is Kind.PRICE:
            closes: dict[Interval, tuple[int, Decimal]] = {
                interval: (kline.open_ms, kline.close) for interval, kline in last.items()
            }
            self.prices[symbol] = PriceLine(built, closes)
        elif built or Channel.TRADE in settings.channels:
            line = self.trades[symbol] = TradeLine(
                built,
                accepted=self._accepted,
                lost=partial(self._lost, symbol),
                refill=self._refill,
            )
            for interval in sorted(last, key=calendar.length_ms):  # the longest has the last word
                line.resume(last[interval], interval)
        if settings.rollup_intervals:
            self._rollups[symbol] = RollUp(settings.rollup_intervals)

    def close(self, symbol: str) -> None:
        """Forget the symbol."""
        for lines in (self.trades, self.prices, self._rollups):
            lines.pop(symbol, None)

    def trade(self, trade: Trade, received: float) -> None:
        """A live trade."""
        line = self.trades.get(trade.symbol)
        if line is not None:
            self._received = received
            self._built(trade.symbol, line.take(trade, self._now_ms()), received)
            if line.due_ms is not None:
                self._changed()

    def price(self, price: Price, received: float) -> None:
        """A live price of a symbol that is open."""
        line = self.prices[price.symbol]
        built = line.take(price, self._now_ms())
        if built and Channel.TRADE in self._settings.channels:
            self._outlet.line(Line(self._venue.NAME, price.symbol, Channel.TRADE), price, received)
        self._built(price.symbol, built, received)

    def minute(self, symbol: str, minute: Kline, received: float) -> None:
        """A live state of an open 1m candle."""
        rollup = self._rollups.get(symbol)
        if rollup is not None:
            self._built(symbol, rollup.add(minute), received)

    def seed_rollup(self, series: Series, minutes: Iterable[Kline]) -> None:
        """Stored minutes since the rolled-up series' expected candle opened."""
        for kline in self._rollups[series.symbol].seed(series.interval, minutes):
            self._candles.observe(series, kline, self._now_ms())

    def advance(self) -> None:
        """Close candles whose time is over although nothing came after them."""
        now = self._now_ms()
        for symbol, line in self._lines():
            self._built(symbol, line.advance(now), now)

    def next_close_ms(self) -> float | None:
        """When ``advance`` will next have something to do."""
        times = (line.next_close_ms for _, line in self._lines())
        return min((at for at in times if at is not None), default=None)

    def lines_of(self, stream: Stream) -> Iterable[TradeLine | PriceLine]:
        """Whose candles depend on this stream; a price stream carries every symbol."""
        if stream.kind is Kind.PRICE:
            return list(self.prices.values())
        if stream.kind is self._venue.TRADE_KIND and stream.symbol in self.trades:
            return [self.trades[stream.symbol]]
        return []

    def due(self) -> Iterable[tuple[float, TradesOf]]:
        """When whose trades are to be asked for."""
        for symbol, line in self.trades.items():
            if line.due_ms is not None:
                yield line.due_ms, TradesOf(symbol)

    def job(self, symbol: str, instrument: Instrument) -> Job:
        """Ask for the trades that are missing."""
        line = self.trades[symbol]
        question = self._venue.trades_question(instrument, line.wanted_id or 0)
        assert question is not None, "a line that cannot be refilled is never due"

        def take(body: bytes) -> None:
            rows = self._venue.parse_trades(body, instrument)
            self._outlet.odd_rows(rows.bad, str(TradesOf(symbol)))
            now = self._received = self._now_ms()
            before = line.refilled
            self._built(symbol, line.fill(rows.good, now), now)
            self._refilled(symbol, line.refilled - before)

        def failed() -> None:
            now = self._received = self._now_ms()
            self._built(symbol, line.failed(now), now)
            self._refilled(symbol, 0)

        return Job(question, take, failed)

    def _accepted(self, trade: Trade) -> None:
        self._tell_accepted(trade)
        if Channel.TRADE in self._settings.channels:
            line = Line(self._venue.NAME, trade.symbol, Channel.TRADE)
            self._outlet.line(line, trade, self._received)

    def _built(self, symbol: str, built: Iterable[tuple[Interval, Kline]], received: float) -> None:
        for interval, kline in built:
            self._candles.built(Series(self._venue.NAME, symbol, interval), kline, received)

    def _roll(self, series: Series, minute: Kline) -> None:
        rollup = self._rollups.get(series.symbol)
        if rollup is not None and series.interval is Interval.M1:
            self._built(series.symbol, rollup.add(minute), self._now_ms())

    def _lines(self) -> Iterable[tuple[str, TradeLine | PriceLine]]:
        yield from self.trades.items()
        yield from self.prices.items()
