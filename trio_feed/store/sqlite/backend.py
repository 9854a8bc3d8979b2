"""The candle file as a backend: which thread does what, and what becomes of SQLite's errors.

One connection writes (WAL, one thread hop per batch); several read, so that a slow question holds
up no other one, and each question has a deadline.  The log is moved into the file by SQLite after
1,000 pages; where readers keep it from that it is cut off between batches.
"""

import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

import structlog
import trio

from ...errors import StoreError
from ..backend import StoreFault
from ..base import Entry, Keep, Sizes
from ..threaded import ThreadedBackend
from .file import Place, advice, set_up, wal_bytes
from .reader import SqliteReader
from .writer import SqliteWriter

log = structlog.get_logger()

_WAL_CUT_BYTES = 32 * 2**20


class SqliteBackend(ThreadedBackend[SqliteReader]):
    """See :class:`trio_feed.store.backend.Backend`.  Made by
    :func:`trio_feed.store.sqlite.open_sqlite`; owns its connections."""

    def __init__(
        self,
        writer: sqlite3.Connection,
        readers: Sequence[sqlite3.Connection],
        file: Place,
        epoch: int,
    ) -> None:
        super().__init__([SqliteReader(connection) for connection in readers], _translated)
        self.epoch = epoch
        self.file = file
        self.writer = SqliteWriter(writer)
        self._cut_at = _WAL_CUT_BYTES

    @property
    def place(self) -> str:
        return str(self.file.path)

    async def write(self, batch: Sequence[Entry]) -> None:
        if await self._in_writer(self.file.is_empty):
            await self._put_back()
        await self._in_writer(lambda: self._write(batch))

    async def prune(self, keep: Keep, wall_ms: float, limit: int) -> int:
        return await self._in_writer(lambda: self.writer.prune(keep, wall_ms, limit))

    async def shrink(self) -> bool:
        return await self._in_writer(self._shrink)

    async def sizes(self) -> Sizes:
        return await self._ask(self._sizes)

    async def close(self, *, complete: bool) -> None:
        await trio.to_thread.run_sync(lambda: self._close(complete), limiter=self._writing)

    def _write(self, batch: Sequence[Entry]) -> None:
        self.writer.write(batch)
        self._cut_log()

    def _shrink(self) -> bool:
        more = self.writer.shrink()
        if not more:
            # Only now does the file on the disk get shorter.
            self.writer.checkpoint(truncate=False)
        self._cut_log()
        return more

    def _cut_log(self) -> None:
        size = wal_bytes(self.file.path)
        if size <= _WAL_CUT_BYTES:
            self._cut_at = _WAL_CUT_BYTES
        if size <= self._cut_at:
            return
        with suppress(sqlite3.Error):
            self.writer.checkpoint(truncate=True)
        # Another program that stays in an old state of the file keeps the log from being cut.
        # Each try waits for it a while, so the next one comes when the log has grown again.
        self._cut_at = max(_WAL_CUT_BYTES, wal_bytes(self.file.path) * 3 // 2)

    def _sizes(self, reader: SqliteReader) -> Sizes:
        path = self.file.path
        rows, free = reader.rows_by_interval(), reader.free_bytes()
        size = path.stat().st_size if path.exists() else 0
        return Sizes(rows, size, wal_bytes(path), free)

    def _close(self, complete: bool) -> None:
        for reader in self.readers:
            reader.close()
        if complete:
            with suppress(sqlite3.Error):  # then it counts as one that was killed
                self.writer.end_epoch(self.epoch)
        self.writer.connection.close()

    async def _put_back(self) -> None:
        """The file was deleted: write it anew from what is still open."""
        async with self._all_readers():
            old = [reader.connection for reader in self.readers]
            writer, readers = await self._in_writer(
                lambda: self.file.put_back(self.writer.connection, old)
            )
            self.writer = SqliteWriter(writer)
            self.readers = [SqliteReader(connection) for connection in readers]
            self._idle[:] = self.readers
        await self._in_writer(lambda: set_up(self.writer.connection))
        log.error(
            "store.file_put_back",
            path=self.place,
            problem="the file was deleted while it was in use",
            advice="nothing is lost; stop the service before you delete or move its store",
        )

    @asynccontextmanager
    async def _all_readers(self) -> AsyncIterator[None]:
        """Nobody reads meanwhile."""
        tokens = [object() for _ in self.readers]
        taken = []
        try:
            for token in tokens:
                await self._reading.acquire_on_behalf_of(token)
                taken.append(token)
            yield
        finally:
            for token in taken:
                self._reading.release_on_behalf_of(token)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError, StoreError) as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
            raise StoreFault("it took too long", "is the disk slow or busy?") from None
        raise StoreFault(str(error), advice(error)) from None
