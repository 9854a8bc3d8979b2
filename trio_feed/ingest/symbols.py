"""What the venue's list says of the wanted symbols, and the streams that follow from it."""

import structlog

from ..bus.base import Publisher
from ..core.channels import CHANNELS, kinds_of
from ..core.streams import DERIVATIVES_ONLY, POLLED
from ..model import Channel, Instrument
from ..settings import ExchangeSettings
from ..venues import Instruments, Kind, Stream, Venue
from .driver import EVERY, Driver
from .polls import is_polled, polled_stream
from .rules import problem_of

_UNSEEN = "the venue has no list of symbols, and nothing of this one has come yet"


class WantedSymbols:
    """Of one venue.  A problem of a symbol is logged when it is another one than before."""

    def __init__(self, venue: Venue, driver: Driver, bus: Publisher) -> None:
        self._venue, self._driver, self._bus = venue, driver, bus
        self._problems: dict[str, str] = {}
        self._log = structlog.get_logger().bind(venue=venue.NAME)

    @property
    def problems(self) -> dict[str, str]:
        """Symbol -> why it cannot be taken now."""
        return {symbol: problem for symbol, problem in self._problems.items() if problem}

    @property
    def _settings(self) -> ExchangeSettings:
        return self._driver.settings

    def use(self, table: Instruments) -> list[Stream]:
        """Tell every symbol's engine what it is; returns the streams that are wanted now."""
        streams: dict[Stream, None] = {}
        for symbol in self._settings.symbols:
            streams.update(dict.fromkeys(self._use(table, symbol)))
        return [stream for stream in streams if stream.kind not in POLLED]

    def awaited(self, table: Instruments) -> bool:
        """A symbol that is wanted does not trade (yet, or at the moment)."""
        found = [table.find(symbol) for symbol in self._settings.symbols if symbol != EVERY]
        return any(i is None or not (i.trading or i.unavailable) for i in found)

    def _use(self, table: Instruments, symbol: str) -> list[Stream]:
        instrument = table.find(symbol)
        if symbol == EVERY:
            return [] if instrument is None else self._streams_of(instrument)
        problem = problem_of(instrument)
        if problem and problem != self._problems.get(symbol):
            self._log.warning("symbol.unavailable", symbol=symbol, problem=problem)
        self._say_waiting(symbol, instrument, problem)
        self._problems[symbol] = problem
        streams: list[Stream] = []
        if instrument is not None:
            self._bus.alias(instrument.native, symbol)
            if not problem:
                streams = self._streams_of(instrument)
        self._driver.use(symbol, streams, problem=problem)
        return streams

    def _say_waiting(self, symbol: str, instrument: Instrument | None, problem: str) -> None:
        """To subscribers.  A symbol that can never be taken waits for nothing."""
        waiting = "" if instrument is not None and instrument.unavailable else problem
        if not self._venue.LISTED:
            waiting = _UNSEEN if symbol not in self._problems else ""
        if waiting or self._problems.get(symbol):
            self._bus.set_waiting(self._venue.NAME, symbol, waiting)

    def _streams_of(self, instrument: Instrument) -> list[Stream]:
        venue, settings = self._venue, self._settings
        streams = [venue.stream(Kind.KLINE, instrument, i) for i in settings.intervals]
        wanted = {*settings.channels} - {Channel.KLINE}
        if settings.trade_intervals:
            wanted.add(Channel.TRADE)
        kinds = (
            kind
            for channel in CHANNELS
            if channel in wanted
            for kind in kinds_of(channel, venue.KINDS, venue.TRADE_KIND)
        )
        spot = instrument.kind == "spot"
        for kind in kinds:
            if spot and kind in DERIVATIVES_ONLY:
                continue
            if kind not in POLLED:
                streams.append(venue.stream(kind, instrument))
            elif is_polled(venue, kind, instrument):
                streams.append(polled_stream(kind, instrument))
        return streams
