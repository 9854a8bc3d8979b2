"""What all connections of one server share."""

from typing import Any

from attrs import frozen
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext

from ..fanout.waiting import WaitingBytes
from .admission_check import AdmissionRules
from .error_boundary import ErrorBoundary
from .lifespan import ASGIApp
from .limits import ServerLimits
from .refusals import Refusals
from .throttle import RowBudgets


@frozen
class Shared:
    """``state`` is the app's, from its lifespan."""

    app: ASGIApp
    config: Config
    context: WorkerContext
    state: dict[str, Any]
    limits: ServerLimits
    rules: AdmissionRules
    boundary: ErrorBoundary
    refusals: Refusals
    waiting: WaitingBytes
    requests: RowBudgets
