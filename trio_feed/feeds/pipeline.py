"""One venue's events -> where they belong -> store and hub.  Synchronous from event to publish.

The exchange's candles go to their ledgers, trades and prices become candles first
(:mod:`.building`), books and tickers become lines.  Whatever is missing becomes a job for the
backfill workers.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping

from trio_util import RepeatedEvent

from ..core.clock import ExchangeClock
from ..core.ledger import Ledger, Policy
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
from .building import Building, TradesOf
from .candles import Candles
from .outlet import Outlet, Publish
from .reconciliation import Doubt, Reconciliation
from .standing import Standings
from .tickers import Tickers

EVERY = "*"
"""In ``symbols``: whatever the venue sends, made known as it comes."""


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
        self._told_ms = 0.0
        self._symbols: dict[str, object] = {}  # each with a token of this opening
        self._active: dict[str, Instrument] = {}
        self._busy: set[Hashable] = set()
        self._outlet = Outlet(
            venue.NAME,
            store=store,
            publish=publish,
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
        self._tickers = Tickers(self._outlet)
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
        self._building = Building(
            venue,
            settings,
            self._outlet,
            self._candles,
            now_ms=now_ms,
            changed=self.changed.set,
            accepted=self._checks.trade,
            lost=self._trades_lost,
            refilled=self._trades_refilled,
        )
        self.standings = Standings(
            venue,
            settings,
            ledgers=self._candles.ledgers,
            trades=self._building.trades,
            prices=self._building.prices,
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
        settings = self._settings
        self._symbols[symbol] = object()
        self.standings.open(symbol)
        for series in self._series_of_symbol(symbol):
            tail = tails.get(series)
            last = None if tail is None else tail.settled_ms
            self._candles.open(series, last, settings.history_bars)
        for subject in self._subjects_of(symbol):
            self._announce(subject)
        self._building.open(symbol, tails)
        if Channel.BOOK in settings.channels:
            self._books.open(symbol)
        if settings.reconcile and Interval.M1 in settings.intervals and settings.trade_intervals:
            self._checks.open(symbol)

    def close(self, symbol: str) -> list[Subject]:
        """Forget a symbol; what still comes of it is ignored.  Returns what it consisted of."""
        closed = self._subjects_of(symbol)
        self._symbols.pop(symbol, None)
        self._active.pop(symbol, None)
        self._building.close(symbol)
        self._tickers.close(symbol)
        self._books.close(symbol)
        self.standings.close(symbol)
        self._checks.close(symbol)
        self._candles.close(symbol)
        return closed

    def subjects(self) -> list[Subject]:
        """Everything that one can subscribe to."""
        return [subject for symbol in self._symbols for subject in self._subjects_of(symbol)]

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
        self._building.seed_rollup(series, minutes)

    def rolled(self) -> list[Series]:
        """The rolled-up series."""
        return [s for s in self.ledgers if s.interval in self._settings.rollup_intervals]

    def handle(self, events: Iterable[Data], received: float) -> None:
        """What one message said, in the order in which it came.  An impossible event raises
        BadMessage; those before it have been taken."""
        for event in events:
            if event_ms := _event_ms(event):
                self.clock.note(event_ms, received)
                self._told_ms = event_ms
            match event:
                case KlineUpdate():
                    self._kline(event, received)
                case Trade():
                    self._building.trade(event, received)
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
            for line in self._building.lines_of(stream):
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
            for line in self._building.lines_of(stream):
                line.lost()
            if stream.kind is Kind.BOOK:
                self._books.lost(stream.symbol)

    def advance(self) -> None:
        """Close candles whose time is over although nothing came after them."""
        self._building.advance()

    def next_close_ms(self) -> float | None:
        """When ``advance`` will next have something to do."""
        return self._building.next_close_ms()

    def most_due(self) -> tuple[float, Hashable] | None:
        """The job to do next (perhaps not yet), leaving out those that are being done."""
        due: list[tuple[float, Hashable]] = [
            (self.ledgers[series].due_ms, series)
            for series in self._candles.fetchable(self._active)
        ]
        due += [item for item in self._building.due() if item[1].symbol in self._active]
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
                return self._building.job(symbol, self._active[symbol]), symbol
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

    def _series_of_symbol(self, symbol: str) -> list[Series]:
        settings = self._settings
        intervals = (*settings.intervals, *settings.trade_intervals, *settings.rollup_intervals)
        return [Series(self._venue.NAME, symbol, interval) for interval in intervals]

    def _subjects_of(self, symbol: str) -> list[Subject]:
        channels = (channel for channel in self._settings.channels if channel is not Channel.KLINE)
        lines = [Line(self._venue.NAME, symbol, channel) for channel in channels]
        return [*self._series_of_symbol(symbol), *lines]

    def _kline(self, event: KlineUpdate, received: float) -> None:
        series = Series(self._venue.NAME, event.symbol, event.interval)
        if series not in self.ledgers:
            self._ignore("other series")
            return
        self._candles.check(series, event.kline)
        self._candles.observe(series, event.kline, received)
        if event.interval is Interval.M1 and not event.kline.closed:
            self._building.minute(event.symbol, event.kline, received)

    def _trades_lost(self, symbol: str, first_ms: int, last_ms: int) -> None:
        self.standings.lacks_trades(symbol, first_ms, last_ms)

    def _trades_refilled(self, symbol: str, number: int) -> None:
        self.standings.refilled(symbol, number)

    def _price(self, price: Price, received: float) -> None:
        if price.symbol in self._symbols or self._welcome(price.symbol):
            self._building.price(price, received)
        else:
            self._ignore("other symbol")

    def _welcome(self, symbol: str) -> bool:
        """A symbol that came by itself, while there is room."""
        settings = self._settings
        if EVERY not in settings.symbols or len(self._symbols) >= settings.max_symbols:
            return False
        self.open(symbol, {})
        self._building.prices[symbol].resumed(self._now_ms())
        return True

    def _ticker(self, news: Ticker | BookTop, received: float) -> None:
        if Channel.TICKER in self._settings.channels and news.symbol in self._symbols:
            self._tickers.take(news, received)

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
