"""``python -m trio_feed`` and ``trio-feed``: from here on the process is ours."""

import gc
import sys
from collections.abc import Callable

from .imports import without_rich


def main() -> int:
    """Import the command line, which is most of a start, and run what was asked for."""
    # Imports make hundreds of thousands of objects and free next to nothing.
    gc.set_threshold(50_000, 20, 20)
    return _command_line()()


def _command_line() -> Callable[[], int]:
    with without_rich():
        import structlog  # noqa: F401 - most commands import it, later

        from .cli import main
    return main


if __name__ == "__main__":
    sys.exit(main())
