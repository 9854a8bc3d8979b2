"""The exchange of a simulated run, and the only ways to it."""

from collections import deque
from functools import partial

import trio
from attrs import define, field

from scripts.simulate_run import (
    FRESH,
    NEWCOMER,
    PROXY,
    REST,
    SPINPET,
    START_MS,
    SYMBOL,
    WEBSOCKET,
    Run,
    exchange_settings,
)
from trio_feed.simulator.exchanges import serve_exchange
from trio_feed.simulator.faults.clocks import Clocks
from trio_feed.simulator.faults.context import FaultContext
from trio_feed.simulator.faults.injection import inject
from trio_feed.simulator.faults.proxy import FaultProxy
from trio_feed.simulator.machinery.connect_proxy import ConnectProxy
from trio_feed.simulator.machinery.memory_network import MemoryNetwork

_CONTROL_FRAMES_PER_S = {"binance": 5}
_DIALS, _DIALS_WITHIN_S = 300, 300.0


async def open_box(run: Run, nursery: trio.Nursery) -> FaultContext:
    """The exchange behind its fault proxy, the CONNECT proxy before it, and the faults that happen
    before anybody dials."""
    clocks = Clocks(START_MS)
    network = MemoryNetwork()
    fault_proxy = FaultProxy(nursery, clocks.exchange_ms, _CONTROL_FRAMES_PER_S.get(run.venue, 10))
    listeners: list[trio.abc.Listener[trio.abc.Stream]] = []
    for endpoint in (WEBSOCKET, REST):
        (listener,) = await network.listen(*endpoint)
        listeners.append(fault_proxy.wrap(listener, rest=endpoint is REST))
    serve = partial(
        serve_exchange, exchange_settings(run), listeners=listeners, now_ms=clocks.exchange_ms
    )
    exchange = await nursery.start(serve)
    if run.venue != SPINPET:
        exchange.market.delist(NEWCOMER)
    proxy = ConnectProxy(network)
    (listener,) = await network.listen(*PROXY)
    nursery.start_soon(proxy.run, listener)
    context = FaultContext(
        exchange,
        network,
        fault_proxy,
        proxy,
        WEBSOCKET,
        REST,
        PROXY,
        SYMBOL,
        NEWCOMER,
        FRESH,
        clocks,
    )
    for at_s, fault in run.faults():
        if at_s <= 0:
            inject(context, fault)
    return context


@define
class Dialling:
    """How one service dials: counted, whether it succeeds or not."""

    context: FaultContext
    too_many: int = 0
    bypassed: int = 0
    _dials: deque[float] = field(factory=deque)

    async def dial(self, host: str, port: int) -> trio.abc.Stream:
        now, violations = trio.current_time(), self.context.fault_proxy.violations
        self._dials.append(now)
        while self._dials[0] <= now - _DIALS_WITHIN_S:
            self._dials.popleft()
        if len(self._dials) > _DIALS:
            self.too_many += 1
            violations.note(f"{len(self._dials)} dials within 5 minutes")
        if (host, port) != PROXY:
            self.bypassed += 1
            violations.note(f"{host}:{port} dialled past the proxy")
        return await self.context.network.dial(host, port)
