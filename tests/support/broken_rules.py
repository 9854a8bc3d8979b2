"""Rules of the engine, each switched off: what a simulation of several nodes has to notice."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from trio_feed.bus import remote_stream
from trio_feed.bus.engine.base import EngineFault
from trio_feed.bus.engine.following import Following
from trio_feed.bus.engine.reading import Reading
from trio_feed.bus.engine.takeovers import Takeovers
from trio_feed.bus.engine.writing import Writing
from trio_feed.bus.follower import Guard
from trio_feed.bus.remote import RemoteBus
from trio_feed.bus.wire import Flags
from trio_feed.cluster.caught_up import CaughtUp
from trio_feed.model import Series
from trio_feed.store import MemoryDatabase

Patch = pytest.MonkeyPatch
Break = Callable[[Patch], None]


def guard(patch: Patch) -> None:
    """A closed candle is handed out whenever it comes."""

    def take(self: Guard, item: Any, _now: float) -> list[Any]:
        self.number = item.epoch, item.offset
        return [item]

    patch.setattr(Guard, "take", take)


def repair(patch: Patch) -> None:
    """What a node missed is not asked of the store."""

    async def nothing(_self: Following, _stream: Any) -> list[Any]:
        return []

    patch.setattr(Following, "_missing_of", nothing)


def checkpoint(patch: Patch) -> None:
    """A reader passes over the checkpoint that opens an epoch."""
    compare = RemoteBus._compare

    def ignore(self: RemoteBus, item: Any) -> None:
        if not (item.opening and self.streams):
            compare(self, item)

    patch.setattr(RemoteBus, "_compare", ignore)


def jump(patch: Patch) -> None:
    """A reader reads on where the sequence jumps."""
    patch.setattr(Reading, "_follows", lambda self, entry: self.is_begun or entry.checkpoint)


def lost(patch: Patch) -> None:
    """What a takeover may have lost of trades is not told."""
    start = Writing.start

    def silent(self: Writing, shard: str, *args: Any) -> Any:
        found, owner = start(self, shard, *args), self.owners[shard]
        opening = owner._items[0]
        assert isinstance(opening, msgspec.Struct), "the opening checkpoint"
        owner._items[0] = msgspec.structs.replace(opening, lost=[])  # type: ignore[assignment]
        return found

    patch.setattr(Writing, "start", silent)


def no_answer_at_the_start(patch: Patch) -> None:
    """No rule: an engine that does not answer who begins, whose trades begin with what comes."""

    @asynccontextmanager
    async def silent(*_args: Any) -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        raise EngineFault("no answer")
        yield

    patch.setattr(Takeovers, "behind_logs", silent)


def epoch(patch: Patch) -> None:
    """Who takes a shard over counts in the epoch of who had it."""
    patch.setattr(MemoryDatabase, "begin_epoch", lambda _self, _now_ms: 7)


def once(patch: Patch) -> None:
    """A candle that was there is handed out again."""

    def passed(self: Guard, item: Any) -> list[Any]:
        self.number = max(self.number, (item.epoch, item.offset))
        if item.flags & Flags.CLOSED and not item.flags & Flags.REVISION:
            self.closed_ms = max(self.closed_ms or 0, item.open_ms)
        return [item]

    patch.setattr(Guard, "_pass", passed)


def caught_up(patch: Patch) -> None:
    """A node answers out of a database that lacks what it has handed out."""

    async def after(self: CaughtUp, series: Series, *number: int, **more: Any) -> Any:
        return await self._store.after(series, *number, **more)

    patch.setattr(CaughtUp, "after", after)


def torn(patch: Patch) -> None:
    """What was lost of trades is resumed over."""
    patch.setattr(remote_stream, "is_torn", lambda _status: False)
