"""What no stream carries and is asked for by REST again and again: open interest.

One question at a time, so that it never keeps a repair from the budget for longer than that takes;
where the budget leaves less room a round takes longer by itself.
"""

from collections.abc import Callable
from typing import Never

import structlog
import trio

from ..core.streams import POLLED, Kind, Stream
from ..core.symbol import SymbolEngine
from ..environment import mono
from ..errors import BadMessage, NetworkError, NoProxyAvailable, RateLimited
from ..metrics import Metrics
from ..model import Instrument
from ..net.rest import RestClient
from ..venues import Instruments, Venue
from ..venues.base import OpenInterestVenue
from .driver import Driver
from .troubles import Troubles

_LOST_AFTER = 3
"""Questions of a symbol that fail in a row until its subscribers get a status."""
_LOOK_AGAIN_S = 1.0
_LONGEST_WAIT_S = 60.0


def polled_stream(kind: Kind, instrument: Instrument) -> Stream:
    """What stands for it among the streams of a symbol."""
    return Stream("", f"{instrument.native} {kind.value}", instrument.symbol, kind)


def is_polled(venue: Venue, kind: Kind, instrument: Instrument) -> bool:
    """Whether the venue is asked for it."""
    if kind not in POLLED or not isinstance(venue, OpenInterestVenue):
        return False
    return venue.open_interest_question(instrument) is not None


class OpenInterestPoll:
    """Of one venue.  ``instruments`` gives its table as it is now."""

    def __init__(
        self,
        venue: OpenInterestVenue,
        driver: Driver,
        rest: RestClient,
        instruments: Callable[[], Instruments],
        metrics: Metrics,
    ) -> None:
        self._venue, self._driver, self._rest = venue, driver, rest
        self._instruments, self._metrics = instruments, metrics
        self._failures: dict[SymbolEngine, int] = {}
        log = structlog.get_logger().bind(venue=driver.rules.venue)
        self._troubles = Troubles(log, "open_interest.failed")

    async def run(self) -> Never:
        """Ask for all symbols in turn, each every ``open_interest_s``."""
        while True:
            began, every_s = trio.current_time(), self._driver.settings.open_interest_s
            found = self._streams()
            for number, (engine, stream) in enumerate(found):
                await trio.sleep_until(began + every_s * number / len(found))
                await self._ask(engine, stream)
            await trio.sleep_until(began + (every_s if found else _LOOK_AGAIN_S))

    def _streams(self) -> list[tuple[SymbolEngine, Stream]]:
        engines = self._driver.engines.values()
        found = [
            (engine, stream)
            for engine in engines
            if engine.trading
            for stream in engine.upstream.streams_of(Kind.OPEN_INTEREST)
        ]
        asked = {engine for engine, _ in found}
        self._failures = {e: count for e, count in self._failures.items() if e in asked}
        return found

    async def _ask(self, engine: SymbolEngine, stream: Stream) -> None:
        driver, name = self._driver, self._driver.rules.venue
        instrument = self._instruments().find(engine.symbol)
        if instrument is None or not self._is_there(engine):
            return
        question = self._venue.open_interest_question(instrument)
        if question is None:
            return
        try:
            got = await self._rest.get(question.path, question.params, weight=question.weight)
            interest = self._venue.parse_open_interest(got.body, instrument)
        except (NetworkError, BadMessage) as error:
            self._metrics.rest_calls.labels(name, type(error).__name__).inc()
            await self._failed(engine, stream, error)
            return
        self._metrics.rest_calls.labels(name, "ok").inc()
        self._troubles.over()
        driver.note_answer(got)
        if not self._is_there(engine):
            return
        if self._failures.pop(engine, _LOST_AFTER) >= _LOST_AFTER:  # the first one counts as well
            driver.perform(engine, engine.up(stream, driver.now()))
        self._failures[engine] = 0
        driver.perform(engine, engine.take([interest], driver.now()))

    async def _failed(
        self, engine: SymbolEngine, stream: Stream, error: NetworkError | BadMessage
    ) -> None:
        self._troubles.say(error, stream=stream.name)
        if self._is_there(engine):
            failures = self._failures.get(engine, _LOST_AFTER)
            self._failures[engine] = failures + 1
            if failures + 1 == _LOST_AFTER:
                driver, reason = self._driver, f"not answered {_LOST_AFTER} times"
                driver.perform(engine, engine.down(stream, reason, driver.now()))
        if isinstance(error, RateLimited | NoProxyAvailable):
            await trio.sleep(min(max(error.until - mono(), 0.0), _LONGEST_WAIT_S))

    def _is_there(self, engine: SymbolEngine) -> bool:
        """It was not closed meanwhile."""
        return self._driver.engines.get(engine.symbol) is engine
