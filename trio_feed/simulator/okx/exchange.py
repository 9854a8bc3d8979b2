"""OKX: the 2026-11 wire dialect of v5 over any listener (exchanges.md section 5).

Here the paths of WebSockets and the order book's faults.
"""

import math
import re
from collections import deque
from collections.abc import Callable
from functools import partial

import trio
from attrs import define, field

from ...settings import SimulatorSettings
from ..machinery.publisher import Publisher
from ..machinery.response_faults import ResponseFaults
from ..machinery.rest import front_end_page
from ..machinery.server import MarketExchange
from ..machinery.wire import Limits, Request, Response, WebSocketPeer
from ..market.books import Books
from ..market.market import Market
from .accounts import Accounts
from .bars import Candles
from .channels import exists, source_of
from .connection import OkxConnection
from .control import Control
from .data import MarketData, Sequences
from .listing import find_instrument
from .rest import OkxRest

_PATH = re.compile(r"/ws/v5/(public|business|private)")
_CANDLE_PUSH_MS = 1_000


@define(eq=False)
class OkxExchange(MarketExchange[OkxConnection]):
    limits = Limits(silence_s=math.inf)
    """A client that gets data need not say anything; one that gets none is closed by the idle
    rule.  Messages above 64 KB end the connection with 1009."""
    data: MarketData
    accounts: Accounts = field(factory=Accounts)
    connects_per_s: int | None = None
    """Set it to OKX's 3 to refuse the fourth WebSocket within a second (HTTP 429)."""
    _connects: deque[float] = field(factory=deque)

    def announce_upgrade(self) -> None:
        """Notice 64008 to everyone but /business, and everyone is closed 60 s later."""
        for connection in [*self.connections]:
            connection.announce_upgrade()

    def gap_books(self, inst_id: str) -> None:
        """The next change of this book is lost, for every subscriber.  Raises KeyError."""
        gaps = self.data.sequences.gaps
        gaps[self._known(inst_id)] = gaps.get(inst_id, 0) + 1

    def reset_books(self, inst_id: str) -> None:
        """The next change of this book has ``seqId < prevSeqId``.  Raises KeyError."""
        self.data.sequences.resets.add(self._known(inst_id))

    def admit(self, request: Request) -> Response | Callable[[WebSocketPeer], OkxConnection]:
        found = _PATH.fullmatch(request.path)
        if not self._may_connect():
            return front_end_page(429)
        if found is None:
            return front_end_page(404)
        url = found[1]

        def connect(peer: WebSocketPeer) -> OkxConnection:
            conn_id = f"{0xA4D3AE55 * self.upgrades % 2**32:08x}"
            control = Control(url, conn_id, partial(exists, self.data), self.accounts)
            return OkxConnection(peer, self.publisher, control)

        return connect

    def _may_connect(self) -> bool:
        now = trio.current_time()
        while self._connects and now - self._connects[0] >= 1.0:
            self._connects.popleft()
        if self.connects_per_s is not None and len(self._connects) >= self.connects_per_s:
            return False
        self._connects.append(now)
        return True

    def _known(self, inst_id: str) -> str:
        if find_instrument(self.market, inst_id) is None:
            raise KeyError(inst_id)
        return inst_id


def okx_exchange(
    market: Market,
    now_ms: Callable[[], float],
    settings: SimulatorSettings,
    faults: ResponseFaults | None = None,
) -> OkxExchange:
    """For :func:`..machinery.server.serve`.  ``now_ms`` is unix ms and the market's only clock.

    Of ``settings`` only ``kline_push_ms`` (never below OKX's second) and ``book_push_ms`` are
    used.  ``faults`` are there before the first client comes.
    """
    faults = ResponseFaults() if faults is None else faults
    push_ms = max(_CANDLE_PUSH_MS, settings.kline_push_ms)
    books, candles = Books(market), Candles(market)
    data = MarketData(market, books, candles, Sequences(), push_ms, settings.book_push_ms)
    publisher = Publisher(now_ms, partial(source_of, data), market.delisted)
    accounts = Accounts()
    rest = OkxRest(faults, data, accounts)
    return OkxExchange(now_ms, faults, market, publisher, rest, data, accounts)
