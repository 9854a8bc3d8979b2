"""The engine as a task uses it: tried again after each fault, with the reason of the last one."""

import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, Never, TypeVar

import structlog
import trio
from attrs import define, field

from ...errors import NetworkError
from ...store.pending import Complaint
from ...supervise import Backoff, supervise
from .. import wire
from .base import EngineFault, LogReader

log = structlog.get_logger()

_Way = TypeVar("_Way", bound=LogReader, covariant=True)

_NOT_YET = "it was not reached yet"
_RETRY_MIN_S, _RETRY_MAX_S = 0.1, 2.0
_LASTED_S = 10.0
"""What fails after so long is another failure, also for the same reason."""


class EngineLost(NetworkError):
    """The engine gave no answer, or what this node cannot read; it is tried again."""


@define(eq=False)
class Attempts(Generic[_Way]):
    """``open()``: a way to the engine, opened and closed by who calls it; raises EngineFault.
    ``problem``: why the engine is not used now; empty: it is."""

    open: Callable[[], AbstractAsyncContextManager[_Way]]
    _chance: random.Random
    problem: str = _NOT_YET
    _complaint: Complaint = field(factory=Complaint)
    _told: bool = True
    """That it is used again has not been said since that it is not."""

    def reached(self) -> bool:
        """It has answered; whether that is to be told.  Some of what is asked may be answered while
        something else is refused, again and again."""
        told, self._told, self.problem = self._told, False, ""
        return told

    async def run(self, use: Callable[[_Way], Awaitable[None]]) -> Never:
        """``use`` it, with a fresh client after each fault.  Until cancelled."""
        backoff = Backoff(_RETRY_MIN_S, _RETRY_MAX_S)

        async def attempt() -> None:
            began = trio.current_time()
            try:
                await self._attempt(use)
            finally:
                lasted_s = trio.current_time() - began
                backoff.succeeded(lasted_s)
                if lasted_s >= _LASTED_S:
                    self._complaint.over()

        await supervise(attempt, backoff=backoff, chance=self._chance, on_lost=self._note_lost)

    async def _attempt(self, use: Callable[[_Way], Awaitable[None]]) -> None:
        lost: EngineLost | None = None
        try:
            async with self.open() as engine:
                await use(engine)
        except* EngineFault as group:
            lost = EngineLost(str(_first(group)))
        except* wire.BadItem as group:
            lost = EngineLost(f"the log cannot be read: {_first(group)}")
        if lost is not None:
            raise lost

    def _note_lost(self, error: NetworkError, delay_s: float) -> None:
        is_new = self.problem in ("", _NOT_YET)
        self.problem = str(error)
        if is_new and self._complaint.is_news(self.problem, trio.current_time()):
            log.warning("engine.lost", problem=self.problem, again_s=round(delay_s, 1))
            self._told = True


@define
class Refusals:
    """Why shards cannot be taken or given up now: told once, for a node tries them all, again and
    again.  ``engine``: what the engine said, which may answer questions and take nothing (a full
    disk, too few replicas); empty: it was not that."""

    engine: str = ""
    _complaint: Complaint = field(factory=Complaint)

    def note(self, error: Exception, now: float) -> bool:
        """Whether it is to be told; ``now`` in seconds."""
        if isinstance(error, EngineFault):
            self.engine = str(error)
        return self._complaint.is_news(str(error), now)

    def over(self) -> None:
        self.engine = ""
        self._complaint.over()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
