"""A fault proxy in front of a simulated exchange: every byte stream passes here and may be changed.

The exchange knows nothing of it.  The proxy sees whole frames, because the exchange's connections
send nothing else (:mod:`..machinery.wire`), and it can hold back, change, double or drop them; it
can leave a new connection without an answer or give it garbage; and it counts what a client may
not do: too many control frames, requests during a ban.
"""

import heapq
import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import trio
from attrs import define, field

from ..machinery.wire import text_frame

GARBAGE = b"\x16\x03\x01 220 mail ready\r\n\x00\xff not HTTP at all\r\n\r\n"
TLS_ALERT = b"\x15\x03\x03\x00\x02\x02\x28"
"""Fatal, handshake_failure (RFC 8446 section 6)."""
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)
_TEXT = 0x81
_BANNED = re.compile(rb"banned until (\d{13})")
_RETRY_AFTER = re.compile(rb"retry-after: (\d+)", re.IGNORECASE)

FrameFault = Callable[[bytes], Iterable[tuple[float, bytes]]]
"""The payload of a text frame -> what is sent instead: (seconds later, payload)."""


@define(eq=False)
class ActiveFrameFault:
    """A way to change_frames while it lasts.  ``make`` gives each connection its own."""

    make: Callable[[], FrameFault]
    until: float


@define
class Violations:
    """What the client did that an exchange does not forgive."""

    control_frames: int = 0
    while_banned: int = 0
    log: list[str] = field(factory=list)
    """A line for each, with trio's time."""

    def note(self, what: str) -> None:
        self.log.append(f"t={trio.current_time():.3f} violation {what}")


@define(eq=False)
class FaultProxy:
    """Of one exchange; ``wrap`` wraps the listeners that the exchange gets.

    ``now_ms`` is the exchange's clock.  ``handshakes`` are for the next WebSocket connections,
    ``rest_handshakes`` for those of REST: seconds without an answer, or what they get before they
    are closed.  ``rest_delays_s`` are for the next REST requests.
    """

    nursery: trio.Nursery
    now_ms: Callable[[], float]
    control_frames_per_s: int
    violations: Violations = field(factory=Violations)
    handshakes: deque[float | bytes] = field(factory=deque)
    rest_handshakes: deque[float | bytes] = field(factory=deque)
    rest_delays_s: deque[float] = field(factory=deque)
    streams: dict["FaultStream", None] = field(factory=dict)
    silences_s: list[float] = field(factory=list)
    """How long each connection that had gone silent was kept, whichever side ended it."""
    banned_ms: tuple[float, float] = (0.0, 0.0)
    frames_changed_until: float = -math.inf
    """When the last active so far ends."""
    stalled_until: float = -math.inf
    """Until then (trio's clock) no byte comes through, in either direction; none is lost."""
    frames: int = 0
    """Writes to WebSockets so far."""
    _lag: tuple[float, float] = (0.0, -math.inf)
    _frame_faults: list[ActiveFrameFault] = field(factory=list)

    def wrap(self, listener: trio.abc.Listener[trio.abc.Stream], *, rest: bool) -> "FaultListener":
        return FaultListener(listener, self, rest)

    def change_frames(self, make: Callable[[], FrameFault], lasts_s: float) -> None:
        """From now on, for ``lasts_s`` seconds."""
        until = trio.current_time() + lasts_s
        self._frame_faults.append(ActiveFrameFault(make, until))
        self.frames_changed_until = max(self.frames_changed_until, until)

    def frame_faults(self) -> list[ActiveFrameFault]:
        """Those that are under way, in the order in which they began."""
        if self._frame_faults:
            now = trio.current_time()
            self._frame_faults = [t for t in self._frame_faults if t.until > now]
        return self._frame_faults

    def stall(self, lasts_s: float) -> None:
        """The way stands still, then everything comes at once."""
        self.stalled_until = max(self.stalled_until, trio.current_time() + lasts_s)

    def lag(self, delay_s: float, lasts_s: float) -> None:
        """What WebSockets send in the next ``lasts_s`` seconds comes so much later."""
        self._lag = (delay_s, trio.current_time() + lasts_s)

    def release_at(self, *, rest: bool) -> float:
        """When bytes that are sent now may come through; -inf: at once."""
        delay_s, until = self._lag
        now = trio.current_time()
        at = self.stalled_until if self.stalled_until > now else -math.inf
        return max(at, now + delay_s) if until > now and not rest else at

    def cut_rest(self) -> None:
        """Close every REST connection, without a word."""
        for stream in [s for s in self.streams if s.rest]:
            self.nursery.start_soon(trio.aclose_forcefully, stream)

    def answered(self, data: bytes) -> None:
        """A REST answer is sent: note the ban that it speaks of."""
        if not data.startswith((b"HTTP/1.1 418", b"HTTP/1.1 429")):
            return
        now = self.now_ms()
        if found := _BANNED.search(data):
            self.banned_ms = (now, float(found[1]))
        elif found := _RETRY_AFTER.search(data):
            self.banned_ms = (now, now + int(found[1]) * 1000)

    def asked(self) -> None:
        """A REST request came in.  One that was on its way when the ban was spoken is no violation,
        nor is one a moment before its end."""
        since, until = self.banned_ms
        now = self.now_ms()
        if since < now < until - 1:
            self.violations.while_banned += 1
            self.violations.note(f"asked {(until - now) / 1000:.1f} s before the end of a ban")


