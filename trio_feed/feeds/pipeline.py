"""One venue's events -> where they belong -> store and hub.  Synchronous from event to publish.

The exchange's candles go to their ledgers, trades and prices become candles first, books and
tickers become lines.  Whatever is missing becomes a job for the backfill workers.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from decimal import Decimal
from functools import partial
from types import MappingProxyType

from attrs import evolve, frozen
from trio_util import RepeatedEvent

from ..market import calendar
from ..market.clock import ExchangeClock
from ..market.ledger import Ledger, Policy
from ..market.rollup import RollUp
from ..metrics import Metrics
from ..model import (
    BookTop,
    BookUpdate,
    Channel,
    Instrument,
    Interval,
    Kline,
    Line,
    Price,
    Series,
    Subject,
    Ticker,
    Trade,
)
from ..settings import ExchangeSettings
from ..store import KlineStore
from ..store.base import Tail
from ..venues import Data, Instruments, Kind, KlineUpdate, Stream, Venue
from .backfill import Job
from .books import BookOf, Books
from .candles import Candles
from .outlet import Outlet, Publish
from .prices import PriceLine
from .reconciliation import Doubt, Reconciliation
from .standing import Standings
from .trades import TradeLine

EVERY = "*"
"""In ``symbols``: whatever the venue sends, made known as it comes."""


@frozen
class TradesOf:
    """Key of a job that asks for trades."""

    symbol: str

    def __str__(self) -> str:
        return f"{self.symbol} trades"


class Pipeline:
    """All series and lines of one venue.  ``changed`` fires when a job may be due earlier.

    ``now_ms`` is our clock; what is decided here is decided by the exchange's (:meth:`now_ms`).
    Only symbols that the instrument table knows as trading are asked for; :meth:`use` gives it.
    ``announce`` is told of every subject before anything of it is published; ``renew`` of a symbol
    whose book stream has to be subscribed to anew.
    """

    def __init__(
        self,
        venue: Venue,
        settings: ExchangeSettings,
        *,
        tails: Mapping[Series, Tail],
        numbers: Mapping[Subject, int] = MappingProxyType({}),
        store: KlineStore,
        publish: Publish,
        announce: Callable[[Subject], None],
        renew: Callable[[str], None],
        now_ms: Callable[[], float],
        simulated: bool,
        metrics: Metrics,
    ) -> None:
        self.changed = RepeatedEvent()
        self.clock = ExchangeClock()
        self._local_ms = now_ms
        now_ms = self._now_ms = self.now_ms
        self._venue, self._settings = venue, settings
        self._metrics, self._announce = metrics, announce
        self._received = self._told_ms = 0.0
        self._symbols: dict[str, object] = {}  # each with a token of this opening
        self._active: dict[str, Instrument] = {}
        self._busy: set[Hashable] = set()
        self._outlet = Outlet(
            venue.NAME,
            store=store,
            publish=publish,
            numbers=numbers,
            simulated=simulated,
            metrics=metrics,
        )
        self._candles = Candles(
            venue,
            self._outlet,
            policy=Policy(close_grace_ms=settings.close_grace_s * 1000),
            now_ms=now_ms,
            changed=self.changed.set,
        )
        self._trades: dict[str, TradeLine] = {}
        self._prices: dict[str, PriceLine] = {}
        self._rollups: dict[str, RollUp] = {}
        self._tickers: dict[str, Ticker] = {}
        self._refill = venue.trades_question(Instrument(venue.NAME, "", "", ""), 0) is not None
        self._books = Books(
            venue,
            self._outlet,
            levels=settings.book_levels,
            now_ms=now_ms,
            changed=self.changed.set,
            renew=renew,
        )
        self._checks = Reconciliation(
            venue,
            self._outlet,
            now_ms=now_ms,
            changed=self.changed.set,
            revise=self._candles.revise,
        )
        if settings.rollup_intervals:
            self._outlet.on_closed.append(self._roll)
        self.standings = Standings(
            venue,
            settings,
            ledgers=self._candles.ledgers,
            trades=self._trades,
            prices=self._prices,
            publish=publish,
            now_ms=now_ms,
            metrics=metrics,
        )
        self._outlet.on_closed.append(self.standings.closed)
        self._outlet.on_hole.append(self.standings.settled)
        for symbol in self._first_symbols(tails):
            self.open(symbol, tails)

    @property
    def ledgers(self) -> Mapping[Series, Ledger]:
        return self._candles.ledgers

    def now_ms(self) -> float:
        """The exchange's clock, as far as its messages have told it."""
        return self.clock.now(self._local_ms())

    def open(self, symbol: str, tails: Mapping[Series, Tail]) -> None:
        """Ledgers, lines and builders of one symbol, going on where its stored series end."""
        settings, name = self._settings, self._venue.NAME
        self._symbols[symbol] = object()
        self.standings.open(symbol)
        built, rolled = settings.trade_intervals, settings.rollup_intervals
        last_close: dict[Interval, tuple[int, Decimal]] = {}
        for interval in (*settings.intervals, *built, *rolled):
            series = Series(name, symbol, interval)
            tail = tails.get(series)
            if tail is not None:
                last_close[interval] = (tail.kline.open_ms, tail.kline.close)
            last = None if tail is None else tail.settled_ms
            self._candles.open(series, last, settings.history_bars)
        for subject in self._subjects_of(symbol):
            self._announce(subject)
        if self._venue.TRADE_KIND is Kind.PRICE:
            self._prices[symbol] = PriceLine(built, last_close)
        elif built or Channel.TRADE in settings.channels:
            line = TradeLine(
                built,
                accepted=self._accepted,
                lost=partial(self.standings.lacks_trades, symbol),
                refill=self._refill,
            )
            self._trades[symbol] = line
            for interval in sorted(built, key=calendar.length_ms):  # the longest has the last word
                if (tail := tails.get(Series(name, symbol, interval))) is not None:
                    line.resume(tail.kline, interval)
        if rolled:
            self._rollups[symbol] = RollUp(rolled)
        if Channel.BOOK in settings.channels:
            self._books.open(symbol)
        if settings.reconcile and Interval.M1 in settings.intervals and built:
            self._checks.open(symbol)

    def close(self, symbol: str) -> list[Subject]:
        """Forget a symbol; what still comes of it is ignored.  Returns what it consisted of."""
        closed = self._subjects_of(symbol)
        self._symbols.pop(symbol, None)
        self._active.pop(symbol, None)
        for lines in (self._trades, self._prices, self._rollups, self._tickers):
            lines.pop(symbol, None)
        self._books.close(symbol)
        self.standings.close(symbol)
        self._checks.close(symbol)
        self._candles.close(symbol)
        return closed

    def subjects(self) -> list[Subject]:
        """Everything that one can subscribe to."""
        return [subject for symbol in self._symbols for subject in self._subjects_of(symbol)]

    def numbers(self) -> dict[Subject, int]:
        """The last offset of everything, for whoever goes on with it in this run."""
        return {**{s: ledger.offset for s, ledger in self.ledgers.items()}, **self._outlet.offsets}

    def lag_ms(self) -> float:
        """How old the latest message with a time was when it is asked."""
        return self.now_ms() - self._told_ms

    def use(self, instruments: Instruments) -> None:
        """From now on these are the instruments; what does not trade is not missed."""
        found = {symbol: instruments.find(symbol) for symbol in self._symbols}
        self._active = {s: i for s, i in found.items() if i is not None and i.trading}
        self.changed.set()

    def seed_rollup(self, series: Series, minutes: Iterable[Kline]) -> None:
        """Stored minutes since the rolled-up series' expected candle opened."""
        for kline in self._rollups[series.symbol].seed(series.interval, minutes):
            self._candles.observe(series, kline, self._now_ms())

    def rolled(self) -> list[Series]:
        """The rolled-up series."""
        return [s for s in self.ledgers if s.interval in self._settings.rollup_intervals]

    def handle(self, events: Iterable[Data], received: float) -> None:
        """What one message said, in the order in which it came.  An impossible event raises
        BadMessage; those before it have been taken."""
        self._received = received
        for event in events:
            if event_ms := _event_ms(event):
                self.clock.note(event_ms, received)
                self._told_ms = event_ms
            match event:
                case KlineUpdate():
                    self._kline(event, received)
                case Trade():
                    self._trade(event, received)
                case BookUpdate():
                    self._books.update(event, received)
                case Ticker() | BookTop():
                    self._ticker(event, received)
                case Price():
                    self._price(event, received)
                case _:
                    self._ignore(type(event).__name__)

    def resumed(self, streams: Iterable[Stream]) -> None:
        """These streams are (back) up: whatever closed meanwhile is due now."""
        now = self._now_ms()
        for stream in streams:
            for line in self._lines_of(stream):
                line.resumed(now)
            for series in self._series_of(stream):
                self._candles.ledgers[series].resumed(now)
            self.standings.up(stream)
        self.changed.set()

    def flows(self, stream: Stream) -> None:
        """It delivered for the first time (again), and that has been handled."""
        self.resumed([stream])
        self.standings.flows(stream)

    def lost(self, streams: Iterable[Stream], reason: str = "connection lost") -> None:
        """These streams are down: time alone closes no candle until they are back."""
        for stream in streams:
            self.standings.lost(stream, reason)
            for line in self._lines_of(stream):
                line.lost()
            if stream.kind is Kind.BOOK:
                self._books.lost(stream.symbol)

    def advance(self) -> None:
        """Close candles whose time is over although nothing came after them."""
        now = self._now_ms()
        for symbol, line in self._lines():
            self._built(symbol, line.advance(now), now)

    def next_close_ms(self) -> float | None:
        """When ``advance`` will next have something to do."""
        times = (line.next_close_ms for _, line in self._lines())
        return min((at for at in times if at is not None), default=None)

    def most_due(self) -> tuple[float, Hashable] | None:
        """The job to do next (perhaps not yet), leaving out those that are being done."""
        due: list[tuple[float, Hashable]] = [
            (self.ledgers[series].due_ms, series)
            for series in self._candles.fetchable(self._active)
        ]
        due += [
            (line.due_ms, TradesOf(symbol))
            for symbol, line in self._trades.items()
            if line.due_ms is not None and symbol in self._active
        ]
        due += [item for item in self._books.due() if item[1].symbol in self._active]
        due += [item for item in self._checks.due() if item[1].symbol in self._active]
        idle = (item for item in due if item[1] not in self._busy)
        return min(idle, key=lambda item: item[0], default=None)

    def begin(self, key: Hashable) -> Job | None:
        """The question of this key as it stands now; None: there is none after all.

        An answer that comes after the symbol was closed goes nowhere.
        """
        self._busy.add(key)
        job, symbol = self._job(key)
        if job is None:
            return None
        opening, take, failed = self._symbols[symbol], job.take, job.failed

        def take_if_open(body: bytes) -> None:
            if self._symbols.get(symbol) is opening:
                take(body)

        def failed_if_open() -> None:
            if self._symbols.get(symbol) is opening:
                failed()

        return Job(job.question, take_if_open, failed_if_open)

    def _job(self, key: Hashable) -> tuple[Job | None, str]:
        match key:
            case Series():
                return self._candles.job(key, self._active[key.symbol]), key.symbol
            case TradesOf(symbol):
                return self._trades_job(symbol), symbol
            case BookOf(symbol):
                return self._books.job(key, self._active[symbol]), symbol
            case Doubt():
                return self._checks.job(key, self._active[key.symbol]), key.symbol
        raise AssertionError(f"not a key of this pipeline: {key!r}")

    def done(self, key: Hashable) -> None:
        self._busy.discard(key)
        self.changed.set()

    def behind(self) -> int:
        """Series of which a closed candle is overdue that the exchange can supply."""
        now = self._now_ms()
        return sum(self.ledgers[s].behind(now) for s in self._candles.fetchable(self._active))

    def held(self) -> int:
        """Series whose live candles wait for a hole to be filled."""
        return sum(ledger.holding for ledger in self.ledgers.values())

    def stale_books(self) -> int:
        return self._books.stale()

    def _first_symbols(self, tails: Iterable[Series]) -> list[str]:
        """Those of the settings; for "every symbol" those that the store knows."""
        named = [symbol for symbol in self._settings.symbols if symbol != EVERY]
        if EVERY in self._settings.symbols:
            known = [s.symbol for s in tails if s.venue == self._venue.NAME]
            named += known[: self._settings.max_symbols]
        return list(dict.fromkeys(named))

    def _subjects_of(self, symbol: str) -> list[Subject]:
        settings, name = self._settings, self._venue.NAME
        intervals = (*settings.intervals, *settings.trade_intervals, *settings.rollup_intervals)
        channels = (channel for channel in settings.channels if channel is not Channel.KLINE)
        return [
            *(Series(name, symbol, interval) for interval in intervals),
            *(Line(name, symbol, channel) for channel in channels),
        ]

    def _kline(self, event: KlineUpdate, received: float) -> None:
        series = Series(self._venue.NAME, event.symbol, event.interval)
        if series not in self.ledgers:
            self._ignore("other series")
            return
        self._candles.check(series, event.kline)
        self._candles.observe(series, event.kline, received)
        rollup = self._rollups.get(event.symbol)
        if rollup is not None and event.interval is Interval.M1 and not event.kline.closed:
            self._built(event.symbol, rollup.add(event.kline), received)

    def _trade(self, trade: Trade, received: float) -> None:
        line = self._trades.get(trade.symbol)
        if line is not None:
            self._built(trade.symbol, line.take(trade, self._now_ms()), received)
            if line.due_ms is not None:
                self.changed.set()

    def _accepted(self, trade: Trade) -> None:
        """A trade that is new, in the order of the ids."""
        self._checks.trade(trade)
        if Channel.TRADE in self._settings.channels:
            line = Line(self._venue.NAME, trade.symbol, Channel.TRADE)
            self._outlet.line(line, trade, self._received)

    def _price(self, price: Price, received: float) -> None:
        symbol = price.symbol
        if symbol not in self._prices and not self._welcome(symbol):
            self._ignore("other symbol")
            return
        line = self._prices.get(symbol)
        if line is None:
            return
        built = line.take(price, self._now_ms())
        if built and Channel.TRADE in self._settings.channels:
            self._outlet.line(Line(self._venue.NAME, symbol, Channel.TRADE), price, received)
        self._built(symbol, built, received)

    def _welcome(self, symbol: str) -> bool:
        """A symbol that came by itself, while there is room."""
        settings = self._settings
        if EVERY not in settings.symbols or len(self._prices) >= settings.max_symbols:
            return False
        self.open(symbol, {})
        self._prices[symbol].resumed(self._now_ms())
        return True

    def _ticker(self, news: Ticker | BookTop, received: float) -> None:
        """A ticker, or a best bid and ask that completes the last one."""
        if Channel.TICKER not in self._settings.channels or news.symbol not in self._symbols:
            return
        last = self._tickers.get(news.symbol)
        if isinstance(news, Ticker):
            ticker = news
            if news.bid is None and last is not None:
                ticker = evolve(
                    news,
                    bid=last.bid,
                    bid_size=last.bid_size,
                    ask=last.ask,
                    ask_size=last.ask_size,
                )
        elif last is None:
            return
        else:
            ticker = evolve(
                last,
                bid=news.bid,
                bid_size=news.bid_size,
                ask=news.ask,
                ask_size=news.ask_size,
                event_ms=news.event_ms or last.event_ms,
            )
        self._tickers[news.symbol] = ticker
        self._outlet.line(Line(self._venue.NAME, news.symbol, Channel.TICKER), ticker, received)

    def _trades_job(self, symbol: str) -> Job:
        line, instrument = self._trades[symbol], self._active[symbol]
        question = self._venue.trades_question(instrument, line.wanted_id or 0)
        assert question is not None, "a line that cannot be refilled is never due"

        def take(body: bytes) -> None:
            trades = self._venue.parse_trades(body, instrument)
            now = self._received = self._now_ms()
            before = line.refilled
            self._built(symbol, line.fill(trades, now), now)
            self.standings.refilled(symbol, line.refilled - before)

        def failed() -> None:
            now = self._now_ms()
            self._built(symbol, line.failed(now), now)
            self.standings.refilled(symbol, 0)

        return Job(question, take, failed)

    def _built(self, symbol: str, built: Iterable[tuple[Interval, Kline]], received: float) -> None:
        for interval, kline in built:
            self._candles.built(Series(self._venue.NAME, symbol, interval), kline, received)

    def _roll(self, series: Series, minute: Kline) -> None:
        rollup = self._rollups.get(series.symbol)
        if rollup is not None and series.interval is Interval.M1:
            self._built(series.symbol, rollup.add(minute), self._now_ms())

    def _lines(self) -> Iterable[tuple[str, TradeLine | PriceLine]]:
        yield from self._trades.items()
        yield from self._prices.items()

    def _lines_of(self, stream: Stream) -> Iterable[TradeLine | PriceLine]:
        """Whose candles depend on this stream; a price stream carries every symbol."""
        if stream.kind is Kind.PRICE:
            return list(self._prices.values())
        if stream.kind is self._venue.TRADE_KIND and stream.symbol in self._trades:
            return [self._trades[stream.symbol]]
        return []

    def _series_of(self, stream: Stream) -> list[Series]:
        if stream.interval is not None:
            found = [Series(self._venue.NAME, stream.symbol, stream.interval)]
        elif stream.kind is self._venue.TRADE_KIND:
            intervals = self._settings.trade_intervals
            found = [Series(self._venue.NAME, stream.symbol, i) for i in intervals]
        else:
            found = []
        return [series for series in found if series in self.ledgers]

    def _ignore(self, kind: str) -> None:
        self._metrics.ignored_messages.labels(self._venue.NAME, kind).inc()


def _event_ms(event: Data) -> int:
    """The exchange's time of a message, 0 where it gives none."""
    if isinstance(event, KlineUpdate):
        return event.kline.event_ms
    return getattr(event, "event_ms", 0)
