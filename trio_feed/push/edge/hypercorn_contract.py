"""What we need of hypercorn 0.18: checked at start, and its configuration.

``connection`` overrides methods and reads attributes that hypercorn does not promise to keep, so
the server does not start with another version.
"""

import importlib.metadata
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

import structlog
import trio
from hypercorn.config import Config
from hypercorn.logging import Logger
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext

from ...errors import StartError
from ..sampling import SampledLines
from .error_boundary import first_of, place
from .limits import ServerLimits

log = structlog.get_logger()


def check_hypercorn() -> None:
    """Raises StartError unless hypercorn has the members that we use; many are private."""
    problems = []
    version = importlib.metadata.version("hypercorn")
    if not version.startswith("0.18."):
        problems.append(f"version {version}")
    for owner, names in _REQUIRED.items():
        problems += [f"{owner.__name__}.{name}" for name in names if not hasattr(owner, name)]
    for owner, names in _SET_IN_INIT.items():
        set_there = owner.__init__.__code__.co_names  # type: ignore[misc]
        problems += [f"{owner.__name__}.{name}" for name in names if name not in set_there]
    for function, expected in _SIGNATURES.items():
        if list(inspect.signature(function).parameters) != expected:
            problems.append(f"signature of {function.__qualname__}")
    if problems:
        raise StartError(
            f"hypercorn 0.18 is needed, the installed one differs in: {', '.join(problems)}"
        )


def _options(limits: ServerLimits) -> dict[str, Any]:
    return {
        "accesslog": None,
        "errorlog": None,
        "logger_class": _HypercornLog,
        "include_server_header": False,
        "h11_max_incomplete_size": limits.max_head_bytes,
        "keep_alive_timeout": limits.handshake_timeout_s,
    }


def hypercorn_config(limits: ServerLimits) -> Config:
    """Hypercorn's settings for our limits."""
    config = Config()
    for name, value in _options(limits).items():
        setattr(config, name, value)
    return config


class _HypercornLog(Logger):
    """Hypercorn's log calls as one structlog line each, never a traceback."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._lines = SampledLines()

    async def warning(self, message: str, *_args: Any, **_kwargs: Any) -> None:
        self._lines.say(log.warning, "server.hypercorn", trio.current_time(), message=message)

    async def exception(self, message: str, *_args: Any, **_kwargs: Any) -> None:
        cause = first_of(sys.exception() or Exception())
        facts = {"message": message, "error": type(cause).__name__, "at": place(cause)}
        self._lines.say(log.error, "server.hypercorn", trio.current_time(), **facts)


_REQUIRED: dict[type, Sequence[str]] = {
    Config: tuple(_options(ServerLimits())),
    Logger: ("warning", "exception"),
    TCPServer: ("run", "_read_data", "_close"),
    H11Protocol: ("_handle_events", "_send_error_response", "_send_h11_event"),
}
_SET_IN_INIT: dict[type, Sequence[str]] = {
    H11Protocol: ("connection", "stream"),
    ProtocolWrapper: ("protocol",),
    TCPServer: ("idle_task",),
    WorkerContext: ("terminated",),
}
_SIGNATURES: dict[Callable[..., Any], Sequence[str]] = {
    TCPServer: ["app", "config", "context", "state", "stream"],
    TCPServer._read_data: ["self"],
    TCPServer._close: ["self"],
    H11Protocol._handle_events: ["self"],
    H11Protocol._send_error_response: ["self", "status_code"],
    H11Protocol._send_h11_event: ["self", "event"],
    WorkerContext: ["max_requests"],
}
