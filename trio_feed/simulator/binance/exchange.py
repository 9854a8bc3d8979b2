"""Binance, spot or USD-M futures: the 2026 wire dialects over any listener.

The dialects are in exchanges.md sections 1, 2 and 4; :mod:`.spot` and :mod:`.usdm` are one table
each of all that differs: streams, payloads, REST paths, limits.  Here the paths of WebSockets.
"""

import math
import re
from collections.abc import Callable, Mapping

from attrs import define, field, frozen

from ...settings import SimulatorSettings
from ..machinery.publisher import Publisher, Source
from ..machinery.response_faults import ResponseFaults
from ..machinery.rest import front_end_page
from ..machinery.server import MarketExchange
from ..machinery.wire import Request, Response, WebSocketPeer, text_frame
from ..market.market import Market
from .accounts import AccountConnection, Accounts
from .connection import BinanceConnection
from .control import MAX_STREAMS, Subscriptions
from .dialect import Dialect, MarketData, parse_stream
from .payloads import combined, shutdown_payload
from .rest import BinanceRest
from .sources import source_of
from .spot import SPOT
from .usdm import USDM

DIALECTS: Mapping[str, Dialect] = {SPOT.name: SPOT, USDM.name: USDM}
"""By ``SimulatorSettings.venue``."""
_PATH = re.compile(r"(?:/(\w+))?/(ws|stream)(?:/(.*))?")


@frozen
class _Route:
    """Where a WebSocket was opened.  ``path`` is the one whose streams it gets."""

    path: str
    combined: bool
    names: tuple[str, ...]


@define(eq=False)
class BinanceExchange(MarketExchange[BinanceConnection]):
    off_grid_candles = True
    data: MarketData
    accounts: Accounts = field(factory=Accounts)

    def announce_shutdown(self) -> None:
        """Push ``serverShutdown`` to every open WebSocket, and close none."""
        payload = shutdown_payload(math.floor(self.now_ms()))
        for connection in [*self.connections]:
            wrapped = combined("!serverShutdown", payload) if connection.combined else payload
            connection.offer(text_frame(wrapped))

    def admit(self, request: Request) -> Response | Callable[[WebSocketPeer], BinanceConnection]:
        if self.accounts.is_socket(request):
            return self._account
        route = _route(request, self.data.dialect)
        if route is None:
            return front_end_page(404)
        if len(route.names) > MAX_STREAMS:
            return front_end_page(400)

        def connect(peer: WebSocketPeer) -> BinanceConnection:
            asked = Subscriptions(route.combined, dict.fromkeys(route.names))
            return BinanceConnection(peer, self.publisher, self.data, route.path, asked)

        return connect

    def _account(self, peer: WebSocketPeer) -> BinanceConnection:
        none, own = Subscriptions(False, {}), self.accounts
        return AccountConnection(peer, self.publisher, self.data, "", none, accounts=own)


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


def binance_exchange(
    market: Market,
    now_ms: Callable[[], float],
    settings: SimulatorSettings,
    faults: ResponseFaults | None = None,
) -> BinanceExchange:
    """For :func:`..machinery.server.serve`.  ``now_ms`` is unix ms and the market's only clock.

    Of ``settings`` only ``venue``, ``kline_push_ms`` and ``book_push_ms`` are used: an open candle
    is never pushed more often than the dialect says (spot: every 2 s, ``1s`` every second).
    ``faults`` are there before the first client comes.
    """
    faults = ResponseFaults() if faults is None else faults
    dialect = DIALECTS[settings.venue]
    data = MarketData(market, dialect, settings.kline_push_ms, settings.book_push_ms)

    def make_source(name: str, at_ms: int) -> Source | None:
        stream = parse_stream(name, market, dialect)
        return None if stream is None else source_of(data, stream, at_ms)

    publisher = Publisher(now_ms, make_source, market.delisted, combined)
    accounts = Accounts()
    rest = BinanceRest(faults, data, accounts)
    return BinanceExchange(now_ms, faults, market, publisher, rest, data, accounts)
