"""What a worker has in the place of the way to an exchange: the parent's."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count

from attrs import define, field, frozen

from ..dialects.outside import Answered, Line, Signed
from ..environment import mono
from ..errors import ConnectionLost, HostUnreachable, NetworkError, RateLimited, RestError
from ..instants import Mono
from . import questions
from .frames import HangUp
from .pipe import NoAnswer, Pipe
from .questions import DialQuestion, Lost, PassQuestion

_ASK_S = 90.0
"""Longer than the parent's own deadlines take together."""
_LINE_S = 60.0


@define(eq=False)
class RemoteLines:
    """All ways out of a worker: they number the WebSockets that the parent holds for them."""

    pipe: Pipe
    _numbers: "count[int]" = field(factory=lambda: count(1))

    def outside(self, venue: str) -> "RemoteOutside":
        return RemoteOutside(self, venue)

    @asynccontextmanager
    async def dial(self, venue: str, url: str, target: str) -> AsyncIterator[Line]:
        number = next(self._numbers)
        try:
            question = questions.encode(DialQuestion(number, venue, url, target))
            try:
                # It takes no turn, as nothing about lines does: they are bounded, and wait long.
                body = await self.pipe.ask(questions.DIAL, question, _LINE_S, in_turn=False)
            except NoAnswer as error:
                raise HostUnreachable(str(error)) from None
            lost = questions.lost_of(body)
            if lost is not None:
                raise _error(lost)
            yield _RemoteLine(self.pipe, number)
        finally:
            self.pipe.put(HangUp(number))


@frozen
class RemoteOutside:
    """See :class:`.dialects.outside.Outside`."""

    lines: RemoteLines
    venue: str

    async def ask(self, signed: Signed, weight: int) -> Answered:
        question = questions.encode(PassQuestion(self.venue, weight, signed))
        try:
            body = await self.lines.pipe.ask(questions.PASS, question, _ASK_S)
        except NoAnswer as error:  # it may have been sent
            raise RestError(str(error)) from None
        answer = questions.passed_of(body)
        match answer.kind:
            case "no_room":
                raise RateLimited(answer.problem, Mono(mono() + answer.after_s))
            case "not_sent":
                raise HostUnreachable(answer.problem)
            case "unknown":
                raise RestError(answer.problem)
        return Answered(answer.status, answer.fields, answer.body)

    def dial(self, url: str, target: str) -> AbstractAsyncContextManager[Line]:
        return self.lines.dial(self.venue, url, target)


@frozen
class _RemoteLine:
    """See :class:`.dialects.outside.Line`."""

    pipe: Pipe
    number: int

    async def receive_many(self) -> Sequence[str | bytes]:
        while True:
            found, lost = questions.received_of(
                await self._ask(questions.RECEIVE, questions.encode(self.number))
            )
            if lost is not None:
                raise _error(lost)
            if found:
                return list(found)

    async def send(self, text: str, weight: int = 0) -> None:
        body = await self._ask(questions.SEND, questions.encode((self.number, text, weight)))
        lost = questions.lost_of(body)
        if lost is not None:
            raise _error(lost)

    async def _ask(self, what: str, question: bytes) -> bytes:
        try:
            return await self.pipe.ask(what, question, _LINE_S, in_turn=False)
        except NoAnswer as error:
            raise ConnectionLost(str(error)) from None


def _error(lost: Lost) -> NetworkError:
    if lost.code:
        return ConnectionLost(lost.problem, lost.code, lost.reason)
    return HostUnreachable(lost.problem)
