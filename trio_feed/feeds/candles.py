"""One venue's ledgers: live candles in, the REST questions for what is missing, candles out."""

from collections.abc import Callable, Iterable

from ..core import calendar
from ..core.ledger import Ledger, Policy, open_ledger
from ..errors import BadMessage
from ..model import Instrument, Kline, Series
from ..venues import Venue
from .backfill import Job
from .outlet import Outlet

_CLOCK_SKEW_MS = 60_000
"""A candle that opens further in the future than this is nonsense."""


class Candles:
    """``changed`` is called when a series may have become due earlier."""

    def __init__(
        self,
        venue: Venue,
        outlet: Outlet,
        *,
        policy: Policy,
        now_ms: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        self.ledgers: dict[Series, Ledger] = {}
        self._venue, self._outlet, self._policy = venue, outlet, policy
        self._now_ms, self._changed = now_ms, changed
        self._holes: dict[Series, int] = {}

    def open(self, series: Series, last_closed: int | None, history_bars: int) -> Ledger:
        """A ledger that goes on after ``last_closed``; one that the exchange can fill begins
        ``history_bars`` before now where nothing is known."""
        fetched = series.interval in self._venue.INTERVALS
        ledger = self.ledgers[series] = open_ledger(
            series,
            last_closed=last_closed,
            history_bars=history_bars if fetched else 0,
            now=self._now_ms(),
            policy=self._policy,
        )
        return ledger

    def close(self, symbol: str) -> None:
        """Forget the series of a symbol."""
        for series in [s for s in self.ledgers if s.symbol == symbol]:
            del self.ledgers[series]
            self._holes.pop(series, None)

    def fetchable(self, symbols: Iterable[str]) -> list[Series]:
        """Series of these symbols that the exchange answers by REST."""
        wanted = set(symbols)
        return [
            s for s in self.ledgers if s.symbol in wanted and s.interval in self._venue.INTERVALS
        ]

    def check(self, series: Series, kline: Kline) -> None:
        """Raises BadMessage for a candle that cannot be."""
        if calendar.open_of(series.interval, kline.open_ms) != kline.open_ms:
            raise BadMessage(f"a {series.interval} candle cannot open at {kline.open_ms}")
        if kline.open_ms > self._now_ms() + _CLOCK_SKEW_MS:
            raise BadMessage(f"a candle of the future: {kline.open_ms}")

    def observe(self, series: Series, kline: Kline, received: float) -> None:
        """A live candle state."""
        ledger, now = self.ledgers[series], self._now_ms()
        due = ledger.due_ms
        kline = self._outlet.labelled(kline)
        self._outlet.candles(ledger.observe(kline, now=now, received=received))
        if ledger.due_ms < due:
            self._changed()

    def revise(self, series: Series, kline: Kline) -> None:
        """The exchange's REST answer differs from the closed candle that went out."""
        news = self.ledgers[series].revise(self._outlet.labelled(kline), received=self._now_ms())
        self._outlet.candles([news])

    def built(self, series: Series, kline: Kline, received: float) -> None:
        """A candle made here.  One that lacks something is left to be fetched where the exchange
        has it, and goes out marked where it has not."""
        ledger = self.ledgers[series]
        if series.interval in self._venue.INTERVALS:
            if kline.complete or not kline.closed:
                self.observe(series, kline, received)
        elif kline.complete or not ledger.fresh:
            ledger.skip(kline.open_ms)
            self._note_holes(ledger)
            self.observe(series, kline, received)

    def job(self, series: Series, instrument: Instrument) -> Job:
        """What to ask for a series now."""
        ledger = self.ledgers[series]
        question = self._venue.klines_question(
            instrument, series.interval, ledger.expected, self._now_ms()
        )

        def take(body: bytes) -> None:
            rows = self._venue.parse_klines(body, instrument)
            self._fill(ledger, rows, question.until_ms)

        return Job(question, take, lambda: ledger.failed(self._now_ms()))

    def _fill(self, ledger: Ledger, rows: list[Kline], until_ms: int | None) -> None:
        labelled = [self._outlet.labelled(row) for row in rows]
        out = ledger.fill(labelled, now=self._now_ms(), until_ms=until_ms)
        self._outlet.candles(out)
        self._note_holes(ledger)
        closed = [message.kline for message in out if message.kline.closed]
        if closed:
            self._outlet.log.info(
                "backfill.filled",
                stream=str(ledger.series),
                candles=len(closed),
                first_ms=closed[0].open_ms,
                last_ms=closed[-1].open_ms,
            )

    def _note_holes(self, ledger: Ledger) -> None:
        noted = self._holes.get(ledger.series, 0)
        for hole in ledger.holes[noted:]:
            self._outlet.hole(ledger.series, hole)
        self._holes[ledger.series] = len(ledger.holes)
