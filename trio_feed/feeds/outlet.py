"""Where a venue's results leave for the store and the hub, in one synchronous step."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import structlog
from attrs import evolve

from ..core import calendar
from ..errors import BadMessage
from ..metrics import Metrics
from ..model import (
    BookView,
    Hole,
    Kline,
    KlineMessage,
    Line,
    LineMessage,
    Message,
    Price,
    Series,
    Source,
    Subject,
    Ticker,
    Trade,
)
from ..store import KlineStore

Publish = Callable[[Message], None]


class Outlet:
    """Stores what is closed, labels what is simulated, numbers lines, publishes, counts, logs.

    ``offsets`` are the last numbers of subjects in this run of the service (of a series: where its
    ledger begins to count).

    ``on_closed`` are called with every closed candle after it went out, ``on_hole`` with the
    series of every hole.
    """

    def __init__(
        self,
        venue: str,
        *,
        store: KlineStore,
        publish: Publish,
        numbers: Mapping[Subject, int] = MappingProxyType({}),
        simulated: bool,
        metrics: Metrics,
    ) -> None:
        self.venue, self.store, self.metrics = venue, store, metrics
        self.on_closed: list[Callable[[Series, Kline], None]] = []
        self.on_hole: list[Callable[[Series], None]] = []
        self.log = structlog.get_logger().bind(venue=venue)
        self._publish, self._simulated = publish, simulated
        self.offsets = dict(numbers)

    def labelled(self, kline: Kline) -> Kline:
        """A candle that says ``simulated`` where everything of this venue is."""
        return evolve(kline, source=Source.SIMULATED) if self._simulated else kline

    def odd_rows(self, bad: Sequence[BadMessage], stream: str) -> None:
        """Rows of an answer that could not be read: counted, and the first one logged."""
        if bad:
            self.metrics.bad_messages.labels(self.venue).inc(len(bad))
            self.log.warning(
                "rows.bad",
                stream=stream,
                rows=len(bad),
                problem=str(bad[0]),
                sample=bad[0].sample,
            )

    def candles(self, messages: Iterable[KlineMessage]) -> None:
        """What a ledger let out, in order."""
        for message in messages:
            if message.kline.closed:
                self._keep(message)
            self._publish(message)
            if message.kline.closed and not message.revision:
                for told in self.on_closed:
                    told(message.series, message.kline)

    def line(self, line: Line, data: Ticker | Trade | Price | BookView, received: float) -> None:
        """News of a line; it gets the line's next number."""
        offset = self.offsets[line] = self.offsets.get(line, 0) + 1
        source = Source.SIMULATED if self._simulated else Source.EXCHANGE
        self._publish(LineMessage(line, data, source, self.store.epoch, offset, received))

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
