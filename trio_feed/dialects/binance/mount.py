"""What a push server mounts for Binance's dialect: WebSocket paths and REST answers of a market."""

from collections.abc import Callable, Mapping

import structlog
import trio

from ...push.mounts import Mount, Opening, Question, Reply, SocketPath
from ..market import MarketData
from ..session import DialectSession
from . import errors
from .control import BinanceControl
from .profile import Profile
from .rest import answers
from .streams import Streams
from .weight import UsedWeight

log = structlog.get_logger()

SIMULATED = {"X-Trio-Feed-Source": "simulated"}


def binance_mount(profile: Profile, market: MarketData) -> Mount:
    """``/ws``, ``/ws/<stream>/<stream>``, ``/stream?streams=``, behind each path of the market."""
    streams, used = Streams(profile, market), UsedWeight()

    def headers(host: str) -> Mapping[str, str]:
        label = SIMULATED if market.simulated else {}
        return {"x-mbx-used-weight-1m": str(used.of(host, market.context.now_ms())), **label}

    sockets = []
    for path in profile.paths:
        for combined, base in ((False, f"{path}/ws"), (True, f"{path}/stream")):
            make = _opener(streams, combined=combined)
            sockets += [SocketPath(base, make, _refusal(market))]
            sockets += [SocketPath(f"{base}/*", make, _refusal(market))]
    return Mount(
        profile.prefix,
        answers(profile, market, used),
        sockets,
        errors.busy,
        errors.no_route,
        headers,
    )


def _refusal(market: MarketData) -> Callable[[Question], Reply | None]:
    def refusal(question: Question) -> Reply | None:
        if market.withheld:
            return errors.simulated(market.venue)
        if any(name == "listenKey" for name, _ in question.query):  # events of an account
            return errors.error(-1125, "This listenKey does not exist.")
        return None

    return refusal


def _opener(streams: Streams, *, combined: bool) -> Callable[[Opening, Question], DialectSession]:
    market = streams.market

    def make(opening: Opening, question: Question) -> DialectSession:
        listed = [names for key, names in question.query if key == "streams"]
        names = [name for each in [question.rest, *listed] for name in each.split("/") if name]
        if market.simulated:
            lines, now = market.context.hub.lines, trio.current_time()
            lines.say(log.info, "dialect.simulated", now, venue=market.venue, client=opening.host)
        return DialectSession(
            market.context,
            opening,
            lambda session: BinanceControl(session, streams, names, combined),
        )

    return make
