"""One of several nodes: what it owns and reads of the engine, and what all say of themselves."""

from .node import MakeEngine, Node, open_node, open_stores

__all__ = ["MakeEngine", "Node", "open_node", "open_stores"]
