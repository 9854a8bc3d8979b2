"""Symbols on demand: from what a client asks for to whom that is fed by.

A :class:`Desk` serves a client's request by a synchronous function.  Where that looks up a symbol
that has to be asked for first, the look-up raises :class:`Lacking`; the desk asks the
:class:`Demand` and calls the function again.  So a look-up need not wait, and what
is fed already costs one call.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import trio
from attrs import define, evolve, field

from ..model import Interval
from ..model.demand import Granted, Refused, Wish
from .edge.turns import Asker
from .edge.work import Busy
from .fanout.hub import Hub
from .fanout.topics import Topic
from .protocol import RequestError, Target

T = TypeVar("T")

_MOST_ROUNDS = 64
_AT_ONCE = 64
_PATIENT_S = 4.0
"""So long a request that is answered once waits for all that it lacks.  HTTP clients give up after
5 s (httpx) or 10 s (ccxt, python-binance); an error that says when to ask again comes before."""
_LOOK_S = 0.05
_UNASKED = Refused("too_many", "too many new symbols in one request", 1.0)


class Demand(Protocol):
    """Who feeds symbols that clients ask for."""

    def serves(self, venue: str | None) -> bool:
        """Symbols of this venue may be asked for; None: of any."""
        ...

    def fed(self, wish: Wish) -> Granted | None:
        """It is fed, and counts as asked for; None: that has to be asked."""
        ...

    async def ask(self, wish: Wish) -> Granted | Refused:
        """Have it fed, and wait, not for ever, until it is and what the client waits for is
        there."""
        ...


def _at_once() -> bool:
    return True


class NoRoom(Busy):
    """A symbol is not fed for want of a place."""


class Lacking(Exception):
    """Before the function can go on, symbols have to be asked for, or something here has to be
    ``ready``, which is waited for until ``until_s`` on trio's clock."""

    def __init__(
        self, wishes: Sequence[Wish] = (), ready: Callable[[], bool] = _at_once, until_s: float = 0
    ) -> None:
        super().__init__(", ".join(wish.symbol for wish in wishes))
        self.wishes, self.ready, self.until_s = wishes, ready, until_s


@define(eq=False)
class _Request:
    """``patient``: the client gets an answer once, so that it is waited for."""

    asker: str
    patient: bool
    told: dict[Wish, Granted | Refused] = field(factory=dict)
    named: set[tuple[str, str]] = field(factory=set)
    began_s: float = field(factory=trio.current_time)
    rounds: int = 0


