"""The store of the settings, as a context manager: opened first, flushed and closed last."""

import math
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import structlog
import trio

from ..errors import StartError
from ..metrics import Metrics
from ..settings import DatabaseUrl, SettlementSettings, StoreSettings
from ..start_wait import StartWait, no_wait
from .base import KlineStore
from .buffered import BufferedStore, BufferLimits
from .claims import Claims, Sharing
from .journal import Journal
from .journal_memory import MemoryJournalBackend
from .journal_sqlite import open_journal_backend
from .memory import MemoryStore
from .memory_database import MemoryDatabase
from .shards import ShardStore, SharedBackend, SharedStore
from .sole_writer import sole_writer
from .sqlite import open_sqlite

log = structlog.get_logger()
T = TypeVar("T")

MEMORY = ":memory:"
NO_LIBRARY = 'PostgreSQL needs a library: pip install ".[cluster]" in the checkout'
_LAST_FLUSH_S = 3.0


@asynccontextmanager
async def open_store(
    settings: StoreSettings,
    *,
    simulated: bool,
    now_ms: float,
    metrics: Metrics,
    wait: StartWait | None = None,
) -> AsyncIterator[KlineStore]:
    """Open the store; on the way out write what is pending (shielded, bounded) and close it.

    ``now_ms`` seeds the epoch; ``wait``: for a database that is away.  Raises StartError when the
    path cannot be used, or another process writes there.
    """
    limits = _limits(settings)
    if settings.url:
        postgres = postgres_room("store.url")
        backend = await _opened(
            wait,
            lambda: postgres.open_postgres(
                settings.url, "store.url", simulated=simulated, now_ms=now_ms
            ),
        )
        store = BufferedStore(backend, limits, metrics)
        async with _flushed_and_closed(store):
            yield store
        return
    if settings.path == MEMORY:
        yield MemoryStore(int(now_ms), limits.keep)
        return
    path = Path(settings.path)
    with sole_writer(path, "store.path"):
        file = await trio.to_thread.run_sync(
            lambda: open_sqlite(path, simulated=simulated, now_ms=now_ms)
        )
        store = BufferedStore(file, limits, metrics)
        async with _flushed_and_closed(store):
            yield store


@asynccontextmanager
async def open_shared_store(
    settings: StoreSettings,
    sharing: Sharing,
    *,
    simulated: bool,
    metrics: Metrics,
    twin: MemoryDatabase | None = None,
    wait: StartWait | None = None,
) -> AsyncIterator[ShardStore]:
    """Open the database of ``store.url`` as one of several that write; closed, and waited for, as
    by :func:`open_store`.  ``twin``: that in its place.  A claim that was not released ends as that
    of a killed process does.  Raises StartError, also where a single process writes there."""
    claims = Claims(sharing.shard_of)

    def opened() -> SharedBackend:
        if twin is not None:
            return twin.open_shared(claims, simulated=simulated)
        found: SharedBackend = postgres_room("store.url").open_shared(
            settings.url, "store.url", claims, simulated=simulated
        )
        return found

    backend = await _opened(wait, opened, in_thread=twin is None)
    store = SharedStore(backend, _limits(settings), metrics, sharing.fenced)
    async with _flushed_and_closed(store):
        yield store


@asynccontextmanager
async def open_reading_store(
    settings: StoreSettings,
    *,
    simulated: bool,
    metrics: Metrics,
    twin: MemoryDatabase | None = None,
    wait: StartWait | None = None,
) -> AsyncIterator[ShardStore]:
    """Open the database of ``store.url`` for questions alone, beside those who write.  What is put
    is dropped; ``run`` looks at sizes.  ``wait``: as of :func:`open_store`.  Raises StartError."""

    def opened() -> SharedBackend:
        if twin is not None:
            return twin.open_reader(simulated=simulated)
        found: SharedBackend = postgres_room("store.url").open_reader(
            settings.url, "store.url", simulated=simulated
        )
        return found

    backend = await _opened(wait, opened, in_thread=twin is None)
    store = SharedStore(backend, _limits(settings), metrics)
    async with _flushed_and_closed(store):
        yield store


async def _opened(wait: StartWait | None, open_it: Callable[[], T], *, in_thread: bool = True) -> T:
    """What it returns, when the server is there.  Raises StartError."""

    async def attempt() -> T:
        if in_thread:
            return await trio.to_thread.run_sync(open_it)
        await trio.lowlevel.checkpoint()
        return open_it()

    return await (wait or no_wait()).until_there(attempt)


def _limits(settings: StoreSettings) -> BufferLimits:
    keep = {
        interval: length.seconds * 1000
        for interval, length in settings.keep.items()
        if math.isfinite(length.seconds)
    }
    return BufferLimits(settings.flush_interval_s, settings.max_pending_rows, keep)


@asynccontextmanager
async def _flushed_and_closed(store: BufferedStore) -> AsyncIterator[None]:
    try:
        yield
    finally:
        with trio.move_on_after(_LAST_FLUSH_S, shield=True):
            await store.last_flush()
        with trio.move_on_after(_LAST_FLUSH_S, shield=True):
            await store.close()
        if (rows := store.pending()) > 0:
            log.error("store.rows_lost", rows=rows, advice="they are fetched at start")


def postgres_room(key: str) -> ModuleType:
    """The one room with psycopg in it, loaded where it is wanted.  Raises StartError."""
    try:
        from . import postgres
    except ImportError:
        raise StartError(f"{key}: {NO_LIBRARY}") from None
    return postgres


@asynccontextmanager
async def open_journal(
    settings: SettlementSettings,
    path: str,
    *,
    now_ms: Callable[[], float],
    metrics: Metrics,
    url: DatabaseUrl | None = None,
    wait: StartWait | None = None,
) -> AsyncIterator[Journal]:
    """Open the journal of private events in the database ``url``, else in the file ``path``, or in
    memory, and close it on the way out.  ``wait``: as of :func:`open_store`.  Raises StartError
    when that cannot be used."""
    if url:
        key = "settlement.url" if settings.url else "store.url"
        postgres = postgres_room(key)
        shared = await _opened(
            wait, lambda: postgres.open_postgres_journal(url, key, now_ms=now_ms())
        )
        try:
            yield Journal(
                shared, settings, in_threads=True, now_ms=now_ms, metrics=metrics, shared=shared
            )
        finally:
            shared.close()
        return
    if path == MEMORY:
        backend = MemoryJournalBackend(int(now_ms()))
        yield Journal(backend, settings, in_threads=False, now_ms=now_ms, metrics=metrics)
        return
    file = Path(path)
    with sole_writer(file, "settlement.path"):
        kept = await trio.to_thread.run_sync(lambda: open_journal_backend(file, now_ms=now_ms()))
        try:
            yield Journal(kept, settings, in_threads=True, now_ms=now_ms, metrics=metrics)
        finally:
            kept.close()


async def look_at_database(
    url: DatabaseUrl, parts: Collection[str], *, reads: bool = False
) -> tuple[str, str, str]:
    """What a start would find there, without making anything: what it is, else what is wrong and
    what to do.  ``parts``: "store", "journal"; ``reads``: candles are only read.  Raises StartError
    without the library."""
    postgres = postgres_room("store.url")
    found: tuple[str, str, str] = await trio.to_thread.run_sync(
        lambda: postgres.look_at(url, parts, reads=reads)
    )
    return found
