"""``python -m trio_feed`` and ``trio-feed``: from here on the process is ours."""

import gc
import sys
from collections.abc import Callable


def main() -> int:
    """Import the command line, which is most of a start, and run what was asked for."""
    # Imports make hundreds of thousands of objects and free next to nothing.
    gc.set_threshold(50_000, 20, 20)
    return _command_line()()


def _command_line() -> Callable[[], int]:
    """Imported without rich: structlog and httpx take it where they find it, for tracebacks and a
    command line that we do not use.  What draws on a terminal imports it later."""
    hidden = [name for name in ("rich", "pygments") if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        import structlog  # noqa: F401 - most commands import it, later

        from .cli import main
    finally:
        for name in hidden:
            del sys.modules[name]
    return main


if __name__ == "__main__":
    sys.exit(main())
