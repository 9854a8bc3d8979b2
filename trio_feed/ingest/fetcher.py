"""Workers that ask the exchange what the engines want to know, the most urgent first.

One queue, one budget.  While nothing may be asked (a ban, no way out) a question stays in the
queue: nobody was asked, so nothing has failed.
"""

from typing import Never

import structlog
import trio
from attrs import frozen

from ..core.effects import Fetch
from ..core.questions import (
    BookQuestion,
    CandleQuestion,
    LatestQuestion,
    Question,
    TradeQuestion,
)
from ..core.symbol import SymbolEngine
from ..environment import mono
from ..errors import BadMessage, NetworkError, NoProxyAvailable, RateLimited, RestRefused
from ..instants import Mono
from ..metrics import Metrics
from ..model import BookUpdate, Instrument, Kline, Trade
from ..net.rest import RestClient
from ..store import KlineStore
from ..venues import Instruments, RestQuestion, Rows, Venue
from .driver import Driver
from .troubles import Troubles

_SHORTEST_WAIT_S, _LONGEST_WAIT_S = 0.5, 60.0
_LONGEST_PAUSE_S = 10.0
_SAMPLES = 3
"""Odd rows of one answer that are logged; all are counted."""


@frozen
class Found:
    """What came back: rows, whether all of them could be read, the exchange's time of it."""

    rows: list[Kline] | list[Trade] | list[BookUpdate]
    whole: bool
    date_ms: float | None


class Fetcher:
    """``instruments`` is the venue's table, replaced as it changes.  Run any number of
    :meth:`work`."""

    def __init__(
        self, venue: Venue, driver: Driver, rest: RestClient, store: KlineStore, metrics: Metrics
    ) -> None:
        self.instruments: Instruments = Instruments()
        self._venue, self._driver, self._rest = venue, driver, rest
        self._store, self._metrics = store, metrics
        self._log = structlog.get_logger().bind(venue=venue.NAME)
        self._troubles = Troubles(self._log, "backfill.failed")
        self._failures = 0
        self._not_before = Mono(0.0)
        """A ban holds for all workers."""

    async def work(self) -> Never:
        """Answer one question after the other, until cancelled."""
        while True:
            fetch, engine = await self._next()
            await self._store.wait_capacity()  # what it could not keep is not asked for
            now = self._driver.now()
            instrument = self.instruments.find(fetch.symbol)
            if self._driver.engines.get(fetch.symbol) is not engine:
                continue  # the symbol was closed meanwhile
            if instrument is None:
                self._driver.perform(engine, engine.failed(fetch, now))
                continue
            question = engine.ask(fetch, now)
            if question is None:
                self._driver.perform(engine, ())  # settled by itself; it plans anew
                continue
            request = to_request(self._venue, instrument, question, float(now.exchange))
            if request is None:
                self._driver.perform(engine, engine.failed(fetch, now))
                continue
            await self._ask(fetch, engine, question, request, instrument)

    async def _ask(
        self,
        fetch: Fetch,
        engine: SymbolEngine,
        question: Question,
        request: RestQuestion,
        instrument: Instrument,
    ) -> None:
        name, driver = self._venue.NAME, self._driver
        try:
            answer = await self._get(question, request, instrument)
        except (RateLimited, NoProxyAvailable) as error:
            # Nobody was asked: the question stands, and all workers wait.
            self._metrics.rest_calls.labels(name, type(error).__name__).inc()
            self._wait(error)
            driver.put_fetch(fetch, engine)
            return
        except (NetworkError, BadMessage) as error:
            self._metrics.rest_calls.labels(name, type(error).__name__).inc()
            self._failed(error)
            if self._failures:  # nobody answered
                self._troubles.say(error, stream=str(fetch))
            else:
                self._log.warning("backfill.failed", stream=str(fetch), problem=str(error))
            answer = None
        else:
            self._metrics.rest_calls.labels(name, "ok").inc()
            self._failures = 0
            self._troubles.over()
        if driver.engines.get(fetch.symbol) is not engine:
            return
        now = driver.now()
        if answer is None:
            effects = engine.failed(fetch, now)
        else:
            effects = engine.answer(
                fetch,
                question,
                answer.rows,
                now,
                until_ms=request.until_ms,
                whole=answer.whole,
                date_ms=answer.date_ms,
            )
        driver.perform(engine, effects)

    async def _get(
        self, question: Question, request: RestQuestion, instrument: Instrument
    ) -> Found:
        """Raises NetworkError and BadMessage."""
        got = await self._rest.get(request.path, request.params, weight=request.weight)
        venue = self._venue
        self._driver.note_answer(got)
        if isinstance(question, BookQuestion):
            return Found([venue.parse_book(got.body, instrument)], True, got.date_ms)
        rows: Rows[Kline] | Rows[Trade]
        is_trades = isinstance(question, TradeQuestion) or (
            isinstance(question, LatestQuestion) and question.interval is None
        )
        if is_trades:
            rows = venue.parse_trades(got.body, instrument)
        else:
            rows = venue.parse_klines(got.body, instrument)
        for odd in rows.bad[:_SAMPLES]:
            self._log.warning("row.bad", path=request.path, problem=str(odd), sample=odd.sample)
        if rows.bad:
            self._metrics.bad_messages.labels(venue.NAME).inc(len(rows.bad))
        return Found(rows.good, not rows.bad, got.date_ms)

    async def _next(self) -> tuple[Fetch, SymbolEngine]:
        """The most urgent question, as soon as there is one and it may be asked."""
        while True:
            if trio.current_time() < float(self._not_before):
                # A ban that another worker met while this one waited holds for this one as well.
                await trio.sleep_until(float(self._not_before))
                continue
            found = self._driver.queues.next_fetch()
            if found is not None:
                return found
            await self._driver.queues.more_fetches.wait()

    def _failed(self, error: NetworkError | BadMessage) -> None:
        """A host that is out of reach is not asked by each series in its own time: after the
        second failure in a row all workers pause, longer and longer."""
        if isinstance(error, RestRefused | BadMessage):
            self._failures = 0  # it did answer
            return
        self._failures += 1
        if self._failures > 1:
            pause_s = min(_SHORTEST_WAIT_S * 2 ** (self._failures - 2), _LONGEST_PAUSE_S)
            self._not_before = max(self._not_before, mono() + pause_s)

    def _wait(self, error: RateLimited | NoProxyAvailable) -> None:
        """Not logged as news: the ban (rest.banned) and the pool (egress.down) are, once each."""
        now = mono()
        wait_s = max(error.until - now, _SHORTEST_WAIT_S)
        if isinstance(error, NoProxyAvailable):
            wait_s = min(wait_s, _LONGEST_WAIT_S)  # then it is tried again
        if now + wait_s > self._not_before:
            self._not_before = now + wait_s
            self._log.debug("backfill.waits", problem=str(error), wait_s=round(wait_s, 3))


def to_request(
    venue: Venue, instrument: Instrument, question: Question, now_ms: float
) -> RestQuestion | None:
    """The core's question in the venue's words; None: the venue cannot say."""
    match question:
        case CandleQuestion(interval, start_ms, bars):
            return venue.klines_question(instrument, interval, start_ms, bars, now_ms)
        case TradeQuestion(from_id):
            return venue.trades_question(instrument, from_id)
        case LatestQuestion(interval):
            return venue.latest_question(instrument, interval)
        case BookQuestion():
            return venue.book_question(instrument)
