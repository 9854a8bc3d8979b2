"""A simulated exchange as a server: each byte stream is HTTP and may become a WebSocket."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, Never, TypeVar

import trio
from attrs import define, field

from ...model import Interval, Kline
from ..market.market import Market
from .connection import Connection
from .publisher import Publisher, Subscriber
from .response_faults import ResponseFaults
from .rest import RestEndpoint, front_end_page
from .wire import Limits, OnOpen, Request, Response, WebSocketPeer, serve_stream

Open = TypeVar("Open", bound=Connection)


@define(eq=False)
class SimulatedExchange(ABC, Generic[Open]):
    """What fault schedules and tests hold of a running exchange.

    ``connections`` are the WebSockets that are open now, oldest first, each with ``abort()``,
    ``close(code, reason)`` and ``mute()``.  ``faults`` are wrong answers to come.  ``dials``
    counts accepted byte streams, ``upgrades`` WebSockets let in, ``requests`` REST requests,
    ``slow_clients`` connections dropped because they did not read.
    """

    limits: ClassVar[Limits] = Limits()
    off_grid_candles: ClassVar[bool] = False
    """After a halt candles may count from the moment of the return."""
    now_ms: Callable[[], float]
    faults: ResponseFaults
    connections: list[Open] = field(init=False, factory=list)
    dials: int = field(init=False, default=0)
    upgrades: int = field(init=False, default=0)
    requests: int = field(init=False, default=0)
    slow_clients: int = field(init=False, default=0)

    def refuse_upgrades(self, status: int, count: int = 1) -> None:
        """The next ``count`` WebSocket upgrades get this HTTP status."""
        self.faults.refuse_upgrades(status, count)

    def rest_status(self, status: int, count: int = 1) -> None:
        """The next ``count`` REST requests get this HTTP status."""
        self.faults.rest_status(status, count)

    @abstractmethod
    async def run(self) -> Never:
        """Push for ever."""

    @abstractmethod
    def answer(self, request: Request, now_ms: int) -> Response:
        """One request other than an upgrade -> its response.  ``now_ms`` is unix ms."""

    @abstractmethod
    def admit(self, request: Request) -> Response | Callable[[WebSocketPeer], Open]:
        """A request for an upgrade -> a refusal, or what makes the connection."""

    def refusal(self, status: int) -> Response:
        """The answer to an upgrade that a fault refuses."""
        return front_end_page(status)

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """One accepted connection, to its end.  Closes it."""
        self.dials += 1
        await serve_stream(stream, self._on_request, self._on_upgrade, self.limits)

    def _on_request(self, request: Request) -> Response:
        self.requests += 1
        return self.answer(request, math.floor(self.now_ms()))

    def _on_upgrade(self, request: Request) -> Response | OnOpen:
        status = self.faults.next_upgrade()
        admitted = self.admit(request) if status is None else self.refusal(status)
        if isinstance(admitted, Response):
            return admitted

        async def opened(peer: WebSocketPeer) -> None:
            self.upgrades += 1
            connection = admitted(peer)
            self.connections.append(connection)
            try:
                await connection.run()
            finally:
                self.connections.remove(connection)
                self.slow_clients += connection.queue.too_slow

        return opened


@define(eq=False)
class MarketExchange(SimulatedExchange[Open]):
    """An exchange with a seeded market, streams and a REST side."""

    market: Market
    publisher: Publisher[Any]
    rest: RestEndpoint

    def correct(self, symbol: str, minute: Kline) -> dict[Interval, list[Subscriber]]:
        """Change a closed minute and every longer candle that holds it: REST gives the new ones
        from now on, and those that are closed are pushed again.  Returns who got each of them."""
        market = self.market
        end_ms = market.next_open(symbol, Interval.M1, minute.open_ms)
        market.correct(symbol, minute)
        told: dict[Interval, list[Subscriber]] = {}
        for interval in (i for i in Interval if i not in (Interval.S1, Interval.S30)):
            open_ms = market.open_of(symbol, interval, minute.open_ms)
            end = market.next_open(symbol, interval, open_ms)
            if end_ms <= end <= self.publisher.now_ms():
                told[interval] = self.publisher.republish(symbol, interval, open_ms)
        return told

    def run_ahead(self, until_ms: float) -> None:
        """Push at once what is due up to ``until_ms``, as if each had been sent at its time."""
        self.publisher.scheduler.run_ahead(until_ms)

    def clock_changed(self) -> None:
        """``now_ms`` made a leap."""
        self.publisher.scheduler.changed()

    @property
    def weight(self) -> int:
        """Request weight of all REST answers so far."""
        return self.rest.weight

    async def run(self) -> Never:
        await self.publisher.scheduler.run()

    def answer(self, request: Request, now_ms: int) -> Response:
        return self.rest.answer(request, now_ms)


async def serve(
    exchange: SimulatedExchange[Any],
    *,
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; ``task_status.started`` gives the exchange.  Closes the listeners."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exchange.run, name="simulator.push")
        await nursery.start(
            trio.serve_listeners, exchange.serve_stream, [*listeners], name="simulator.listen"
        )
        task_status.started(exchange)
