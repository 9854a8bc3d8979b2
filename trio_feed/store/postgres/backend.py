"""The candles of a database as a backend: which thread does what, and what becomes of its errors.

One connection writes; several read, so that a slow question holds up no other one.  Each is dialled
when it is needed, and again when it was lost.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import psycopg
import trio

from ...errors import StoreError
from ..backend import StoreFault
from ..base import Entry, Keep, Sizes
from ..claims import Claims
from ..threaded import ThreadedBackend
from .connection import Link, Server
from .faults import explain
from .locks import claim_shard, release_shard
from .reader import PostgresReader
from .writer import PostgresWriter

READERS = 5
"""Clients have four of them at most (``push.edge.work``), so feeds never wait for those."""
READ_S, WRITE_S = 3.0, 20.0


class PostgresBackend(ThreadedBackend[PostgresReader]):
    """See :class:`trio_feed.store.backend.Backend`.  Made by
    :func:`trio_feed.store.postgres.opening.open_postgres`; owns its connections."""

    def __init__(self, server: Server, writer: PostgresWriter, epoch: int) -> None:
        readers = [PostgresReader(Link(server, READ_S)) for _ in range(READERS)]
        super().__init__(readers, _translated)
        self.epoch = epoch
        self.place = server.url.shown
        self.writer = writer

    async def write(self, batch: Sequence[Entry]) -> None:
        await self._in_writer(lambda: self.writer.write(batch))

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
            if complete and self.epoch:
                with suppress(psycopg.Error, StoreError):  # then it counts as one that was killed
                    self.writer.end_epoch(self.epoch)
        finally:
            self.writer.link.close()


class SharedPostgresBackend(PostgresBackend):
    """See :class:`trio_feed.store.shards.SharedBackend`.  Made by
    :func:`trio_feed.store.postgres.opening.open_shared`, or ``open_reader``."""

    def __init__(self, server: Server, writer: Link, claims: Claims, identity: str) -> None:
        super().__init__(server, PostgresWriter(writer, claims), 0)
        self.claims, self.identity = claims, identity

    async def read_identity(self) -> str:
        return await self._ask(lambda reader: reader.identity())

    async def claim(self, shard: str, now_ms: float) -> int:
        return await self._in_writer(lambda: claim_shard(self.writer.link, shard, now_ms))

    async def release(self, shard: str, epoch: int) -> bool:
        return await self._in_writer(lambda: release_shard(self.writer.link, shard, epoch))


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise StoreFault(*explain(error)) from None
    except StoreError as error:
        raise StoreFault(str(error), "nothing is lost; end the other one") from None
