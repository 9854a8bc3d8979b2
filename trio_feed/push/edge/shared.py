"""What all connections of one server share."""

from collections.abc import Callable
from typing import Any

from attrs import frozen
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext

from ..fanout.waiting import WaitingBytes
from .admission_check import AdmissionRules
from .error_boundary import ErrorBoundary
from .lifespan import ASGIApp
from .limits import ServerLimits
from .question import Question, Reply
from .refusals import Refusals
from .throttle import RowBudgets
from .websocket import Handler


@frozen
class Application:
    """What is served: ``http`` is an ASGI application, with its lifespan; ``websocket`` says at
    once who serves the client that asks for a WebSocket, or why it is not let in."""

    http: ASGIApp
    websocket: Callable[[Question], Handler | Reply]


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
