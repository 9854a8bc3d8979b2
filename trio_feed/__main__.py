"""``python -m trio_feed`` and ``trio-feed``: from here on the process is ours."""

import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence

from .imports import without_rich

_ENDS, _RELOAD = ("SIGTERM", "SIGINT", "SIGBREAK"), "SIGHUP"


def main() -> int:
    """Import the command line, which is most of a start, and run what was asked for."""
    if _is_service(sys.argv[1:]):
        _hear_signals()
    # Imports make hundreds of thousands of objects and free next to nothing.
    gc.set_threshold(50_000, 20, 20)
    return _command_line()()


def _is_service(words: Sequence[str]) -> bool:
    """Whether it is ``run``, which needs no word; of options before another command nobody knows
    here."""
    return not words or words[0] == "run" or words[0].startswith("-")


def _hear_signals() -> None:
    """Until the service hears them itself (``ending.py``), which is seconds on a busy machine: it
    ends in order, for nothing is begun; and it has not read the settings that it is to read anew.
    A manager of services takes one that SIGHUP ended for ended in order, and leaves it so."""
    for name in _ENDS:
        if (number := getattr(signal, name, None)) is not None:
            signal.signal(number, lambda _number, _frame: os._exit(0))
    if (number := getattr(signal, _RELOAD, None)) is not None:
        signal.signal(number, signal.SIG_IGN)


def _command_line() -> Callable[[], int]:
    with without_rich():
        import structlog  # noqa: F401 - most commands import it, later

        from .cli import main
    return main


if __name__ == "__main__":
    sys.exit(main())
