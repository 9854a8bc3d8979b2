"""How far a chain was read, kept in the store: where the next run of the service goes on."""

from collections.abc import Mapping

import structlog
from attrs import define, frozen

from ..core.chain_cursor import ChainCursor
from ..errors import StoreError
from ..model import Interval, Kline, Series
from ..store import KlineStore
from .driver import Driver

_READ_ROWS = 50_000
"""Stored minutes that are read at once: more than a month has."""


@define
class ChainMemory:
    """Of the chain ``name``.  ``cursor``: what an earlier run left, None where there is none."""

    store: KlineStore
    name: str
    cursor: ChainCursor | None = None

    def keep(self, cursor: ChainCursor) -> None:
        """So far it was read."""
        self.store.put_cursor(self.name, cursor.text())

    async def wait_capacity(self) -> None:
        """Wait until the store takes more."""
        await self.store.wait_capacity()


@frozen
class _Resumption:
    """What an engine goes on from: see :meth:`trio_feed.core.prices.SymbolPrices.resume`."""

    symbol: str
    before: Mapping[Interval, Kline]
    kept: list[tuple[Interval, Kline]]


async def resume_chain(driver: Driver, store: KlineStore, name: str) -> ChainCursor | None:
    """Where an earlier run had read the chain ``name`` to; the engines go on there.  None: there
    was none, or it cannot be used, which is logged."""
    log = structlog.get_logger().bind(venue=driver.rules.venue)
    try:
        text = await store.cursor(name)
        if text is None:
            return None
        cursor = ChainCursor.parse(text)
        found = await _read(driver, store, cursor)
    except (StoreError, ValueError) as error:
        problem = f"what happened before this start is not fetched: {error}"
        log.error("chain.cursor_lost", problem=problem)
        return None
    opens = _opens(driver, cursor)
    for each in found:  # at once, when all could be read
        engine = driver.engines[each.symbol]
        engine.priced.resume(each.before, opens, each.kept, cursor.time_ms)
    log.info("chain.resumed", slot=cursor.slot, from_ms=cursor.time_ms)
    return cursor


def _opens(driver: Driver, cursor: ChainCursor) -> dict[Interval, int]:
    return {i: cursor.made_anew_from(i) for i in driver.settings.trade_intervals}


async def _read(driver: Driver, store: KlineStore, cursor: ChainCursor) -> list[_Resumption]:
    """The candles that were not certain when the earlier run ended are made anew."""
    name, opens = driver.rules.venue, _opens(driver, cursor)
    stored_ends = await store.stored_ends(name, [*driver.engines])
    out: list[_Resumption] = []
    for symbol in driver.engines:
        own = {
            i: stored_end for i in opens if (stored_end := stored_ends.get(Series(name, symbol, i)))
        }
        newest_ms = max((stored_end.kline.open_ms for stored_end in own.values()), default=0)
        if not cursor.covers(symbol, newest_ms):
            continue
        before: dict[Interval, Kline] = {}
        kept: list[tuple[Interval, Kline]] = []
        for interval, stored_end in own.items():
            rows = [stored_end.kline]
            if stored_end.kline.open_ms >= opens[interval]:
                series = Series(name, symbol, interval)
                rows = await store.history(series, limit=1, end_ms=opens[interval])
                later = await store.history(series, limit=_READ_ROWS, start_ms=opens[interval])
                kept += [(interval, row) for row in later]
            before.update((interval, row) for row in rows)
        out.append(_Resumption(symbol, before, kept))
    return out
