"""The error boundary: errors of one client end at its own connection."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

import structlog
import trio

from ..sampling import Sampler

log = structlog.get_logger()

_LINES, _WINDOW_S = 10, 60.0
"""So many crashes are logged in a window, the rest only counted: a client can repeat itself."""


class ClientGone(OSError):
    """A request has nobody any more who waits for its answer: no bug."""


class ErrorBoundary:
    """One per server.  ``crashed`` is called for every crash, logged or not."""

    def __init__(self, crashed: Callable[[], None]) -> None:
        self._crashed = crashed
        self._sampler = Sampler(_LINES, _WINDOW_S)

    def around(self, peer: str) -> AbstractContextManager[None]:
        """Errors of one client and its session end here.  Cancellation passes."""
        return _Around(self.note, peer)

    def note(self, peer: str, error: BaseException) -> None:
        """A bug, or something that a client provoked and nobody foresaw."""
        self._crashed()
        left_out = self._sampler.admit(trio.current_time())
        if left_out is not None:
            log.error(
                "client.crashed",
                peer=peer,
                error=type(error).__name__,
                message=last_line(error),
                at=place(error),
                left_out=left_out,
            )


class _Around:
    """A block of :meth:`ErrorBoundary.around`; each client is in one for all of its life."""

    __slots__ = ("_note", "_peer")

    def __init__(self, note: Callable[[str, BaseException], None], peer: str) -> None:
        self._note, self._peer = note, peer

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> bool:
        if error is None:
            return False
        try:
            raise error
        except* ClientGone:
            log.debug("client.gone", peer=self._peer)
        # Catching everything is right here and nowhere else: hypercorn lets unforeseen bytes
        # surface as any exception, and past this line it would end the service for all clients.
        except* Exception as group:  # noqa: BLE001
            self._note(self._peer, first_of(group))
        return True


def first_of(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def last_line(what: object) -> str:
    """One line of at most 200 characters; some apps report a whole traceback."""
    lines = str(what).strip().splitlines()
    return lines[-1][:200] if lines else ""


def place(error: BaseException) -> str:
    """``file:line`` that raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
