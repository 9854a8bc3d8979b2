"""sd_notify(3): what the service says to its manager, without a library.

The manager names a datagram socket in ``NOTIFY_SOCKET``, a path or, with ``@`` in front, an
abstract name; ``WATCHDOG_USEC`` says within what time it wants to hear from the process that
``WATCHDOG_PID`` names.  Each datagram is lines of ``KEY=value`` (systemd 252, sd_notify(3) and
sd_watchdog_enabled(3)).  Nothing here waits, and no failure reaches the caller: a service that
cannot reach its manager serves all the same.
"""

import math
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Never

import structlog
import trio
from attrs import define, frozen

log = structlog.get_logger()

READY = "READY=1"
STOPPING = "STOPPING=1"
WATCHDOG = "WATCHDOG=1"


def reloading() -> str:
    """A reload begins now, by the monotonic clock."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}"


def status(text: str) -> str:
    """A line for ``systemctl status``."""
    return "STATUS=" + " ".join(text.split())


@frozen
class Manager:
    """Whoever started the process.  ``watchdog_s``: within what time it wants a sign of life;
    infinite: it does not ask."""

    tell: Callable[[str], None] = lambda _state: None
    watchdog_s: float = math.inf

    async def keep_alive(self) -> Never:
        """Until cancelled: a sign of life in half of the time.  It is a task of the loop, so that
        a loop that stands still gives none."""
        while True:
            await trio.sleep(self.watchdog_s / 2)
            self.tell(WATCHDOG)


@define
class _Socket:
    address: str | bytes
    _said: bool = False

    def tell(self, state: str) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(state.encode(), self.address)
        except OSError as error:
            if not self._said:
                self._said = True
                log.warning("systemd.unreachable", problem=error.strerror or str(error))


def manager_of(environ: Mapping[str, str]) -> Manager:
    """The manager that the environment names; one that hears nothing where there is none, or on a
    system without unix sockets."""
    named = environ.get("NOTIFY_SOCKET", "")
    if not named or named[0] not in "/@" or not hasattr(socket, "AF_UNIX"):
        return Manager()
    address = b"\0" + os.fsencode(named[1:]) if named.startswith("@") else named
    return Manager(_Socket(address).tell, _watchdog_s(environ))


def _watchdog_s(environ: Mapping[str, str]) -> float:
    wanted = environ.get("WATCHDOG_USEC", "")
    of_another = environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid())
    if of_another or not (wanted.isascii() and wanted.isdigit() and int(wanted)):
        return math.inf
    return int(wanted) / 1_000_000
