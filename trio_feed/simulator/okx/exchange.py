"""OKX in a box: the 2026-11 wire dialect of v5 over any listener.

What it speaks is in exchanges.md section 5; the parts are beside this file: ``okx_listing`` and
``okx_bars`` (what there is), ``okx_forms`` (rows), ``okx_sources``, ``okx_lines``,
``okx_book_lines`` and ``okx_channels`` (what a channel pushes and when), ``okx_feed`` (who gets
it), ``okx_control`` (subscribe and friends), ``okx_connection`` (one WebSocket), ``okx_rest``.

Here the door: paths, faults at the door, counters.
"""

import math
import re
from collections import deque
from collections.abc import Callable, Sequence

import trio
from attrs import define, field

from ...model import Interval, Kline
from ...settings import SimulatorSettings
from ..binance.weight import front_end_page
from ..machinery.response_faults import Faults
from ..machinery.wire import Limits, OnOpen, Request, Response, WebSocketPeer, serve_stream
from ..market.books import Books
from ..market.market import Market
from .bars import Candles
from .connection import OkxConnection
from .control import Control
from .data import Sequences, Sources
from .listing import find_instrument
from .publisher import Feed, Taker
from .rest import OkxRest

_PATH = re.compile(r"/ws/v5/(public|business|private)")
_LIMITS = Limits(silence_s=math.inf)
"""A client that gets data need not say anything; one that gets none is closed by the idle rule.
Messages above 64 KB end the connection with 1009."""
_CANDLE_PUSH_MS = 1_000


@define(eq=False)
class SimulatedOkx:
    """A running box: what fault scripts and tests hold.

    ``connections`` are the WebSockets that are open now, oldest first, each with ``abort()``,
    ``close(code, reason)`` and ``mute()``.  ``faults`` are the levers at the door.  ``dials``
    counts accepted byte streams, ``upgrades`` WebSockets let in, ``requests`` REST requests,
    ``slow_clients`` connections dropped because they did not read.
    """

    market: Market
    now_ms: Callable[[], float]
    faults: Faults
    feed: Feed
    rest: OkxRest
    connections: list[OkxConnection] = field(factory=list)
    connects_per_s: int | None = None
    """Set it to OKX's 3 to refuse the fourth WebSocket within a second (HTTP 429)."""
    dials: int = 0
    upgrades: int = 0
    requests: int = 0
    slow_clients: int = 0
    _connects: deque[float] = field(factory=deque)

    def refuse_upgrades(self, status: int, count: int = 1) -> None:
        """The next ``count`` WebSocket upgrades get this HTTP status."""
        self.faults.refuse_upgrades(status, count)

    def rest_status(self, status: int, count: int = 1) -> None:
        """The next ``count`` REST requests get this HTTP status."""
        self.faults.rest_status(status, count)

    def announce_upgrade(self) -> None:
        """Notice 64008 to everyone but /business, and everyone is closed 60 s later."""
        for connection in [*self.connections]:
            connection.announce_upgrade()

    def gap_books(self, inst_id: str) -> None:
        """The next change of this book is lost, for every subscriber.  Raises KeyError."""
        gaps = self.feed.sources.sequences.gaps
        gaps[self._known(inst_id)] = gaps.get(inst_id, 0) + 1

    def reset_books(self, inst_id: str) -> None:
        """The next change of this book has ``seqId < prevSeqId``.  Raises KeyError."""
        self.feed.sources.sequences.resets.add(self._known(inst_id))

    def correct(self, symbol: str, interval: Interval, kline: Kline) -> list[Taker]:
        """Change a closed candle: REST gives the new one from now on, and it is told again, to
        those who are returned."""
        self.market.correct(symbol, interval, kline)
        return self.feed.tell_again(symbol, interval, kline.open_ms)

    def _known(self, inst_id: str) -> str:
        if find_instrument(self.market, inst_id) is None:
            raise KeyError(inst_id)
        return inst_id

    def run_ahead(self, until_ms: float) -> None:
        """Push at once what is due up to ``until_ms``, as if each had gone out at its time."""
        self.feed.run_ahead(until_ms)

    def clock_changed(self) -> None:
        """``now_ms`` made a leap."""
        self.feed.clock_changed()

    @property
    def weight(self) -> int:
        """Request weight of all REST answers so far."""
        return self.rest.weight

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """One accepted connection, to its end.  Closes it."""
        self.dials += 1
        await serve_stream(stream, self._on_request, self._on_upgrade, _LIMITS)

    def _on_request(self, request: Request) -> Response:
        self.requests += 1
        return self.rest.answer(request, math.floor(self.now_ms()))

    def _on_upgrade(self, request: Request) -> Response | OnOpen:
        status = self.faults.next_upgrade()
        found = _PATH.fullmatch(request.path)
        if status is None and not self._may_connect():
            status = 429
        if status is not None or found is None:
            return front_end_page(status or 404)
        url = found[1]

        async def opened(peer: WebSocketPeer) -> None:
            await self._serve_websocket(peer, url)

        return opened

    def _may_connect(self) -> bool:
        now = trio.current_time()
        while self._connects and now - self._connects[0] >= 1.0:
            self._connects.popleft()
        if self.connects_per_s is not None and len(self._connects) >= self.connects_per_s:
            return False
        self._connects.append(now)
        return True

    async def _serve_websocket(self, peer: WebSocketPeer, url: str) -> None:
        self.upgrades += 1
        conn_id = f"{0xA4D3AE55 * self.upgrades % 2**32:08x}"
        connection = OkxConnection(peer, self.feed, Control(url, conn_id, self.feed.has))
        self.connections.append(connection)
        try:
            await connection.run()
        finally:
            self.connections.remove(connection)
            self.slow_clients += connection.too_slow


async def serve_okx(
    market: Market,
    *,
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    now_ms: Callable[[], float],
    settings: SimulatorSettings,
    control: Faults | None = None,
    task_status: trio.TaskStatus[SimulatedOkx] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the box until cancelled.  Closes the listeners.

    ``now_ms`` is unix time in ms and the only clock of the market; of ``settings`` only
    ``kline_push_ms`` (never below OKX's second) and ``book_push_ms`` are used.
    ``control`` may owe faults before the first client comes.  ``task_status.started`` gives the
    SimulatedOkx.
    """
    faults = control if control is not None else Faults()
    push_ms = max(_CANDLE_PUSH_MS, settings.kline_push_ms)
    sources = Sources(
        market, Books(market), Candles(market), Sequences(), push_ms, settings.book_push_ms
    )
    feed = Feed(sources, now_ms)
    exchange = SimulatedOkx(market, now_ms, faults, feed, OkxRest(sources, faults))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run, name="simulator.feed")
        await nursery.start(
            trio.serve_listeners, exchange.serve_stream, [*listeners], name="simulator.listen"
        )
        task_status.started(exchange)
