"""Refused clients: counted by reason, and a sample of each reason logged."""

import structlog
import trio

from ...metrics import Metrics
from ..sampling import SampledLines

log = structlog.get_logger()

_HINTS = {
    "host": "name it in server.allowed_hosts",
    "origin": "name it in server.allowed_origins",
    "waiting_bytes": "more than limits.waiting_bytes were waiting for all clients",
    "cross_site": "pages that may ask are named in server.allowed_origins, and ask with CORS",
    "connections": "websocket.max_connections are open",
    "connections_per_ip": "websocket.max_connections_per_ip are open from there",
}
"""What the operator may do, where it is the operator's choice."""


class Refusals:
    """``reason`` is a label of the metric, ``what`` the peer or what it sent."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._lines = SampledLines()

    def note(self, reason: str, what: str) -> None:
        self._metrics.refused.labels(reason).inc()
        left_out = self._lines.admit(reason, trio.current_time())
        if left_out is not None:
            hint = _HINTS.get(reason, "")
            log.info("client.refused", reason=reason, what=what, hint=hint, left_out=left_out)
