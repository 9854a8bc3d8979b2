"""How the service ends: by a signal, from the first moment of its start on, or by a bug."""

import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import structlog
import trio
from attrs import define, field

from .environment import Environment
from .notify import STOPPING
from .push.app import PushApp
from .supervise import HelperNursery, described, root_cause
from .workers.front import Front

log = structlog.get_logger()

_FAREWELL_S = 1.0
_DRAIN_S = 3.0
"""Workers say goodbye to their clients and end within it, or are ended."""
_CLIENT_RETURN_MS = (500, 5_000)
"""Clients are asked to come back after a time between these two, so that not all come at once."""
_SHUTDOWN_SIGNALS = [
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGBREAK") if hasattr(signal, name)
]
"""SIGBREAK is Ctrl-Break of Windows."""
_RELOAD_SIGNAL = getattr(signal, "SIGHUP", None)
"""None on Windows: settings are read at the start only."""


@define
class Ending:
    """The end of the service, the same after a signal and after a bug.  ``app`` is None until the
    service is up: what ends it before is told to who started it, and there are no clients.
    Made by :func:`until_a_signal`; who starts the service fills it in."""

    environment: Environment
    timeout_s: float
    start: trio.CancelScope
    """Of everything; a signal cancels it while there are no feeds."""
    hung_up: trio.Event = field(factory=trio.Event)
    """A SIGHUP came; who has heard of it puts another one in its place."""
    draining: trio.Event = field(factory=trio.Event)
    app: PushApp | None = None
    front: Front | None = None
    servers: trio.CancelScope | None = None
    feeds: trio.CancelScope | None = None
    leave: Sequence[Callable[[], None]] = ()
    """Called before the feeds end."""

    async def on_signals(self) -> None:
        """First signal: the feeds end and everything else follows in time; a start ends as it is.
        Second: at once."""
        stopping = False
        with self.environment.signals(*_SHUTDOWN_SIGNALS) as signals:
            async for number in signals:
                if stopping:
                    os._exit(128 + number)
                stopping = True
                log.info("service.stopping", signal=signal.Signals(number).name)
                self.environment.manager.tell(STOPPING)
                if self.servers is None or self.feeds is None:
                    self.start.cancel()
                    continue
                self.servers.deadline = trio.current_time() + self.timeout_s
                for each in self.leave:
                    each()
                self.feeds.cancel()

    async def on_hangups(self) -> None:
        """From the first moment on: else one that comes during the start ends the process, and for
        a service manager in order."""
        assert _RELOAD_SIGNAL is not None, "there is such a signal"
        with self.environment.signals(_RELOAD_SIGNAL) as signals:
            async for _ in signals:
                self.hung_up.set()

    def send_away(self) -> None:
        """Ask the clients to come back, those of workers too.  Before the feeds end: what these
        give up then is no lost connection that anybody should hear of."""
        self.draining.set()
        if self.app is not None:
            self.app.disconnect_all(partial(self.environment.random.randint, *_CLIENT_RETURN_MS))
        if self.front is not None:
            self.front.begin_drain()

    async def say_goodbye(self) -> None:
        """Wait for a moment until the clients have gone, which have been asked to by then."""
        self.send_away()
        if self.app is not None:
            with trio.move_on_after(_FAREWELL_S):
                await self.app.wait_empty()
        if self.front is not None:
            with trio.move_on_after(min(_DRAIN_S, self.timeout_s / 2)):
                await self.front.drain()

    @asynccontextmanager
    async def in_order(self, servers: trio.CancelScope) -> AsyncIterator[None]:
        """Around all that may fail, within the servers: a bug comes out after the goodbye."""
        try:
            yield
        except Exception as error:
            if self.app is not None:
                log.error("service.stopping", problem=described(root_cause(error)))
                self.environment.manager.tell(STOPPING)
                servers.deadline = trio.current_time() + self.timeout_s
                await self.say_goodbye()
            raise

    @asynccontextmanager
    async def last_line(self) -> AsyncIterator[None]:
        """The last line of the log says how it ended."""
        try:
            yield
        except Exception as error:
            if self.app is not None:
                log.error("service.failed", problem=described(root_cause(error)))
            raise
        log.info("service.stopped")


@asynccontextmanager
async def until_a_signal(
    environment: Environment, timeout_s: float, *, reloads: bool
) -> AsyncIterator[Ending]:
    """Around the whole service: signals are heard while the block runs.  ``reloads``: SIGHUP is,
    too."""
    with trio.CancelScope() as start:
        async with HelperNursery() as watch:
            ending = Ending(environment, timeout_s, start)
            watch.start_soon(ending.on_signals, name="signals")
            if reloads and _RELOAD_SIGNAL is not None:
                watch.start_soon(ending.on_hangups, name="SIGHUP")
            yield ending
    if start.cancelled_caught:
        log.info("service.stopped")
