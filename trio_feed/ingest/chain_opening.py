"""The repair of a chain, opened: its nodes, and where an earlier run of the service had read to."""

from collections.abc import Mapping, Sequence
from typing import TypeGuard

import structlog
from attrs import frozen

from ..core.chain_cursor import ChainCursor
from ..errors import StoreError
from ..metrics import Metrics
from ..model import Interval, Kline, Series
from ..net.rest import RestClient
from ..settings import SolanaEndpointSettings, SolanaSettings
from ..store import KlineStore
from ..venues import Venue
from ..venues.base import ChainVenue
from .chain import ChainFeed
from .driver import Driver
from .newcomers import Newcomers

_READ_ROWS = 50_000
"""Stored minutes that are read at once: more than a month has."""


@frozen
class _Resumption:
    """What an engine goes on from: see :meth:`trio_feed.core.prices.SymbolPrices.resume`."""

    symbol: str
    before: Mapping[Interval, Kline]
    kept: list[tuple[Interval, Kline]]


def is_repaired(venue: Venue) -> TypeGuard[ChainVenue]:
    """What the venue's subscription misses can be fetched.  Logged where it only lacks a URL."""
    if not isinstance(venue, ChainVenue):
        return False
    if not venue.chain:
        problem = "no RPC URL is configured: what the subscription misses is lost"
        structlog.get_logger().warning("chain.repairs_off", venue=venue.NAME, problem=problem)
        return False
    return True


def nodes_of(solana: SolanaSettings, rest_url: str) -> Sequence[SolanaEndpointSettings]:
    """Those of the settings; else the venue's own."""
    return solana.endpoints or (SolanaEndpointSettings(rest_url),)


async def open_chain(
    venue: ChainVenue,
    settings: SolanaSettings,
    driver: Driver,
    metrics: Metrics,
    clients: Sequence[RestClient],
    newcomers: Newcomers,
    store: KlineStore,
) -> ChainFeed:
    """With a client for each node; goes on where an earlier run ended."""
    name = f"{venue.NAME} {settings.program_id}"
    cursor = await resume_chain(driver, store, name)
    return ChainFeed(
        venue,
        settings,
        driver,
        metrics,
        clients,
        newcomers.meet,
        newcomers.recall,
        store.room,
        lambda cursor: store.put_cursor(name, cursor.text()),
        cursor,
    )


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
    tails = await store.tails(name, [*driver.engines])
    out: list[_Resumption] = []
    for symbol in driver.engines:
        own = {i: tail for i in opens if (tail := tails.get(Series(name, symbol, i)))}
        newest_ms = max((tail.kline.open_ms for tail in own.values()), default=0)
        if not cursor.covers(symbol, newest_ms):
            continue
        before: dict[Interval, Kline] = {}
        kept: list[tuple[Interval, Kline]] = []
        for interval, tail in own.items():
            rows = [tail.kline]
            if tail.kline.open_ms >= opens[interval]:
                series = Series(name, symbol, interval)
                rows = await store.history(series, limit=1, end_ms=opens[interval])
                later = await store.history(series, limit=_READ_ROWS, start_ms=opens[interval])
                kept += [(interval, row) for row in later]
            before.update((interval, row) for row in rows)
        out.append(_Resumption(symbol, before, kept))
    return out
