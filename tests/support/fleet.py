"""Workers in the process of the test: each a task, over memory streams, at a host of its own."""

import errno
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import trio
import trio.testing
from attrs import define, evolve, field

from trio_feed.environment import Environment
from trio_feed.workers import frames
from trio_feed.workers.processes import Bind
from trio_feed.workers.worker import run_worker

from .memory import MemoryNetwork


@define(eq=False)
class Spawned:
    stream: trio.abc.Stream
    pid: int
    binds: list[tuple[str, int, list[int]]]
    theirs: Any
    gone: trio.Event = field(factory=trio.Event)
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    problem: str = "killed"

    async def ended(self) -> str:
        await self.gone.wait()
        return self.problem


@define(eq=False)
class MemoryFleet:
    """The worker ``n`` serves at ``<host>-<n>``."""

    network: MemoryNetwork
    environment: Environment
    binds: list[Bind] = field(factory=list)
    bare: bool = False
    """Nobody is at the other end: the test is the worker, with ``theirs``."""
    refuses: int = 0
    """So many starts fail."""
    killed: int = 0
    """So many workers are killed while they load their program."""
    running: dict[int, Spawned] = field(factory=dict)
    started: int = 0

    @contextmanager
    def opened(self) -> Iterator["MemoryFleet"]:
        yield self

    async def open(self, host: str, port: int) -> str:
        await trio.lowlevel.checkpoint()
        self.binds.append((host, port))
        return f"{host}:{port}"

    @asynccontextmanager
    async def start(self, worker: int) -> AsyncIterator[Spawned]:
        if self.refuses:
            self.refuses -= 1
            raise OSError(errno.EAGAIN, "no process is left")
        ours, theirs = trio.testing.memory_stream_pair()
        self.started += 1
        binds = [(host, port, list[int]()) for host, port in self.binds]
        spawned = Spawned(ours, 1000 + self.started, binds, theirs)
        self.running[worker] = spawned
        if self.killed:
            self.killed -= 1
            spawned.scope.cancel()

        def environment(_hello: frames.Hello, _put: Callable[[Any], None]) -> Environment:
            async def listen(host: str, port: int) -> Any:
                return await self.network.listen(f"{host}-{worker}", port)

            return evolve(self.environment, listen=listen)

        async def run() -> None:
            try:
                with spawned.scope:
                    spawned.problem = await run_worker(theirs, environment)
            finally:
                spawned.gone.set()
                await trio.aclose_forcefully(theirs)

        async with trio.open_nursery() as nursery:
            if not self.bare:
                nursery.start_soon(run, name=f"worker {worker}")
            yield spawned
            await trio.aclose_forcefully(ours)
            with trio.move_on_after(2):
                await spawned.gone.wait()
            nursery.cancel_scope.cancel()

    def kill(self, worker: int) -> None:
        """At once, in the middle of whatever it does."""
        self.running[worker].scope.cancel()
