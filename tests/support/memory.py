"""The network of memory streams, over those of trio: they yield at each step, so that careless
callers are found out."""

from collections.abc import Callable
from typing import Any

import trio
import trio.testing

from trio_feed.simulator.machinery import memory_network
from trio_feed.simulator.machinery.memory_network import MemoryListener

__all__ = ["MemoryListener", "MemoryNetwork", "MemoryStream"]

MemoryStream = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


class MemoryNetwork(memory_network.MemoryNetwork):
    def __init__(
        self, pair: Callable[[], tuple[Any, Any]] = trio.testing.memory_stream_pair
    ) -> None:
        super().__init__(pair)
