"""One worker as the parent sees it, and what starts workers and feeds them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import trio
from attrs import define, field, frozen

from ..bus.base import Reader
from ..bus.engine.base import LogReader
from ..metrics import Metrics
from ..model import Instrument
from ..store import Journal, KlineStore
from ..wiring import UpstreamView
from .lines import HeldLines
from .pipe import Pipe


class Spawned(Protocol):
    """A worker that was started.  ``binds``: see :class:`.frames.Hello`."""

    @property
    def stream(self) -> trio.abc.Stream: ...

    @property
    def pid(self) -> int: ...

    @property
    def binds(self) -> list[tuple[str, int, list[int]]]: ...

    async def ended(self) -> str:
        """Wait until it is gone; how, for the log."""


class Fleet(Protocol):
    """Starts workers."""

    def start(self, worker: int) -> AbstractAsyncContextManager[Spawned]:
        """One worker; at the end of the block it is gone, however it felt about that."""


@frozen
class Sources:
    """What the workers are fed and answered from.  ``bus`` None: they read ``log``, through
    the parent."""

    bus: Reader | None
    store: KlineStore
    journal: Journal
    view: UpstreamView
    venues: Callable[[], Sequence[str]]
    metrics: Metrics
    log: LogReader | None = None


@define(eq=False)
class Link:
    """One worker of now.  ``opened``: its streams, until it knows all (``whole``)."""

    worker: int
    pid: int
    pipe: Pipe
    lines: HeldLines
    opened: set[int] = field(factory=set)
    whole: bool = False
    ready: trio.Event = field(factory=trio.Event)
    problem: str = ""
    silent: int = 0
    gauges: tuple[float, float, float, float, float] = (0.0,) * 5
    memory_bytes: float = 0.0
    cpu_s: float = 0.0
    listings: dict[str, Sequence[Instrument]] = field(factory=dict)
    """As it was told last."""
    listed: dict[str, frozenset[str]] = field(factory=dict)
    """The symbols of them."""
    wanted: dict[tuple[str, str], int] = field(factory=dict)
    """Subscriptions of its clients by venue and symbol, where that is on demand."""

    def changed(self, listings: Mapping[str, Sequence[Instrument]]) -> dict[str, list[Instrument]]:
        """Those that it does not know so; it does from now on."""
        found = {
            venue: [*listed]
            for venue, listed in listings.items()
            if listed != self.listings.get(venue)
        }
        self.listings.update(listings)  # the same objects are quickly compared next time
        for venue, listed in found.items():
            self.listed[venue] = frozenset(each.symbol for each in listed)
        return found
