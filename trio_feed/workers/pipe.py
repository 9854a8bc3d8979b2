"""A socket between parent and worker: frames in order, questions and answers, everything bounded.

What is put waits in a buffer that one task sends.  The other side is given up (:class:`PipeLost`)
where it takes nothing for ``stall_s`` (which may change meanwhile), where more than ``max_bytes``
wait for it, or when it ends.
Questions and answers come in order with everything else: what was put before an answer is there
before it.  But where much waits already they wait themselves, so that any number of large ones
takes no more memory and ends no pipe; news goes before them then.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from itertools import count
from typing import Any, Never

import structlog
import trio
from attrs import define, field

from ..errors import JournalError, StoreError
from ..supervise import described
from . import frames
from .frames import Ask, BadFrame, Told

log = structlog.get_logger()

_CHUNK = 256 * 1024
_WAITS_BEHIND, _LARGEST = 8, 2
"""Parts of ``max_bytes``: a question or an answer waits while more than an eighth is waiting, and
is refused where it is more than half by itself."""
_READ = 256 * 1024
_ASKED_AT_ONCE = 256
"""Questions of one side that are not answered yet; further ones wait."""

Answer = Callable[[str, bytes], Awaitable[bytes]]
"""A question's name and body -> the answer.  StoreError and JournalError go to the asker."""


class PipeLost(Exception):
    """The other side is gone, or given up; the text says why."""


class NoAnswer(Exception):
    """A question was not answered, and why.  ``advice``: what the other side says to do about it;
    empty: nothing."""

    def __init__(self, problem: str, advice: str = "") -> None:
        super().__init__(problem)
        self.advice = advice


@define(eq=False)
class _Asked:
    done: trio.Event = field(factory=trio.Event)
    told: Told | None = None


