"""Binance in a box, spot or USD-M futures: the 2026 wire dialects over any listener.

What it speaks is in exchanges.md sections 1, 2 and 4; the parts are beside this file:
``binance_spot`` and ``binance_usdm`` (one table each of all that differs: streams, payloads, REST
paths, limits), ``binance_control`` (SUBSCRIBE and friends), ``binance_connection`` (one
WebSocket), ``binance_ticker`` and ``binance_sources`` (who gets what when), ``binance_rest``.
Here the door: paths, faults at the door, counters.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import trio
from attrs import define, field, frozen

from ...model import Interval, Kline
from ...settings import SimulatorSettings
from ..machinery.response_faults import Faults
from ..machinery.wire import OnOpen, Request, Response, WebSocketPeer, serve_stream, text_frame
from ..market.market import Market
from .connection import Connection
from .control import MAX_STREAMS, Subscriptions
from .dialect import Box, Dialect
from .payloads import combined, shutdown_payload
from .publisher import Taker, Ticker
from .rest import BinanceRest
from .spot import SPOT
from .usdm import USDM
from .weight import front_end_page

_PATH = re.compile(r"(?:/(\w+))?/(ws|stream)(?:/(.*))?")


@frozen
class _Route:
    """Where a WebSocket was opened.  ``path`` is the one whose streams it gets."""

    path: str
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

    def announce_shutdown(self) -> None:
        """Every open WebSocket is told ``serverShutdown``; closing them is another lever."""
        payload = shutdown_payload(math.floor(self.now_ms()))
        for connection in [*self.connections]:
            wrapped = combined("!serverShutdown", payload) if connection.combined else payload
            connection.offer(text_frame(wrapped))

    def correct(self, symbol: str, interval: Interval, kline: Kline) -> list[Taker]:
        """Change a closed candle: REST gives the new one from now on, and it is told again, to
        those who are returned."""
        self.market.correct(symbol, interval, kline)
        return self.ticker.tell_again(symbol, interval, kline.open_ms)

    def run_ahead(self, until_ms: float) -> None:
        """Push at once what is due up to ``until_ms``, as if each had gone out at its time."""
        self.ticker.run_ahead(until_ms)

    def clock_changed(self) -> None:
        """``now_ms`` made a leap."""
        self.ticker.clock_changed()

    @property
    def weight(self) -> int:
        """Request weight of all REST answers so far."""
        return self.rest.weight

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
        route = _route(request, self.rest.box.dialect)
        if route is None:
            return front_end_page(404)
        if len(route.names) > MAX_STREAMS:
            return front_end_page(400)

        async def opened(peer: WebSocketPeer) -> None:
            await self._serve_websocket(peer, route)

        return opened

    async def _serve_websocket(self, peer: WebSocketPeer, route: _Route) -> None:
        asked = Subscriptions(route.combined, dict.fromkeys(route.names))
        connection = Connection(peer, self.ticker, route.path, asked)
        self.upgrades += 1
        self.connections.append(connection)
        try:
            await connection.run()
        finally:
            self.connections.remove(connection)
            self.slow_clients += connection.too_slow


def _route(request: Request, dialect: Dialect) -> _Route | None:
    found = _PATH.fullmatch(request.path)
    if found is None:
        return None
    path, form, rest = found.groups()
    if (path is not None and path not in dialect.paths) or (form == "stream" and rest):
        return None
    text = request.query.get("streams", "") if form == "stream" else rest or ""
    names = tuple(name for name in text.split("/") if name)
    return _Route(dialect.unrouted if path is None else path, form == "stream", names)


async def serve_binance(
    market: Market,
    *,
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    now_ms: Callable[[], float],
    settings: SimulatorSettings,
    control: Faults | None = None,
    task_status: trio.TaskStatus[SimulatedExchange] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve USD-M futures until cancelled.  Closes the listeners.

    ``now_ms`` is unix time in ms and the only clock of the market; of ``settings`` only
    ``kline_push_ms`` and ``book_push_ms`` are used (seed, symbols and trades are the market's).
    ``control`` may owe faults before the first client comes.  ``task_status.started`` gives the
    SimulatedExchange.
    """
    box = Box(market, USDM, settings.kline_push_ms, settings.book_push_ms)
    await _serve(box, listeners, now_ms, control, task_status)


async def serve_binance_spot(
    market: Market,
    *,
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    now_ms: Callable[[], float],
    settings: SimulatorSettings,
    control: Faults | None = None,
    task_status: trio.TaskStatus[SimulatedExchange] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve spot until cancelled; everything else as in :func:`serve_binance`.

    Open candles are pushed every 2 s (``1s``: every second), or more rarely where ``settings``
    say so.
    """
    box = Box(market, SPOT, settings.kline_push_ms, settings.book_push_ms)
    await _serve(box, listeners, now_ms, control, task_status)


class ServeBox(Protocol):
    """:func:`serve_binance` and its like."""

    async def __call__(
        self,
        market: Market,
        *,
        listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
        now_ms: Callable[[], float],
        settings: SimulatorSettings,
        control: Faults | None = None,
        task_status: trio.TaskStatus[SimulatedExchange] = trio.TASK_STATUS_IGNORED,
    ) -> None: ...


BINANCE_BOXES: Mapping[str, ServeBox] = {SPOT.name: serve_binance_spot, USDM.name: serve_binance}
"""By ``SimulatorSettings.venue``."""


async def _serve(
    box: Box,
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    now_ms: Callable[[], float],
    control: Faults | None,
    task_status: trio.TaskStatus[SimulatedExchange],
) -> None:
    faults = control if control is not None else Faults()
    ticker = Ticker(box, now_ms)
    exchange = SimulatedExchange(box.market, now_ms, faults, ticker, BinanceRest(box, faults))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticker.run, name="simulator.ticker")
        await nursery.start(
            trio.serve_listeners, exchange.serve_stream, [*listeners], name="simulator.listen"
        )
        task_status.started(exchange)
