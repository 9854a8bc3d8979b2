"""A venue whose missed prices are fetched in the order of a chain (Spin Pet on Solana).

Everything that the subscription says passes :class:`trio_feed.core.chain.ChainRepair`, so that the
engines see prices in the order of the chain, and :class:`.ChainPlacing`
(:mod:`trio_feed.core.chain_placing`), so that they see them with the times of their blocks: the
processor calls :meth:`ChainFeed.heard` and :meth:`ChainFeed.apply`, and :meth:`ChainFeed.run` asks
the nodes for what is missing.

What closes candles is the chain itself: a later price closes what ended before it, of every symbol
(:meth:`ChainFeed._close`; the symbols wait in a heap, by the end of their next candle), and a
reading of the program's list proves that there was nothing.

A notification says no time.  Its prices are told at once, and counted when a node has named the
second of their block, a few seconds later.  No clock of ours is part of that.

How far the chain was read is kept in the store (:mod:`trio_feed.core.chain_cursor`), so that what
happens while nothing runs is fetched after the next start.
"""

from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from itertools import count
from typing import Never

import structlog
import trio

from ..core.chain import ChainRepair
from ..core.chain_cursor import ChainCursor, CursorKeeper
from ..core.chain_line import slot_of
from ..core.chain_placing import ChainPlacing
from ..core.chain_words import (
    SECOND_MS,
    ChainLimits,
    Gap,
    Heard,
    Item,
    Out,
    Proven,
    Retract,
    Take,
    Unsure,
)
from ..core.effects import Report
from ..core.symbol import SymbolEngine
from ..environment import mono
from ..errors import BadMessage, NetworkError, NoProxyAvailable, RateLimited
from ..instants import Mono, Now, Wall
from ..metrics import Metrics
from ..model import Price
from ..net.rest import RestClient
from ..settings import SolanaSettings
from ..transactions import AskBlockTime, AskTransaction, Question, Transaction
from ..venues.base import ChainVenue
from ..venues.instruments import AnyInstrument
from .chain_ends import CandleEnds
from .driver import EVERY, Driver

_REMEMBERED = 20_000
"""Prices that may be retracted, slots whose time is known, transactions that clients know."""
_AT_ONCE = 100
"""Items that are applied before others get their turn."""


def limits_of(settings: SolanaSettings) -> ChainLimits:
    return ChainLimits(
        check_s=settings.check_s,
        hold_s=settings.hold_s,
        give_up_s=settings.give_up_s,
        times_s=settings.times_s,
    )


