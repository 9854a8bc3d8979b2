"""Virtual time, and the same run again from the same seed."""

import gc
import io
import re
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
import trio
import trio._core._run as scheduler
import trio.testing

from scripts.simulate_judge import Felt
from trio_feed import logs
from trio_feed.settings import LoggingSettings

_EVENT = re.compile(r'"event": ?"([^"]+)"')

Outcome = tuple[list[str], dict[str, Any]]
"""What was injected, a line each, and the result."""


def in_virtual_time(seed: int, felt: Felt, act: Callable[[], Awaitable[Outcome]]) -> Outcome:
    """Run ``act``; its result gets ``wall_s``.

    Same run, same answer but for that: trio shuffles the tasks that are ready with a random
    generator of its own (so that nobody relies on their order) and finds them in a set; both are
    put under the seed here, with the switch that trio has for Hypothesis.
    """
    started = time.perf_counter()
    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    scheduler._r.seed(seed)
    try:
        with _counted_logs(felt.logs), _rare_collections():
            clock = trio.testing.MockClock(autojump_threshold=0)
            lines, result = trio.run(act, clock=clock, instruments=[Turns(felt)])
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
    result["wall_s"] = round(time.perf_counter() - started, 2)
    return lines, result


class Turns(trio.abc.Instrument):
    """Counts turns of trio's loop."""

    def __init__(self, felt: Felt) -> None:
        self._felt = felt

    def before_io_wait(self, timeout: float) -> None:
        self._felt.turns += 1


class _Lines(io.TextIOBase):
    """Where log lines go."""

    def __init__(self, counts: Counter[str]) -> None:
        self.counts = counts

    def write(self, text: str) -> int:
        if found := _EVENT.search(text):
            self.counts[found[1]] += 1
        if '"level": "error"' in text and "stream.refused" not in text:
            sys.stderr.write(text)
        return len(text)


@contextmanager
def _rare_collections() -> Iterator[None]:
    """A run makes millions of small objects and hardly a cycle; looking for those is a tenth of
    its time otherwise."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _counted_logs(counts: Counter[str]) -> Iterator[None]:
    """The service's warnings are what the script asked for; errors go to stderr, but for the
    refusal of streams of the symbol that comes and goes."""
    before = structlog.get_config()
    logs.configure(LoggingSettings(level="info", format="json"), _Lines(counts))
    try:
        yield
    finally:
        structlog.configure(**before)
