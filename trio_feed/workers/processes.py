"""Workers as processes: their sockets, how they are started and ended.

On Linux each worker has a socket of its own for each address (SO_REUSEPORT, Linux 3.9), among which
the kernel spreads new connections; a worker listens when it is ready to serve, so that none waits
for one that is not.  Elsewhere all accept from one socket.  Either way the parent opens them and
passes the descriptors on: it knows at once whether a port is free, and a worker needs no rights.
"""

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import trio
from attrs import define, field, frozen

_BACKLOG = 65_535
_EXIT_S = 0.5
_SPREADS = sys.platform == "linux"
"""Elsewhere SO_REUSEPORT is missing, or only the last socket gets connections."""
_OF_THE_PARENT = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

Bind = tuple[str, int]
"""Host and port, as in the settings."""


@frozen
class Process:
    """See :class:`.link.Spawned`."""

    stream: trio.SocketStream
    pid: int
    binds: list[tuple[str, int, list[int]]]
    process: trio.Process

    async def ended(self) -> str:
        code = await self.process.wait()
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"


@define(eq=False)
class Processes:
    """The :class:`.link.Fleet` of a service.  :meth:`open` each address, then start workers;
    :meth:`close` at the end."""

    _binds: list[Bind] = field(factory=list)
    _held: list[list[socket.socket]] = field(factory=list)
    """Per bind a socket for each of its addresses: keeps the port, or is what all accept from."""
    _closing: ExitStack = field(factory=ExitStack)

    async def open(self, host: str, port: int) -> str:
        """Take the port for all workers; host:port.  Raises OSError."""
        # Without SO_REUSEPORT this fails where another service has the port already.
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=_BACKLOG)
        sockets = [_plain(listener.socket) for listener in listeners]
        if _SPREADS:
            found = [(each.family, each.getsockname()) for each in sockets]
            for each in sockets:
                each.close()
            sockets = [_reusing(family, name) for family, name in found]
        for each in sockets:
            self._closing.enter_context(each)
        self._binds.append((host, port))
        self._held.append(sockets)
        return _shown(sockets[0].getsockname())

    def close(self) -> None:
        self._closing.close()

    @asynccontextmanager
    async def start(self, worker: int) -> AsyncIterator[Process]:
        """See :class:`.link.Fleet`."""
        ours, theirs = socket.socketpair()
        with ExitStack() as inherited:
            inherited.enter_context(theirs)
            binds: list[tuple[str, int, list[int]]] = []
            for (host, port), held in zip(self._binds, self._held, strict=True):
                sockets = held
                if _SPREADS:
                    sockets = [_reusing(each.family, each.getsockname()) for each in held]
                    for each in sockets:
                        inherited.enter_context(each)
                binds.append((host, port, [each.fileno() for each in sockets]))
            numbers = [number for _, _, found in binds for number in found]
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "trio_feed.workers.process", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), *numbers],
                env=_environ(os.environ),
            )
        # From here on only the worker holds its sockets, so that they close when it dies: what
        # waits to be accepted is refused then, and tries again elsewhere.
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(_nonblocking(ours)))
        try:
            yield Process(stream, process.pid, binds, process)
        finally:
            await trio.aclose_forcefully(stream)
            with trio.CancelScope(shield=True):
                with trio.move_on_after(_EXIT_S):  # its pipe has ended, and so will it
                    await process.wait()
                if process.returncode is None:
                    process.kill()
                    await process.wait()


def _plain(wrapped: trio.socket.SocketType) -> socket.socket:
    """The socket of a trio socket, which gives it up."""
    made = socket.socket(wrapped.family, wrapped.type, wrapped.proto, fileno=wrapped.detach())
    made.setblocking(False)
    return made


def _nonblocking(made: socket.socket) -> socket.socket:
    made.setblocking(False)
    return made


def _reusing(family: int, name: tuple[object, ...]) -> socket.socket:
    """Bound, and not listening yet."""
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(name)
    except BaseException:
        made.close()
        raise
    return made


def _shown(name: tuple[object, ...]) -> str:
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def _environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The worker imports the same package; only the parent speaks to a service manager."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    paths = [root, *filter(None, [environ.get("PYTHONPATH", "")])]
    kept = {name: text for name, text in environ.items() if name not in _OF_THE_PARENT}
    return {**kept, "PYTHONPATH": os.pathsep.join(paths)}


def listening(
    binds: Sequence[tuple[str, int, Sequence[int]]], host: str, port: int
) -> list[trio.SocketListener]:
    """In a worker: the sockets that it was given for an address, listening.  Raises OSError."""
    for known_host, known_port, numbers in binds:
        if (known_host, known_port) == (host, port):
            found = []
            for number in numbers:
                made = socket.socket(fileno=number)
                made.setblocking(False)
                made.listen(_BACKLOG)
                found.append(trio.SocketListener(trio.socket.from_stdlib_socket(made)))
            return found
    raise OSError(errno.EADDRNOTAVAIL, f"the parent has opened no socket for {host}:{port}")
