"""What a push server mounts for OKX's dialect: WebSocket paths and REST answers."""

from collections.abc import Callable, Mapping

import structlog
import trio

from ...push.mounts import Conversation, Mount, Opening, Question, Reply, SocketPath
from ...push.private.auth import AuthError
from ..market import MarketData
from ..passing import Passing
from ..session import DialectSession
from ..tunnel import Tunnel
from . import errors
from .channels import Channels
from .control import OkxControl
from .rest import answers

log = structlog.get_logger()

SIMULATED = {"X-Trio-Feed-Source": "simulated"}


def okx_mount(market: MarketData) -> Mount:
    """``/ws/v5/public``, ``/business`` and ``/private``; ``/api/v5/..``.

    What is passed on to OKX: endpoints, and each of the three WebSockets, which is then OKX's own
    from its login on."""
    channels, passing = Channels(market), market.passing

    def headers(_host: str) -> Mapping[str, str]:
        return SIMULATED if market.simulated else {}

    def refusal(_: Question) -> Reply | None:
        return errors.simulated(market.venue) if market.withheld else None

    sockets = []
    for name in ("public", "business", "private"):
        path = f"/ws/v5/{name}"
        if passing is not None and not market.withheld and passing.has("WS", path):
            sockets.append(_tunnel(passing, path))
        else:
            sockets.append(SocketPath(path, _opener(channels, private=name == "private"), refusal))
    return Mount(
        "/okx",
        answers(market),
        sockets,
        errors.busy,
        errors.no_route,
        errors.refuse,
        headers,
        {} if passing is None or market.withheld else passing.errands(errors.Signed()),
    )


def _tunnel(passing: Passing, path: str) -> SocketPath:
    def refusal(question: Question) -> Reply | None:
        try:
            passing.let_in(question)
        except AuthError as problem:
            return errors.Signed().not_let_in(str(problem))
        return None

    def make(opening: Opening, question: Question) -> Conversation:
        where = passing.api_url, question.target.decode("latin-1")
        return Tunnel(passing, opening, passing.let_in(question), where, path)

    return SocketPath(path, make, refusal)


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
