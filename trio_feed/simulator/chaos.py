"""An exchange in a box behind real ports, with the outages of a seeded schedule.

The exchange and its fault proxy speak over memory streams, as in ``scripts/simulate``; here each
connection of a port is joined to one of them.  What there would refuse a dial closes the
connection.  A second port may be an HTTP CONNECT proxy, for the faults of proxies; it leads to the
first port and nowhere else.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Never

import trio
from attrs import define, frozen

from ..settings import SimulatorSettings
from .exchanges import serve_exchange
from .faults.clocks import Clocks
from .faults.context import FaultContext
from .faults.injection import inject
from .faults.proxy import FaultProxy
from .faults.schedule import KINDS, Fault, write_schedule
from .machinery.connect_proxy import ConnectProxy
from .machinery.memory_network import MemoryNetwork

OF_THE_CLIENT = frozenset({"clock_skew"})
"""What happens to the client's own machine."""
OF_A_PROXY = frozenset(kind for kind in KINDS if kind.startswith("proxy_"))
FAULTS = tuple(KINDS)
"""All that can be chosen."""
_WEBSOCKET, _REST, _PROXY = ("exchange", 80), ("rest", 80), ("proxy", 3128)
_NAMES = ("127.0.0.1", "localhost", "::1")
_HEAD_BYTES = 16 * 1024
_HEAD_S = 10.0
_CONTROL_FRAMES_PER_S = 10
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)
Listeners = Sequence[trio.abc.Listener[Any]]


@frozen
class Chaos:
    """``kinds`` of faults, so many ``per_hour``, evenly spread; ``say`` hears as each begins."""

    kinds: Sequence[str]
    per_hour: float
    say: Callable[[str], object]


def make_clocks() -> Clocks:
    """Which show the machine's time until a fault moves the service's."""
    return Clocks(time.time() * 1000 - trio.current_time() * 1000)


async def serve_with_faults(
    box: SimulatorSettings,
    chaos: Chaos,
    listeners: Listeners,
    *,
    port: int,
    proxy: Listeners = (),
    clocks: Clocks | None = None,
    task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Until cancelled; ``started`` gives the exchange.  ``port`` is that of ``listeners``, which
    clients of the CONNECT proxy at ``proxy`` ask for.  Closes all listeners."""
    clocks = clocks or make_clocks()
    async with trio.open_nursery() as nursery:
        network = MemoryNetwork()
        faults = FaultProxy(nursery, clocks.exchange_ms, _CONTROL_FRAMES_PER_S)
        inside = []
        for endpoint in (_WEBSOCKET, _REST):
            (listener,) = await network.listen(*endpoint)
            inside.append(faults.wrap(listener, rest=endpoint is _REST))
        begin = partial(serve_exchange, box, listeners=inside, now_ms=clocks.exchange_ms)
        exchange: Any = await nursery.start(begin)
        connect = ConnectProxy(network)
        context = FaultContext(
            exchange, network, faults, connect, _WEBSOCKET, _REST, _PROXY,
            box.symbols[0], box.symbols[-1], box.symbols[-1], clocks,
        )  # fmt: skip
        tunnelled: list[trio.abc.Listener[trio.abc.Stream]] = []
        for name in dict.fromkeys((box.host, *_NAMES)):
            tunnelled += await network.listen(name, port)
        join = partial(_join, network)
        await nursery.start(partial(trio.serve_listeners, join, [*listeners, *tunnelled]))
        for each in proxy:
            nursery.start_soon(_run_proxy, connect, _WhileUp(each, network))
        nursery.start_soon(_play, context, chaos, box.seed)
        task_status.started(exchange)


async def _run_proxy(connect: ConnectProxy, listener: trio.abc.Listener[Any]) -> Never:
    async with listener:
        await connect.run(listener)
    raise AssertionError("a proxy runs until cancelled")


@define(eq=False)
class _WhileUp(trio.abc.Listener[Any]):
    """What is accepted while the proxy is down is closed at once."""

    listener: trio.abc.Listener[Any]
    network: MemoryNetwork

    async def accept(self) -> trio.abc.Stream:
        while True:
            stream: trio.abc.Stream = await self.listener.accept()
            if _PROXY not in self.network.down:
                return stream
            await trio.aclose_forcefully(stream)

    async def aclose(self) -> None:
        await self.listener.aclose()


async def _play(context: FaultContext, chaos: Chaos, seed: int) -> None:
    """Hour after hour, each with a schedule of its own."""
    while chaos.kinds:
        began_s = trio.current_time()
        for at_s, fault in spread(seed, chaos.kinds, chaos.per_hour):
            await trio.sleep_until(began_s + at_s)
            inject(context, fault)
            chaos.say(str(fault))
        await trio.sleep_until(began_s + 3600.0)
        seed += 1


def spread(seed: int, kinds: Sequence[str], per_hour: float) -> list[tuple[float, Fault]]:
    """So many faults an hour: the seconds of an hour at which they begin, ascending.  Pure."""
    number = max(1, round(per_hour))
    found: list[Fault] = []
    while len(found) < number:
        found += [fault for _, fault in write_schedule(seed + len(found), 1.0, kinds)]
    step_s = 3600.0 / number
    return [((index + 0.5) * step_s, fault) for index, fault in enumerate(found[:number])]


async def _join(network: MemoryNetwork, client: trio.abc.Stream) -> None:
    """One TCP connection and the one inside that its first request is for."""
    try:
        head = await _head(client)
        endpoint = _WEBSOCKET if b"upgrade: websocket" in head.lower() else _REST
        inside = await network.dial(*endpoint)
    except _GONE:
        await trio.aclose_forcefully(client)
        return
    try:
        await inside.send_all(head)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_pump, client, inside, nursery.cancel_scope)
            nursery.start_soon(_pump, inside, client, nursery.cancel_scope)
    except _GONE:
        pass
    finally:
        await trio.aclose_forcefully(client)
        await trio.aclose_forcefully(inside)


async def _head(client: trio.abc.Stream) -> bytes:
    """The first request up to its empty line, and what came behind it."""
    head = b""
    with trio.move_on_after(_HEAD_S):
        while b"\r\n\r\n" not in head and len(head) < _HEAD_BYTES:
            data = await client.receive_some()
            if not data:
                break
            head += data
    if not head:
        raise trio.BrokenResourceError("nothing was asked")
    return head


async def _pump(source: trio.abc.Stream, sink: trio.abc.Stream, both: trio.CancelScope) -> None:
    """Until either end has gone; then the other goes as well."""
    try:
        while data := await source.receive_some():
            await sink.send_all(data)
    except _GONE:
        pass
    both.cancel()
