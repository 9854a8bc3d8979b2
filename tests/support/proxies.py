"""HTTP CONNECT proxies over memory streams, that can die and come back."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio
from attrs import define, field

from .memory import MemoryNetwork

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


async def _serve(
    network: MemoryNetwork,
    host: str,
    port: int,
    carry: Callable[[trio.abc.Stream], Awaitable[None]],
    task_status: trio.TaskStatus[None],
) -> None:
    (listener,) = await network.listen(host, port)
    async with trio.open_nursery() as nursery:
        task_status.started()
        while True:
            nursery.start_soon(carry, await listener.accept())


@define(eq=False)
class MemoryProxy:
    """``carried`` counts the tunnels that were opened; ``exits`` the streams that are open."""

    network: MemoryNetwork
    host: str
    port: int = 3128
    carried: int = 0
    _open: set[trio.CancelScope] = field(factory=set)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await _serve(self.network, self.host, self.port, self._carry, task_status)

    def die(self) -> None:
        """Every tunnel ends, and nobody gets in."""
        self.network.down.add((self.host, self.port))
        for scope in self._open:
            scope.cancel()

    def come_back(self) -> None:
        self.network.down.discard((self.host, self.port))

    async def _carry(self, client: trio.abc.Stream) -> None:
        with trio.CancelScope() as scope, suppress(*_GONE):
            self._open.add(scope)
            try:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += await client.receive_some(1)
                host, _, port = head.split(b" ")[1].decode().rpartition(":")
                exchange = await self.network.dial(host, int(port))
                await client.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
                self.carried += 1
                await _join(client, exchange)
            finally:
                self._open.discard(scope)
        await trio.aclose_forcefully(client)


async def _join(one: trio.abc.Stream, other: trio.abc.Stream) -> None:
    async def copy(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
        with suppress(*_GONE):
            while data := await source.receive_some(65536):
                await sink.send_all(data)
        nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(copy, one, other)
            nursery.start_soon(copy, other, one)
    finally:
        await trio.aclose_forcefully(one)
        await trio.aclose_forcefully(other)


@define(eq=False)
class MemorySocks:
    """A SOCKS5 proxy (RFC 1928) without authentication; ``carried``: the hosts asked for."""

    network: MemoryNetwork
    host: str
    port: int = 1080
    carried: list[str] = field(factory=list)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await _serve(self.network, self.host, self.port, self._carry, task_status)

    async def _carry(self, client: trio.abc.Stream) -> None:
        with suppress(*_GONE):
            methods = (await _exactly(client, 2))[1]
            await _exactly(client, methods)
            await client.send_all(b"\x05\x00")
            assert (await _exactly(client, 4)) == b"\x05\x01\x00\x03", "CONNECT to a name"
            name = await _exactly(client, (await _exactly(client, 1))[0])
            port = int.from_bytes(await _exactly(client, 2), "big")
            self.carried.append(name.decode())
            try:
                exchange = await self.network.dial(name.decode(), port)
            except OSError:
                await client.send_all(b"\x05\x05\x00\x01" + bytes(6))
            else:
                await client.send_all(b"\x05\x00\x00\x01" + bytes(6))
                await _join(client, exchange)
        await trio.aclose_forcefully(client)


async def _exactly(stream: trio.abc.Stream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        if not more:
            raise trio.BrokenResourceError
        data += more
    return data
