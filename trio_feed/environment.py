"""The four things the service takes from outside: dialling, listening, time and chance.

Production uses :func:`real_environment`.  Virtual-time tests hand in memory streams and
trio's clock, and the whole service runs unchanged.

The monotonic clock is trio's and needs no handing in: :func:`mono`.
"""

import random
import time
from collections.abc import Awaitable, Callable, Sequence

import trio
from attrs import frozen

from .instants import Exchange, Mono, Now, Wall

Dial = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""``await dial(host, port)`` -> a connected byte stream.  Raises OSError.  The caller closes it."""

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
    )


async def _dial_tcp(host: str, port: int) -> trio.abc.Stream:
    return await trio.open_tcp_stream(host, port)


async def _listen_tcp(host: str, port: int) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
    return await trio.open_tcp_listeners(port, host=host)
