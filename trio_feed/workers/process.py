"""The process of a worker: ``python -m trio_feed.workers.process DESCRIPTOR``.

Signals that a terminal or a service manager sends to all processes of the service are the parent's
business: it drains its workers.  A worker ends when its pipe does.
"""

import pickle
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

import trio
from attrs import evolve

from ..collector import spare_collector
from ..environment import Environment, real_environment
from ..notify import Manager
from ..settings import Settings
from . import frames
from .log_lines import send_events
from .processes import listening
from .worker import run_worker

_PARENTS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")


def main(arguments: Sequence[str]) -> int:
    for name in _PARENTS:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    trio.run(_run, int(arguments[0]))
    return 0


async def _run(descriptor: int) -> None:
    made = socket.socket(fileno=descriptor)
    made.setblocking(False)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(made))
    await run_worker(stream, _environment)


def _environment(hello: frames.Hello, put: Callable[[Any], None]) -> Environment:
    settings: Settings = pickle.loads(hello.settings)
    send_events(settings.logging, lambda event: put(frames.Line(event)))
    spare_collector()

    async def listen(host: str, port: int) -> Sequence[trio.SocketListener]:
        await trio.lowlevel.checkpoint()
        return listening(hello.binds, host, port)

    return evolve(real_environment(), listen=listen, manager=Manager())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
