"""A network of memory streams: listen and dial by (host, port), no sockets, virtual time."""

import errno
from collections.abc import Callable, Sequence
from typing import Any

import trio

from .memory_stream import pipe_pair


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Accepts what :meth:`MemoryNetwork.dial` offers."""

    def __init__(self, network: "MemoryNetwork", host: str, port: int) -> None:
        self.host, self.port = host, port
        self._network = network
        self._offer, self._incoming = trio.open_memory_channel[trio.abc.Stream](100)

    async def offer(self, stream: trio.abc.Stream) -> None:
        """The server's end of a connection that was dialled."""
        await self._offer.send(stream)

    async def accept(self) -> trio.abc.Stream:
        try:
            return await self._incoming.receive()
        except trio.EndOfChannel:
            raise trio.ClosedResourceError from None

    async def aclose(self) -> None:
        self._network.listeners.pop((self.host, self.port), None)
        self._offer.close()
        self._incoming.close()
        await trio.lowlevel.checkpoint()


class MemoryNetwork:
    """``dial`` and ``listen`` as :class:`trio_feed.environment.Environment` wants them.

    ``dialled`` records every (host, port) asked for.  ``down`` holds the endpoints that refuse.
    ``streams`` are the client ends of the connections that were made, in order.  ``pair`` makes
    them, with the server's ends.
    """

    def __init__(self, pair: Callable[[], tuple[Any, Any]] = pipe_pair) -> None:
        self._pair = pair
        self.listeners: dict[tuple[str, int], MemoryListener] = {}
        self.dialled: list[tuple[str, int]] = []
        self.down: set[tuple[str, int]] = set()
        self.streams: list[Any] = []
        self._next_port = 50_000

    async def listen(self, host: str, port: int) -> Sequence[MemoryListener]:
        """Port 0: any.  Raises OSError where somebody listens already.  The caller closes it."""
        await trio.lowlevel.checkpoint()
        if port == 0:
            self._next_port += 1
            port = self._next_port
        if (host, port) in self.listeners:
            raise OSError(errno.EADDRINUSE, f"memory address already in use: {host}:{port}")
        listener = self.listeners[host, port] = MemoryListener(self, host, port)
        return [listener]

    async def dial(self, host: str, port: int) -> Any:
        """Raises ConnectionRefusedError where nobody listens, or the endpoint is ``down``."""
        self.dialled.append((host, port))
        await trio.lowlevel.checkpoint()
        listener = self.listeners.get((host, port))
        if listener is None or (host, port) in self.down:
            raise ConnectionRefusedError(f"nobody listens at {host}:{port}")
        ours, theirs = self._pair()
        await listener.offer(theirs)
        self.streams.append(ours)
        return ours
