"""What the service listens on: the simulated exchange, the push server and its further binds."""

import errno
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Never

import structlog
import trio
from attrs import evolve

from .environment import Environment
from .errors import StartError
from .push.app import PushApp
from .push.edge.clients import Places
from .push.edge.configuration import (
    RESERVED_FILES,
    admin_limits,
    admin_rules,
    admission_rules,
    clients_per_ip,
    clients_within,
    server_limits,
    with_http_rate,
)
from .push.edge.endpoint import bound_address
from .push.edge.server import Application, serve
from .push.edge.tls import Certificate, with_tls
from .push.fanout.sender import CLOSE_TIMEOUT_S, ClientTimeouts
from .settings import ExchangeSettings, Settings
from .settings.dialects import DialectSettings

log = structlog.get_logger()

MakePlaces = Callable[[str], Places | None]
"""By the setting of a port: places for clients that other processes give away as well."""


def _only_here(_key: str) -> None:
    """This process is the only one."""


_OF_THE_HOST = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_UNSWEPT_S = 30.0
"""The server's own limit for a silent client stands so far behind the sweep's."""


async def start_simulator(
    nursery: trio.Nursery, settings: Settings, environment: Environment
) -> Callable[[ExchangeSettings], ExchangeSettings]:
    """Start the exchange in a box; returns what puts its addresses into a venue's settings."""
    from .simulator.exchanges import serve_exchange  # a tenth of the start, and only for this

    box = settings.simulator
    listeners = await _bind(environment, box.host, box.port, "simulator.port")
    serve = partial(serve_exchange, box, listeners=listeners, now_ms=environment.now_ms)
    await nursery.start(serve, name="simulator")
    address = bound_address(listeners[0])
    log.info("simulator.ready", venue=box.venue, address=address, seed=box.seed)

    def point_at_it(exchange: ExchangeSettings) -> ExchangeSettings:
        connection = evolve(
            exchange.connection, websocket_url=f"ws://{address}", rest_url=f"http://{address}"
        )
        solana = evolve(exchange.solana, endpoints=())  # the box is the only node
        return evolve(exchange, connection=connection, solana=solana)

    return point_at_it


async def start_server(
    nursery: trio.Nursery,
    app: PushApp,
    settings: Settings,
    environment: Environment,
    draining: trio.Event,
    certificate: Certificate,
    places: MakePlaces = _only_here,
) -> str:
    """Bind and serve; returns host:port.  Raises StartError where the port is taken."""
    whole, key = app.whole(with_admin=not settings.server.admin_host), "server.port"
    return await _serve(
        nursery, app, whole, settings, environment, draining, certificate, key, places
    )


async def _serve(
    nursery: trio.Nursery,
    app: PushApp,
    served: Application,
    settings: Settings,
    environment: Environment,
    draining: trio.Event,
    certificate: Certificate,
    key: str,
    places: MakePlaces,
) -> str:
    server = settings.server
    listeners = await _bind(environment, server.host, server.port, key)
    limits = server_limits(
        settings.websocket, _UNSWEPT_S, CLOSE_TIMEOUT_S + _client_timeouts(settings).sweep_s
    )
    limits = with_http_rate(limits, settings.limits.http_requests_per_second)
    allowed = _clients_allowed(settings, environment)
    per_ip = clients_per_ip(settings.websocket.max_connections_per_ip, allowed, server.host)
    start = partial(
        serve,
        served,
        listeners=with_tls(listeners, certificate),
        limits=evolve(limits, max_connections=allowed, max_connections_per_ip=per_ip),
        rules=admission_rules(settings),
        metrics=app.context.metrics,
        stop_accepting=draining,
        waiting=app.waiting,
        probes=app.probes(),
        places=places(key),
        requests=app.context.spending.budgets(key, limits.http_per_s, limits.http_burst),
    )
    await nursery.start(start, name=f"push server {key}")
    return bound_address(listeners[0])


