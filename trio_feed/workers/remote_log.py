"""What a worker of a node has in the place of the engine: the parent reads the logs for it.

Everything else is as at any node that serves: what is missing is repaired from the store, and a
fault is tried again.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import trio
from attrs import frozen

from ..bus.engine.attempts import Attempts
from ..bus.engine.base import EngineFault, Entry, EntryId, LogReader
from ..bus.engine.following import Following, bus_of_log
from ..cluster.shards import all_shards
from ..environment import Environment
from ..settings import Settings
from . import questions
from .pipe import NoAnswer, Pipe
from .remote import RemoteStore

_ANSWER_S = 10.0
"""Longer than the parent waits for the engine."""


def make_following(pipe: Pipe, settings: Settings, environment: Environment) -> Following:
    """The logs of all shards, to be run by the caller."""

    @asynccontextmanager
    async def way() -> AsyncIterator[LogReader]:
        await trio.lowlevel.checkpoint()
        yield RemoteLog(pipe)

    make_bus = partial(bus_of_log, settings.kline)
    attempts = Attempts(way, environment.random)
    return Following(attempts, all_shards(settings), RemoteStore(pipe), make_bus)


@frozen
class RemoteLog:
    """A :class:`~trio_feed.bus.engine.base.LogReader`: the parent's
    :class:`~trio_feed.bus.engine.shared.SharedLog`."""

    pipe: Pipe

    async def read(
        self, after: Mapping[str, EntryId], *, wait_s: float, limit: int
    ) -> dict[str, list[Entry]]:
        question = questions.LogQuestion(after, wait_s, limit)
        body = await self._ask(questions.LOG, questions.encode(question), wait_s)
        found: dict[str, list[Entry]] = questions.logs_of(body)
        return found

    async def since_checkpoint(self, shard: str) -> list[Entry]:
        body = await self._ask(questions.CHECKPOINT, questions.encode(shard))
        found: list[Entry] = questions.entries_of(body)
        return found

    async def _ask(self, what: str, question: bytes, wait_s: float = 0.0) -> bytes:
        try:  # one at a time, which takes no turn from others
            return await self.pipe.ask(what, question, wait_s + _ANSWER_S, in_turn=False)
        except NoAnswer as error:
            raise EngineFault(str(error)) from None
