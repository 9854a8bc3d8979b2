"""Structured logs: JSON lines (or a console form) on stdout, stable event names, no secrets.

Every module does ``log = structlog.get_logger()`` and logs ``area.event`` with key=value pairs.
Network errors are logged as their one-line message, never with a stack trace; a bug's trace never
shows locals, because locals hold proxy passwords.
"""

import logging
import sys
from typing import Any, TextIO

import structlog

from .settings import LoggingSettings

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_NOISY = ("httpx", "httpcore", "trio-websocket", "hypercorn.error", "hypercorn.access")
"""Libraries that log whole URLs or tracebacks of a peer's mistakes."""


def configure(settings: LoggingSettings, stream: TextIO | None = None) -> None:
    """Set up structlog for the process.  ``stream`` None: stdout."""
    out = stream if stream is not None else sys.stdout
    console = settings.format == "console" or (settings.format == "auto" and out.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *_renderers(console, colors=out.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=structlog.PrintLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _renderers(console: bool, *, colors: bool) -> list[Any]:
    if console:
        return [
            structlog.dev.ConsoleRenderer(
                colors=colors, exception_formatter=structlog.dev.plain_traceback
            )
        ]
    frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [
        structlog.processors.ExceptionRenderer(frames),
        structlog.processors.JSONRenderer(default=str),
    ]
