"""What a worker has in the place of store, journal and feeds: questions to the parent."""

from collections.abc import Iterator, Mapping, Sequence

from attrs import define, field

from ..errors import JournalError, StoreError
from ..model import Instrument, Kline, KlineMessage, PrivateMessage, Series, Settlement
from ..push.edge.routes import ServiceReport
from ..store import AppendResult
from ..venues import Instruments
from . import questions
from .frames import Left, Meet, View
from .pipe import NoAnswer, Pipe

_STORE_S = 10.0
_JOURNAL_S = 15.0
_PAGE_S = 10.0
_PLACE_S = 5.0


class Listed(Instruments):
    """All of them are fed."""

    def fed(self) -> Iterator[Instrument]:
        return iter(self)


_NOTHING = Listed()


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
    kept all the same; its publisher sends it again, and it counts once."""

    pipe: Pipe
    epoch: int
    shared_epoch: int | None

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
            raise JournalError(str(error)) from None


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
class KnownFeeds:
    """How the feeds stand, as the parent said last."""

    not_ready: str = "the worker has just begun"
    clock: str = ""
    why: Mapping[str, str] = field(factory=dict)
    listings: dict[str, Listed] = field(factory=dict)

    def take(self, view: View) -> None:
        self.not_ready, self.clock, self.why = view.not_ready, view.clock, view.why_not
        for venue, listed in view.listings.items():
            self.listings[venue] = Listed(listed)

    def why_not(self, venue: str) -> str:
        return self.why.get(venue, "")

    def listing(self, venue: str) -> Listed:
        return self.listings.get(venue, _NOTHING)

    @property
    def report(self) -> ServiceReport:
        return ServiceReport(dict, lambda: self.not_ready, lambda: self.clock)
