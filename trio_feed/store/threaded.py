"""A backend whose rows are read and written by blocking code: which thread does what.

One writer, several readers, so that a slow question holds up no other one.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Generic, Protocol, TypeVar

import trio

from ..model import Kline, KlineMessage, Series
from .base import End, Revision

T = TypeVar("T")


class BlockingReader(Protocol):
    """The questions of :class:`.backend.Backend`; one thread at a time."""

    def history(
        self, series: Series, limit: int, start_ms: int | None, end_ms: int | None
    ) -> list[Kline]: ...

    def ends(self, venue: str | None, symbols: Collection[str] | None) -> dict[Series, End]: ...

    def first_open(self, series: Series) -> int | None: ...

    def cursor(self, name: str) -> str | None: ...

    def after(
        self,
        series: Series,
        epoch: int,
        offset: int,
        closed_ms: int | None,
        limit: int,
        *,
        exact: bool,
    ) -> list[KlineMessage] | None: ...

    def revisions(
        self, series: Series, start_ms: int, end_ms: int | None, limit: int
    ) -> list[Revision]: ...


R = TypeVar("R", bound=BlockingReader)


class ThreadedBackend(Generic[R]):
    """What all such backends have of :class:`.backend.Backend`.  ``translated`` is entered around
    everything in a thread: it makes StoreFault of the errors of the library below."""

    def __init__(
        self, readers: Sequence[R], translated: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self.readers = list(readers)
        self._idle = list(readers)
        self._reading = trio.CapacityLimiter(len(readers))
        self._writing = trio.CapacityLimiter(1)
        self._translated = translated

    async def history(
        self, series: Series, *, limit: int, start_ms: int | None, end_ms: int | None
    ) -> list[Kline]:
        return await self._ask(lambda reader: reader.history(series, limit, start_ms, end_ms))

    async def ends(self, venue: str | None, symbols: Collection[str] | None) -> dict[Series, End]:
        return await self._ask(lambda reader: reader.ends(venue, symbols))

    async def first_open(self, series: Series) -> int | None:
        return await self._ask(lambda reader: reader.first_open(series))

    async def cursor(self, name: str) -> str | None:
        return await self._ask(lambda reader: reader.cursor(name))

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
        return await self._ask(
            lambda reader: reader.after(series, epoch, offset, closed_ms, limit, exact=exact)
        )

    async def revisions(
        self, series: Series, *, start_ms: int, end_ms: int | None, limit: int
    ) -> list[Revision]:
        return await self._ask(lambda reader: reader.revisions(series, start_ms, end_ms, limit))

    async def _ask(self, question: Callable[[R], T]) -> T:
        def ask() -> T:
            # There are as many places in the limiter as readers, so one is idle.
            reader = self._idle.pop()
            try:
                return question(reader)
            finally:
                self._idle.append(reader)

        with self._translated():
            return await trio.to_thread.run_sync(ask, limiter=self._reading)

    async def _in_writer(self, work: Callable[[], T]) -> T:
        with self._translated():
            return await trio.to_thread.run_sync(work, limiter=self._writing)
