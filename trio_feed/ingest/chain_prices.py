"""What a chain says, given to the engines in the order of the chain.

What closes candles is the chain itself: a later price closes what ended before it, of every symbol
(:meth:`ChainPrices._close`; the symbols wait in a heap, by the end of their next candle), and a
reading of the program's list proves that there was nothing.
"""

from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

import structlog
import trio

from ..core.chain_cursor import ChainCursor, CursorKeeper
from ..core.chain_items import SECOND_MS, Gap, Heard, Item, Proven, Retract, Take, Unsure
from ..core.chain_order import slot_of
from ..core.chain_placing import ChainPlacing
from ..core.effects import Report
from ..core.symbol import SymbolEngine
from ..instants import Mono, Now
from ..model import Price
from .chain_ends import CandleEnds
from .chain_memory import ChainMemory
from .driver import EVERY, Driver

_REMEMBERED = 20_000
"""Prices that may be retracted, slots whose time is known, transactions that clients know."""
_AT_ONCE = 100
"""Items that are applied before others get their turn."""


class Symbols(Protocol):
    """The symbols that come by themselves (:class:`.newcomers.Newcomers`)."""

    async def meet(self, symbol: str) -> None:
        """Make one known before its first price."""

    async def recall(self, symbols: Collection[str]) -> None:
        """Make those of them known that are stored."""


class ChainPrices:
    """``began_ms``: no price since then was missed; None: no node has said yet when this began.
    ``proven_at``: when a list was last read.  ``check_s``: how often one is."""

    def __init__(
        self,
        driver: Driver,
        symbols: Symbols,
        memory: ChainMemory,
        placing: ChainPlacing,
        check_s: float,
    ) -> None:
        cursor = memory.cursor
        self.began_ms: int | None = None if cursor is None else cursor.since_ms
        self.proven_at = Mono(0.0)
        self._driver, self._newcomers, self._memory = driver, symbols, memory
        self._placing, self._check_s = placing, check_s
        self._keeper = CursorKeeper(driver.settings.trade_intervals, cursor)
        self._log = structlog.get_logger().bind(venue=driver.rules.venue)
        self._waiting: deque[Item] = deque()
        self._turn = trio.Lock()
        self._symbols: OrderedDict[str, str] = OrderedDict()
        """Key of a price -> its symbol."""
        self._taken: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)
        """Slots of prices, ascending, and their times."""
        self._tellings: OrderedDict[str, int] = OrderedDict()
        """Signatures that clients know, and their slots."""
        self._ends = CandleEnds()
        self._evidence_ms = 0
        self._walked_at = Mono(float("-inf"))

    def put(self, items: Iterable[Item]) -> None:
        """What is ready, in order; :meth:`apply` gives it to the engines."""
        self._waiting += items

    def begun(self, slot: int) -> None:
        """Nothing behind ``slot`` was missed."""
        # Of that second some may be older than what is taken.
        begun_ms = self._placing.times.at_most(slot)
        self.began_ms = begun_ms + SECOND_MS if begun_ms else None

    async def apply(self) -> None:
        """Give the engines what is ready, in order."""
        async with self._turn:
            number = 0
            while self._waiting:
                item = self._waiting.popleft()
                if isinstance(item, Take | Heard):
                    await self._newcomers.meet(item.price.symbol)
                elif isinstance(item, Gap) and item.accounts is not None:
                    await self._newcomers.recall(item.accounts)
                self._apply(item)
                number += 1
                if number % _AT_ONCE == 0:
                    await self._memory.wait_capacity()
                    await trio.lowlevel.checkpoint()

    def known_from_now(self) -> None:
        """Prices of symbols that are not fed may have been ignored before."""
        if self.began_ms is not None and self._evidence_ms:
            self.began_ms = max(self.began_ms, self._evidence_ms + SECOND_MS)

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
        before = self._memory.cursor
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
        if since_ms is not None and self._memory.cursor is not None:
            since_ms = max(since_ms, self._memory.cursor.time_ms)
        first_ms, until_ms = self._placing.span_of(gap, since_ms, now)
        self._log.warning(
            "chain.gap" if gap.final else "chain.delayed",
            from_ms=first_ms,
            to_ms=until_ms,
            problem=gap.reason,
        )
        engines = self._driver.engines
        full = len(engines) >= self._driver.settings.most_symbols
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
        self.proven_at = now.mono
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
                self._keep_told(cursor)

    def close(self) -> None:
        """Keep what clients know by now, so that no price is published twice."""
        if self._keeper.last is not None:
            self._keep_told(self._keeper.last)

    def _keep_told(self, cursor: ChainCursor) -> None:
        # A later cursor's ``told_slot`` is no earlier one, so what it covers is never asked for.
        slots, known = self._tellings, cursor.told_slot
        self._tellings = OrderedDict((s, slot) for s, slot in slots.items() if slot > known)
        self._memory.keep(cursor.with_told(self._tellings))

    def _close(self, until_ms: int, now: Now) -> None:
        """Candles that ended by ``until_ms`` are over, of whatever symbol."""
        self._evidence_ms = max(self._evidence_ms, until_ms)
        for engine in self._ends.over(until_ms):
            if self._driver.engines.get(engine.symbol) is engine:
                self._driver.perform(engine, engine.priced.passed(until_ms, now))
                self._ends.plan(engine)