class FaultListener(trio.abc.Listener[trio.abc.Stream]):
    """Accepts what the listener behind it accepts, as a :class:`FaultStream`."""

    def __init__(
        self, listener: trio.abc.Listener[trio.abc.Stream], proxy: FaultProxy, rest: bool
    ) -> None:
        self._listener, self._proxy, self._rest = listener, proxy, rest

    async def accept(self) -> trio.abc.Stream:
        proxy = self._proxy
        faults = proxy.rest_handshakes if self._rest else proxy.handshakes
        while True:
            stream = await self._listener.accept()
            handshake = faults.popleft() if faults else 0.0
            if not isinstance(handshake, bytes):
                wrapped = FaultStream(stream, proxy, self._rest, handshake)
                proxy.streams[wrapped] = None
                return wrapped
            with suppress(*_GONE):
                await stream.send_all(handshake)
            await stream.aclose()

    async def aclose(self) -> None:
        await self._listener.aclose()


@define(eq=False)
class FaultStream(trio.abc.Stream):
    """The exchange's end of one connection.  ``wait_s``: before the first byte is read.

    ``stream`` must allow sends at the same time (:mod:`..machinery.memory_stream` does): frames
    that were held back are sent when their time comes.
    """

    stream: trio.abc.Stream
    proxy: FaultProxy
    rest: bool
    wait_s: float
    silent_since: float | None = None
    _upgraded: bool = False
    _changes: dict[ActiveFrameFault, FrameFault] = field(factory=dict)
    _control: deque[float] = field(factory=deque)
    _later: list[tuple[float, int, bytes]] = field(factory=list)
    """What was held back: when it goes on, its number, bytes."""
    _held: int = 0
    _clear_at: float = -math.inf
    """Nothing overtakes what is held back in order until then."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        data = bytes(data)
        if self._upgraded and (frame_faults := self.proxy.frame_faults()):
            data = self._changed_frames(data, frame_faults)
        self.proxy.frames += self._upgraded
        if not data:  # all of it was dropped or held back
            await trio.lowlevel.checkpoint()
            return
        now, at = trio.current_time(), max(self.proxy.release_at(rest=self.rest), self._clear_at)
        if at > now or (self._later and self._later[0][0] <= now):
            self._clear_at = max(at, now)
            self._hold(self._clear_at, data)
        else:
            await self._send(data)
        if not self.rest:
            self._upgraded = self._upgraded or data.startswith(b"HTTP/1.1 101")

    async def _send(self, data: bytes) -> None:
        await self.stream.send_all(data)
        if self.rest:
            self.proxy.answered(data)  # only now: a client that has given up does not know

    def _hold(self, at: float, data: bytes) -> None:
        """Until ``at``; what is held until the same moment goes on in the order in which it
        came."""
        self._held += 1
        heapq.heappush(self._later, (at, self._held, data))
        self.proxy.nursery.start_soon(self._release, at)

    async def _release(self, at: float) -> None:
        await trio.sleep_until(at)
        with suppress(*_GONE):
            while self._later and self._later[0][0] <= trio.current_time():
                await self._send(heapq.heappop(self._later)[2])

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self.wait_s:
            wait_s, self.wait_s = self.wait_s, 0.0
            await trio.sleep(wait_s)
        data = await self.stream.receive_some(max_bytes)
        if self._upgraded:
            self._count(data)
        elif self.rest and data:
            self.proxy.asked()
            if self.proxy.rest_delays_s:
                await trio.sleep(self.proxy.rest_delays_s.popleft())
        if self.proxy.stalled_until > trio.current_time():
            await trio.sleep_until(self.proxy.stalled_until)
        return data

    async def aclose(self) -> None:
        self.proxy.streams.pop(self, None)
        if self.silent_since is not None:
            self.proxy.silences_s.append(trio.current_time() - self.silent_since)
            self.silent_since = None
        await self.stream.aclose()

    def _changed_frames(self, data: bytes, frame_faults: Iterable[ActiveFrameFault]) -> bytes:
        """Whole frames -> what is left of them to be sent now."""
        now = bytearray()
        for frame, payload in server_frames(data):
            outs: list[tuple[float, bytes]] = [(0.0, payload)]
            if frame[0] != _TEXT:
                now += frame
                continue
            for active in frame_faults:
                if active not in self._changes:
                    self._changes[active] = active.make()
                change = self._changes[active]
                outs = [(a + b, new) for a, old in outs for b, new in change(old)]
            for delay_s, new in outs:
                if delay_s:
                    self._hold(trio.current_time() + delay_s, text_frame(new))
                else:
                    now += text_frame(new)
        return bytes(now)

    def _count(self, data: bytes | bytearray) -> None:
        """Frames of the client: at most ``control_frames_per_s`` in any second."""
        most, recent, now = self.proxy.control_frames_per_s, self._control, trio.current_time()
        for _ in client_frames(data):
            recent.append(now)
        while recent and recent[0] <= now - 1.0:
            recent.popleft()
        if len(recent) > most:
            self.proxy.violations.control_frames += 1
            self.proxy.violations.note(f"{len(recent)} control frames within a second")


def server_frames(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Unmasked whole frames -> (frame, payload)."""
    at = 0
    while at < len(data):
        head, size = _head(data, at)
        end = at + head + size
        yield data[at:end], data[at + head : end]
        at = end


def client_frames(data: bytes | bytearray) -> Iterator[int]:
    """Masked whole frames -> their first bytes.  A client's control frames come in one piece."""
    at = 0
    while at + 1 < len(data):
        yield data[at]
        head, size = _head(data, at)
        at += head + 4 + size


def _head(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """Length of the head (without a mask) and of the payload."""
    size = data[at + 1] & 0x7F
    if size < 126:
        return 2, size
    head = 4 if size == 126 else 10
    return head, int.from_bytes(data[at + 2 : at + head], "big")
