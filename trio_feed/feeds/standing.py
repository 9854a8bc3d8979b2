"""How the subjects of one venue stand, told to clients: streams and ledgers in, status out.

A subject follows its streams: a candle series one, what is rolled up from it the same, a ticker
two.  It is stale while one of them is.  What the states mean is in :mod:`..core.health`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from attrs import define, field

from ..core import calendar
from ..core.health import Change, Health, Span
from ..core.ledger import Ledger
from ..metrics import Metrics
from ..model import (
    Channel,
    Interval,
    Kline,
    Line,
    Series,
    Source,
    StatusMessage,
    Subject,
)
from ..settings import ExchangeSettings
from ..venues import Kind, Stream, Venue
from .outlet import Publish
from .prices import PriceLine
from .trades import TradeLine

_CHANNELS = {
    Kind.TICKER: Channel.TICKER,
    Kind.TOP: Channel.TICKER,
    Kind.BOOK: Channel.BOOK,
}
"""What beside candles and trades is told from a stream."""


@define
class _Standing:
    health: Health = field(factory=Health)
    lost: set[Stream] = field(factory=set)
    """Its streams that do not deliver."""
    holes: int = 0
    """Holes of the ledger that are known here."""


class Standings:
    """``ledgers``, ``trades`` and ``prices`` are the pipeline's, live."""

    def __init__(
        self,
        venue: Venue,
        settings: ExchangeSettings,
        *,
        ledgers: Mapping[Series, Ledger],
        trades: Mapping[str, TradeLine],
        prices: Mapping[str, PriceLine],
        publish: Publish,
        now_ms: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._venue, self._settings = venue, settings
        self._ledgers, self._trades, self._prices = ledgers, trades, prices
        self._publish, self._now_ms = publish, now_ms
        self._repaired = metrics.repaired
        self._since_ms = now_ms()
        self._symbols: set[str] = set()
        self._standings: dict[Subject, _Standing] = {}

    def open(self, symbol: str) -> None:
        """From now on its subjects can be told of."""
        self._symbols.add(symbol)

    def close(self, symbol: str) -> None:
        """Forget it."""
        self._symbols.discard(symbol)
        for subject in [s for s in self._standings if s.symbol == symbol]:
            del self._standings[subject]

    def lost(self, stream: Stream, reason: str) -> None:
        """It does not deliver any more."""
        for subject in self._subjects_of(stream):
            standing = self._standing(subject)
            standing.lost.add(stream)
            self._tell(subject, standing.health.lost(reason))

    def up(self, stream: Stream) -> None:
        """Its connection is there again: candles that are missing are being fetched now."""
        for subject in self._subjects_of(stream):
            health = self._standing(subject).health
            missing = self._missing(subject) if isinstance(subject, Series) else None
            if missing is not None and health.state is not None:
                self._tell(subject, health.flows(missing))

    def flows(self, stream: Stream) -> None:
        """It delivered, for the first time (again); the ledgers have seen what."""
        for subject in self._subjects_of(stream):
            standing = self._standing(subject)
            standing.lost.discard(stream)
            if not standing.lost:
                self._tell(subject, standing.health.flows(self._missing(subject)))

    def closed(self, series: Series, kline: Kline) -> None:
        """A closed candle went out."""
        standing = self._standings.get(series)
        if standing is None:
            return
        fetched = kline.source is Source.BACKFILL and kline.open_ms >= self._since_ms
        missing = standing.health.missing
        if fetched or (missing is not None and missing[0] <= kline.open_ms <= missing[1]):
            self._repaired.labels(self._venue.NAME, "candle").inc()
        if missing is not None and kline.open_ms >= missing[1]:
            self.settled(series)

    def refilled(self, symbol: str, number: int) -> None:
        """So many trades were fetched, or none after all."""
        self._repaired.labels(self._venue.NAME, "trade").inc(number)
        self.settled(self._trade_line(symbol))

    def lacks_trades(self, symbol: str, first_ms: int, last_ms: int) -> None:
        """Trades between these times were given up."""
        line = self._trade_line(symbol)
        standing = self._standings.get(line)
        if standing is not None:
            self._tell(line, standing.health.hole((first_ms, last_ms)))

    def settled(self, subject: Subject) -> None:
        """Something of the subject came, or was given up: perhaps that was the rest."""
        standing = self._standings.get(subject)
        if standing is None:
            return
        if isinstance(subject, Series):
            ledger = self._ledgers[subject]
            for hole in ledger.holes[standing.holes :]:
                self._tell(subject, standing.health.hole((hole.first_ms, hole.last_ms)))
            standing.holes = len(ledger.holes)
            at = calendar.previous_open(subject.interval, ledger.expected)
        elif self._gap(subject) is None:
            at = int(self._now_ms())
        else:
            return
        self._tell(subject, standing.health.reached(at))

    def _subjects_of(self, stream: Stream) -> Iterator[Subject]:
        """What is told from this stream, as far as it is taken."""
        trades = stream.kind is self._venue.TRADE_KIND
        intervals: tuple[Interval, ...] = ()
        if stream.interval is not None:
            intervals = (stream.interval,)
        elif trades:
            intervals = self._settings.trade_intervals
        if Interval.M1 in intervals:
            intervals += self._settings.rollup_intervals
        channel = Channel.TRADE if trades else _CHANNELS.get(stream.kind)
        # A price stream carries every symbol.
        for symbol in list(self._prices) if stream.kind is Kind.PRICE else [stream.symbol]:
            if symbol not in self._symbols:
                continue
            for interval in intervals:
                series = Series(self._venue.NAME, symbol, interval)
                if series in self._ledgers:
                    yield series
            if channel in self._settings.channels:
                yield Line(self._venue.NAME, symbol, channel)

    def _trade_line(self, symbol: str) -> Line:
        return Line(self._venue.NAME, symbol, Channel.TRADE)

    def _gap(self, line: Line) -> Span | None:
        trades = self._trades.get(line.symbol)
        return trades.gap_ms if trades and line.channel is Channel.TRADE else None

    def _standing(self, subject: Subject) -> _Standing:
        standing = self._standings.get(subject)
        if standing is None:
            standing = self._standings[subject] = _Standing()
            if isinstance(subject, Series):
                standing.holes = len(self._ledgers[subject].holes)
        return standing

    def _missing(self, subject: Subject) -> Span | None:
        if isinstance(subject, Line):
            return self._gap(subject)
        first = self._ledgers[subject].expected
        running = calendar.open_of(subject.interval, int(self._now_ms()))
        last = calendar.previous_open(subject.interval, running)
        return (first, last) if first <= last else None

    def _tell(self, subject: Subject, changes: Iterable[Change]) -> None:
        for change in changes:
            first, last = change.span or (None, None)
            self._publish(StatusMessage(subject, change.state, change.reason, first, last))
