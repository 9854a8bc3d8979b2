"""A venue whose missed prices are fetched in the order of a chain (Spin Pet on Solana).

Everything that the subscription says passes :class:`trio_feed.core.chain.ChainRepair`, so that the
engines see prices in the order of the chain: the processor calls :meth:`ChainFeed.heard` and
:meth:`ChainFeed.apply`, and :meth:`ChainFeed.run` asks the nodes for what is missing.

What closes candles is the chain itself: a later price closes what ended before it, of every symbol
(:meth:`ChainFeed._close`; the symbols wait in a heap, by the end of their next candle), and a
reading of the program's list proves that there was nothing.

A notification says no time: its prices count when it arrives, on the exchange's clock.  A fetched
transaction says the second of its block, and its prices count there; so they are in the candle in
which they would have been live, but for those whose notification would have crossed the end of a
second (it takes about one second).

How far the chain was read is kept in the store (:mod:`trio_feed.core.chain_cursor`), so that what
happens while nothing runs is fetched after the next start.
"""

import heapq
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from itertools import count
from typing import Never

import structlog
import trio
from attrs import evolve

from ..core.chain import ChainRepair
from ..core.chain_cursor import ChainCursor, CursorKeeper
from ..core.chain_line import slot_of
from ..core.chain_words import ChainLimits, Gap, Item, Out, Proven, Retract, Take
from ..core.symbol import SymbolEngine
from ..environment import mono
from ..errors import BadMessage, NetworkError, NoProxyAvailable, RateLimited
from ..instants import Mono, Now, Wall
from ..metrics import Metrics
from ..net.rest import RestClient
from ..settings import SolanaSettings
from ..transactions import AskTransaction, Question, Transaction
from ..venues.base import ChainVenue
from ..venues.instruments import AnyInstrument
from .driver import EVERY, Driver

_REMEMBERED = 20_000
"""Prices that may be retracted, and slots whose time is known."""
_AT_ONCE = 100
"""Items that are applied before others get their turn."""
_SLACK_MS = 1_000
"""A block's time is in whole seconds."""


def limits_of(settings: SolanaSettings) -> ChainLimits:
    return ChainLimits(
        check_s=settings.check_s, hold_s=settings.hold_s, give_up_s=settings.give_up_s
    )


