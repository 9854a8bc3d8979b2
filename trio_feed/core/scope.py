"""What the parts of one symbol's engine share.  Pure."""

from collections.abc import Mapping

from attrs import define, field

from ..instants import NEVER, Mono
from ..model import Channel, ChannelKey, Series, Source
from ..settings import ExchangeSettings
from .effects import CandleNews, Effect, Report, StoreHole
from .questions import Rules
from .series import CandleSeries
from .status import StreamStatus


@define
class Alarm:
    """When the symbol has something to do.  It only becomes earlier between two wakes.

    ``beside``: when there is anything beside running candles that are to be shown, which is ten
    times a second.  ``planned``: when the driver is going to wake it.  It is the driver's; here,
    because what each message of a symbol compares lies together."""

    at: Mono
    beside: Mono
    planned: Mono = NEVER

    def want(self, at: Mono) -> None:
        """Anything."""
        if at < self.beside:
            self.beside = at
        if at < self.at:
            self.at = at

    def show(self, at: Mono) -> None:
        """Running candles alone."""
        if at < self.at:
            self.at = at


@define(eq=False)
class Scope:
    """One symbol: its rules and settings, its candles, how clients know it to stand.

    ``channel_keys``: its channels beside candles, as clients subscribe to them.  ``since_ms``: the
    exchange's time when this began.
    """

    rules: Rules
    settings: ExchangeSettings
    symbol: str
    source: Source
    candles: CandleSeries
    alarm: Alarm
    since_ms: float
    channel_keys: Mapping[Channel, ChannelKey] = field(init=False)
    status: StreamStatus = field(factory=StreamStatus)

    def __attrs_post_init__(self) -> None:
        channels = (c for c in self.settings.channels if c is not Channel.KLINE)
        self.channel_keys = {c: ChannelKey(self.rules.venue, self.symbol, c) for c in channels}

    def follow(self, effects: list[Effect]) -> None:
        """What candles that closed mean for clients is added behind them; what holes that were
        found mean before the candles that follow them."""
        out: list[Effect] = []
        after: list[Effect] = []
        for effect in effects:
            out.append(effect)
            if isinstance(effect, StoreHole):
                hole = effect.hole
                out += self.status.hole(effect.series, (hole.first_ms, hole.last_ms))
                after += self.settled(effect.series)
            elif isinstance(effect, CandleNews) and effect.kline.closed and not effect.revision:
                after += self._closed(effect)
        effects[:] = [*out, *after]

    def _closed(self, news: CandleNews) -> list[Effect]:
        series, kline = news.series, news.kline
        out: list[Effect] = []
        missing = self.status.missing(series)
        fetched = kline.source is Source.BACKFILL and kline.open_ms >= self.since_ms
        if fetched or (missing is not None and missing[0] <= kline.open_ms <= missing[1]):
            out.append(Report("", "", {}, "repaired", ("candle",)))
        if missing is not None and kline.open_ms >= missing[1]:
            out += self.settled(series)
        return out

    def settled(self, series: Series) -> list[Effect]:
        """Every candle before the one that is expected came, or is given up."""
        ledger = self.candles.ledgers[series.interval]
        return [*self.status.reached(series, ledger.grid.previous(ledger.expected))]
