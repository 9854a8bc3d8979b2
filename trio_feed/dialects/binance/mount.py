"""What a push server mounts for Binance's dialect: WebSocket paths and REST answers of a market."""

from collections.abc import Callable, Mapping

import structlog
import trio

from ...push.mounts import Conversation, Mount, Opening, Question, Reply, SocketPath
from ..market import MarketData
from ..session import DialectSession
from . import errors, history
from .control import BinanceControl
from .profile import Profile
from .rest import answers
from .signed import AccountSockets, account_path, weight_of
from .streams import Streams
from .weight import UsedWeight

log = structlog.get_logger()

SIMULATED = {"X-Trio-Feed-Source": "simulated"}


def binance_mount(profile: Profile, market: MarketData) -> Mount:
    """``/ws``, ``/ws/<stream>/<stream>``, ``/stream?streams=``, behind each path of the market."""
    streams, used, passing = Streams(profile, market), UsedWeight(), market.passing

    def headers(host: str) -> Mapping[str, str]:
        label = SIMULATED if market.simulated else {}
        weight = str(used.of(host, market.context.now_ms()))
        return {"x-mbx-used-weight": weight, "x-mbx-used-weight-1m": weight, **label}

    passed_on = (
        {} if passing is None or market.withheld else passing.errands(errors.Signed(), weight_of)
    )
    accounts = AccountSockets(profile, market)
    api = profile.api_socket
    sockets = [
        SocketPath(
            api,
            lambda opening, question: accounts.open(opening, question, api),
            lambda question: accounts.refusal(question, api),
        )
    ]
    for path in profile.paths:
        for combined, base in ((False, f"{path}/ws"), (True, f"{path}/stream")):
            make, refusal = _opener(streams, accounts, combined=combined), _refusal(accounts)
            sockets += [SocketPath(base, make, refusal), SocketPath(f"{base}/*", make, refusal)]
    return Mount(
        profile.prefix,
        answers(profile, market, used, streams.shown),
        sockets,
        errors.busy,
        errors.no_route(profile),
        errors.refuse,
        headers,
        {**history.errands(profile, market, used), **passed_on},
    )


def _refusal(accounts: AccountSockets) -> Callable[[Question], Reply | None]:
    def refusal(question: Question) -> Reply | None:
        path = account_path(question)
        if path is not None:
            return accounts.refusal(question, path)
        if accounts.market.withheld:
            return errors.simulated(accounts.market.venue)
        units = (text for name, text in question.query if name == "timeUnit")
        if any(map(errors.wants_microseconds, units)):
            return errors.error(errors.UNSUPPORTED, errors.MILLISECONDS, 400)
        return None

    return refusal


def _opener(
    streams: Streams, accounts: AccountSockets, *, combined: bool
) -> Callable[[Opening, Question], Conversation]:
    market = streams.market

    def make(opening: Opening, question: Question) -> Conversation:
        path = account_path(question)
        if path is not None:
            return accounts.open(opening, question, path)
        # A plus that is not escaped comes as a space, which no name has.
        listed = [text.replace(" ", "+") for key, text in question.query if key == "streams"]
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
