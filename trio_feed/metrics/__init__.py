"""The service's metrics: :class:`Metrics` counts, the page is Prometheus text.  Owner of
prometheus_client."""

from .collectors import LoopTurns, ProxySample
from .registry import Metrics, total

__all__ = ["LoopTurns", "Metrics", "ProxySample", "total"]
