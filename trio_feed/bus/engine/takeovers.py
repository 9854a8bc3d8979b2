"""How a node comes to own a shard.

First the lease, then the epoch in the database (from here on an earlier owner's rows are refused),
then what the log has and the database may lack, then the feed opens the shard's symbols where the
database ends, and its trades behind the last one in the log (those since are fetched, as after a
lost connection), then the opening checkpoint goes behind the log's last entry: only now it is
sealed.  Did that entry move meanwhile, everything begins again with another epoch.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import structlog
from attrs import define, field, frozen

from ...core.calendar import grid_of
from ...model import Channel, ChannelKey, KlineMessage, Series, Trade
from ...store import ShardStore
from .base import Engine, EngineFault
from .counts import FeedingCounts
from .heads import Heads, heads_of
from .owner import Owner
from .writing import Writing

log = structlog.get_logger()

_REVISED_BARS, _MOST_REVISIONS = 10, 100
"""Candles back: exchanges correct them within a minute, or they are looked at again soon."""

_NO_EPOCH = 2**52
"""Epochs are unix ms and a little.  One beyond would be in the database for good, and clients could
not name it: their numbers end at 2**53."""


@frozen
class End:
    """Where the log ends, and by series the open time of the last candle in the database.
    ``corrections``: of those up to there, which nobody has said and the shadow has heard."""

    heads: Heads
    stored: Mapping[Series, int]
    corrections: Sequence[KlineMessage] = ()


@define(eq=False)
class Takeovers:
    """``refresh(venue)``: let its feed open the symbols that it should have, and close others."""

    _store: ShardStore
    _writing: Writing
    _refresh: Callable[[str], Awaitable[object]]
    _now_ms: Callable[[], float]
    _counts: FeedingCounts
    held_back: set[tuple[str, str]] = field(factory=set)
    """Venues and symbols that are about to begin anew."""
    _heads: dict[str, Heads] = field(factory=dict)
    """By shard that is being taken, or followed from now on."""

    def last_trade(self, venue: str, symbol: str) -> Trade | None:
        """Of a symbol that is opened because its shard is being taken, or followed from now on: the
        last one that clients got.  None: it is not, or there was none."""
        heads = self._heads.get(self._writing.shard_of(venue, symbol))
        key = ChannelKey(venue, symbol, Channel.TRADE)
        return None if heads is None else heads.last_trade(key)

    @asynccontextmanager
    async def behind_logs(self, shards: Sequence[str], engine: Engine) -> AsyncIterator[None]:
        """What is opened inside begins where the logs of these shards end.  Raises EngineFault,
        BadItem, before that."""
        self._heads = {shard: heads_of(await engine.since_checkpoint(shard)) for shard in shards}
        try:
            yield
        finally:
            self._heads = {}

    def failed(self, shard: str) -> None:
        """It is not taken after all."""
        self._heads.pop(shard, None)

    def start(self, shard: str, end: End) -> int:
        """Nothing waits from here to the opening checkpoint and what follows behind it.  Returns of
        how many event streams clients are told that something may be missing."""
        self._heads.pop(shard, None)
        follow = self._writing.start(shard, end.heads, end.stored)
        for message in (*end.corrections, *follow.messages):
            again = self._writing.say_again(message)
            if isinstance(again, KlineMessage):
                self._store.put(again)
        return len(follow.lost)

    async def reopen(self, shard: str, end: End) -> None:
        """Symbols whose feed does not go on where the database ends begin anew there."""
        holes = self._writing.torn(shard, end.stored)
        if not holes:
            return
        log.info("shard.reopened", shard=shard, symbols=len(holes))
        self._counts.changes["reopened"] += 1
        venue = venue_of(shard)
        self.held_back.update((venue, symbol) for symbol in holes)
        try:
            await self._refresh(venue)
        finally:
            self.held_back.difference_update((venue, symbol) for symbol in holes)
        await self._refresh(venue)

    async def claim(self, shard: str, engine: Engine) -> tuple[Owner, End]:
        """A new epoch, and everything that the log has is in the database; where both end."""
        epoch = await self._store.claim(shard, self._now_ms())
        heads = heads_of(await engine.since_checkpoint(shard))
        if heads.problem:
            log.error("engine.unreadable", shard=shard, problem=heads.problem)
        tail = max(heads.tail, await engine.tail(shard))
        if tail[0] >= _NO_EPOCH:
            raise EngineFault(
                f"the log of {shard} has the id {tail[0]}-{tail[1]}, which no node gives:"
                " delete that log's key, then start the nodes that serve again"
            )
        if tail[0] >= epoch:  # of a database that forgot, or of none of us: it would refuse ours
            epoch = await self._store.claim(shard, tail[0] + 1)
        stored = await self._store.stored_ends(venue_of(shard))
        ends = {series: end.kline.open_ms for series, end in stored.items()}
        for message in heads.closed:
            open_ms, end_ms = message.kline.open_ms, ends.get(message.series, -1)
            if message.revision or open_ms > end_ms:
                self._store.put(message)
                ends[message.series] = max(open_ms, end_ms)
        await self._note_revisions(shard, heads, ends)
        self._heads[shard] = heads
        corrections = await self._corrections(shard, heads, ends)
        return self._writing.begin(shard, epoch, tail), End(heads, ends, corrections)

    async def _note_revisions(self, shard: str, heads: Heads, ends: Mapping[Series, int]) -> None:
        """Those that an owner stored and could not say any more: readers are told the number of the
        last one, so that they fetch what they have not heard."""
        for series, end_ms in ends.items():
            if self._writing.shard_of(series.venue, series.symbol) != shard:
                continue
            start_ms = grid_of(series.interval).back(end_ms, _REVISED_BARS)
            found = await self._store.revisions(series, start_ms=start_ms, limit=_MOST_REVISIONS)
            newest = max(((each.epoch, each.offset) for each in found), default=(0, 0))
            heads.revised[series] = max(newest, heads.revised.get(series, (0, 0)))

    async def _corrections(
        self, shard: str, heads: Heads, ends: Mapping[Series, int]
    ) -> list[KlineMessage]:
        """What the exchange changed when nobody was there any more who could say it."""
        said = {(each.series, each.kline.open_ms): each.kline for each in heads.closed}
        found = []
        for message in self._writing.corrections(shard):
            series, open_ms = message.series, message.kline.open_ms
            if open_ms > ends.get(series, -1):
                continue  # it is said with its candle
            known = said.get((series, open_ms))
            if known is None:
                rows = await self._store.history(
                    series, limit=1, start_ms=open_ms, end_ms=open_ms + 1
                )
                known = rows[0] if rows else None
            if known is not None and not known.same_values(message.kline):
                found.append(message)
        return found


def venue_of(shard: str) -> str:
    return shard.rpartition(".")[0]