def _clients_allowed(settings: Settings, environment: Environment) -> int:
    """``max_connections``, or what the limit of open files leaves for it, which is then said."""
    wanted = settings.websocket.max_connections
    files = environment.open_files(wanted + RESERVED_FILES)
    allowed = clients_within(wanted, files)
    if allowed < wanted:
        log.warning(
            "server.few_descriptors",
            open_files=int(files),
            max_connections=wanted,
            clients=allowed,
            advice=f"raise the hard limit (ulimit -Hn, LimitNOFILE=) to {wanted + RESERVED_FILES},"
            " or lower websocket.max_connections",
        )
    return allowed


async def start_dialects(
    nursery: trio.Nursery,
    app: PushApp,
    settings: Settings,
    environment: Environment,
    draining: trio.Event,
    certificate: Certificate,
    places: MakePlaces = _only_here,
) -> dict[str, str]:
    """The dialects that have a bind of their own; returns host:port by name.  They have the limits
    of the clients' port, each for itself."""
    bound = {}
    for name, mount in app.mounts.items():
        own: DialectSettings = getattr(settings.dialects, name)
        if own.host:
            server = evolve(settings.server, host=own.host, port=own.port)
            alone = evolve(settings, server=server)
            key = f"dialects.{name}.port"
            bound[name] = await _serve(
                nursery,
                app,
                app.alone(mount),
                alone,
                environment,
                draining,
                certificate,
                key,
                places,
            )
    return bound


async def start_admin(
    nursery: trio.Nursery, app: PushApp, settings: Settings, environment: Environment
) -> str:
    """The pages for operators on a bind of their own, if set; answers until the very end."""
    server = settings.server
    if not server.admin_host:
        return ""
    listeners = await _bind(environment, server.admin_host, server.admin_port, "server.admin_port")
    start = partial(
        serve,
        app.admin(),
        listeners=listeners,
        limits=admin_limits(settings.websocket),
        rules=admin_rules(server),
        metrics=app.context.metrics,
        stop_accepting=trio.Event(),
        waiting=app.waiting,
        probes=app.probes(),
    )
    await nursery.start(start, name="admin server")
    return bound_address(listeners[0])


def urls(settings: Settings, address: str, admin: str) -> dict[str, str]:
    secure = "s" if settings.server.tls_cert_file else ""
    found = {"websocket": f"ws{secure}://{address}/ws", "http": f"http{secure}://{address}"}
    return found | ({"admin": f"http://{admin}"} if admin != address else {})


async def _bind(
    environment: Environment, host: str, port: int, key: str
) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
    try:
        return await environment.listen(host, port)
    except OSError as error:
        raise bind_error(error, host, port, key) from None


def bind_error(error: OSError, host: str, port: int, key: str) -> StartError:
    """Why the service cannot listen there; ``key`` is the setting of the port."""
    if isinstance(error, socket.gaierror) or error.errno in _OF_THE_HOST:
        key = key.removesuffix("port") + "host"
    hint = ""
    if error.errno == errno.EADDRINUSE:
        hint = f"; is it running already?  Another port: --set {key}={port + 1}"
    return StartError(f"{key}: cannot listen on {host}:{port}: {error}{hint}")


async def sweep(app: PushApp, settings: Settings) -> Never:
    """Ping clients, and drop those that have gone without a word or take nothing."""
    timeouts = _client_timeouts(settings)
    while True:
        await trio.sleep(timeouts.sweep_s)
        await app.sweep(timeouts)


def _client_timeouts(settings: Settings) -> ClientTimeouts:
    websocket = settings.websocket
    ping_s = websocket.ping_interval / 1000
    return ClientTimeouts(
        ping_s=ping_s,
        silence_s=min(settings.kline.connection_timeout, ping_s + websocket.ping_timeout / 1000),
        stall_s=websocket.send_timeout_s,
    )