class ChainFeed:
    """``endpoints``: a client for each node.  ``meet`` makes a symbol known before its first
    price, ``recall`` those of some accounts that are stored.  ``keep`` takes how far the chain was
    read, ``cursor`` is what an earlier run gave it.  ``began_ms``: no price since then was
    missed."""

    def __init__(
        self,
        venue: ChainVenue,
        settings: SolanaSettings,
        driver: Driver,
        metrics: Metrics,
        endpoints: Sequence[RestClient],
        meet: Callable[[str], Awaitable[None]],
        recall: Callable[[Collection[str]], Awaitable[None]],
        room: Callable[[], Awaitable[bool]],
        keep: Callable[[ChainCursor], None],
        cursor: ChainCursor | None = None,
    ) -> None:
        self.began_ms: int | None = None if cursor is None else cursor.since_ms
        self._keep, self._cursor = keep, cursor
        self._keeper = CursorKeeper(driver.settings.trade_intervals, cursor)
        self._venue, self._driver, self._metrics = venue, driver, metrics
        self._endpoints, self._meet, self._room = endpoints, meet, room
        self._recall = recall
        self._check_s = settings.check_s
        self._repair = ChainRepair(
            len(endpoints),
            limits_of(settings),
            last=None if cursor is None else cursor.last,
            retracts=settings.commitment == "processed",
            failed_too=settings.process_failed_transactions,
        )
        self._log = structlog.get_logger().bind(venue=venue.NAME)
        self._anything = AnyInstrument(venue.NAME, "token")
        self._out: deque[Item] = deque()
        self._turn = trio.Lock()
        self._called = trio.Event()
        self._symbols: OrderedDict[str, str] = OrderedDict()
        """Key of a price -> its symbol."""
        self._taken: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)
        """Slots of prices, ascending, and their times."""
        self._ends: list[tuple[int, int, SymbolEngine]] = []
        self._waits: dict[SymbolEngine, int] = {}
        """The end for which an engine is in the heap."""
        self._numbers = count()
        self._evidence_ms = 0
        self._heard_at = self._proven_at = self._fetched_at = Mono(0.0)

    # What comes in

    def heard(self, transaction: Transaction, at: Mono, wall: Wall) -> None:
        """A notification.  It says no time, so its prices count at the moment of its arrival."""
        self._heard_at = at
        now = Now(at, wall, self._driver.clock.at(at))
        if not transaction.time_ms:
            transaction = evolve(transaction, time_ms=int(now.exchange))
        self._put(self._repair.live(transaction, now))

    def confirmed(self, at: Mono, wall: Wall) -> None:
        """The subscription begins (anew)."""
        now = Now(at, wall, self._driver.clock.at(at))
        if self.began_ms is None:
            self.began_ms = int(now.exchange)
        self._fetched_at = Mono(0.0)
        self._put(self._repair.reconnected(now))

    def known_from_now(self) -> None:
        """Prices of symbols that are not fed may have been ignored before."""
        if self.began_ms is not None:
            self.began_ms = max(self.began_ms, int(self._driver.now().exchange))

    def is_quiet(self) -> bool:
        """The nodes say that nobody calls the program, and the subscription has not hidden anything
        since it last said something."""
        lately = mono() - self._proven_at <= 4 * self._check_s
        return lately and self._fetched_at <= self._heard_at

    async def apply(self) -> None:
        """Give the engines what is ready, in order."""
        async with self._turn:
            number = 0
            while self._out:
                item = self._out.popleft()
                if isinstance(item, Take):
                    await self._meet(item.price.symbol)
                elif isinstance(item, Gap) and item.accounts is not None:
                    await self._recall(item.accounts)
                self._apply(item)
                number += 1
                if number % _AT_ONCE == 0:
                    await self._room()
                    await trio.lowlevel.checkpoint()

    # Asking

    async def run(self) -> Never:
        """Ask what is to be asked, until cancelled."""
        repair, driver = self._repair, self._driver
        async with trio.open_nursery() as nursery:
            while True:
                self._put(repair.advance(driver.now()))
                await self.apply()
                for question in repair.ask(driver.now()):
                    nursery.start_soon(self._ask, question, name=f"{self._venue.NAME} question")
                self._called = trio.Event()
                due = float(repair.due(driver.now()))
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
            self._metrics.rest_calls.labels(name, type(error).__name__).inc()
            wait_s = 0.0
            if isinstance(error, RateLimited | NoProxyAvailable):
                wait_s = max(0.0, error.until - mono())
            else:
                self._log.warning("chain.question_failed", question=asked.path, problem=str(error))
            self._put(self._repair.failed(question, self._driver.now(), wait_s))
        else:
            self._metrics.rest_calls.labels(name, "ok").inc()
            if isinstance(question, AskTransaction) and answer is not None:
                self._fetched_at = mono()
                self._metrics.repaired.labels(name, "price").inc()
            self._put(self._repair.answer(question, answer, self._driver.now()))
        await self.apply()

    def _put(self, out: Out) -> None:
        self._out += out
        self._called.set()

    # What comes out

    def _apply(self, item: Item) -> None:
        match item:
            case Take():
                self._take(item)
            case Retract(keys):
                self._retract(keys)
            case Gap():
                self._gap(item)
            case Proven():
                self._prove(item)
            case _:
                self._driver.report(item)

    def _take(self, item: Take) -> None:
        price, now = item.price, self._driver.now()
        if self._cursor is not None:
            time_ms = self._cursor.placed(slot_of(price.position), price.time_ms)
            price = evolve(price, time_ms=time_ms)
        if not item.late:
            self._taken.append((slot_of(price.position), price.time_ms))
            self._close(price.time_ms, now)
        self._symbols[price.key] = price.symbol
        if len(self._symbols) > _REMEMBERED:
            self._symbols.popitem(last=False)
        self._driver.take([price], now.mono, now.wall)
        engine = self._driver.engines.get(price.symbol)
        if engine is None and EVERY in self._driver.settings.symbols:
            self.known_from_now()  # there was no room for it, so it is not known to be silent
        self._plan(engine)

    def _retract(self, keys: Sequence[str]) -> None:
        by_symbol: dict[str, list[str]] = {}
        for key in keys:
            if (symbol := self._symbols.pop(key, None)) is not None:
                by_symbol.setdefault(symbol, []).append(key)
        now = self._driver.now()
        for symbol, gone in by_symbol.items():
            engine = self._driver.engines.get(symbol)
            if engine is not None:
                self._driver.perform(engine, engine.priced.retracted(gone, now))
                self._plan(engine)

    def _gap(self, gap: Gap) -> None:
        now = self._driver.now()
        first_ms, until_ms = self._span(gap, int(now.exchange))
        self._log.warning(
            "chain.gap" if gap.final else "chain.delayed",
            from_ms=first_ms,
            to_ms=until_ms,
            problem=gap.reason,
        )
        engines = self._driver.engines
        full = len(engines) >= self._driver.settings.max_symbols
        if self.began_ms is not None and (gap.accounts is None or full):
            self.began_ms = max(self.began_ms, until_ms)
        for engine in [*engines.values()]:
            if gap.accounts is not None and engine.symbol not in gap.accounts:
                continue
            self._driver.perform(
                engine, engine.priced.missed(first_ms, until_ms, now, final=gap.final)
            )
            self._plan(engine)

    def _span(self, gap: Gap, now_ms: int) -> tuple[int, int]:
        """The time of its slots, as far as prices before, in and behind it show it."""
        if gap.time_ms:
            return gap.time_ms - _SLACK_MS, gap.time_ms + 2 * _SLACK_MS
        first_ms = self.began_ms if self.began_ms is not None else now_ms
        if self._cursor is not None:
            first_ms = max(first_ms, self._cursor.time_ms)
        until_ms = now_ms
        for slot, time_ms in reversed(self._taken):
            if gap.last_slot and slot > gap.last_slot:
                until_ms = time_ms
            elif slot < gap.first_slot:
                first_ms = time_ms
                break
            elif slot == gap.first_slot == gap.last_slot:
                first_ms, until_ms = time_ms, time_ms
                break
        return first_ms - _SLACK_MS, max(until_ms, first_ms) + _SLACK_MS

    def _prove(self, proven: Proven) -> None:
        now = self._driver.now()
        self._proven_at = now.mono
        self._evidence_ms = max(self._evidence_ms, proven.until_ms)
        for engine in [*self._driver.engines.values()]:
            self._driver.perform(engine, engine.priced.proven(proven.until_ms, now))
            self._plan(engine)
        if (settled := self._repair.settled) is not None and self.began_ms is not None:
            symbols = self._driver.settings.symbols
            cursor = self._keeper.settled(settled, self._taken, self.began_ms, symbols)
            if cursor is not None:
                self._keep(cursor)

    def _close(self, until_ms: int, now: Now) -> None:
        """Candles that ended by ``until_ms`` are over, of whatever symbol."""
        self._evidence_ms = max(self._evidence_ms, until_ms)
        while self._ends and self._ends[0][0] <= until_ms:
            end_ms, _, engine = heapq.heappop(self._ends)
            if self._waits.get(engine) != end_ms:
                continue  # it is in the heap for another end
            del self._waits[engine]
            if self._driver.engines.get(engine.symbol) is engine:
                self._driver.perform(engine, engine.priced.passed(until_ms, now))
                self._plan(engine)

    def _plan(self, engine: SymbolEngine | None) -> None:
        """Be reminded of an engine when its next candle ends."""
        if engine is None or (end_ms := engine.priced.next_end_ms) is None:
            return
        known = self._waits.get(engine)
        if known is None or end_ms < known:
            self._waits[engine] = end_ms
            heapq.heappush(self._ends, (end_ms, next(self._numbers), engine))
