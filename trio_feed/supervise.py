"""The restart rule: a network-shaped error restarts the smallest branch, everything else is a bug.

One tuple says what is network-shaped: :class:`trio_feed.errors.NetworkError`, into which every
edge translates what its library raises.
"""

import math
import random
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Never

import trio
from attrs import define, field

from .errors import NetworkError
from .instants import Mono

STEADY_S = 10.0
"""A connection that delivers after so long counts as a good one: at most 30 dials in five minutes
for each, of the 300 that Binance allows an address (general information, 2025-11-06)."""


@define
class Backoff:
    """Capped exponential waiting with full jitter above the half (seconds).  Pure."""

    min_s: float
    max_s: float
    failures: int = 0

    def succeeded(self, lived_s: float = math.inf) -> None:
        """All was well for ``lived_s`` since it began: the next wait is the shortest again.

        Not before it proved to be steady: a remote that hangs up after the first message is
        dialled no more often than one that hangs up before it.
        """
        if lived_s >= min(STEADY_S, self.max_s):
            self.failures = 0

    def next_delay_s(self, chance: random.Random) -> float:
        """How long to wait before the next try; grows with each call until ``succeeded``."""
        ceiling: float = min(self.max_s, self.min_s * 2 ** min(self.failures, 30))
        self.failures += 1
        return ceiling * (0.5 + chance.random() / 2)


class HelperNursery(AbstractAsyncContextManager[trio.Nursery]):
    """A nursery for helper tasks of a block; they end with it, and what the block raises is not put
    into an exception group."""

    def __init__(self) -> None:
        self._manager = trio.open_nursery()

    async def __aenter__(self) -> trio.Nursery:
        self._nursery = await self._manager.__aenter__()
        return self._nursery

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._nursery.cancel_scope.cancel()
        await self._manager.__aexit__(None, None, None)


@define
class BugCount:
    """Whether a bug that comes again and again is to end the process.  Pure.

    The same bug: the same kind of exception at the same place."""

    most: int
    window_s: float
    _seen: dict[str, list[Mono]] = field(factory=dict)

    def too_often(self, bug: BaseException, now: Mono) -> bool:
        """Note that it happened.  True: more than ``most`` times within ``window_s``."""
        place = place_of(bug)
        recent = [at for at in self._seen.get(place, []) if now - at < self.window_s]
        self._seen[place] = [*recent, now]
        return len(recent) >= self.most


async def supervise(
    attempt: Callable[[], Awaitable[None]],
    *,
    backoff: Backoff,
    chance: random.Random,
    on_lost: Callable[[NetworkError, float], None],
) -> Never:
    """Run ``attempt`` for ever, a fresh one each time.

    ``on_lost(error, delay_s)`` is called before each wait; an attempt that returns normally starts
    again at once.  Anything but NetworkError comes out.
    """
    while True:
        try:
            await attempt()
        except NetworkError as error:
            delay = backoff.next_delay_s(chance)
            on_lost(error, delay)
            await trio.sleep(delay)
        else:
            await trio.lowlevel.checkpoint()


def root_cause(error: BaseException) -> BaseException:
    """The first leaf of an exception group that is not a cancellation, or the error itself."""
    while isinstance(error, BaseExceptionGroup):
        leaves = [e for e in error.exceptions if not isinstance(e, trio.Cancelled)]
        error = (leaves or list(error.exceptions))[0]
    return error


def place_of(error: BaseException) -> str:
    """What an error is and where it came up, in a few words."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def described(error: BaseException) -> str:
    """An error for the log, in one line."""
    return f"{place_of(error)}: {' '.join(str(error).split())[:300]}"
