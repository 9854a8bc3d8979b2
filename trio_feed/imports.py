"""Libraries that are imported without others, which they take where they find them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_rich() -> Iterator[None]:
    """structlog and httpx take rich for tracebacks and a command line that we do not use; it is a
    tenth of a start.  What draws on a terminal imports it later."""
    hidden = [name for name in ("rich", "pygments") if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
