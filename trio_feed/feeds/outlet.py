"""Where a venue's results leave for the store and the hub, in one synchronous step."""

from collections.abc import Callable, Iterable

import structlog
from attrs import evolve

from ..bus.base import Numbered
from ..core import calendar
from ..core.effects import CandleNews, LineNews, News
from ..metrics import Metrics
from ..model import (
    BookView,
    Hole,
    Kline,
    KlineMessage,
    Line,
    Price,
    Series,
    Source,
    Ticker,
    Trade,
)
from ..store import KlineStore

Publish = Callable[[News], Numbered | None]
"""See :class:`trio_feed.bus.base.Publisher`."""


class Outlet:
    """Publishes, stores what is closed, labels what is simulated, counts, logs.

    ``on_closed`` are called with every closed candle after it went out, ``on_hole`` with the
    series of every hole.
    """

    def __init__(
        self,
        venue: str,
        *,
        store: KlineStore,
        publish: Publish,
        simulated: bool,
        metrics: Metrics,
    ) -> None:
        self.venue, self.store, self.metrics = venue, store, metrics
        self.on_closed: list[Callable[[Series, Kline], None]] = []
        self.on_hole: list[Callable[[Series], None]] = []
        self.log = structlog.get_logger().bind(venue=venue)
        self._publish, self._simulated = publish, simulated

    def labelled(self, kline: Kline) -> Kline:
        """A candle that says ``simulated`` where everything of this venue is."""
        return evolve(kline, source=Source.SIMULATED) if self._simulated else kline

    def candles(self, candles: Iterable[CandleNews]) -> None:
        """What a ledger let out, in order."""
        for news in candles:
            message = self._publish(news)
            if isinstance(message, KlineMessage) and message.kline.closed:
                self._keep(message)
            if news.kline.closed and not news.revision:
                for told in self.on_closed:
                    told(news.series, news.kline)

    def line(self, line: Line, data: Ticker | Trade | Price | BookView, received: float) -> None:
        """News of a line."""
        source = Source.SIMULATED if self._simulated else Source.EXCHANGE
        self._publish(LineNews(line, data, source, received))

    def hole(self, series: Series, hole: Hole) -> None:
        """Candles that nobody can supply."""
        self.store.put_hole(series, hole)
        end = calendar.next_open(series.interval, hole.last_ms)
        number = calendar.count(series.interval, hole.first_ms, end)
        self.metrics.candle_holes.labels(self.venue).inc(number)
        self.log.warning(
            "candle.hole",
            stream=str(series),
            candles=number,
            first_ms=hole.first_ms,
            last_ms=hole.last_ms,
        )
        for told in self.on_hole:
            told(series)

    def _keep(self, message: KlineMessage) -> None:
        kline = message.kline
        self.store.put(message)
        if message.revision:
            self.metrics.revisions.labels(self.venue).inc()
            self.log.warning("candle.revised", stream=str(message.series), time=kline.open_ms)
            return
        self.metrics.candles_closed.labels(self.venue, kline.source.value).inc()
        self.log.debug(
            "candle.closed",
            stream=str(message.series),
            time=kline.open_ms,
            close=str(kline.close),
            source=kline.source.value,
            offset=message.offset,
        )
