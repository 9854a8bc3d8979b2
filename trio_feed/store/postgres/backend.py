"""The candles of a database as a backend: which thread does what, and what becomes of its errors.

One connection writes; several read, so that a slow question holds up no other one.  Each is dialled
when it is needed, and again when it was lost.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

import psycopg
import trio

from ...errors import StoreError
from ...model import Kline, KlineMessage, Series
from ..backend import StoreFault
from ..base import End, Entry, Keep, Revision, Sizes
from .connection import Link, Server
from .faults import explain
from .reader import PostgresReader
from .writer import PostgresWriter

T = TypeVar("T")

READERS = 5
"""Clients have four of them at most (``push.edge.work``), so feeds never wait for those."""
READ_S, WRITE_S = 3.0, 20.0


class PostgresBackend:
    """See :class:`trio_feed.store.backend.Backend`.  Made by
    :func:`trio_feed.store.postgres.opening.open_postgres`; owns its connections."""

    def __init__(self, server: Server, writer: Link, epoch: int) -> None:
        self.epoch = epoch
        self.place = server.url.shown
        self.writer = PostgresWriter(writer)
        self.readers = [PostgresReader(Link(server, READ_S)) for _ in range(READERS)]
        self._idle = list(self.readers)
        self._reading = trio.CapacityLimiter(READERS)
        self._writing = trio.CapacityLimiter(1)

    async def write(self, batch: Sequence[Entry]) -> None:
        await self._in_writer(lambda: self.writer.write(batch))

    async def history(
        self, series: Series, *, limit: int, start_ms: int | None, end_ms: int | None
    ) -> list[Kline]:
        return await self._ask(lambda reader: reader.history(series, limit, start_ms, end_ms))

    async def ends(self, venue: str | None, symbols: Collection[str] | None) -> dict[Series, End]:
        return await self._ask(lambda reader: reader.ends(venue, symbols))

    async def first_open(self, series: Series) -> int | None:
        return await self._ask(lambda reader: reader.first_open(series))

    async def cursor(self, name: str) -> str | None:
        return await self._ask(lambda reader: reader.cursor(name))

    async def after(
        self,
        series: Series,
        epoch: int,
        offset: int,
        *,
        closed_ms: int | None,
        limit: int,
        exact: bool,
    ) -> list[KlineMessage] | None:
        return await self._ask(
            lambda reader: reader.after(series, epoch, offset, closed_ms, limit, exact=exact)
        )

    async def revisions(
        self, series: Series, *, start_ms: int, end_ms: int | None, limit: int
    ) -> list[Revision]:
        return await self._ask(lambda reader: reader.revisions(series, start_ms, end_ms, limit))

    async def prune(self, keep: Keep, wall_ms: float, limit: int) -> int:
        return await self._in_writer(lambda: self.writer.prune(keep, wall_ms, limit))

    async def shrink(self) -> bool:
        """The server's autovacuum does that."""
        await trio.lowlevel.checkpoint()
        return False

    async def sizes(self) -> Sizes:
        return await self._ask(lambda r: Sizes(r.rows_by_interval(), r.total_bytes()))

    async def close(self, *, complete: bool) -> None:
        await trio.to_thread.run_sync(lambda: self._close(complete), limiter=self._writing)

    def _close(self, complete: bool) -> None:
        for reader in self.readers:
            reader.link.close()
        try:
            if complete:
                with suppress(psycopg.Error, StoreError):  # then it counts as one that was killed
                    self.writer.end_epoch(self.epoch)
        finally:
            self.writer.link.close()

    async def _ask(self, question: Callable[[PostgresReader], T]) -> T:
        def ask() -> T:
            # There are as many places in the limiter as readers, so one is idle.
            reader = self._idle.pop()
            try:
                return question(reader)
            finally:
                self._idle.append(reader)

        with _translated():
            return await trio.to_thread.run_sync(ask, limiter=self._reading)

    async def _in_writer(self, work: Callable[[], T]) -> T:
        with _translated():
            return await trio.to_thread.run_sync(work, limiter=self._writing)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise StoreFault(*explain(error)) from None
    except StoreError as error:
        raise StoreFault(str(error), "nothing is lost; one process writes to a database") from None
