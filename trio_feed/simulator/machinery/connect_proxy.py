"""An HTTP CONNECT proxy of a memory network that can be made to fail.

What it costs is one request and one reply: the client's stream is not copied byte by byte but
handed to the listener of the target as it is.
"""

from collections import deque
from contextlib import suppress
from itertools import repeat
from typing import Literal, Never

import trio
from attrs import define, field

from .memory_network import MemoryNetwork

ProxyFault = int | Literal["hang", "die", "split"]
"""A status that refuses; no reply at all; half a reply and the end; a reply in many pieces."""

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)
_HEAD_BYTES = 8 * 1024
_HEAD_S = 10.0
_OPEN = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 simulated\r\n\r\n"
_REFUSED = b"HTTP/1.1 %d Refused\r\nContent-Length: 0\r\n%s\r\n"
_CHALLENGE = b'Proxy-Authenticate: Basic realm="simulated"\r\n'
_PIECE = 7


@define(eq=False)
class ConnectProxy:
    """``faults`` are what the next clients get in place of a tunnel, each once, in order."""

    network: MemoryNetwork
    faults: deque[ProxyFault] = field(factory=deque)

    def fail_next(self, fault: ProxyFault, count: int) -> None:
        self.faults.extend(repeat(fault, count))

    async def run(self, listener: trio.abc.Listener[trio.abc.Stream]) -> Never:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._serve, await listener.accept())

    async def _serve(self, stream: trio.abc.Stream) -> None:
        with suppress(*_GONE):
            target = await _read_target(stream)
            if target is not None and await self._reply(stream, target):
                return  # the target owns the stream now
        await trio.aclose_forcefully(stream)

    async def _reply(self, stream: trio.abc.Stream, target: tuple[str, int]) -> bool:
        """Whether the tunnel is there.  Where it hangs it waits for the client to hang up."""
        fault = self.faults.popleft() if self.faults else None
        listener = self.network.listeners.get(target)
        if fault == "hang":
            await stream.receive_some()  # until the client hangs up
        elif fault == "die":
            await stream.send_all(_OPEN[: len(_OPEN) // 2])
        elif isinstance(fault, int):
            await stream.send_all(_REFUSED % (fault, _CHALLENGE if fault == 407 else b""))
        elif listener is None or target in self.network.down:
            await stream.send_all(_REFUSED % (502, b""))
        else:
            size = _PIECE if fault == "split" else len(_OPEN)
            for start in range(0, len(_OPEN), size):
                await stream.send_all(_OPEN[start : start + size])
                if fault == "split":
                    await trio.sleep(0.05)
            await listener.offer(stream)
            return True
        return False


async def _read_target(stream: trio.abc.Stream) -> tuple[str, int] | None:
    """What the client wants to be connected with; None: it does not speak CONNECT."""
    head = b""
    with trio.move_on_after(_HEAD_S):
        while b"\r\n\r\n" not in head and len(head) < _HEAD_BYTES:
            data = await stream.receive_some()
            if not data:
                return None
            head += data
    method, _, rest = head.partition(b" ")
    host, _, port = rest.split(b" ")[0].decode("latin-1").rpartition(":")
    return (host, int(port)) if method == b"CONNECT" and port.isdigit() else None
