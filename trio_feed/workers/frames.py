"""What parent and worker say to each other: frames of MessagePack behind four bytes of length.

Pure.  Both are of one version, which :class:`Hello` checks: a worker that starts after an upgrade
of the files ends again, and says so.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from ..bus import wire
from ..model import Instrument, PrivateMessage

MAX_FRAME = 64 * 2**20
_LENGTH = 4


class BadFrame(ValueError):
    """Bytes that are no frame."""


class Ask(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """A question, either way; ``what`` names it in :mod:`.questions`."""

    number: int
    what: str
    body: bytes


class Told(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """Its answer; not ``ok``: the problem, as text; ``advice``: what to do about it."""

    number: int
    ok: bool
    body: bytes
    advice: str = ""


class Hello(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """The first frame to a worker.  ``settings`` are pickled by the parent for its own child.
    ``shared``: other processes write the journal, too.
    ``binds``: host, port and descriptors of each address to serve at, in order."""

    version: str
    wire: int
    worker: int
    settings: bytes
    epoch: int
    journal_epoch: int
    shared_epoch: int | None
    shared: bool
    binds: list[tuple[str, int, list[int]]]


class Feed(msgspec.Struct, array_like=True, frozen=True, tag=4):
    items: list[wire.Item]


class Private(msgspec.Struct, array_like=True, frozen=True, tag=5):
    """Events that have just become durable."""

    messages: list[PrivateMessage]


class View(msgspec.Struct, array_like=True, frozen=True, tag=6):
    """How the feeds stand: why not ready, what is wrong with the clock, why a venue is not fresh;
    ``on_demand``: the venues of which more may be asked for than is fed; ``listings``: the
    instruments of those venues where they have changed, all that are fed or may be asked for."""

    not_ready: str
    clock: str
    why_not: dict[str, str]
    on_demand: list[str]
    listings: dict[str, list[Instrument]]


class Apply(msgspec.Struct, array_like=True, frozen=True, tag=7):
    """Settings that were read anew and checked."""

    settings: bytes


class Drain(msgspec.Struct, array_like=True, frozen=True, tag=8):
    """Accept nobody, ask the clients to come back, and end."""


class Ready(msgspec.Struct, array_like=True, frozen=True, tag=9):
    """The worker serves."""


class Failed(msgspec.Struct, array_like=True, frozen=True, tag=10):
    """It cannot start, and why."""

    problem: str


class Report(msgspec.Struct, array_like=True, frozen=True, tag=11):
    """Once a second.  ``counts``: what counters have grown by since the last one: name, labels,
    amount.  ``gauges``: clients, subscriptions, bytes queued, most queued bytes, waiting bytes."""

    counts: list[tuple[str, dict[str, str], float]]
    gauges: tuple[float, float, float, float, float]
    memory_bytes: float
    cpu_s: float


class Keep(msgspec.Struct, array_like=True, frozen=True, tag=12):
    """Somebody subscribed: all workers are to keep the stream's messages."""

    stream: int


class Left(msgspec.Struct, array_like=True, frozen=True, tag=13):
    """A client has gone: its place at the server of this setting is free."""

    key: str
    group: str


class Meet(msgspec.Struct, array_like=True, frozen=True, tag=14):
    user_id: int


class Line(msgspec.Struct, array_like=True, frozen=True, tag=15):
    """An event of the log, as JSON."""

    event: bytes


class Wanted(msgspec.Struct, array_like=True, frozen=True, tag=16):
    """Of the venues on demand: all symbols with subscriptions at this worker and how many, and the
    symbols that were served since the last time."""

    subscriptions: list[tuple[str, str, int]]
    served: list[tuple[str, str]]


class Others(msgspec.Struct, array_like=True, frozen=True, tag=17):
    """Other processes may have written events of these users; None: of anybody."""

    users: list[int] | None


class HangUp(msgspec.Struct, array_like=True, frozen=True, tag=18):
    """The worker's client wants its WebSocket to the exchange no more."""

    number: int


class Spent(msgspec.Struct, array_like=True, frozen=True, tag=19):
    """What clients of one worker had of budgets that hold for all together: name of the budgets,
    address, how much.  The parent passes it on to the others."""

    spent: list[tuple[str, str, float]]


class Span(msgspec.Struct, array_like=True, frozen=True, tag=20):
    """What took time and has just ended, see :class:`.telemetry.Spans`."""

    name: str
    took_s: float
    error: str
    attributes: dict[str, str | int | float | bool]


ToWorker = Ask | Told | Hello | Feed | Private | View | Apply | Drain | Others | Spent
ToParent = (
    Ask
    | Told
    | Ready
    | Failed
    | Report
    | Keep
    | Left
    | Meet
    | Line
    | Wanted
    | HangUp
    | Spent
    | Span
)


def encoded(frame: Any) -> bytes:
    """Raises OverflowError for a number beyond 64 bits in the head of an item."""
    body = msgspec.msgpack.encode(frame)
    return len(body).to_bytes(_LENGTH) + body


class Decoder:
    """Bytes as they come -> frames."""

    def __init__(self, kind: Any) -> None:
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Sequence[Any]:
        """The frames that are complete now.  Raises BadFrame."""
        buffer, frames, at = self._buffer, [], 0
        buffer += data
        while len(buffer) - at >= _LENGTH:
            size = int.from_bytes(buffer[at : at + _LENGTH])
            if size > MAX_FRAME:
                raise BadFrame(f"a frame of {size} bytes")
            if len(buffer) - at - _LENGTH < size:
                break
            at += _LENGTH
            try:
                frames.append(self._decode(bytes(buffer[at : at + size])))
            except msgspec.MsgspecError as error:
                raise BadFrame(str(error)) from None
            at += size
        del buffer[:at]
        return frames
