"""Structured logs: JSON lines (or a console form) on stdout, stable event names, no secrets.

Every module does ``log = structlog.get_logger()`` and logs ``area.event`` with key=value pairs.
Network errors are logged as their one-line message, never with a stack trace; a bug's trace never
shows locals, because locals hold proxy passwords.

Nobody waits for stdout: a line is put into a bounded :class:`LineQueue`, which one thread writes
out (:class:`LogThread`).  A full disk, a closed pipe and a reader that is stuck cost lines, which
are counted, and nothing else.
"""

import logging
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import Any, TextIO

import structlog
from attrs import frozen

from .settings import LoggingSettings

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_NOISY = ("httpx", "httpcore", "trio-websocket", "hypercorn.error", "hypercorn.access")
"""Libraries that log whole URLs or tracebacks of a peer's mistakes."""
_QUEUE_BYTES = 4 * 2**20
_FLUSH_S = 2.0
_FULL_PIPE_S = 1.0
"""A stream that another process has made non-blocking is looked at again after so long."""

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


class _QueueFile:
    """What structlog writes to."""

    def __init__(self, queue: LineQueue) -> None:
        self._queue = queue

    def write(self, text: str) -> int:
        self._queue.put(text.encode(errors="backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """The thread does that."""


class _ToStructlog(logging.Handler):
    """Libraries' warnings go the same way: the standard library's last resort is stderr, which
    may be the same stuck pipe."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        say = log.error if record.levelno >= logging.ERROR else log.warning
        say("library.warning", logger=record.name, message=record.getMessage())


_queue = LineQueue()
"""The process's own, as structlog's configuration is."""


def lost() -> int:
    """Lines of the process's log that were never written."""
    return _queue.lost


Tell = Callable[[Any], str]
"""One event as text for a terminal; empty: nothing is to be shown."""


def say(text: str) -> None:
    """Text that is no event, among the lines of the log; never waits."""
    _queue.put(f"{text}\n".encode(errors="backslashreplace"))


def is_console(settings: LoggingSettings) -> bool:
    """Whether the log of stdout is for a person."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    return settings.format == "console" or (settings.format == "auto" and terminal)


def shows_colours(environ: Mapping[str, str], platform: str, *, terminal: bool) -> bool:
    """Whether escapes come out as colours.  ``platform`` as ``sys.platform``; on Windows only newer
    terminals take them by themselves (Windows Terminal, editors).  Pure; https://no-color.org."""
    if not terminal or environ.get("NO_COLOR"):
        return False
    newer = ("WT_SESSION", "TERM_PROGRAM", "ANSICON", "ConEmuANSI")
    return platform != "win32" or any(environ.get(name) for name in newer)


@contextmanager
def writing(settings: LoggingSettings, tell: Tell | None = None) -> Iterator[None]:
    """Set up structlog for the process, with stdout written by a thread; at the end what waits is
    written, within a deadline.  ``tell``: how events are shown on a console."""
    global _queue
    _queue = LineQueue()
    out = sys.stdout
    colors = out is not None and out.isatty()
    processors = _configure(settings, _QueueFile(_queue), terminal=colors, tell=tell)

    def notice(lines: int, problem: str) -> bytes:
        event: Any = {"event": "log.lines_lost", "lines": lines, "problem": problem}
        for processor in processors:
            event = processor(None, "warning", event)
        return f"{event}\n".encode()

    thread = LogThread(_queue, _writer_to(out), notice)
    handler = _ToStructlog(logging.WARNING)
    logging.getLogger().addHandler(handler)
    thread.start()
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        thread.finish(_FLUSH_S)


def _writer_to(out: TextIO | None) -> Write:
    if out is None:  # started with stdout closed: its number may be a socket's by now
        return len

    out.flush()
    # The descriptor itself: a buffered file's lock, held by a thread that is stuck, ends the
    # interpreter with a fatal error on its way out.
    number = out.fileno()

    def write(data: bytes) -> int:
        try:
            return os.write(number, data)
        except BlockingIOError:
            if not hasattr(select, "poll"):  # Windows
                time.sleep(_FULL_PIPE_S / 10)
                return 0
            poll = select.poll()
            poll.register(number, select.POLLOUT)
            poll.poll(_FULL_PIPE_S * 1000)
            return 0

    return write


@contextmanager
def only_errors() -> Iterator[None]:
    """Lines below error are dropped in the block, others go to stderr; for commands that say
    themselves what happens."""
    configured, before = structlog.is_configured(), structlog.get_config()
    configure(LoggingSettings(level="error"), sys.stderr)
    try:
        yield
    finally:
        if configured:
            structlog.configure(**before)
        else:
            structlog.reset_defaults()


def configure(settings: LoggingSettings, stream: TextIO) -> None:
    """Set up structlog to write to ``stream`` at once."""
    _configure(settings, stream, terminal=stream.isatty())


def _configure(
    settings: LoggingSettings, stream: Any, *, terminal: bool, tell: Tell | None = None
) -> list[Any]:
    console = settings.format == "console" or (settings.format == "auto" and terminal)
    processors = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # On Windows structlog wants a library of its own for colours.
        *_renderers(console, colors=terminal and sys.platform != "win32", tell=tell),
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return processors


def printable(text: str, keep: str = "") -> str:
    """``text`` with control characters, and whatever else a terminal does not print, as escapes;
    ``keep`` are characters that stay."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def _printable_values(_logger: Any, _method: str, event: Any) -> Any:
    """Words of strangers and exchanges reach a terminal without its control characters; JSON
    writes them as escapes by itself."""
    return {printable(name): _printable_value(value) for name, value in event.items()}


def _printable_value(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    shown = repr(value)
    return value if shown.isprintable() else printable(shown)


def _traceback(out: TextIO, error: Any) -> None:
    text = StringIO()
    structlog.dev.plain_traceback(text, error)
    out.write(printable(text.getvalue(), keep="\n"))


def _renderers(console: bool, *, colors: bool, tell: Tell | None) -> list[Any]:
    if console:
        plain = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=_traceback)
        return [_printable_values, plain if tell is None else _told(tell, plain)]
    frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [
        structlog.processors.ExceptionRenderer(frames),
        structlog.processors.JSONRenderer(default=str),
    ]


def _told(tell: Tell, plain: Any) -> Any:
    """A bug's trace is shown by ``plain``."""

    def render(logger: Any, method: str, event: Any) -> str:
        if "exc_info" in event:
            return str(plain(logger, method, event))
        text = tell(event)
        if not text:
            raise structlog.DropEvent
        return text

    return render
