"""What a push server mounts for OKX's dialect: WebSocket paths and REST answers."""

from collections.abc import Callable, Mapping

import structlog
import trio

from ...push.mounts import Mount, Opening, Question, Reply, SocketPath
from ..market import MarketData
from ..session import DialectSession
from . import errors
from .channels import Channels
from .control import OkxControl
from .rest import answers

log = structlog.get_logger()

SIMULATED = {"X-Trio-Feed-Source": "simulated"}


def okx_mount(market: MarketData) -> Mount:
    """``/ws/v5/public``, ``/business`` and ``/private``; ``/api/v5/..``."""
    channels = Channels(market)

    def headers(_host: str) -> Mapping[str, str]:
        return SIMULATED if market.simulated else {}

    def refusal(_: Question) -> Reply | None:
        return errors.simulated(market.venue) if market.withheld else None

    sockets = [
        SocketPath(f"/ws/v5/{name}", _opener(channels, private=name == "private"), refusal)
        for name in ("public", "business", "private")
    ]
    return Mount("/okx", answers(market), sockets, errors.busy, errors.no_route, headers)


def _opener(channels: Channels, *, private: bool) -> Callable[[Opening, Question], DialectSession]:
    market = channels.market

    def make(opening: Opening, question: Question) -> DialectSession:
        if market.simulated:
            lines, now = market.context.hub.lines, trio.current_time()
            lines.say(log.info, "dialect.simulated", now, venue=market.venue, client=opening.host)
        return DialectSession(
            market.context, opening, lambda session: OkxControl(session, channels, private)
        )

    return make
