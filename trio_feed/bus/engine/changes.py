"""Shards that are being taken or given up: one change of each at a time; others do not wait.

What concerns feeds is broken off when the node leaves, for they end.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import structlog
import trio
from attrs import define, field

from ...errors import StoreError
from .. import wire
from .attempts import Refusals
from .base import EngineFault
from .counts import FeedingCounts

log = structlog.get_logger()

FAULTS = (StoreError, EngineFault, wire.BadItem)
"""What a change may fail with."""


@define(eq=False)
class Changes:
    """``again_s``: so long after one failed the next change of that shard is made."""

    _counts: FeedingCounts
    _again_s: float
    refusals: Refusals = field(factory=Refusals)
    under_way: dict[str, trio.Event] = field(factory=dict)
    """By name what says that it is over."""
    _opening: set[trio.CancelScope] = field(factory=set)
    is_leaving: bool = False
    """The node is about to end."""

    def begin(
        self, nursery: trio.Nursery, name: str, change: Callable[[], Awaitable[None]]
    ) -> None:
        """``name``: of a shard, or of a venue whose feed opens and closes symbols.  Nothing, while
        another change of it is under way."""
        if name in self.under_way:
            return
        self.under_way[name] = trio.Event()
        nursery.start_soon(self._make, name, change, name=f"change of {name}")

    async def _make(self, name: str, change: Callable[[], Awaitable[None]]) -> None:
        try:
            await change()
        except FAULTS as error:
            if self.refusals.note(error, trio.current_time()):
                log.warning("shard.not_changed", shard=name, problem=str(error))
            self._counts.changes["not_changed"] += 1
            with self.unless_leaving():
                await trio.sleep(self._again_s)
        finally:
            self.under_way.pop(name).set()

    async def until_over(self, name: str) -> None:
        """Until no change of it is under way."""
        while (over := self.under_way.get(name)) is not None:
            await over.wait()

    @contextmanager
    def unless_leaving(self) -> Iterator[None]:
        """The block is cancelled by :meth:`leave`, and where that was before."""
        with trio.CancelScope() as scope:
            if self.is_leaving:
                scope.cancel()
            self._opening.add(scope)
            try:
                yield
            finally:
                self._opening.discard(scope)

    def leave(self) -> None:
        self.is_leaving = True
        for scope in self._opening:
            scope.cancel()
