"""The parent's side of pass-through: an exchange's answers, and WebSockets that are held for the
clients of a worker, which asks for their messages again and again."""

from collections import deque
from collections.abc import Callable, Sequence

import structlog
import trio
from attrs import define, field

from ..dialects.outside import Line, Outside
from ..environment import mono
from ..errors import ConnectionLost, NetworkError, RateLimited, TunnelError
from ..supervise import described
from .questions import DialQuestion, Lost, PassAnswer, PassQuestion

log = structlog.get_logger()

_POLL_S = 20.0
"""So long a worker's question waits for a message."""
_BATCH_BYTES = 2**20
_MESSAGE_BYTES = 2**24
_HUNG_UP = Lost("it was hung up", 1006)


async def passed_on(outside: Outside, asked: PassQuestion) -> PassAnswer:
    """The exchange's answer, or what kept it away."""
    try:
        answer = await outside.ask(asked.signed, asked.weight)
    except RateLimited as error:
        return PassAnswer("no_room", str(error), max(0.0, error.until - mono()))
    except TunnelError as error:
        return PassAnswer("not_sent", str(error))
    except NetworkError as error:
        return PassAnswer("unknown", str(error))
    return PassAnswer("answered", status=answer.status, fields=answer.fields, body=answer.body)


@define(eq=False)
class _Held:
    """One WebSocket.  ``unread`` is read before the exchange may say more."""

    line: Line | None = None
    lost: Lost | None = None
    unread: deque[str | bytes] = field(factory=deque)
    opened: trio.Event = field(factory=trio.Event)
    news: trio.Event = field(factory=trio.Event)
    room: trio.Event = field(factory=trio.Event)
    scope: trio.CancelScope = field(factory=trio.CancelScope)

    def wake(self) -> None:
        self.news.set()
        self.news = trio.Event()


@define(eq=False)
class HeldLines:
    """Of one worker, which numbers them.  They run in ``nursery`` and end with it."""

    outside: Callable[[str], Outside]
    nursery: trio.Nursery
    _held: dict[int, _Held] = field(factory=dict)
    _early: set[int] = field(factory=set)
    """Hung up before they were begun here."""

    def __len__(self) -> int:
        return len(self._held)

    async def open(self, asked: DialQuestion) -> Lost | None:
        """None: it is open, until it is hung up or lost."""
        if asked.number in self._early:
            self._early.discard(asked.number)
            return _HUNG_UP
        held = self._held[asked.number] = _Held()
        self.nursery.start_soon(self._hold, held, asked, name="line")
        await held.opened.wait()
        return held.lost

    def hang_up(self, number: int) -> None:
        """Once for each that was to be opened."""
        held = self._held.pop(number, None)
        if held is None:
            self._early.add(number)
        else:
            held.scope.cancel()

    async def receive(self, number: int) -> tuple[Sequence[str | bytes], Lost | None]:
        """The next messages, at least one; none: nothing came for a while, or it is lost."""
        held = self._held.get(number)
        if held is None:
            return (), _HUNG_UP
        with trio.move_on_after(_POLL_S):
            while not held.unread and held.lost is None:
                await held.news.wait()
        taken: list[str | bytes] = []
        size = 0
        while held.unread and size < _BATCH_BYTES:
            taken.append(held.unread.popleft())
            size += len(taken[-1])
        if not held.unread:
            held.room.set()
        return taken, None if taken else held.lost

    async def send(self, number: int, text: str, weight: int) -> Lost | None:
        held = self._held.get(number)
        if held is None or held.line is None:
            return _HUNG_UP
        try:
            await held.line.send(text, weight)
        except NetworkError as error:
            return _lost(error)
        return None

    async def _hold(self, held: _Held, asked: DialQuestion) -> None:
        lost = _HUNG_UP
        try:
            with held.scope:
                async with self.outside(asked.venue).dial(asked.url, asked.target) as held.line:
                    held.opened.set()
                    lost = await _read(held, held.line)
        except NetworkError as error:
            lost = _lost(error)
        except Exception as error:  # noqa: BLE001  a bug in one line ends no worker
            log.error("worker.question_failed", what="line", problem=described(error))
            lost = Lost("a bug of the server; its log says which", 1006)
        finally:
            held.lost = lost
            held.opened.set()
            held.wake()


async def _read(held: _Held, line: Line) -> Lost:
    while True:
        for message in await line.receive_many():
            if len(message) > _MESSAGE_BYTES:
                return Lost("a message of it is too large for a worker", 1009)
            held.unread.append(message)
        held.wake()
        while held.unread:
            held.room = trio.Event()
            await held.room.wait()


def _lost(error: NetworkError) -> Lost:
    if isinstance(error, ConnectionLost):
        return Lost(str(error), error.code, error.reason)
    return Lost(str(error))
