"""A node that feeds: which shards it owns, and what of them goes into their logs.

::

    run
    ├─ attempts                  a fault of the engine begins the next
    │  ├─ appender               a round trip for all shards, at most every ``tick_s``
    │  ├─ leases                 renews ours, takes free ones, gives one to a node with too few
    │  └─ checkpoints            and signs of life, and what of the logs may go
    └─ changes                   shards that are being taken or given up, one task each
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Never

import structlog
import trio
from attrs import define, field

from ...errors import StoreError
from ...model import Trade
from ...store import ShardStore
from .. import wire
from .appending import LEASE_GONE, LEASE_OVER, Appending
from .attempts import Attempts
from .base import Engine, EngineFault
from .changes import FAULTS, Changes
from .counts import FeedingCounts
from .lease import Lease, Shares
from .shadow import Shadow
from .takeovers import Takeovers, venue_of
from .writing import Writing

log = structlog.get_logger()

_LOOK_S = 0.05
_HANDOVER_S = 2.0
_LOG_GONE = "the engine forgot what it had of the last epoch"
_AWAY_LONG = "the engine took nothing for so long that more waited than engine.buffer_bytes"
_BETTER_FIRST = 2
"""Lease times that a node without data leaves a free shard to others."""


async def _nothing_to_recall(shard: str) -> None:
    """Where nothing is fed that another node feeds."""


@define(eq=False)
class Feeding:
    """``holder``: this node's name, and behind a colon what makes it another one after each start.
    ``shards``: all there are.  ``refresh(venue)``: let the feed open the symbols of the shards that
    are ours now (:attr:`own`) and close others.  ``nodes()``: the names of all nodes that feed, as
    far as they are known.
    """

    holder: str
    _attempts: Attempts[Engine]
    _shards: Sequence[str]
    _store: ShardStore
    writing: Writing
    _refresh: Callable[[str], Awaitable[object]]
    _nodes: Callable[[], Collection[str]]
    _now_ms: Callable[[], float]
    tick_s: float = 0.005
    lease_s: float = 3.0
    retain_s: float = 120.0
    retain_bytes: int = 256 * 2**20
    own: set[str] = field(factory=set)
    """Shards whose symbols are fed here."""
    holders: Mapping[str, str] = field(factory=dict)
    """By shard who had its lease when that was last asked; empty: nobody."""
    counts: FeedingCounts = field(factory=FeedingCounts)
    _leases: dict[str, Lease] = field(factory=dict)
    _shares: Shares = field(init=False)
    _appending: Appending = field(init=False)
    _changes: Changes = field(init=False)
    _changing: trio.Nursery = field(init=False)
    is_worse: Callable[[str], bool] = lambda venue: False
    """Whether another node gets a venue's data and this one has had none for a while."""
    may_take: Callable[[], bool] = lambda: True
    """Whether shards are for this node at all now; what it has it keeps."""
    recall: Callable[[str], Awaitable[object]] = _nothing_to_recall
    """In hot standby: let the feed of a shard that is ours now compare what it has with what the
    owner before stored.  Raises StoreError."""
    _takeovers: Takeovers = field(init=False)
    _unfit: set[str] = field(factory=set)
    """Venues whose feeds do not have the symbols that they should."""
    _strange: set[str] = field(factory=set)
    """Shards of ours of which that was not done yet."""

    def __attrs_post_init__(self) -> None:
        self._shares = Shares(grace_s=self.lease_s / 2)
        self._changes = Changes(self.counts, self.lease_s / 3)
        self._takeovers = Takeovers(
            self._store, self.writing, self._refresh, self._now_ms, self.counts
        )
        self._appending = Appending(
            self.writing,
            self._is_sure,
            self._forget_lease,
            self._note_reached,
            self.counts,
            self.tick_s,
            self.retain_s,
            self.retain_bytes,
        )

    @property
    def problem(self) -> str:
        """Why the engine is not used now; empty: it is."""
        return self._attempts.problem or self._changes.refusals.engine

    def _is_sure(self, shard: str, now: float) -> bool:
        lease = self._leases.get(shard)
        return lease is not None and lease.is_sure(now)

    def _forget_lease(self, shard: str) -> None:
        self._leases.pop(shard, None)

    def _note_reached(self) -> None:
        if self._attempts.reached():
            log.info("engine.feeding", shards=len(self.own))

    def lease_age_s(self, now: float) -> float:
        """Of the lease that was confirmed longest ago; 0: there is none."""
        return max((now - lease.confirmed_at for lease in self._leases.values()), default=0.0)

    def owns(self, venue: str, symbol: str) -> bool:
        """Whether a symbol is fed here: those of our shards, in hot standby all."""
        if (venue, symbol) in self._takeovers.held_back:
            return False
        return self.shadow is not None or self.says(venue, symbol)

    def last_trade(self, venue: str, symbol: str) -> Trade | None:
        """See :meth:`.takeovers.Takeovers.last_trade`."""
        return self._takeovers.last_trade(venue, symbol)

    async def follow_all(self, open_feeds: Callable[[], Awaitable[None]]) -> None:
        """Open the feeds, before :meth:`run`.  In hot standby their trades begin behind those that
        clients have got by now, so that a takeover has all that follow; with an engine that does
        not answer they begin with what comes."""
        async with AsyncExitStack() as stack:
            if self.shadow is not None:
                with suppress(EngineFault, wire.BadItem):
                    engine = await stack.enter_async_context(self._attempts.open())
                    behind = self._takeovers.behind_logs(self._shards, engine)
                    await stack.enter_async_context(behind)
            await open_feeds()

    def says(self, venue: str, symbol: str) -> bool:
        """Whether what is published of a symbol goes into the log."""
        return self.writing.shard_of(venue, symbol) in self.own

    @property
    def shadow(self) -> Shadow | None:
        """In hot standby what would have been said of the shards of others."""
        return self.writing.shadow

    def fenced(self, shards: Collection[str]) -> None:
        """The database refused rows: these shards are another node's."""
        for shard in self.own.intersection(shards):
            log.warning("shard.fenced", shard=shard, by="the database")
            self.counts.changes["fenced"] += 1
            self.writing.seal(shard)
            self._leases.pop(shard, None)

    async def run(self) -> Never:
        """Until cancelled."""
        async with trio.open_nursery() as self._changing:
            await self._attempts.run(self._use)
        raise AssertionError("unreachable")

    async def _use(self, engine: Engine) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._appending.run, engine, name="appender")
            nursery.start_soon(self._appending.keep_checkpoints, engine, name="checkpoints")
            await self._keep_leases(engine)

    # Ownership

    async def _keep_leases(self, engine: Engine) -> Never:
        renewed = -self.lease_s
        while True:
            now = trio.current_time()
            if now - renewed >= self.lease_s / 3:
                renewed = now
                await self._renew(engine, now)
            for shard in [s for s in self.own if s not in self._leases]:
                self._begin_change(shard, self._lose)
            if not self._changes.is_leaving:
                for shard, owner in self.writing.owners.items():
                    if owner.needs_epoch and shard in self._leases:
                        self._begin_change(shard, self._begin_again, engine)
                for venue in list(self._unfit):
                    self._begin_change(venue, self._fit)
                for shard in self._strange & self.own:
                    self._begin_change(shard, self._recall)
                holders = self.holders = await engine.holders(self._shards)
                if not self._leases:
                    self._note_reached()  # else the next append says so
                await self._drop_unknown(engine, holders)
                plan = self._shares.plan(self.own, _names(holders), self._nodes(), now)
                if not plan.take:
                    self._changes.refusals.over()
                for shard in [s for s in plan.take if self.may_take() and self._may_take(s, now)]:
                    self._begin_change(shard, self._take, engine)
                worse = (shard for shard in self.own if self.is_worse(venue_of(shard)))
                for shard in {plan.give, *worse} - {""}:
                    self._begin_change(shard, self._give, engine)
            await trio.sleep(_LOOK_S)

    def _may_take(self, shard: str, now: float) -> bool:
        """Not while its feed closes symbols; nor, for a while, where another node does better."""
        if venue_of(shard) in self._unfit:
            return False
        patience_s = _BETTER_FIRST * self.lease_s
        return not self.is_worse(venue_of(shard)) or self._shares.is_free_for(
            shard, patience_s, now
        )

    async def _drop_unknown(self, engine: Engine, holders: Mapping[str, str]) -> None:
        """Leases that we got without hearing of it."""
        for shard, holder in holders.items():
            if holder == self.holder and shard not in self._leases.keys() | self._changes.under_way:
                await engine.drop_lease(shard, self.holder)

    def _begin_change(
        self, shard: str, change: Callable[..., Awaitable[None]], *args: object
    ) -> None:
        self._changes.begin(self._changing, shard, partial(change, shard, *args))

    async def _fit(self, venue: str) -> None:
        """Feed of a venue what is ours, and nothing else.  Raises StoreError; until it was tried
        again no shard of the venue is taken, for a symbol has to begin where the database ends."""
        self._unfit.add(venue)
        with self._changes.unless_leaving():
            await self._refresh(venue)  # in hot standby all: what a takeover closed and failed
        self._unfit.discard(venue)

    async def _recall(self, shard: str) -> None:
        with self._changes.unless_leaving():
            await self.recall(shard)
        self._strange.discard(shard)

    async def _renew(self, engine: Engine, asked: float) -> None:
        ours = dict.fromkeys(self._leases, self.holder)
        if not ours:
            return
        again: dict[str, list[str]] = {}
        for shard, kept in (await engine.renew_leases(ours, self.lease_s)).items():
            lease = self._leases.get(shard)
            if lease is None:
                continue
            why = LEASE_GONE if lease.is_sure(trio.current_time()) else LEASE_OVER
            # Free again: nobody took it, so that it is ours.
            if kept or await engine.take_lease(shard, self.holder, self.lease_s):
                lease.confirm(asked)
                self.writing.wake()
                if not kept:
                    again.setdefault(why, []).append(shard)
            else:
                log.warning("shard.lease_lost", shard=shard, why=why)
                self.counts.changes["lease_lost"] += 1
                self.writing.seal(shard)
                self._leases.pop(shard, None)  # the database may have said so meanwhile
        for why, shards in again.items():
            log.warning("lease.taken_again", shards=shards, why=why)

    async def _take(self, shard: str, engine: Engine) -> None:
        asked = trio.current_time()
        if not await engine.take_lease(shard, self.holder, self.lease_s):
            return
        self._leases[shard] = Lease(self.lease_s, asked)
        try:
            with self._changes.unless_leaving():
                owner, end = await self._takeovers.claim(shard, engine)
                if self.shadow is not None:
                    await self._takeovers.reopen(shard, end)
                    self._strange.add(shard)
                self.own.add(shard)
                if self.shadow is None:
                    await self._fit(venue_of(shard))
                await trio.lowlevel.checkpoint_if_cancelled()
                self._takeovers.start(shard, end)
                self.counts.changes["taken"] += 1
                took_s = round(trio.current_time() - asked, 3)
                log.info("shard.taken", shard=shard, epoch=owner.epoch, took_s=took_s)
                return
        except FAULTS:
            await self._not_taken(shard, engine)
            raise
        await self._not_taken(shard, engine)

    async def _not_taken(self, shard: str, engine: Engine) -> None:
        """After all: it failed, or the node leaves."""
        self.own.discard(shard)
        self.writing.end(shard)
        self._takeovers.failed(shard)
        self._unfit.add(venue_of(shard))
        if self._leases.pop(shard, None) is not None:
            await engine.drop_lease(shard, self.holder)

    async def _begin_again(self, shard: str, engine: Engine) -> None:
        """The same feed goes on in a new epoch, for the log lacks too much of this one."""
        why = _AWAY_LONG if self.writing.owners[shard].overflown else _LOG_GONE
        with self._changes.unless_leaving():
            owner, end = await self._takeovers.claim(shard, engine)
            owner.forgotten = True  # until it begins: what fails is tried again
            await self._takeovers.reopen(shard, end)
            await trio.lowlevel.checkpoint_if_cancelled()
            owner.forgotten = owner.overflown = False
            told = self._takeovers.start(shard, end)
            log.info(
                "shard.begun_again", shard=shard, epoch=owner.epoch, why=why, told_missing=told
            )
            self.counts.changes["begun_again"] += 1

    async def _lose(self, shard: str) -> None:
        """Another node has it, or will have it."""
        self.writing.end(shard)
        self.own.discard(shard)
        log.info("shard.lost", shard=shard)
        self.counts.changes["lost"] += 1
        await self._fit(venue_of(shard))

    async def _give(self, shard: str, engine: Engine) -> None:
        """Hand it over: nothing is said any more, everything that was said is kept, the lease is
        free."""
        began = trio.current_time()
        owner = self.writing.owners.get(shard)
        self.writing.seal(shard)
        self.own.discard(shard)
        self._unfit.add(venue_of(shard))  # its feed closes the symbols in its own time
        if owner is not None:
            with trio.move_on_after(_HANDOVER_S):
                while not (owner.is_empty or owner.needs_epoch) and shard in self._leases:
                    self.writing.wake()
                    await trio.sleep(self.tick_s)
            if shard in self._leases and owner.is_empty:
                await self._release(shard, owner.epoch)
        self.writing.end(shard)
        if self._leases.pop(shard, None) is not None:
            await engine.drop_lease(shard, self.holder)
        log.info("shard.given", shard=shard, took_s=round(trio.current_time() - began, 3))
        self.counts.changes["given"] += 1

    def leave(self) -> None:
        """The node is about to end: what its feeds say when they end is nobody's concern."""
        self._changes.leave()
        for shard in self.own:
            self.writing.seal(shard)

    async def _release(self, shard: str, epoch: int) -> None:
        """Where the database does not take that, the epoch ends as that of a killed node does; the
        lease has to be free all the same, for nobody feeds the shard here any more."""
        try:
            await self._store.release(shard, epoch)
        except StoreError as error:
            log.warning("shard.not_released", shard=shard, problem=str(error))

    async def drain(self) -> None:
        """Hand over everything, for the node ends, and its feeds.  While :meth:`run` runs.  What
        cannot be handed over is free when its lease runs out."""
        self.leave()
        async with trio.open_nursery() as nursery:
            for shard in self.own | self._leases.keys() | self._changes.under_way.keys():
                nursery.start_soon(self._give_up, shard)

    async def _give_up(self, shard: str) -> None:
        await self._changes.until_over(shard)
        if shard not in self.own | self._leases.keys():
            return
        try:
            async with self._attempts.open() as engine:
                await self._give(shard, engine)
        except (EngineFault, StoreError) as error:
            log.warning("shard.not_given", shard=shard, problem=str(error))


def _names(holders: Mapping[str, str]) -> dict[str, str]:
    """The nodes' names out of what holds the leases."""
    return {shard: holder.partition(":")[0] for shard, holder in holders.items()}
