"""Lines on their way to stdout: bounded, counted, and what is missing is said."""

import errno
import os
import threading
from collections.abc import Iterator
from io import StringIO

import pytest
import structlog

from trio_feed.log_lines import LineQueue, LogThread
from trio_feed.logs import configure, shows_colours
from trio_feed.settings import LoggingSettings


class Disk:
    """A stream that can be full, and that may take a part only."""

    def __init__(self) -> None:
        self.content = b""
        self.room: int | None = None
        self.portion = 1_000_000

    def write(self, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        took = min(len(data), self.portion, len(data) if self.room is None else self.room)
        self.content += data[:took]
        if self.room is not None:
            self.room -= took
        return took


def notice(lines: int, problem: str) -> bytes:
    return f"lost {lines}: {problem}\n".encode()


class _Stepwise(LineQueue):
    """A queue that gets a batch each time the thread comes for one."""

    def __init__(self, queue: LineQueue, batches: tuple[list[bytes], ...]) -> None:
        super().__init__(queue._max_bytes)
        self._batches = list(batches)

    def take(self):
        for line in self._batches.pop(0) if self._batches else ():
            self.put(line)
        return super().take()


def test_lines_come_out_in_order_however_little_the_stream_takes_at_once() -> None:
    disk, queue = Disk(), LineQueue()
    disk.portion = 3
    thread = LogThread(queue, disk.write, notice)
    for n in range(50):
        queue.put(b"line %d\n" % n)
    thread.start()
    thread.finish(10)
    assert disk.content == b"".join(b"line %d\n" % n for n in range(50))
    assert queue.lost == 0


def test_beyond_the_bound_lines_are_lost_and_counted_and_said() -> None:
    disk, queue = Disk(), LineQueue(max_bytes=20)
    for _ in range(5):
        queue.put(b"12345678\n")
    assert queue.lost == 3
    thread = LogThread(queue, disk.write, notice)
    thread.start()
    thread.finish(10)
    assert disk.content == b"12345678\n" * 2 + b"lost 3: the reader was slow\n"


def test_what_is_being_written_counts_against_the_bound() -> None:
    queue, begun, go_on = LineQueue(max_bytes=20), threading.Event(), threading.Event()

    def stuck(data: bytes) -> int:
        begun.set()
        go_on.wait(10)
        return len(data)

    thread = LogThread(queue, stuck, notice)
    thread.start()
    queue.put(b"12345678\n")
    begun.wait(10)
    for _ in range(3):
        queue.put(b"12345678\n")
    assert queue.lost == 2
    go_on.set()
    thread.finish(10)


def test_a_reader_that_is_stuck_does_not_hold_up_the_end() -> None:
    queue, go_on = LineQueue(), threading.Event()

    def stuck(data: bytes) -> int:
        go_on.wait(30)
        return len(data)

    thread = LogThread(queue, stuck, notice)
    thread.start()
    queue.put(b"line\n")
    thread.finish(0.01)
    go_on.set()


def test_a_full_disk_tears_no_line_that_follows() -> None:
    disk = Disk()
    disk.room = 12

    class Freed(_Stepwise):
        def done(self, taken, *, lost=0, said=0):
            super().done(taken, lost=lost, said=said)
            disk.room = None

    queue = Freed(LineQueue(), ([b"line 1\n", b"line 2\n", b"line 3\n"], [b"line 4\n"]))
    thread = LogThread(queue, disk.write, notice)
    thread.start()
    thread.finish(10)
    assert disk.content == (b"line 1\nline \nline 4\nlost 2: No space left on device\n")
    assert queue.lost == 2


@pytest.fixture
def _configured() -> Iterator[None]:
    """What the test sets up for the process is undone."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.mark.usefixtures("_configured")
def test_no_control_character_reaches_a_terminal() -> None:
    class Odd:
        def __repr__(self) -> str:
            return "\x1b[31mred"

    evil = "\x1b]0;title\x07\x9b2J\u202egnp\r\nfake line"
    out = StringIO()
    configure(LoggingSettings(format="console"), out)
    log = structlog.get_logger()
    log.warning("client.refused", what=evil, odd=Odd(), more=[evil], error=OSError(evil), n=1)
    try:
        raise ValueError(evil)
    except ValueError:
        log.exception("bug")
    text = out.getvalue()
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "title" in text
    assert "fake line" in text


@pytest.mark.parametrize(
    ("environ", "platform", "terminal", "expected"),
    [
        ({}, "linux", True, True),
        ({}, "linux", False, False),
        ({"NO_COLOR": "1"}, "linux", True, False),
        ({}, "win32", True, False),
        ({"WT_SESSION": "x"}, "win32", True, True),
        ({"WT_SESSION": "x", "NO_COLOR": "1"}, "win32", True, False),
    ],
)
def test_colours_where_they_are_seen(
    environ: dict[str, str], platform: str, terminal: bool, expected: bool
) -> None:
    assert shows_colours(environ, platform, terminal=terminal) is expected
