"""What the service takes from outside: dialling, listening, time, chance, signals, and who
started it.

Production uses :func:`real_environment`.  Virtual-time tests hand in memory streams and
trio's clock, and the whole service runs unchanged.

The monotonic clock is trio's and needs no handing in: :func:`mono`.
"""

import errno
import math
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager

import trio
from attrs import field, frozen

from .instants import Exchange, Mono, Now, Wall
from .notify import Manager, manager_of

try:
    import resource
except ImportError:  # Windows: sockets are no files there, and have no such limit
    resource = None  # type: ignore[assignment]

Dial = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""``await dial(host, port)`` -> a connected byte stream.  Raises OSError.  The caller closes it."""

Signals = Callable[..., AbstractContextManager[AsyncIterator[int]]]
"""``signals(*numbers)`` -> within the context those of them that the process is sent."""

Listen = Callable[[str, int], Awaitable[Sequence[trio.abc.Listener[trio.abc.Stream]]]]
"""``await listen(host, port)`` -> bound listeners; port 0 = any.  Raises OSError."""


@frozen
class Environment:
    """What is outside.  ``now_ms`` is this machine's calendar: unix time in milliseconds, with a
    fraction.  It only labels what is shown; what decides reads :meth:`wall` or :meth:`now`, whose
    types do not mix."""

    dial: Dial
    listen: Listen
    now_ms: Callable[[], float]
    random: random.Random
    open_files: Callable[[int], float] = lambda _wanted: math.inf
    """``open_files(wanted)`` -> how many descriptors the process may have, raised to ``wanted`` as
    far as it may be."""
    manager: Manager = field(factory=Manager)
    """Is told that the service is ready, reloads, ends, and lives."""
    signals: Signals = trio.open_signal_receiver
    """A process has one receiver of each signal: where several services run in it, each is given
    one of its own."""

    def wall(self) -> Wall:
        """This machine's calendar."""
        return Wall(self.now_ms())

    def now(self, exchange_at: Callable[[Mono], Exchange]) -> Now:
        """All three clocks in one moment; ``exchange_at`` is ``ExchangeClock.at``."""
        moment = mono()
        return Now(moment, self.wall(), exchange_at(moment))


def mono() -> Mono:
    """The clock that nobody sets; inside of a trio run only."""
    return Mono(trio.current_time())


def real_environment() -> Environment:
    """Sockets, the machine's clock, real chance."""
    return Environment(
        dial=_dial_tcp,
        listen=_listen_tcp,
        now_ms=lambda: time.time() * 1000,
        random=random.Random(),  # jitter, not keys
        open_files=_raise_open_files,
        manager=manager_of(os.environ),
    )


async def _dial_tcp(host: str, port: int) -> trio.abc.Stream:
    try:
        return await trio.open_tcp_stream(host, port)
    except ValueError as error:
        raise _not_a_name(host) from error
    except OSError as error:
        if _is_shortage(error):
            problem = "no file descriptor is left: raise `ulimit -n`"
            raise OSError(errno.EMFILE, problem) from None
        raise


def _is_shortage(error: BaseException | None) -> bool:
    """trio sums up what happened at each address of a name; the cause is inside."""
    if isinstance(error, BaseExceptionGroup):
        return any(_is_shortage(inner) for inner in error.exceptions)
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return True
    return error is not None and _is_shortage(error.__cause__)


def _raise_open_files(wanted: int) -> float:
    if resource is None:
        return math.inf
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return math.inf
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if most > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        except (OSError, ValueError):  # macOS has a bound beside the hard one
            return soft
    return max(soft, most)


async def _listen_tcp(host: str, port: int) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except ValueError as error:
        raise _not_a_name(host) from error


def _not_a_name(host: str) -> OSError:
    """A label that is empty or too long, a zero byte: Python does not even look such a name up."""
    return socket.gaierror(socket.EAI_NONAME, f"{host!r} is no name of a host")