class ChainFeed:
    """``endpoints``: a client for each node.  ``meet`` makes a symbol known before its first
    price, ``recall`` those of some accounts that are stored.  ``keep`` takes how far the chain was
    read, ``cursor`` is what an earlier run gave it.  ``began_ms``: no price since then was missed;
    None: no node has said yet when this began."""

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
        self._placing = ChainPlacing(
            limits_of(settings), len(endpoints), settings.commitment == "processed"
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
        self._tellings: OrderedDict[str, int] = OrderedDict()
        """Signatures that clients know, and their slots."""
        self._ends = CandleEnds()
        self._numbers = count()
        self._evidence_ms = 0
        self._heard_at = self._proven_at = self._fetched_at = Mono(0.0)
        self._walked_at = Mono(float("-inf"))

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

    def known_from_now(self) -> None:
        """Prices of symbols that are not fed may have been ignored before."""
        if self.began_ms is not None and self._evidence_ms:
            self.began_ms = max(self.began_ms, self._evidence_ms + SECOND_MS)

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
                if isinstance(item, Take | Heard):
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
        try:
            await self._run()
        finally:
            self.close()

    async def _run(self) -> Never:
        repair, driver, placing = self._repair, self._driver, self._placing
        async with trio.open_nursery() as nursery:
            while True:
                self._put(repair.advance(driver.now()))
                await self.apply()
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
            self._metrics.rest_calls.labels(name, type(error).__name__).inc()
            wait_s = 0.0
            if isinstance(error, RateLimited | NoProxyAvailable):
                wait_s = max(0.0, error.until - mono())
            else:
                self._log.warning("chain.question_failed", question=asked.path, problem=str(error))
            self._put(self._repair.failed(question, self._driver.now(), wait_s))
        else:
            self._metrics.rest_calls.labels(name, "ok").inc()
            if isinstance(question, AskBlockTime):
                self._placing.answered(question, answer if isinstance(answer, int) else None)
            if isinstance(question, AskTransaction) and answer is not None:
                self._fetched_at = mono()
                self._metrics.repaired.labels(name, "price").inc()
            self._put(self._repair.answer(question, answer, self._driver.now()))
        await self.apply()

    def _put(self, out: Out) -> None:
        now, placing, repair = self._driver.now(), self._placing, self._repair
        for item in out:
            self._out += placing.put(item, now)
        if self.began_ms is None and (slot := repair.begun_slot) is not None:
            # Of that second some may be older than what is taken.
            begun_ms = placing.times.at_most(slot)
            self.began_ms = begun_ms + SECOND_MS if begun_ms else None
        self._out += placing.flush(now, repair.missing_slot)
        if placing.waits:
            repair.hurry(now)
        self._called.set()

    # What comes out

    def _apply(self, item: Item) -> None:
        match item:
            case Heard():
                self._hear(item)
            case Take():
                self._take(item)
            case Retract(keys):
                self._retract(keys)
            case Gap():
                self._gap(item)
            case Unsure(first_ms, until_ms):
                self._missed([*self._driver.engines.values()], first_ms, until_ms, final=False)
            case Proven():
                self._prove(item)
            case Report():
                self._driver.report(item)

    def _hear(self, item: Heard) -> None:
        now = self._driver.now()
        self._told(item.signature, slot_of(item.price.position))
        self._remember(item.price)
        self._driver.hear(item.price, now.mono, now.wall)

    def _remember(self, price: Price) -> None:
        self._symbols[price.key] = price.symbol
        if len(self._symbols) > _REMEMBERED:
            self._symbols.popitem(last=False)

    def _told(self, signature: str, slot: int) -> None:
        """Clients know its prices."""
        self._tellings[signature] = slot
        if len(self._tellings) > _REMEMBERED:
            self._tellings.popitem(last=False)

    def _take(self, item: Take) -> None:
        price, now = item.price, self._driver.now()
        slot = slot_of(price.position)
        engine = self._driver.engines.get(price.symbol)
        before = self._cursor
        if engine is not None and before is not None and before.was_told(item.signature, slot):
            engine.priced.was_told(price)
        self._told(item.signature, slot)
        if not item.late:
            self._taken.append((slot, price.time_ms))
            self._close(price.time_ms, now)
        self._remember(price)
        self._driver.take([price], now.mono, now.wall)
        engine = self._driver.engines.get(price.symbol)
        if engine is None and EVERY in self._driver.settings.symbols:
            # There was no room for it, so it is not known to be silent.
            self.began_ms = max(self.began_ms or 0, price.time_ms + SECOND_MS)
        self._ends.plan(engine)

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
                self._ends.plan(engine)

    def _gap(self, gap: Gap) -> None:
        now = self._driver.now()
        since_ms = self.began_ms
        if since_ms is not None and self._cursor is not None:
            since_ms = max(since_ms, self._cursor.time_ms)
        first_ms, until_ms = self._placing.span_of(gap, since_ms, now)
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
        touched = [e for e in engines.values() if gap.accounts is None or e.symbol in gap.accounts]
        self._missed(touched, first_ms, until_ms, final=gap.final)

    def _missed(
        self, engines: Sequence[SymbolEngine], first_ms: int, until_ms: int, *, final: bool
    ) -> None:
        now = self._driver.now()
        for engine in engines:
            self._driver.perform(engine, engine.priced.missed(first_ms, until_ms, now, final=final))
            self._ends.plan(engine)

    def _prove(self, proven: Proven) -> None:
        now = self._driver.now()
        self._proven_at = now.mono
        self._close(proven.until_ms, now)
        # All the others are not looked at for every reading that only brought times.
        if now.mono - self._walked_at >= 0.9 * self._check_s:
            self._walked_at = now.mono
            for engine in [*self._driver.engines.values()]:
                self._driver.perform(engine, engine.priced.proven(proven.until_ms, now))
                self._ends.plan(engine)
        if proven.settled is not None and self.began_ms is not None:
            symbols = self._driver.settings.symbols
            cursor = self._keeper.settled(proven.settled, self._taken, self.began_ms, symbols)
            if cursor is not None:
                self._keep(cursor.with_told(self._tellings))

    def close(self) -> None:
        """Keep what clients know by now, so that no price is told twice."""
        if self._keeper.last is not None:
            self._keep(self._keeper.last.with_told(self._tellings))

    def _close(self, until_ms: int, now: Now) -> None:
        """Candles that ended by ``until_ms`` are over, of whatever symbol."""
        self._evidence_ms = max(self._evidence_ms, until_ms)
        for engine in self._ends.over(until_ms):
            if self._driver.engines.get(engine.symbol) is engine:
                self._driver.perform(engine, engine.priced.passed(until_ms, now))
                self._ends.plan(engine)
