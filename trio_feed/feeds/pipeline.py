"""One venue's events -> ledgers -> store and hub.  Synchronous from the event to the publish.

The exchange's candles go to the ledger of their series.  Trades become candles first
(:mod:`trio_feed.feeds.trades`).  What a ledger lets out is put into the store, if closed, and
published, in the same step.  What it finds missing becomes a job for the backfill workers.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping

import structlog
from attrs import evolve, frozen
from trio_util import RepeatedEvent

from ..errors import BadMessage
from ..market import calendar
from ..market.ledger import Ledger, Policy, open_ledger
from ..metrics import Metrics
from ..model import Instrument, Interval, Kline, KlineMessage, Series, Source, Trade
from ..settings import ExchangeSettings
from ..store import KlineStore
from ..store.base import Tail
from ..venues import Data, Instruments, KlineUpdate, Stream, Venue
from .backfill import Job
from .trades import TradeLine

_CLOCK_SKEW_MS = 60_000
"""A candle that opens further in the future than this is nonsense."""


@frozen
class TradesOf:
    """Key of a job that asks for trades."""

    symbol: str

    def __str__(self) -> str:
        return f"{self.symbol} trades"


class Pipeline:
    """All series of one venue.  ``changed`` fires when a job may have become due earlier.

    Only symbols that the instrument table knows as trading are asked for; :meth:`use` gives it.
    """

    def __init__(
        self,
        venue: Venue,
        settings: ExchangeSettings,
        *,
        tails: Mapping[Series, Tail],
        store: KlineStore,
        publish: Callable[[KlineMessage], None],
        now_ms: Callable[[], float],
        simulated: bool,
        metrics: Metrics,
    ) -> None:
        self.changed = RepeatedEvent()
        self._venue, self._store, self._publish, self._now_ms = venue, store, publish, now_ms
        self._simulated, self._metrics = simulated, metrics
        self._log = structlog.get_logger().bind(venue=venue.NAME)
        self._active: dict[str, Instrument] = {}
        self._busy: set[Hashable] = set()
        self._holes: dict[Series, int] = {}
        policy = Policy(close_grace_ms=settings.close_grace_s * 1000)
        self.ledgers: dict[Series, Ledger] = {}
        for symbol in settings.symbols:
            for interval in (*settings.intervals, *settings.trade_intervals):
                series = Series(venue.NAME, symbol, interval)
                tail = tails.get(series)
                fetched = interval in venue.INTERVALS
                self.ledgers[series] = open_ledger(
                    series,
                    last_closed=None if tail is None else tail.kline.open_ms,
                    history_bars=settings.history_bars if fetched else 0,
                    epoch=store.epoch,
                    now=now_ms(),
                    policy=policy,
                )
        self._trade_intervals = settings.trade_intervals
        anything = Instrument(venue.NAME, "", "", "")
        refill = venue.trades_question(anything, 0) is not None
        self._trades = (
            {s: TradeLine(settings.trade_intervals, refill=refill) for s in settings.symbols}
            if settings.trade_intervals
            else {}
        )

    def use(self, instruments: Instruments) -> None:
        """From now on these are the instruments; what does not trade is not missed."""
        found = {symbol: instruments.find(symbol) for symbol in {s.symbol for s in self.ledgers}}
        self._active = {s: i for s, i in found.items() if i is not None and i.trading}
        self.changed.set()

    def handle(self, events: Iterable[Data], received: float) -> None:
        """What one message said, in the order in which it came.  An impossible event raises
        BadMessage; those before it have been taken."""
        for event in events:
            if isinstance(event, KlineUpdate):
                self._kline(event, received)
            elif isinstance(event, Trade):
                self._trade(event, received)
            else:
                kind = type(event).__name__
                self._metrics.ignored_messages.labels(self._venue.NAME, kind).inc()

    def resumed(self, streams: Iterable[Stream]) -> None:
        """These streams are (back) up: whatever closed meanwhile is due now."""
        now, streams = self._now_ms(), list(streams)
        for stream in streams:
            if stream.interval is None and stream.symbol in self._trades:
                self._trades[stream.symbol].resumed()
        for series in self._series_of(streams):
            self.ledgers[series].resumed(now)
        self.changed.set()

    def lost(self, streams: Iterable[Stream]) -> None:
        """These streams are down: time alone closes no candle until they are back."""
        for stream in streams:
            if stream.interval is None and stream.symbol in self._trades:
                self._trades[stream.symbol].lost()

    def advance(self) -> None:
        """Close trade candles whose time is over although no later trade came."""
        now = self._now_ms()
        for symbol, line in self._trades.items():
            self._built(symbol, line.advance(now), now)

    def next_close_ms(self) -> float | None:
        """When ``advance`` will next have something to do."""
        times = [at for line in self._trades.values() if (at := line.next_close_ms) is not None]
        return min(times, default=None)

    def most_due(self) -> tuple[float, Hashable] | None:
        """The job to do next (perhaps not yet), leaving out those that are being done."""
        due: list[tuple[float, Hashable]] = [
            (self.ledgers[series].due_ms, series)
            for series in self._fetchable()
            if series not in self._busy
        ]
        for symbol, line in self._trades.items():
            key = TradesOf(symbol)
            if line.due_ms is not None and symbol in self._active and key not in self._busy:
                due.append((line.due_ms, key))
        return min(due, key=lambda item: item[0], default=None)

    def begin(self, key: Hashable) -> Job:
        """The question of this key as it stands now."""
        self._busy.add(key)
        if isinstance(key, Series):
            ledger = self.ledgers[key]
            question = self._venue.klines_question(
                self._active[key.symbol], key.interval, ledger.expected, self._now_ms()
            )
            return Job(
                question,
                lambda body: self._fill_klines(ledger, body),
                lambda: ledger.failed(self._now_ms()),
            )
        assert isinstance(key, TradesOf)
        return self._trades_job(key.symbol)

    def done(self, key: Hashable) -> None:
        self._busy.discard(key)
        self.changed.set()

    def behind(self) -> int:
        """Series of which a closed candle is overdue that the exchange can supply."""
        now = self._now_ms()
        return sum(self.ledgers[series].behind(now) for series in self._fetchable())

    def held(self) -> int:
        """Series whose live candles wait for a hole to be filled."""
        return sum(ledger.holding for ledger in self.ledgers.values())

    def _fetchable(self) -> Iterable[Series]:
        for series in self.ledgers:
            if series.interval in self._venue.INTERVALS and series.symbol in self._active:
                yield series

    def _kline(self, event: KlineUpdate, received: float) -> None:
        ledger = self.ledgers.get(Series(self._venue.NAME, event.symbol, event.interval))
        if ledger is None:
            self._metrics.ignored_messages.labels(self._venue.NAME, "other series").inc()
            return
        now = self._now_ms()
        _check(event.interval, event.kline, now)
        self._observe(ledger, event.kline, now, received)

    def _trade(self, trade: Trade, received: float) -> None:
        line = self._trades.get(trade.symbol)
        if line is not None:
            self._built(trade.symbol, line.take(trade, self._now_ms()), received)
            if line.due_ms is not None:
                self.changed.set()

    def _trades_job(self, symbol: str) -> Job:
        line, instrument = self._trades[symbol], self._active[symbol]
        question = self._venue.trades_question(instrument, line.wanted_id or 0)
        assert question is not None, "a line that cannot be refilled is never due"

        def take(body: bytes) -> None:
            trades = self._venue.parse_trades(body, instrument)
            now = self._now_ms()
            self._built(symbol, line.fill(trades, now), now)

        def failed() -> None:
            now = self._now_ms()
            self._built(symbol, line.failed(now), now)

        return Job(question, take, failed)

    def _fill_klines(self, ledger: Ledger, body: bytes) -> None:
        series, now = ledger.series, self._now_ms()
        rows = self._venue.parse_klines(body, self._active[series.symbol])
        out = ledger.fill(self._labelled(rows), now=now)
        self._send(out)
        self._note_holes(ledger)
        closed = [message.kline for message in out if message.kline.closed]
        if closed:
            self._log.info(
                "backfill.filled",
                stream=str(series),
                candles=len(closed),
                first_ms=closed[0].open_ms,
                last_ms=closed[-1].open_ms,
            )

    def _series_of(self, streams: Iterable[Stream]) -> list[Series]:
        found = []
        for stream in streams:
            intervals = (stream.interval,) if stream.interval is not None else self._trade_intervals
            found += [Series(self._venue.NAME, stream.symbol, interval) for interval in intervals]
        return [series for series in found if series in self.ledgers]

    def _built(self, symbol: str, built: list[tuple[Interval, Kline]], received: float) -> None:
        """Candles from trades.  One that misses trades is fetched where the exchange has it,
        and goes out marked where it has not."""
        now = self._now_ms()
        for interval, kline in built:
            ledger = self.ledgers[Series(self._venue.NAME, symbol, interval)]
            if interval in self._venue.INTERVALS:
                if kline.complete or not kline.closed:
                    self._observe(ledger, kline, now, received)
            elif kline.complete or not ledger.fresh:
                ledger.skip(kline.open_ms)
                self._note_holes(ledger)
                self._observe(ledger, kline, now, received)

    def _observe(self, ledger: Ledger, kline: Kline, now: float, received: float) -> None:
        revisions = ledger.counts.revisions
        due = ledger.due_ms
        (kline,) = self._labelled([kline])
        self._send(ledger.observe(kline, now=now, received=received))
        if ledger.counts.revisions > revisions:
            self._metrics.revisions.labels(self._venue.NAME).inc()
            self._log.warning("candle.revised", stream=str(ledger.series), time=kline.open_ms)
        if ledger.due_ms < due:
            self.changed.set()

    def _labelled(self, rows: list[Kline]) -> list[Kline]:
        if not self._simulated:
            return rows
        return [evolve(row, source=Source.SIMULATED) for row in rows]

    def _send(self, messages: list[KlineMessage]) -> None:
        for message in messages:
            kline = message.kline
            if kline.closed:
                self._store.put(message)
                self._metrics.candles_closed.labels(self._venue.NAME, kline.source.value).inc()
                self._log.debug(
                    "candle.closed",
                    stream=str(message.series),
                    time=kline.open_ms,
                    close=str(kline.close),
                    source=kline.source.value,
                    offset=message.offset,
                )
            self._publish(message)

    def _note_holes(self, ledger: Ledger) -> None:
        series = ledger.series
        for hole in ledger.holes[self._holes.get(series, 0) :]:
            self._store.put_hole(series, hole)
            end = calendar.next_open(series.interval, hole.last_ms)
            number = calendar.count(series.interval, hole.first_ms, end)
            self._metrics.candle_holes.labels(self._venue.NAME).inc(number)
            self._log.warning(
                "candle.hole",
                stream=str(series),
                candles=number,
                first_ms=hole.first_ms,
                last_ms=hole.last_ms,
            )
        self._holes[series] = len(ledger.holes)


def _check(interval: Interval, kline: Kline, now: float) -> None:
    if calendar.open_of(interval, kline.open_ms) != kline.open_ms:
        raise BadMessage(f"a {interval} candle cannot open at {kline.open_ms}")
    if kline.open_ms > now + _CLOCK_SKEW_MS:
        raise BadMessage(f"a candle of the future: {kline.open_ms}")
