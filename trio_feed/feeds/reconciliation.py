"""Candles built from trades against the exchange's candles of the same minute, per symbol.

A difference means that either a trade or a candle update was missed.  The exchange's candle is
asked for once more by REST: if it has changed, it goes out again as a revision; if not, the
difference is reported.  Both are counted.
"""

from collections.abc import Callable, Iterable

from attrs import frozen

from ..core.candles import TradeCandles
from ..core.reconcile import Difference, Match, OneSided, Reconciler, Verdict
from ..model import Instrument, Interval, Kline, Series, Trade
from ..venues import Venue
from .backfill import Job
from .outlet import Outlet


@frozen
class Doubt:
    """Key of a job that asks for one minute again."""

    symbol: str
    open_ms: int

    def __str__(self) -> str:
        return f"{self.symbol} minute {self.open_ms}"


class Reconciliation:
    """Minutes of the opened symbols, whose trades and 1m candles both are taken."""

    def __init__(
        self,
        venue: Venue,
        outlet: Outlet,
        *,
        now_ms: Callable[[], float],
        changed: Callable[[], None],
        revise: Callable[[Series, Kline], None],
    ) -> None:
        self._venue, self._outlet, self._now_ms, self._changed = venue, outlet, now_ms, changed
        self._revise = revise
        self._built: dict[str, TradeCandles] = {}
        self._pairs: dict[str, Reconciler] = {}
        self._doubts: dict[Doubt, Difference] = {}
        outlet.on_closed.append(self._official)

    def open(self, symbol: str) -> None:
        """Compare the minutes of this symbol."""
        self._built[symbol] = TradeCandles((Interval.M1,))
        self._pairs[symbol] = Reconciler()

    def close(self, symbol: str) -> None:
        """Forget the symbol and what is in doubt of it."""
        self._built.pop(symbol, None)
        self._pairs.pop(symbol, None)
        self._doubts = {d: why for d, why in self._doubts.items() if d.symbol != symbol}

    def trade(self, trade: Trade) -> None:
        """A live trade."""
        candles = self._built.get(trade.symbol)
        if candles is None:
            return
        for _, kline in candles.add(trade):
            if kline.closed and kline.complete:
                pairs = self._pairs[trade.symbol]
                self._judge(trade.symbol, pairs.add_built(kline, now=self._now_ms()))

    def due(self) -> Iterable[tuple[float, Doubt]]:
        for doubt in self._doubts:
            yield self._now_ms(), doubt

    def job(self, doubt: Doubt, instrument: Instrument) -> Job:
        """Ask for the minute; whatever comes settles the doubt."""
        difference = self._doubts.pop(doubt)
        now = self._now_ms()
        question = self._venue.klines_question(instrument, Interval.M1, doubt.open_ms, 1, now)

        def take(body: bytes) -> None:
            rows = self._venue.parse_klines(body, instrument)
            self._outlet.odd_rows(rows.bad, str(doubt))
            found = next((r for r in rows.good if r.open_ms == doubt.open_ms and r.closed), None)
            self._settle(doubt, difference, found)

        def failed() -> None:
            self._doubts[doubt] = difference

        return Job(question, take, failed)

    def _official(self, series: Series, kline: Kline) -> None:
        pairs = self._pairs.get(series.symbol)
        if pairs is None or series.interval is not Interval.M1:
            return
        now = self._now_ms()
        self._judge(series.symbol, [*pairs.add_official(kline, now=now), *pairs.expire(now)])

    def _judge(self, symbol: str, verdicts: list[Verdict]) -> None:
        counter = self._outlet.metrics.reconciled
        for verdict in verdicts:
            match verdict:
                case Match():
                    counter.labels(self._venue.NAME, "equal").inc()
                case OneSided():
                    counter.labels(self._venue.NAME, "one_sided").inc()
                case Difference():
                    counter.labels(self._venue.NAME, "different").inc()
                    self._doubts[Doubt(symbol, verdict.open_ms)] = verdict
                    self._changed()

    def _settle(self, doubt: Doubt, difference: Difference, found: Kline | None) -> None:
        series = Series(self._venue.NAME, doubt.symbol, Interval.M1)
        log = self._outlet.log.bind(stream=str(series), time=doubt.open_ms)
        if found is None or found.same_values(difference.official):
            fields = list(difference.fields)
            log.warning("candle.differs", fields=fields, missing=difference.missing_trades)
            return
        self._revise(series, found)
