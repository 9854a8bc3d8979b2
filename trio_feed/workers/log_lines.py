"""A worker's log: its events travel over the pipe and become lines of the parent's log."""

import json
from collections.abc import Callable
from typing import Any

import structlog

from ..settings import LoggingSettings

log = structlog.get_logger()

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_MAX_LINE = 64 * 1024


class _Events:
    """What structlog writes to."""

    def __init__(self, put: Callable[[bytes], None]) -> None:
        self._put = put

    def write(self, text: str) -> int:
        line = text.strip().encode(errors="backslashreplace")
        if line and len(line) <= _MAX_LINE:
            self._put(line)
        return len(text)

    def flush(self) -> None:
        """The pipe does that."""


def send_events(settings: LoggingSettings, put: Callable[[bytes], None]) -> None:
    """Set up structlog of this process: each event is handed to ``put`` as JSON."""
    frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.ExceptionRenderer(frames),
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=structlog.WriteLoggerFactory(file=_Events(put)),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )


def say_again(event: bytes, worker: int) -> None:
    """An event of a worker, with its number, in this process's log."""
    try:
        fields: dict[str, Any] = json.loads(event)
        name, level = str(fields.pop("event")), str(fields.pop("level"))
    except (ValueError, KeyError, TypeError, AttributeError):
        log.warning("worker.unreadable", worker=worker)
        return
    if level not in _LEVELS:
        level = "warning"
    getattr(log, level)(name, **{**fields, "worker": worker})
