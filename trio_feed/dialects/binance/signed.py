"""What of Binance's is signed by the client: its weights, and the WebSockets of accounts.

Sources: the "Account Endpoints" and "Trading Endpoints" pages of spot (2026-07-21) and USD-M
(2026-05-28).  A weight that is missing here is 1; the exchange's own count corrects the budget.
"""

import re
from collections.abc import Mapping
from functools import partial
from urllib.parse import urlsplit

import msgspec

from ...push.mounts import Opening, Question, Reply
from ...push.private.auth import AuthError
from ...rest_dialects import MALFORMED
from ..market import MarketData
from ..tunnel import Tunnel
from . import errors
from .profile import Profile

_WEIGHTS: Mapping[tuple[str, str], int] = {
    ("GET", "/api/v3/account"): 20,
    ("GET", "/api/v3/order"): 4,
    ("GET", "/api/v3/openOrders"): 80,  # 6 with a symbol
    ("GET", "/api/v3/allOrders"): 20,
    ("GET", "/api/v3/orderList"): 4,
    ("GET", "/api/v3/allOrderList"): 20,
    ("GET", "/api/v3/openOrderList"): 6,
    ("GET", "/api/v3/myTrades"): 20,
    ("GET", "/api/v3/rateLimit/order"): 40,
    ("GET", "/api/v3/myAllocations"): 20,
    ("GET", "/api/v3/account/commission"): 20,
    ("GET", "/api/v3/historicalTrades"): 25,
    ("POST", "/api/v3/userDataStream"): 2,
    ("PUT", "/api/v3/userDataStream"): 2,
    ("DELETE", "/api/v3/userDataStream"): 2,
    ("GET", "/fapi/v2/account"): 5,
    ("GET", "/fapi/v3/account"): 5,
    ("GET", "/fapi/v2/balance"): 5,
    ("GET", "/fapi/v3/balance"): 5,
    ("GET", "/fapi/v2/positionRisk"): 5,
    ("GET", "/fapi/v3/positionRisk"): 5,
    ("GET", "/fapi/v1/openOrders"): 40,  # 1 with a symbol
    ("GET", "/fapi/v1/allOrders"): 5,
    ("GET", "/fapi/v1/userTrades"): 5,
    ("GET", "/fapi/v1/income"): 30,
    ("GET", "/fapi/v1/commissionRate"): 20,
    ("GET", "/fapi/v1/positionSide/dual"): 30,
    ("GET", "/fapi/v1/multiAssetsMargin"): 30,
    ("GET", "/fapi/v1/historicalTrades"): 20,
}
_SPOT_METHODS: Mapping[str, int] = {
    "exchangeInfo": 20, "depth": 5, "trades.recent": 25, "trades.historical": 25,
    "trades.aggregate": 4, "klines": 2, "uiKlines": 2, "avgPrice": 2, "ticker.24hr": 2, "ticker": 4,
    "ticker.tradingDay": 4, "ticker.price": 4, "ticker.book": 4, "session.logon": 2,
    "session.status": 2, "session.logout": 2, "account.status": 20, "account.commission": 20,
    "account.rateLimits.orders": 40, "order.status": 4, "openOrders.status": 80, "allOrders": 20,
    "orderList.status": 4, "openOrderLists.status": 6, "allOrderLists": 20, "myTrades": 20,
    "myAllocations": 20, "userDataStream.start": 2, "userDataStream.ping": 2,
    "userDataStream.stop": 2, "userDataStream.subscribe": 2, "userDataStream.unsubscribe": 2,
}  # fmt: skip
"""Of the WebSocket API, by method.  It has REST's limits, and for the same question its weight."""
_USDM_METHODS: Mapping[str, int] = {
    "depth": 5, "ticker.price": 2, "ticker.book": 5, "account.status": 5, "account.balance": 5,
    "account.position": 5, "v2/account.status": 5, "v2/account.balance": 5,
    "v2/account.position": 5,
}  # fmt: skip
_LISTEN_KEY = re.compile(r"[A-Za-z0-9_-]{32,100}")
LISTEN_KEY = "<listenKey>"
"""Stands in a setting, and in the log, in the place of one."""


def weight_of(method: str, path: str) -> int:
    return _WEIGHTS.get((method, path), 1)


class _Request(msgspec.Struct):
    """Of the WebSocket API; nothing else of it is looked at."""

    method: str = ""


_decode_request = msgspec.json.Decoder(_Request).decode


def weight_of_request(text: str, *, spot: bool) -> int:
    """Of one of the WebSocket API; also what is no request costs something."""
    try:
        method = _decode_request(text).method
    except MALFORMED:
        return 1
    return (_SPOT_METHODS if spot else _USDM_METHODS).get(method, 1)


def account_path(question: Question) -> str | None:
    """The entry of the settings that a WebSocket of an account would need; None: it is none.

    ``/ws/<listenKey>``, or a path with ``listenKey=`` in the query."""
    path = urlsplit(question.target.decode("latin-1")).path
    if any(name == "listenKey" for name, _ in question.query):
        return path
    if _LISTEN_KEY.fullmatch(question.rest) and path.endswith(f"/ws/{question.rest}"):
        return path.removesuffix(question.rest) + LISTEN_KEY
    streams = [names for name, names in question.query if name == "streams"]
    if any(_LISTEN_KEY.fullmatch(name) for names in streams for name in names.split("/")):
        return path
    return None


class AccountSockets:
    """WebSockets that are passed on, of one market."""

    def __init__(self, profile: Profile, market: MarketData) -> None:
        self._profile, self.market = profile, market

    def refusal(self, question: Question, path: str) -> Reply | None:
        """Why it is not passed on; None: it is."""
        passing = self.market.passing
        if self.market.withheld:
            return errors.simulated(self.market.venue)
        if passing is None or not passing.has("WS", path):
            return errors.not_passed(self._profile, "WS", path, 404)
        try:
            passing.let_in(question)
        except AuthError as problem:
            return errors.Signed().not_let_in(str(problem))
        return None

    def open(self, opening: Opening, question: Question, path: str) -> Tunnel:
        passing = self.market.passing
        assert passing is not None, "it was refused"
        identity, target = passing.let_in(question), question.target.decode("latin-1")
        if path != self._profile.api_socket:
            return Tunnel(passing, opening, identity, ("", target), path)
        where = passing.api_url or self._profile.api_url, target
        weigh = partial(weight_of_request, spot=self._profile.spot)
        return Tunnel(passing, opening, identity, where, path, weigh)