class Desk:
    """One per process.  ``demand`` None: nothing is on demand, and no time is looked at."""

    def __init__(
        self, demand: Demand | None = None, now_ms: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._demand, self._now_ms = demand, now_ms
        self._request: _Request | None = None
        """Whose function runs at this moment; never across an await."""

    async def serve(self, asker: Asker, work: Callable[[], T], *, patient: bool) -> T:
        """What ``work`` returns.  It is called again after each question, so up to where it looks
        symbols up it must do no harm by being repeated.  Raises what it raises."""
        if self._demand is None:
            return work()
        request = _Request(asker.client if asker.local else asker.address, patient)
        while True:
            self._request = request
            try:
                return work()
            except Lacking as lacking:
                wishes, ready, until_s = lacking.wishes, lacking.ready, lacking.until_s
            finally:
                self._request = None
            request.rounds += 1
            with trio.move_on_at(until_s):
                await _look(ready)
            for first in range(0, len(wishes), _AT_ONCE):
                async with trio.open_nursery() as nursery:
                    for wish in wishes[first : first + _AT_ONCE]:
                        nursery.start_soon(self._ask, request, wish)

    async def _ask(self, request: _Request, wish: Wish) -> None:
        assert self._demand is not None, "only then something is lacking"
        if request.patient:
            left_s = request.began_s + _PATIENT_S - trio.current_time()
            wish = evolve(wish, within_s=max(0.0, left_s))
        request.told[wish] = await self._demand.ask(wish)

    # Within the function

    def expect(self, venue: str, symbols: Sequence[str]) -> None:
        """These are going to be looked up: those that have to be asked for are asked at once.
        Raises Lacking."""
        wishes = [self._wish(venue, symbol) for symbol in dict.fromkeys(symbols)]
        lacking = [wish for wish in wishes if wish is not None and self._answer(wish) is None]
        if lacking:
            self._lack(lacking)

    def look_up(self, venue: str | None, symbol: str, kind: str = "") -> Granted | Refused | None:
        """What became of the symbol; None: nothing is on demand there, or nobody asks.
        Raises Lacking, and NoRoom where a patient client has to come again."""
        wish = self._wish(venue, symbol, kind)
        if wish is None or self._request is None:
            return None
        answer = self._answer(wish)
        if answer is None:
            if self._request.rounds < _MOST_ROUNDS:
                self._lack([wish])
            answer = _UNASKED
        if isinstance(answer, Granted):
            self._request.named.add((answer.venue, answer.symbol))
        elif self._request.patient and answer.reason != "unlisted":
            raise NoRoom(answer.problem, answer.retry_after_s)
        return answer

    def wait_for(self, venue: str, symbol: str, interval: Interval) -> None:
        """A patient client wants the candles of a symbol: be sure that they are here.  Raises as
        :meth:`look_up`."""
        if self._request is not None and self._request.patient:
            self.look_up(venue, symbol, interval.value)

    def wait_for_news(self, topic: Topic) -> None:
        """A patient client wants the last word of a channel, which may have been opened just now.
        Raises Lacking."""
        if self._request is None or self._demand is None:
            return
        age_s = max(0.0, (self._now_ms() - topic.since_ms) / 1000)
        self._wait(topic.stream_key.venue, lambda: _has_news(topic), _PATIENT_S - age_s)

    def wait_for_list(self, venue: str, known: Callable[[], bool]) -> None:
        """A patient client wants the list of what may be asked for.  Raises Lacking."""
        if self._request is not None:
            self._wait(venue, known, _PATIENT_S)

    def _wait(self, venue: str, ready: Callable[[], bool], for_s: float) -> None:
        request, demand = self._request, self._demand
        if request is None or demand is None or not request.patient or not demand.serves(venue):
            return
        until_s = min(trio.current_time() + for_s, request.began_s + _PATIENT_S)
        if not ready() and trio.current_time() < until_s:
            raise Lacking(ready=ready, until_s=until_s)

    def is_named(self, venue: str, symbol: str) -> bool:
        """The request named this symbol, by its unified name, and it is fed."""
        return self._request is not None and (venue, symbol) in self._request.named

    def refusal(self, venue: str, symbol: str) -> str:
        """Why the symbol, which the request named so, is not fed; empty: it was not refused."""
        wish = self._wish(venue, symbol)
        answer = None if wish is None else self._answer(wish)
        return answer.problem if isinstance(answer, Refused) else ""

    def _wish(self, venue: str | None, symbol: str, kind: str = "") -> Wish | None:
        if self._demand is None or self._request is None or not self._demand.serves(venue):
            return None
        wish = Wish(venue, symbol, asker=self._request.asker)
        return evolve(wish, kind=kind) if kind else wish

    def _answer(self, wish: Wish) -> Granted | Refused | None:
        assert self._demand is not None, "else there is no wish"
        assert self._request is not None, "the same"
        return self._request.told.get(wish) or self._demand.fed(wish)

    def _lack(self, wishes: Sequence[Wish]) -> None:
        raise Lacking(wishes)


async def _look(ready: Callable[[], bool]) -> None:
    while True:
        if ready():
            return
        await trio.sleep(_LOOK_S)


def _has_news(topic: Topic) -> bool:
    latest = topic.stream.latest
    data = getattr(latest.message, "data", None) if latest is not None else None
    return latest is not None and not getattr(data, "stale", False)


async def find_topic(
    hub: Hub, desk: Desk, target: Target, asker: Asker, code: int, *, patient: bool
) -> Topic:
    """The topic that a native request is about, fed from now on where that is on demand.

    ``patient``: with what the request wants of it.  Raises RequestError with ``code``, and NoRoom.
    """

    def find() -> Topic:
        answer = desk.look_up(hub.venue_of(target) or target.exchange, target.symbol)
        if answer is None:
            return hub.find(target, code=code)
        if isinstance(answer, Refused):
            if answer.retry_after_s:
                raise NoRoom(f"symbol: {answer.problem}", answer.retry_after_s)
            raise RequestError(code, f"symbol: {answer.problem}")
        fed = evolve(target, symbol=answer.symbol, exchange=answer.venue)
        topic = hub.find(fed, code=code)
        if target.interval is not None:
            desk.wait_for(answer.venue, answer.symbol, target.interval)
        return topic

    return await desk.serve(asker, find, patient=patient)
