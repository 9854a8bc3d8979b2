"""Binance USD-M futures in a box: the 2026 wire dialect over any listener.

What it speaks is in exchanges.md sections 1.3, 2 and 4; the parts are beside this file:
``binance_streams`` (names, payloads), ``binance_control`` (SUBSCRIBE and friends),
``binance_connection`` (one WebSocket), ``binance_ticker`` (who gets what when), ``binance_rest``.
Here the door: paths, faults at the door, counters.
"""

import math
import re
from collections.abc import Callable, Sequence

import trio
from attrs import define, field, frozen

from ..settings import SimulatorSettings
from .binance_connection import Connection
from .binance_control import MAX_STREAMS, Subscriptions
from .binance_limits import front_end_page
from .binance_rest import BinanceRest
from .binance_ticker import Ticker
from .faults import Faults
from .market import Market
from .wire import OnOpen, Request, Response, WebSocketPeer, serve_stream

_PATH = re.compile(r"(?:/(market|public|private))?/(ws|stream)(?:/(.*))?")


@frozen
class _Route:
    """Where a WebSocket was opened.  Only ``/market`` pushes what the box has."""

    pushes: bool
    combined: bool
    names: tuple[str, ...]


@define(eq=False)
class SimulatedExchange:
    """A running box: what fault scripts and tests hold.

    ``connections`` are the WebSockets that are open now, oldest first, each with ``abort()``,
    ``close(code, reason)`` and ``mute()``.  ``faults`` are the levers at the door.  ``dials``
    counts accepted byte streams, ``upgrades`` WebSockets let in, ``requests`` REST requests,
    ``slow_clients`` connections dropped because they did not read.
    """

    market: Market
    now_ms: Callable[[], float]
    faults: Faults
    ticker: Ticker
    rest: BinanceRest
    connections: list[Connection] = field(factory=list)
    dials: int = 0
    upgrades: int = 0
    requests: int = 0
    slow_clients: int = 0

    def refuse_upgrades(self, status: int, count: int = 1) -> None:
        """The next ``count`` WebSocket upgrades get this HTTP status."""
        self.faults.refuse_upgrades(status, count)

    def rest_status(self, status: int, count: int = 1) -> None:
        """The next ``count`` REST requests get this HTTP status."""
        self.faults.rest_status(status, count)

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """One accepted connection, to its end.  Closes it."""
        self.dials += 1
        await serve_stream(stream, self._on_request, self._on_upgrade)

    def _on_request(self, request: Request) -> Response:
        self.requests += 1
        return self.rest.answer(request, math.floor(self.now_ms()))

    def _on_upgrade(self, request: Request) -> Response | OnOpen:
        status = self.faults.next_upgrade()
        if status is not None:
            return front_end_page(status)
        route = _route(request)
        if route is None:
            return front_end_page(404)
        if len(route.names) > MAX_STREAMS:
            return front_end_page(400)

        async def opened(peer: WebSocketPeer) -> None:
            await self._serve_websocket(peer, route)

        return opened

    async def _serve_websocket(self, peer: WebSocketPeer, route: _Route) -> None:
        asked = Subscriptions(route.combined, dict.fromkeys(route.names))
        connection = Connection(peer, self.ticker, route.pushes, asked)
        self.upgrades += 1
        self.connections.append(connection)
        try:
            await connection.run()
        finally:
            self.connections.remove(connection)
            self.slow_clients += connection.too_slow


def _route(request: Request) -> _Route | None:
    found = _PATH.fullmatch(request.path)
    if found is None:
        return None
    base, form, rest = found.groups()
    if form == "stream" and rest:
        return None
    text = request.query.get("streams", "") if form == "stream" else rest or ""
    names = tuple(name for name in text.split("/") if name)
    return _Route(base == "market", form == "stream", names)


async def serve_binance(
    market: Market,
    *,
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    now_ms: Callable[[], float],
    settings: SimulatorSettings,
    control: Faults | None = None,
    task_status: trio.TaskStatus[SimulatedExchange] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the box until cancelled.  Closes the listeners.

    ``now_ms`` is unix time in ms and the only clock of the market; of ``settings`` only
    ``kline_push_ms`` is used (seed, symbols and trades are the market's).  ``control`` may owe
    faults before the first client comes.  ``task_status.started`` gives the SimulatedExchange.
    """
    faults = control if control is not None else Faults()
    ticker = Ticker(market, now_ms, settings.kline_push_ms)
    exchange = SimulatedExchange(market, now_ms, faults, ticker, BinanceRest(market, faults))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticker.run, name="simulator.ticker")
        await nursery.start(
            trio.serve_listeners, exchange.serve_stream, [*listeners], name="simulator.listen"
        )
        task_status.started(exchange)
