"""An exchange in a box behind a real port, with the outages of a seeded schedule.

The exchange and its fault proxy speak over memory streams, as in ``scripts/simulate``; here each
TCP connection is joined to one of them.  What there would refuse a dial closes the connection.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import trio

from ..settings import SimulatorSettings
from ..simulator.exchanges import serve_exchange
from ..simulator.faults.clocks import Clocks
from ..simulator.faults.context import FaultContext
from ..simulator.faults.injection import inject
from ..simulator.faults.proxy import FaultProxy
from ..simulator.faults.schedule import KINDS, Fault, write_schedule
from ..simulator.machinery.connect_proxy import ConnectProxy
from ..simulator.machinery.memory_network import MemoryNetwork

_OF_THE_CLIENT = {"clock_skew"}
"""What happens to the client's own machine."""
_OF_A_PROXY = {kind for kind in KINDS if kind.startswith("proxy_")}
_WITH_TLS = {"tls_failure"}
FAULTS = tuple(kind for kind in KINDS if kind not in _OF_THE_CLIENT | _OF_A_PROXY | _WITH_TLS)
"""What a client of one plain port can meet."""
_WEBSOCKET, _REST, _PROXY = ("exchange", 80), ("rest", 80), ("proxy", 3128)
_HEAD_BYTES = 16 * 1024
_HEAD_S = 10.0
_CONTROL_FRAMES_PER_S = 10
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


async def serve_with_faults(
    box: SimulatorSettings,
    listeners: Sequence[trio.SocketListener],
    kinds: Sequence[str],
    per_hour: float,
    say: Callable[[str], object],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Until cancelled; ``say`` hears of each fault as it begins.  Closes the listeners."""
    async with trio.open_nursery() as nursery:
        clocks = Clocks(time.time() * 1000 - trio.current_time() * 1000)
        network = MemoryNetwork()
        faults = FaultProxy(nursery, clocks.exchange_ms, _CONTROL_FRAMES_PER_S)
        inside = []
        for endpoint in (_WEBSOCKET, _REST):
            (listener,) = await network.listen(*endpoint)
            inside.append(faults.wrap(listener, rest=endpoint is _REST))
        begin = partial(serve_exchange, box, listeners=inside, now_ms=clocks.exchange_ms)
        exchange: Any = await nursery.start(begin)
        symbol = box.symbols[0]
        context = FaultContext(
            exchange, network, faults, ConnectProxy(network), _WEBSOCKET, _REST, _PROXY,
            symbol, box.symbols[-1], box.symbols[-1], clocks,
        )  # fmt: skip
        nursery.start_soon(_play, context, kinds, per_hour, box.seed, say)
        join = partial(_join, network)
        await nursery.start(partial(trio.serve_listeners, join, list(listeners)))
        task_status.started()


async def _play(
    context: FaultContext,
    kinds: Sequence[str],
    per_hour: float,
    seed: int,
    say: Callable[[str], object],
) -> None:
    """Hour after hour, each with a schedule of its own."""
    while kinds:
        began_s = trio.current_time()
        for at_s, fault in spread(seed, kinds, per_hour):
            await trio.sleep_until(began_s + at_s)
            inject(context, fault)
            say(f"fault: {fault}")
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


async def _join(network: MemoryNetwork, client: trio.SocketStream) -> None:
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


async def _head(client: trio.SocketStream) -> bytes:
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
