"""What all connections of one server share."""

from collections.abc import Callable
from typing import Any

from attrs import frozen
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext

from ..fanout.waiting import WaitingBytes
from ..problems import NO_PLACE_S, refused_head
from .admission_check import AdmissionRules
from .error_boundary import ErrorBoundary
from .lifespan import ASGIApp
from .limits import ServerLimits
from .loop_limiter import LoopLimiter
from .question import Question, Reply
from .refusals import Refusals
from .throttle import RowBudgets
from .websocket import Handler

Refuse = Callable[[str, int, str], Reply]
"""The answer to a request for this path, which does not reach the application: its status, 503
where there is no place for the client, and what is wrong, in words."""


def refuse(_path: str, status: int, problem: str) -> Reply:
    """In words of our own."""
    again = {"Retry-After": str(NO_PLACE_S)} if status == 503 else {}
    return Reply(refused_head(status, problem), status, again)


@frozen
class Application:
    """What is served: ``http`` is an ASGI application, with its lifespan; ``websocket`` says at
    once who serves the client that asks for a WebSocket, or why it is not let in; ``refuse`` has
    the words for what is refused before either is asked."""

    http: ASGIApp
    websocket: Callable[[Question], Handler | Reply]
    refuse: Refuse = refuse


@frozen
class Shared:
    """``state`` is the app's, from its lifespan."""

    app: Application
    config: Config
    context: WorkerContext
    state: dict[str, Any]
    limits: ServerLimits
    rules: AdmissionRules
    boundary: ErrorBoundary
    refusals: Refusals
    waiting: WaitingBytes
    requests: RowBudgets
    limiter: LoopLimiter
