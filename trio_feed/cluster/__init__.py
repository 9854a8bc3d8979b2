"""One of several nodes: what it owns and reads of the engine, and what all say of themselves."""

from ..bus.engine.opening import MakeEngine
from .figures import INSTRUMENTS as CLUSTER_METRICS
from .membership import cluster_of
from .node import Node
from .opening import open_node, open_stores
from .views import view_of_node

__all__ = [
    "CLUSTER_METRICS",
    "MakeEngine",
    "Node",
    "cluster_of",
    "open_node",
    "open_stores",
    "view_of_node",
]
