"""Where our log lines go while we are a guest in a program: to ``logging``, logger ``trio_feed``.

Nothing is set up that the program has set up itself: a structlog configuration of its own stays.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

LOGGER = "trio_feed"


@contextmanager
def lent() -> Iterator[None]:
    """Inside of it structlog writes to ``logging``, unless it is configured already."""
    if structlog.is_configured():
        yield
        return
    logger = logging.getLogger(LOGGER)
    structlog.configure(
        processors=[_as_line],
        wrapper_class=structlog.make_filtering_bound_logger(logger.getEffectiveLevel()),
        logger_factory=lambda *_: logger,
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.reset_defaults()


def _as_line(_logger: Any, _method: str, event: Any) -> Any:
    """``event key=value ...`` and what ``logging`` makes of exceptions."""
    fields = dict(event)
    name, trace = fields.pop("event", ""), fields.pop("exc_info", None)
    words = [str(name), *(f"{key}={value}" for key, value in fields.items())]
    return ("%s", " ".join(words)), {"exc_info": trace}
