"""Lines between all who log and the one thread that writes them: bounded, and nobody waits.

A full disk, a closed pipe and a reader that is stuck cost lines, which are counted, and nothing
else.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence

from attrs import frozen

_QUEUE_BYTES = 4 * 2**20

Write = Callable[[bytes], int]
"""As ``os.write``: returns how much was taken; raises OSError."""


@frozen
class QueuedLines:
    """What the writing thread takes at once; ``closed``: nothing follows."""

    lines: Sequence[bytes]
    closed: bool


class LineQueue:
    """Lines between all who log and the thread that writes.  Never blocks who puts one in.

    Bounded in bytes, those that are being written included: a line beyond is lost, and counted.
    """

    def __init__(self, max_bytes: int = _QUEUE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lines: deque[bytes] = deque()
        self._bytes = self._lost = self._unsaid = 0
        self._closed = False
        self._changed = threading.Condition()

    @property
    def lost(self) -> int:
        """Lines that were never written, since the start."""
        return self._lost

    @property
    def unsaid(self) -> int:
        """Those of them that no line tells of."""
        return self._unsaid

    def put(self, line: bytes) -> None:
        with self._changed:
            if self._closed or self._bytes + len(line) > self._max_bytes:
                self._count(1)
                return
            self._bytes += len(line)
            self._lines.append(line)
            self._changed.notify()

    def take(self) -> QueuedLines:
        """Everything that waits; blocks until there is something, or the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._closed)
            lines = tuple(self._lines)
            self._lines.clear()
            return QueuedLines(lines, self._closed)

    def done(self, taken: QueuedLines, *, lost: int = 0, said: int = 0) -> None:
        """``taken`` needs no room any more; ``lost`` of it were not written.  The stream holds a
        line that tells of ``said`` lost ones."""
        with self._changed:
            self._bytes -= sum(map(len, taken.lines))
            self._unsaid -= said
            self._count(lost)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _count(self, lines: int) -> None:
        self._lost += lines
        self._unsaid += lines


class LogThread:
    """Writes a queue's lines to a file descriptor.  ``notice`` renders the line that says how many
    were lost, and for which errors."""

    def __init__(self, queue: LineQueue, write: Write, notice: Callable[[int, str], bytes]) -> None:
        self._queue, self._write, self._notice = queue, write, notice
        self._problem = ""
        self._torn = False
        # A daemon: the interpreter's exit does not wait for a reader that is stuck.
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self, timeout_s: float) -> None:
        """Write what waits; returns at the latest after ``timeout_s``."""
        self._queue.close()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            taken = self._queue.take()
            lost, said = self._write_lines(taken.lines), 0
            unsaid = self._queue.unsaid
            # The stream takes lines again: the moment to say what is missing above.
            if unsaid and not lost and not self._write_lines([self._said(unsaid)]):
                said, self._problem = unsaid, ""
            self._queue.done(taken, lost=lost, said=said)
            if taken.closed:
                return

    def _said(self, lost: int) -> bytes:
        return self._notice(lost, self._problem or "the reader was slow")

    def _write_lines(self, lines: Sequence[bytes]) -> int:
        """Returns how many were not written whole."""
        rest = memoryview(b"".join(lines))
        if self._torn:
            rest = memoryview(b"\n" + bytes(rest))
        whole = len(rest)
        try:
            while rest:
                rest = rest[self._write(bytes(rest)) :]
        except OSError as error:
            self._problem = error.strerror or type(error).__name__
            # A disk that is full can end in the middle of a line: the next one begins anew.
            self._torn = self._torn if len(rest) == whole else True
            return _lines_within(lines, len(rest))
        self._torn = False
        return 0


def _lines_within(lines: Sequence[bytes], size: int) -> int:
    """How many of the last lines the last ``size`` bytes touch."""
    count = 0
    for line in reversed(lines):
        if size <= 0:
            break
        size, count = size - len(line), count + 1
    return count
