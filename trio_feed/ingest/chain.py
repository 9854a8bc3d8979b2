"""A venue whose missed prices are fetched in the order of a chain (Spin Pet on Solana).

Everything that the subscription says passes :class:`trio_feed.core.chain.ChainRepair`, so that the
engines see prices in the order of the chain, and :class:`.ChainPlacing`
(:mod:`trio_feed.core.chain_placing`), so that they see them with the times of their blocks: the
processor calls :meth:`ChainFeed.heard`, :class:`.ChainPrices` gives what is ready to the engines,
and :meth:`ChainFeed.run` asks the nodes for what is missing.

A notification says no time.  Its prices are published at once, and counted when a node has named
the second of their block, a few seconds later.  No clock of ours is part of that.

How far the chain was read is kept in the store (:mod:`trio_feed.core.chain_cursor`), so that what
happens while nothing runs is fetched after the next start.
"""

from collections.abc import Sequence
from itertools import count
from typing import Never

import structlog
import trio

from ..core.chain import ChainRepair
from ..core.chain_items import ChainLimits, Out
from ..core.chain_placing import ChainPlacing
from ..environment import mono
from ..errors import BadMessage, NetworkError, NoProxyAvailable, RateLimited, RestRefused
from ..instants import Mono, Now, Wall
from ..net.rest import RestClient
from ..settings import ChainSettings
from ..transactions import AskBlockTime, AskTransaction, Question, Transaction
from ..venues.base import ChainVenue
from ..venues.instruments import AnyInstrument
from .chain_memory import ChainMemory
from .chain_prices import ChainPrices, Symbols
from .driver import Driver
from .troubles import Troubles


def limits_of(settings: ChainSettings) -> ChainLimits:
    return ChainLimits(
        check_s=settings.check_s,
        hold_s=settings.hold_s,
        give_up_s=settings.give_up_s,
        times_s=settings.times_s,
    )


class ChainFeed:
    """``endpoints``: a client for each node.  ``prices``: what the engines are given."""

    def __init__(
        self,
        venue: ChainVenue,
        settings: ChainSettings,
        driver: Driver,
        endpoints: Sequence[RestClient],
        symbols: Symbols,
        memory: ChainMemory,
    ) -> None:
        self._venue, self._driver, self._endpoints = venue, driver, endpoints
        self._check_s = settings.check_s
        retracts = settings.commitment == "processed"
        self._repair = ChainRepair(
            len(endpoints),
            limits_of(settings),
            last=None if memory.cursor is None else memory.cursor.last,
            retracts=retracts,
            failed_too=settings.process_failed_transactions,
        )
        self._placing = ChainPlacing(limits_of(settings), len(endpoints), retracts)
        self.prices = ChainPrices(driver, symbols, memory, self._placing, settings.check_s)
        self._log = structlog.get_logger().bind(venue=venue.NAME)
        self._troubles = [Troubles(self._log, "chain.question_failed") for _ in endpoints]
        self._anything = AnyInstrument(venue.NAME, "token")
        self._called = trio.Event()
        self._numbers = count()
        self._heard_at = self._fetched_at = Mono(0.0)

    # What comes in

    def heard(self, transaction: Transaction, at: Mono, wall: Wall) -> None:
        """A notification."""
        self._heard_at = at
        now = Now(at, wall, self._driver.clock.at(at))
        self._put(self._repair.live(transaction, now))

    def confirmed(self, at: Mono, wall: Wall) -> None:
        """The subscription begins (anew)."""
        now = Now(at, wall, self._driver.clock.at(at))
        self._fetched_at = Mono(0.0)
        self._put(self._repair.reconnected(now))

    def is_quiet(self) -> bool:
        """The nodes say that nobody calls the program, and the subscription has not hidden anything
        since it last said something."""
        lately = mono() - self.prices.proven_at <= 4 * self._check_s
        return lately and self._fetched_at <= self._heard_at

    # Asking

    async def run(self) -> Never:
        """Ask what is to be asked, until cancelled."""
        try:
            await self._run()
        finally:
            self.prices.close()

    async def _run(self) -> Never:
        repair, driver, placing = self._repair, self._driver, self._placing
        async with trio.open_nursery() as nursery:
            while True:
                self._put(repair.advance(driver.now()))
                await self.prices.apply()
                now = driver.now()
                for question in (*repair.ask(now), *placing.ask(now, next(self._numbers))):
                    nursery.start_soon(self._ask, question, name=f"{self._venue.NAME} question")
                self._called = trio.Event()
                due = float(min(repair.due(driver.now()), placing.due()))
                with trio.move_on_at(max(due, trio.current_time() + 0.001)):
                    await self._called.wait()
        raise AssertionError("questions are asked until cancelled")

    async def _ask(self, question: Question) -> None:
        name, asked = self._venue.NAME, self._venue.question(question)
        assert asked.body is not None, "a node is asked by POST"
        try:
            got = await self._endpoints[question.endpoint].post(
                asked.body, name=asked.path, weight=asked.weight
            )
            self._driver.note_answer(got)
            answer = self._venue.parse_answer(question, got.body, self._anything)
        except (NetworkError, BadMessage) as error:
            self._driver.metrics.rest_calls.labels(name, type(error).__name__).inc()
            wait_s = 0.0
            if isinstance(error, RateLimited | NoProxyAvailable):
                wait_s = max(0.0, error.until - mono())
            elif isinstance(error, RestRefused | BadMessage):
                self._log.warning("chain.question_failed", question=asked.path, problem=str(error))
            else:
                self._troubles[question.endpoint].say(error, question=asked.path)
            self._put(self._repair.failed(question, self._driver.now(), wait_s))
        else:
            self._driver.metrics.rest_calls.labels(name, "ok").inc()
            self._troubles[question.endpoint].over()
            if isinstance(question, AskBlockTime):
                self._placing.answered(question, answer if isinstance(answer, int) else None)
            if isinstance(question, AskTransaction) and isinstance(answer, Transaction):
                self._placing.fetched(answer, question.endpoint)
                self._fetched_at = mono()
                self._driver.metrics.repaired.labels(name, "price").inc()
            self._put(self._repair.answer(question, answer, self._driver.now()))
        await self.prices.apply()

    def _put(self, out: Out) -> None:
        now, placing, repair = self._driver.now(), self._placing, self._repair
        for item in out:
            self.prices.put(placing.put(item, now))
        if self.prices.began_ms is None and (slot := repair.begun_slot) is not None:
            self.prices.begun(slot)
        self.prices.put(placing.flush(now, repair.missing_slot))
        if placing.waits:
            repair.hurry(now)
        self._called.set()
