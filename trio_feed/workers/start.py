"""Start the workers of the settings, and their front in the parent."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import trio

from ..environment import Environment
from ..errors import StartError
from ..push.edge.configuration import clients_per_ip
from ..serving import bind_error
from ..settings import Settings
from ..settings.dialects import DialectSettings
from ..supervise import root_cause
from .front import Front
from .link import Fleet, Sources
from .places import Room
from .processes import Bind, Processes


class BoundFleet(Fleet, Protocol):
    """Starts workers that serve at the addresses that were opened."""

    async def open(self, host: str, port: int) -> str:
        """Take an address for all workers; host:port.  Raises OSError."""


OpenFleet = Callable[[], AbstractContextManager[BoundFleet]]
"""A fleet; what it holds is given back at the end of the block."""


@contextmanager
def open_processes() -> Iterator[Processes]:
    """See :data:`OpenFleet`."""
    made = Processes()
    try:
        yield made
    finally:
        made.close()


async def start_workers(
    nursery: trio.Nursery,
    settings: Settings,
    environment: Environment,
    sources: Sources,
    dialects: Iterable[str],
    open_fleet: OpenFleet,
) -> tuple[Front, str, dict[str, str]]:
    """Bind, and start all; they run in ``nursery``.  Returns their front, host:port of the clients'
    server, and of the dialects that have one of their own.  Raises StartError."""
    keys, binds, rooms = _addresses(settings, dialects)
    ready: Front
    addresses: Sequence[str]

    async def run(task_status: trio.TaskStatus[tuple[Front, Sequence[str]]]) -> None:
        with open_fleet() as fleet:
            addresses = []
            for key, bind in zip(keys, binds, strict=True):
                try:
                    addresses.append(await fleet.open(*bind))
                except OSError as error:
                    raise bind_error(error, *bind, key) from None
            front = Front(settings, environment, fleet, sources, rooms)
            async with trio.open_nursery() as inner:
                await inner.start(front.run)
                task_status.started((front, addresses))

    try:
        ready, addresses = await nursery.start(run, name="workers")
    except BaseExceptionGroup as group:  # of several that fail alike one is enough
        cause = root_cause(group)
        if isinstance(cause, StartError):
            raise cause from None
        raise
    named = dict(zip(keys, addresses, strict=True))
    address = named.pop(keys[0])
    return ready, address, {key.split(".")[1]: bound for key, bound in named.items()}


def _addresses(
    settings: Settings, dialects: Iterable[str]
) -> tuple[list[str], list[Bind], dict[str, Room]]:
    """The setting of each port, host and port, and how many clients there may be; the clients'
    server is the first."""
    found = [("server.port", settings.server.host, settings.server.port)]
    for name in dialects:
        own: DialectSettings = getattr(settings.dialects, name)
        if own.host:
            found.append((f"dialects.{name}.port", own.host, own.port))
    websocket = settings.websocket
    rooms = {
        key: Room(
            websocket.max_connections,
            clients_per_ip(websocket.max_connections_per_ip, websocket.max_connections, host),
        )
        for key, host, _ in found
    }
    return [key for key, _, _ in found], [(host, port) for _, host, port in found], rooms
