"""A network on whose far side everything that an exchange limits is counted, as it arrives there.

It knows nothing of our budgets: it looks at the bytes.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

import trio
from attrs import define, field

from .memory import MemoryNetwork

_PONG, _TEXT = 0x8A, 0x81


@define(eq=False)
class CountedStream(trio.abc.Stream):
    """The exchange's end of a connection.  All times are trio's."""

    stream: trio.abc.Stream
    connects: list[float]
    upgraded: bool = False
    frames: list[float] = field(factory=list)
    pongs: int = 0
    operations: list[float] = field(factory=list)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self.stream.receive_some(max_bytes)
        now = trio.current_time()
        if self.upgraded:
            self._count(bytes(data), now)
        elif re.search(rb"upgrade: *websocket", data, re.IGNORECASE):
            self.upgraded = True
            self.connects.append(now)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.stream.aclose()

    def _count(self, data: bytes, now: float) -> None:
        for kind, payload in _frames(data):
            self.frames.append(now)
            self.pongs += kind == _PONG
            if kind == _TEXT and b'"op"' in payload:
                self.operations += [now] * len(json.loads(payload)["args"])


@define
class _CountedListener(trio.abc.Listener[trio.abc.Stream]):
    listener: trio.abc.Listener[trio.abc.Stream]
    network: "CountedNetwork"

    async def accept(self) -> trio.abc.Stream:
        stream = CountedStream(await self.listener.accept(), self.network.connects)
        self.network.accepted.append(stream)
        return stream

    async def aclose(self) -> None:
        await self.listener.aclose()


class CountedNetwork(MemoryNetwork):
    """``connects`` are the times of the WebSocket upgrades asked for at exchange:80."""

    def __init__(self) -> None:
        super().__init__()
        self.connects: list[float] = []
        self.accepted: list[CountedStream] = []

    async def listen(self, host: str, port: int) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:  # type: ignore[override]
        listeners = await super().listen(host, port)
        if host != "exchange":
            return listeners
        return [_CountedListener(listener, self) for listener in listeners]

    @property
    def websockets(self) -> list[CountedStream]:
        return [stream for stream in self.accepted if stream.upgraded]


def most_within(times: Iterable[float], seconds: float) -> int:
    """The most of them in any half-open window of that length."""
    ordered = sorted(times)
    return max(
        (bisect_right(ordered, at + seconds - 1e-6) - i for i, at in enumerate(ordered)), default=0
    )


def _frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Masked whole frames -> first byte and payload."""
    at = 0
    while at < len(data):
        size, head = data[at + 1] & 0x7F, 2
        if size >= 126:
            head = 4 if size == 126 else 10
            size = int.from_bytes(data[at + 2 : at + head], "big")
        mask = data[at + head : at + head + 4]
        body = data[at + head + 4 : at + head + 4 + size]
        yield data[at], bytes(byte ^ mask[i % 4] for i, byte in enumerate(body))
        at += head + 4 + size


class Steps(trio.abc.Instrument):
    """``count``: how often any task was given its turn."""

    count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


def count_steps() -> Steps:
    """Counts for the rest of this run of trio."""
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    return steps
