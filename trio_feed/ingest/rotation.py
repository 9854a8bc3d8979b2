"""A lane of a plan kept alive: one connection, and for a moment two, so that no message falls in
between.

Exchanges cut every connection after 24 hours, and some announce that they will close one soon; a
connection with a dead stream is to be replaced as well.  Before the old one goes a successor is
opened, subscribed, and has delivered data.  Meanwhile both deliver: candles, trades and books all
know what they have seen already, and :mod:`.firsts` knows the rest, so whatever comes twice counts
once.  With redundancy a plan has two lanes, each rotated by itself; ``turn`` keeps them from
changing at the same time.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Never, Protocol

import structlog
import trio
from attrs import define, field, frozen

from ..environment import mono
from ..telemetry import Spans
from .connection import ConnectionState

_JITTER = 0.05
"""Ages differ by this share, so that connections that were opened together do not go together."""


class Supervised(Protocol):
    """What a generation runs: ``state`` for the status page; ``run`` restarts by itself for
    ever."""

    state: ConnectionState

    async def run(self) -> None: ...


@frozen
class Rotation:
    """When a lane changes.  A successor that has not delivered within ``settle_s`` does not replace
    anything yet.  ``turn`` is held during a change, but not for longer than that, so that the
    connections of a venue change one at a time.  ``chance`` gives 0 to 1."""

    max_age_s: float
    settle_s: float
    turn: trio.Lock
    chance: Callable[[], float]


@define(eq=False)
class Generation:
    """A connection and what the rotation needs to know of it."""

    runs: Supervised = field(init=False)
    delivered: trio.Event = field(factory=trio.Event)
    leaving: trio.Event = field(factory=trio.Event)
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    why: str = "age"

    def leave(self, why: str) -> None:
        """It is to be replaced before its time."""
        if not self.leaving.is_set():
            self.why = why
            self.leaving.set()

    async def run(self) -> None:
        with self.scope:
            await self.runs.run()


Make = Callable[[Generation], Supervised]


async def keep(
    make: Make,
    rotation: Rotation,
    *,
    retired: Callable[[ConnectionState], None],
    log: Any = None,
    spans: Spans | None = None,
) -> Never:
    """Run one generation after the other, for ever.

    ``make`` gives what a generation runs; that sets ``delivered`` with its first data and calls
    ``leave`` when it is to be replaced before its time.  ``retired`` gets what was replaced.
    """
    log, spans = log or structlog.get_logger(), spans or Spans()
    async with trio.open_nursery() as nursery:
        current = _start(nursery, make)
        while True:
            age_s = rotation.max_age_s * (1 - _JITTER * rotation.chance())
            with trio.move_on_after(age_s):
                await current.leaving.wait()
            async with rotation.turn:
                began = mono()
                successor = _start(nursery, make)
                old, new = current.runs.state.id, successor.runs.state.id
                why = current.why
                log.info("connection.rotating", connection=old, successor=new, reason=why)
                await _wait(successor.delivered.wait, rotation.settle_s)
            if not successor.delivered.is_set():
                log.warning("connection.rotation_slow", connection=old, successor=new)
                await successor.delivered.wait()
            spans.add("rotation", mono() - began, why=why, connection=old, successor=new)
            current.scope.cancel()
            retired(current.runs.state)
            log.info("connection.rotated", connection=old, successor=new)
            current = successor
    raise AssertionError("a lane is kept until cancelled")


def _start(nursery: trio.Nursery, make: Make) -> Generation:
    generation = Generation()
    generation.runs = make(generation)
    nursery.start_soon(generation.run, name=f"connection {generation.runs.state.id}")
    return generation


async def _wait(event: Callable[[], Awaitable[None]], seconds: float) -> None:
    with trio.move_on_after(seconds):
        await event()
