"""trio_feed: market data you can trust, through a proxy, out of one WebSocket endpoint.

Inside of a program of your own: :func:`feed` and :func:`run_feed`, whose code is imported when
they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .embedded import Feed as Feed
    from .embedded import feed as feed
    from .embedded import run_feed as run_feed

__version__ = "0.1.0"
__all__ = ["Feed", "__version__", "feed", "run_feed"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(".embedded", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
