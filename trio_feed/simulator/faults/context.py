"""Everything that a fault schedule may act on, and what came of it.

Wrong answers and the ends of open connections are the exchange's own; what happens to frames and
to new byte streams is done by the fault proxy before it, what happens to dialling by the memory
network and its CONNECT proxy.  :mod:`.injection` says which kind of fault does what.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import trio
from attrs import define, field, frozen

from ...model import Interval, Kline
from ..machinery.connect_proxy import ConnectProxy
from ..machinery.memory_network import MemoryNetwork
from .clocks import Clocks
from .proxy import FaultProxy

Endpoint = tuple[str, int]
_LOOK_S = 1.0


@frozen
class Correction:
    """A closed candle that the exchange changed, once or more often.  ``known`` is all that it was
    said to be, ``final`` what may be believed in the end: its last values, if a connection that
    was well received them on the wire; else those before as well, for nobody could know better.
    ``longer``: of which longer candles, closed by then, the last value was received as well."""

    known: tuple[Kline, ...]
    final: tuple[Kline, ...]
    longer: frozenset[Interval] = frozenset()

    def then(self, kline: Kline, *, told: bool, longer: Iterable[Interval] = ()) -> "Correction":
        """After one more change."""
        final = (kline,) if told else (*self.final, kline)
        return Correction((*self.known, kline), final, frozenset(longer))


@define
class FaultContext:
    """``newcomer`` is a symbol that is listed now and then, ``fresh`` one that has no history when
    it is."""

    exchange: Any
    network: MemoryNetwork
    fault_proxy: FaultProxy
    proxy: ConnectProxy
    websocket: Endpoint
    rest: Endpoint
    proxy_endpoint: Endpoint
    symbol: str
    newcomer: str
    fresh: str
    clocks: Clocks
    injected: Counter[str] = field(factory=Counter)
    log: list[str] = field(factory=list)
    corrections: dict[int, Correction] = field(factory=dict)
    """By open time; the last one of each candle."""
    returns_s: list[float] = field(factory=list)
    """When trading begins again after each halt, on trio's clock."""
    late_trades: list[int] = field(factory=list)
    """Times of the trades that came to light after their candle had closed."""
    listed_until: float = 0.0
    _down_until: dict[Endpoint, float] = field(factory=dict)

    @property
    def nursery(self) -> trio.Nursery:
        """For what a fault begins and goes on by itself."""
        return self.fault_proxy.nursery

    async def sleep_until_ms(self, at_ms: float) -> None:
        """Until the exchange's own time is ``at_ms``, which a suspend of the client passes over."""
        while True:
            left_ms = at_ms - self.exchange.now_ms()
            if left_ms <= 0:
                return
            await trio.sleep(min(left_ms / 1000, _LOOK_S))

    def worst_silence_s(self) -> float:
        """The longest that a connection was kept which had gone silent, up to now."""
        now = trio.current_time()
        still = [
            now - s.silent_since for s in self.fault_proxy.streams if s.silent_since is not None
        ]
        return max([*self.fault_proxy.silences_s, *still], default=0.0)

    def ended_openly(self, connections: Iterable[Any]) -> None:
        """The client learns of these ends; it need not notice a silence."""
        for connection in connections:
            connection.peer.stream.silent_since = None

    def cut_all(self) -> None:
        """Every WebSocket ends, without a close frame."""
        connections = [*self.exchange.connections]
        self.ended_openly(connections)
        for connection in connections:
            connection.abort()

    def cut_everything(self) -> None:
        """So do the REST connections."""
        self.cut_all()
        self.fault_proxy.cut_rest()

    def refuse_dials(self, endpoint: Endpoint, lasts_s: float) -> None:
        """Nobody gets in there for ``lasts_s`` seconds, or as long as was said before."""
        until = trio.current_time() + lasts_s
        self._down_until[endpoint] = max(until, self._down_until.get(endpoint, 0.0))
        self.network.down.add(endpoint)
        self.nursery.start_soon(self._admit_again, endpoint, until)

    async def _admit_again(self, endpoint: Endpoint, at: float) -> None:
        await trio.sleep_until(at)
        if self._down_until[endpoint] <= at:
            self.network.down.discard(endpoint)
