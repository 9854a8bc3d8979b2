"""What :class:`trio_feed.store.buffered.BufferedStore` wants of a database."""

from collections.abc import Collection, Sequence
from typing import Protocol

from ..errors import StoreError
from ..model import Kline, KlineMessage, Series
from .base import End, Entry, Keep, Revision, Sizes


class Backend(Protocol):
    """Rows on a disk.  Everything raises StoreFault and changes nothing then.

    ``write``, ``prune``, ``shrink`` and ``close`` come one after another, questions at any time
    beside them.  No question may take long or make another one wait: a backend bounds its own.
    """

    epoch: int

    @property
    def place(self) -> str:
        """Where it is, for the log; no secret in it."""

    async def write(self, batch: Sequence[Entry]) -> None:
        """Keep all of it, in order, in one transaction, ends of series included."""

    async def history(
        self, series: Series, *, limit: int, start_ms: int | None, end_ms: int | None
    ) -> list[Kline]:
        """See :meth:`trio_feed.store.base.KlineStore.history`."""

    async def ends(self, venue: str | None, symbols: Collection[str] | None) -> dict[Series, End]:
        """Both ends of series, ``kline`` included, from a table of their own."""

    async def first_open(self, series: Series) -> int | None:
        """See :meth:`trio_feed.store.base.KlineStore.first_open`."""

    async def cursor(self, name: str) -> str | None:
        """See :meth:`trio_feed.store.base.KlineStore.cursor`."""

    async def after(
        self,
        series: Series,
        epoch: int,
        offset: int,
        *,
        closed_ms: int | None,
        limit: int,
        exact: bool,
    ) -> list[KlineMessage] | None:
        """See :meth:`trio_feed.store.base.KlineStore.after`.  ``exact``: everything up to that
        number is here or still unwritten."""

    async def revisions(
        self, series: Series, *, start_ms: int, end_ms: int | None, limit: int
    ) -> list[Revision]:
        """See :meth:`trio_feed.store.base.KlineStore.revisions`."""

    async def prune(self, keep: Keep, wall_ms: float, limit: int) -> int:
        """Delete at most ``limit`` candles that are too old (see
        :func:`trio_feed.store.base.boundaries`), the oldest of a series first, never its last one;
        with their revisions and holes.  Returns how many."""

    async def shrink(self) -> bool:
        """Give a part of what is free back to the disk; whether there is more."""

    async def sizes(self) -> Sizes:
        """What it takes now."""

    async def close(self, *, complete: bool) -> None:
        """``complete``: nothing was left unwritten, and that is kept."""


class StoreFault(StoreError):
    """A backend could not do it now: ``str()`` is the problem, ``advice`` what to do about it."""

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(problem)
        self.advice = advice
