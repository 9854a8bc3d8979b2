"""One database for the candles of several processes: the writers have shards, others read.

A writer claims a shard before it puts candles of it, and keeps what it puts as any store does.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from ..errors import StoreError
from ..metrics import Metrics
from ..model import KlineMessage, Series
from .backend import Backend, StoreFault
from .base import Entry, KlineStore
from .buffered import BufferedStore, BufferLimits
from .claims import Claims

log = structlog.get_logger()


class ShardStore(KlineStore, Protocol):
    """A store that several processes write.  What is put of a shard that is not claimed is dropped
    and counted; under a number of epoch 0, dropped.  ``epoch`` is 0: numbers belong to shards."""

    @property
    def identity(self) -> str:
        """Of the database: random, and the same for all who open it.  Empty: it has none yet, for
        nobody who may write has opened it since there are any."""

    async def read_identity(self) -> str:
        """As it is now: somebody may have given it one since it was opened.  Raises StoreError."""

    def oldest_pending(self) -> dict[Series, int]:
        """Of each series with candles that are not in the database: open time of the oldest."""

    async def claim(self, shard: str, now_ms: float) -> int:
        """Be the one that writes a shard.  Returns its epoch: larger than all before, those of
        other shards included, and at least ``now_ms``.  From then on no earlier claimant's write
        lands; what did land is in every answer.  Raises StoreError."""

    async def release(self, shard: str, epoch: int) -> bool:
        """Write what is pending, then keep that every number of that epoch that anybody was told is
        written; whether the claim was still ours.  For an owner that published nothing which it did
        not put.  Raises StoreError, and then the epoch ends as that of a killed process does."""


class SharedBackend(Backend, Protocol):
    """A database with claims.  ``write`` and ``prune`` leave alone what is of other shards than
    ``claims`` has, and see in the same transaction whether they still are."""

    claims: Claims
    identity: str
    """See :attr:`ShardStore.identity`."""

    async def read_identity(self) -> str:
        """See :meth:`ShardStore.read_identity`."""

    async def claim(self, shard: str, now_ms: float) -> int:
        """See :meth:`ShardStore.claim`; waits until a write under way has landed or failed."""

    async def release(self, shard: str, epoch: int) -> bool:
        """Keep that the epoch was written to its end, if the claim is still ours; whether it is."""


class SharedStore(BufferedStore):
    """See :class:`ShardStore`.  Without a claim it reads."""

    def __init__(
        self,
        backend: SharedBackend,
        limits: BufferLimits,
        metrics: Metrics,
        fenced: Callable[[Sequence[str]], None] = lambda shards: None,
    ) -> None:
        super().__init__(backend, limits, metrics)
        self._shared, self._claims, self._fenced = backend, backend.claims, fenced

    @property
    def identity(self) -> str:
        return self._shared.identity

    async def read_identity(self) -> str:
        return await self._ask(self._shared.read_identity())

    async def claim(self, shard: str, now_ms: float) -> int:
        async with self._turn:
            try:
                if self._has_pending(shard):  # of an earlier claim, which may still count
                    await self._flush()
                epoch = await self._shared.claim(shard, now_ms)
            except StoreFault as error:
                raise StoreError(f"shard {shard} cannot be claimed: {error}") from None
            self._drop_pending([shard])
            self._claims.take(shard, epoch)
        return epoch

    async def release(self, shard: str, epoch: int) -> bool:
        async with self._turn:
            try:
                while self._has_pending(shard):
                    await self._flush()
                if self._claims.epoch(shard) != epoch:
                    return False
                self._claims.give_up(shard)  # what is put from here on is not of that epoch
                return await self._shared.release(shard, epoch)
            except StoreFault as error:
                raise StoreError(f"shard {shard} cannot be released: {error}") from None

    def _is_own(self, series: Series, epoch: int) -> bool:
        return self._claims.epoch_of(series) == epoch

    def _add(self, entry: Entry) -> None:
        # A number of epoch 0 is that of a node in hot standby; who takes over says it again.
        if isinstance(entry, KlineMessage) and entry.offset and not entry.epoch:
            return
        if self._claims.has(entry):
            super()._add(entry)
        else:
            self._metrics.store_fenced.inc()

    async def _flush(self) -> None:
        batch = self._pending.entries
        try:
            await super()._flush()
        finally:
            if lost := self._claims.take_lost():
                # Of a batch that failed the entries are pending again; they count once.
                put = {id(entry): entry for entry in (*batch, *self._pending.entries)}
                rows = sum(self._claims.shard(entry) in lost for entry in put.values())
                log.warning("store.fenced", shards=lost, rows=rows)
                self._metrics.store_fenced.inc(rows)
                self._drop_pending(lost)
                self._fenced(lost)

    def _has_pending(self, shard: str) -> bool:
        return any(self._claims.shard(entry) == shard for entry in self._pending.entries)

    def _drop_pending(self, shards: list[str]) -> None:
        self._pending.drop(lambda entry: self._claims.shard(entry) in shards)
        self._say_pending()