class Pipe:
    """``stream`` is its own from now on.  ``kind``: what may come, a union of frames; ``handle``
    gets each that is neither question nor answer, in order, and must not wait."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        kind: Any,
        handle: Callable[[Any], None],
        answer: Answer,
        *,
        max_bytes: int,
        stall_s: float,
    ) -> None:
        self._stream, self._handle, self._answer = stream, handle, answer
        self._decoder = frames.Decoder(kind)
        self._max_bytes, self.stall_s = max_bytes, stall_s
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._more, self._room = trio.Event(), trio.lowlevel.ParkingLot()
        self._in_turn = trio.StrictFIFOLock()
        self._numbers = count(1)
        self._asked: dict[int, _Asked] = {}
        self._turns = trio.CapacityLimiter(_ASKED_AT_ONCE)
        self._scope = trio.CancelScope()
        self._problem = ""
        self.reason = "ended"
        """Why it was lost, in one word."""
        self._under_way = 0

    @property
    def bytes_waiting(self) -> int:
        return self._bytes

    def put(self, frame: Any) -> None:
        """Send it soon.  Never waits."""
        self.put_encoded(frames.encoded(frame))

    def put_encoded(self, data: bytes) -> None:
        """The same with a frame that was encoded for several."""
        if self._problem:
            return
        self._waiting.append(data)
        self._bytes += len(data)
        self._more.set()
        if self._bytes > self._max_bytes:
            self.give_up(f"{self._bytes} bytes wait for it", "slow")

    def give_up(self, problem: str, reason: str = "ended") -> None:
        """:meth:`run` ends with that."""
        if not self._problem:
            self._problem, self.reason = problem, reason
        self._scope.cancel()

    async def wait_empty(self) -> None:
        """Until everything that was put is with the system, or the pipe is lost."""
        while self._bytes and not self._problem:
            await self._room.park()

    async def _put_in_turn(self, data: bytes) -> None:
        """Put it when there is room, at once as a rule."""
        least = self._max_bytes // _WAITS_BEHIND
        if self._bytes > least or self._in_turn.locked():
            async with self._in_turn:
                while self._bytes > least and not self._problem:
                    await self._room.park()
        self.put_encoded(data)

    def _too_large(self, data: bytes) -> bool:
        return len(data) > self._max_bytes // _LARGEST

    async def ask(self, what: str, body: bytes, within_s: float, *, in_turn: bool = True) -> bytes:
        """Raises NoAnswer: a refusal, nothing in time, too large, or the pipe is lost.  ``in_turn``
        False: it waits for no other question; the caller bounds how many of them there are."""
        with trio.move_on_after(within_s):
            async with self._turns if in_turn else nullcontext():
                number, asked = next(self._numbers), _Asked()
                if self._problem:
                    raise NoAnswer(self._problem)
                data = frames.encoded(Ask(number, what, body))
                if self._too_large(data):
                    raise NoAnswer(f"the question is too large: {len(data)} bytes")
                self._asked[number] = asked
                try:
                    await self._put_in_turn(data)
                    await asked.done.wait()
                finally:
                    del self._asked[number]
                if asked.told is None:
                    raise NoAnswer(self._problem)
                if not asked.told.ok:
                    raise NoAnswer(asked.told.body.decode(), asked.told.advice)
                return asked.told.body
        raise NoAnswer(f"no answer within {within_s:g} s")

    async def run(self) -> Never:
        """Send and receive until it is lost.  Raises PipeLost.  Closes the stream."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send)
                    await self._receive(nursery)
        finally:
            self._problem = self._problem or "it has ended"
            for asked in self._asked.values():
                asked.done.set()
            self._room.unpark_all()
            await trio.aclose_forcefully(self._stream)
        raise PipeLost(self._problem)

    async def _send(self) -> None:
        while True:
            await self._more.wait()
            self._more = trio.Event()
            while self._waiting:
                data = b"".join(self._waiting)
                self._waiting.clear()
                view = memoryview(data)
                for at in range(0, len(view), _CHUNK):
                    piece = view[at : at + _CHUNK]
                    if not await self._sent(piece):
                        return
                    self._bytes -= len(piece)
                    self._room.unpark_all()

    async def _sent(self, piece: memoryview) -> bool:
        try:
            with trio.move_on_after(self.stall_s) as deadline:
                await self._stream.send_all(piece)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.give_up("it has ended")
            return False
        if deadline.cancelled_caught:
            self.give_up(f"it took nothing for {self.stall_s:g} s", "slow")
            return False
        return True

    async def _receive(self, nursery: trio.Nursery) -> None:
        while True:
            try:
                data = await self._stream.receive_some(_READ)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not data:
                self.give_up("it has ended")
                return
            try:
                found = self._decoder.feed(bytes(data))
            except BadFrame as error:
                self.give_up(f"it speaks another language: {error}")
                return
            for frame in found:
                self._take(frame, nursery)

    def _take(self, frame: Any, nursery: trio.Nursery) -> None:
        if isinstance(frame, Told):
            asked = self._asked.get(frame.number)
            if asked is not None:  # who asked may have given up
                asked.told = frame
                asked.done.set()
        elif isinstance(frame, Ask):
            self._under_way += 1
            if self._under_way > 2 * _ASKED_AT_ONCE:
                self.give_up(f"{self._under_way} questions at once")
            else:
                nursery.start_soon(self._tell, frame, name=f"question {frame.what}")
        else:
            self._handle(frame)

    async def _tell(self, ask: Ask) -> None:
        advice = ""
        try:
            body, ok = await self._answer(ask.what, ask.body), True
        except (StoreError, JournalError) as error:
            body, ok = str(error).encode(), False
            advice = error.advice if isinstance(error, JournalError) else ""
        except Exception as error:  # noqa: BLE001  a bug in one answer ends no pipe
            log.error("worker.question_failed", what=ask.what, problem=described(error))
            body, ok = b"a bug of the server; its log says which", False
        finally:
            self._under_way -= 1
        data = frames.encoded(Told(ask.number, ok, body, advice))
        if self._too_large(data):
            problem = f"the answer is too large: {len(data)} bytes"
            log.error("worker.question_failed", what=ask.what, problem=problem)
            data = frames.encoded(Told(ask.number, ok=False, body=problem.encode()))
        await self._put_in_turn(data)
