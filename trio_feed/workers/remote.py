"""What a worker has in the place of store, journal, pages and spans: the parent's."""

from collections.abc import Collection, Mapping, Sequence

import trio
from attrs import define, field

from ..errors import JournalError, StoreError
from ..model import Kline, KlineMessage, PrivateMessage, Series, Settlement
from ..store import AppendResult, OtherWriters
from ..telemetry import Spans
from . import questions
from .frames import Left, Meet, Span
from .pipe import NoAnswer, Pipe

_STORE_S = 10.0
_JOURNAL_S = 15.0
_LOOK_THERE = "see the log lines of the process that started the workers"
_PAGE_S = 10.0
_PLACE_S = 5.0


@define(eq=False)
class RemoteStore:
    """A :class:`~trio_feed.store.CandleReader`.  What was published before an answer was given has
    been read off the pipe before it, so the answer is never ahead of the bus."""

    pipe: Pipe

    async def history(
        self, series: Series, *, limit: int, start_ms: int | None = None, end_ms: int | None = None
    ) -> list[Kline]:
        question = questions.HistoryQuestion(
            series.venue, series.symbol, series.interval, limit, start_ms, end_ms
        )
        return questions.candles_of(await self._ask(questions.HISTORY, question))

    async def after(
        self, series: Series, epoch: int, offset: int, *, closed_ms: int | None = None, limit: int
    ) -> list[KlineMessage] | None:
        question = questions.AfterQuestion(
            series.venue, series.symbol, series.interval, epoch, offset, closed_ms, limit
        )
        return questions.kline_messages_of(series, await self._ask(questions.AFTER, question))

    async def _ask(self, what: str, question: object) -> bytes:
        try:
            return await self.pipe.ask(what, questions.encode(question), _STORE_S)
        except (NoAnswer, OverflowError) as error:
            raise StoreError(str(error)) from None


@define(eq=False)
class RemoteJournal:
    """A :class:`~trio_feed.store.EventJournal`.  An append that got no answer in time may have been
    kept all the same; its publisher sends it again, and it counts once.

    Where other processes write it too (``shared``), the parent says so (:meth:`hear`), and this
    worker reads what is for its users; as a :class:`~trio_feed.store.OtherWriters` it says whose
    events those are."""

    pipe: Pipe
    epoch: int
    shared_epoch: int | None
    shared: bool = False
    _users: set[int] = field(factory=set)
    _everybody: bool = False
    _heard: trio.Event = field(factory=trio.Event)

    @property
    def others(self) -> OtherWriters | None:
        return self if self.shared else None

    def hear(self, users: Collection[int] | None) -> None:
        """What the parent's journal was told of the others."""
        self._users.update(users or ())
        self._everybody |= users is None
        self._heard.set()

    def look_again(self, user_id: int) -> None:
        self.hear((user_id,))

    async def news(self) -> Collection[int] | None:
        await self._heard.wait()
        users, everybody = self._users, self._everybody
        self._users, self._everybody, self._heard = set(), False, trio.Event()
        return None if everybody else users

    async def heads(self, users: Collection[int]) -> Mapping[int, int]:
        found: dict[int, int] = questions.heads_of(await self._ask(questions.HEADS, list(users)))
        return found

    async def append(self, events: Sequence[Settlement]) -> Sequence[AppendResult]:
        found: list[AppendResult] = questions.results_of(
            await self._ask(questions.APPEND, list(events))
        )
        return found

    def meet(self, user_id: int) -> None:
        self.pipe.put(Meet(user_id))

    async def head(self, user_id: int) -> int:
        return int(questions.user_of(await self._ask(questions.HEAD, user_id)))

    async def read(
        self, user_id: int, after: int, until: int, limit: int = 500
    ) -> list[PrivateMessage]:
        answer = await self._ask(questions.READ, (user_id, after, until, limit))
        found: list[PrivateMessage] = questions.messages_of(answer)
        return found

    async def _ask(self, what: str, question: object) -> bytes:
        try:
            return await self.pipe.ask(what, questions.encode(question), _JOURNAL_S)
        except (NoAnswer, OverflowError) as error:
            advice = error.advice if isinstance(error, NoAnswer) else ""
            raise JournalError(str(error), advice or _LOOK_THERE) from None


@define(eq=False)
class RemotePlaces:
    """Places of the server of one setting, which the parent gives away."""

    pipe: Pipe
    key: str

    async def take(self, group: str) -> str:
        try:
            body = questions.encode((self.key, group))
            return (await self.pipe.ask(questions.TAKE, body, _PLACE_S)).decode()
        except NoAnswer:
            return "connections"

    def leave(self, group: str) -> None:
        self.pipe.put(Left(self.key, group))


@define(eq=False)
class RemotePages:
    """The operators' pages over all workers, which the parent makes."""

    pipe: Pipe

    async def metrics(self) -> bytes:
        return await self._ask(questions.METRICS)

    async def status(self) -> str:
        return (await self._ask(questions.STATUS)).decode()

    async def _ask(self, what: str) -> bytes:
        try:
            return await self.pipe.ask(what, b"", _PAGE_S)
        except NoAnswer as error:
            raise StoreError(str(error)) from None


@define(eq=False)
class RemoteSpans(Spans):
    """The parent sends them, if anybody wants to know, with the number of this worker."""

    pipe: Pipe

    def add(
        self, name: str, took_s: float, *, error: str = "", **attributes: str | int | float | bool
    ) -> None:
        self.pipe.put(Span(name, took_s, error, attributes))
