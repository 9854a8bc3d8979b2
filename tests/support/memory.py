"""The network of memory streams lives in the package; a script needs it too."""

from trio_feed.simulator.machinery.memory_network import MemoryListener, MemoryNetwork, MemoryStream

__all__ = ["MemoryListener", "MemoryNetwork", "MemoryStream"]
