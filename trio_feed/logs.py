"""Structured logs: JSON lines (or a console form) on stdout, stable event names, no secrets.

Every module does ``log = structlog.get_logger()`` and logs ``area.event`` with key=value pairs.
Network errors are logged as their one-line message, never with a stack trace; a bug's trace never
shows locals, because locals hold proxy passwords.

Nobody waits for stdout: a line is put into a bounded queue, which one thread writes out
(:mod:`.log_lines`).  A full disk, a closed pipe and a reader that is stuck cost lines, which
are counted, and nothing else.
"""

import logging
import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from typing import Any, TextIO

import structlog

from .log_lines import LineQueue, LogThread, Write
from .settings import LoggingSettings

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_NOISY = ("httpx", "httpcore", "trio-websocket", "hypercorn.error", "hypercorn.access")
"""Libraries that log whole URLs or tracebacks of a peer's mistakes."""
_FLUSH_S = 2.0
_FULL_PIPE_S = 1.0
"""A stream that another process has made non-blocking is looked at again after so long."""


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
