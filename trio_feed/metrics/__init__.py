"""The service's metrics: :class:`Metrics` counts, the page is Prometheus text.  Owner of
prometheus_client."""

from .collectors import Durations, Figures, Instrument, ProxySample
from .registry import Metrics, total

__all__ = ["Durations", "Figures", "Instrument", "Metrics", "ProxySample", "total"]
