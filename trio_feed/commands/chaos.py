"""Faults for tests of a user's own program: which were chosen, and the service against them."""

from collections.abc import Callable
from functools import partial

import structlog
import trio
from attrs import evolve

from ..environment import Environment
from ..push.edge.endpoint import bound_address
from ..settings import ExchangeSettings, ProxySettings, Settings
from ..simulator.chaos import FAULTS, OF_A_PROXY, OF_THE_CLIENT, Chaos, serve_with_faults
from ..simulator.faults.clocks import Clocks
from ..simulator.faults.descriptions import DESCRIPTIONS
from .options import Refused

log = structlog.get_logger()

EXCHANGE_FAULTS = tuple(kind for kind in FAULTS if kind not in OF_A_PROXY | OF_THE_CLIENT)
"""What a client of one port can meet."""
PROXIED_FAULTS = tuple(kind for kind in FAULTS if kind not in OF_THE_CLIENT)
"""And one that goes through the proxy beside it."""


def listed() -> str:
    """Every fault with what it is."""
    return "\n".join(f"{kind:<19} {DESCRIPTIONS[kind]}" for kind in FAULTS)


def chosen(text: str, option: str, possible: tuple[str, ...] = FAULTS) -> tuple[str, ...]:
    """``all``, ``none`` or names with commas.  Raises Refused."""
    if text in ("", "none"):
        return ()
    names = possible if text == "all" else tuple(name.strip() for name in text.split(","))
    for name in names:
        if name in FAULTS and name not in possible:
            why = "wants --proxy-port" if name in OF_A_PROXY else "is one of the client's machine"
            raise Refused(f"{option}: {name} {why}")
        if name not in possible:
            raise Refused(f"{option}: {name!r} is none; one of {', '.join(possible)}")
    return names


async def start_chaos(
    kinds: tuple[str, ...],
    per_hour: float,
    clocks: Clocks,
    nursery: trio.Nursery,
    settings: Settings,
    environment: Environment,
) -> Callable[[ExchangeSettings], ExchangeSettings]:
    """In the place of :func:`trio_feed.serving.start_simulator`: the exchange in a box behind its
    faults, reached through a CONNECT proxy that has faults of its own."""
    box = settings.simulator
    listeners = await environment.listen(box.host, box.port)
    proxy = await environment.listen(box.host, 0)
    address, way = bound_address(listeners[0]), bound_address(proxy[0])
    chaos = Chaos(kinds, per_hour, lambda fault: log.warning("chaos.fault", fault=fault))
    port = int(address.rpartition(":")[2])
    serve = partial(serve_with_faults, box, chaos, listeners, port=port, proxy=proxy, clocks=clocks)
    await nursery.start(serve, name="simulator")
    log.info("simulator.ready", venue=box.venue, address=address, seed=box.seed, proxy=way)

    def point_at_it(exchange: ExchangeSettings) -> ExchangeSettings:
        connection = evolve(
            exchange.connection,
            websocket_url=f"ws://{address}",
            rest_url=f"http://{address}",
            proxy=ProxySettings(enabled=True, proxy_type="http", address=way),
            proxies=(),
        )
        return evolve(exchange, connection=connection)

    return point_at_it
