"""One account of Binance in a box: enough of it to see that what a client signed arrives as it was.

A signature is checked over the very bytes of query and body ("SIGNED endpoint security" of the
general REST page, 2026-07-21); orders are filled at once and told to the account's WebSockets.
Its key and secret are in the source: who reaches the box may trade here.
"""

import hmac
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from attrs import define, field

from ..machinery.wire import Request, Response, text_frame
from .connection import BinanceConnection
from .query import BinanceError

API_KEY, SECRET = "box-key", "box-secret"
_PATHS = "/api/v3/", "/fapi/v", "/sapi/v1/asset/"
API_PATHS = ("/ws-api/v3", "/ws-fapi/v1")
_LISTEN_KEY = "box0" * 16
_MARK = b"signature="
_HELD = (
    "walletBalance", "availableBalance", "marginBalance", "crossWalletBalance",
    "maxWithdrawAmount",
)  # fmt: skip
_RISKED = (
    "initialMargin", "maintMargin", "unrealizedProfit", "positionInitialMargin",
    "openOrderInitialMargin", "crossUnPnl",
)  # fmt: skip
"""Of an asset on USD-M: "Account Information V2" (2026-05-28)."""


@define(eq=False)
class Accounts:
    """``orders`` that were placed, as their parameters; ``sockets`` get them."""

    orders: list[dict[str, str]] = field(factory=list)
    sockets: list["AccountConnection"] = field(factory=list)

    def answer(self, request: Request, now_ms: int) -> Response | None:
        """None: the path is no account's.  Raises BinanceError."""
        found = _HANDLERS.get((request.method, request.path.rpartition("/")[2]))
        if found is None or not request.path.startswith(_PATHS):
            return None
        signed, handle = found
        if request.headers.get("x-mbx-apikey") != API_KEY:
            raise BinanceError(-2015, "Invalid API-key, IP, or permissions for action.", 401)
        parameters = _verified(request) if signed else {}
        headers = {"X-MBX-ORDER-COUNT-1M": str(len(self.orders))}
        return Response(200, msgspec.json.encode(handle(self, parameters, now_ms)), headers)

    def place(self, parameters: Mapping[str, str], now_ms: int) -> dict[str, Any]:
        self.orders.append({**parameters})
        number = len(self.orders)
        named = parameters.get("symbol", "")
        size = parameters.get("quantity", "0")
        client_id = parameters.get("newClientOrderId", f"box{number}")
        event = {
            "e": "executionReport", "E": now_ms, "s": named, "c": client_id,
            "S": parameters.get("side", ""), "q": size, "x": "TRADE", "X": "FILLED", "i": number,
        }  # fmt: skip
        for socket in self.sockets:
            socket.offer(text_frame(msgspec.json.encode(event)))
        return {
            "symbol": named, "orderId": number, "orderListId": -1, "clientOrderId": client_id,
            "transactTime": now_ms, "updateTime": now_ms, "price": parameters.get("price", "0"),
            "origQty": size, "executedQty": size, "cummulativeQuoteQty": "0", "cumQuote": "0",
            "status": "FILLED", "timeInForce": "GTC", "type": parameters.get("type", ""),
            "side": parameters.get("side", ""), "fills": [],
        }  # fmt: skip

    def account(self, _: Mapping[str, str], now_ms: int) -> dict[str, Any]:
        return {
            "makerCommission": 10, "takerCommission": 10, "canTrade": True, "canWithdraw": False,
            "canDeposit": False, "feeTier": 2, "updateTime": now_ms,
            "accountType": "SPOT", "uid": 1,
            "balances": [{"asset": "USDT", "free": "1000.00000000", "locked": "0.00000000"}],
            "permissions": ["SPOT"], "totalWalletBalance": "1000.00000000", "positions": [],
            "assets": [
                {"asset": "USDT", **dict.fromkeys(_HELD, "1000.00000000"),
                 **dict.fromkeys(_RISKED, "0.00000000")},
            ],
        }  # fmt: skip

    def trade_fees(self, parameters: Mapping[str, str], _now_ms: int) -> list[dict[str, Any]]:
        """Of the symbol that is asked for, else of one."""
        named = parameters.get("symbol", "BTCUSDT")
        fees = {"makerCommission": "0.00100000", "takerCommission": "0.00100000"}
        return [{"symbol": named, **fees}]

    def listen_key(self, _: Mapping[str, str], _now_ms: int) -> dict[str, Any]:
        return {"listenKey": _LISTEN_KEY}

    def is_socket(self, request: Request) -> bool:
        named = request.query.get("listenKey", "") or request.path.rpartition("/")[2]
        return request.path in API_PATHS or named == _LISTEN_KEY


_Handler = Callable[[Accounts, Mapping[str, str], int], Any]
_HANDLERS: Mapping[tuple[str, str], tuple[bool, _Handler]] = {
    ("GET", "account"): (True, Accounts.account),
    ("GET", "openOrders"): (True, lambda *_: []),
    ("GET", "tradeFee"): (True, Accounts.trade_fees),
    ("POST", "order"): (True, Accounts.place),
    ("POST", "userDataStream"): (False, Accounts.listen_key),
    ("POST", "listenKey"): (False, Accounts.listen_key),
    ("PUT", "userDataStream"): (False, lambda *_: {}),
    ("PUT", "listenKey"): (False, lambda *_: {}),
}
"""By method and last part of the path: whether it is signed, and what answers it."""


@define(eq=False)
class AccountConnection(BinanceConnection):
    """A WebSocket of requests, or of an account's events."""

    accounts: Accounts = field(factory=Accounts)

    async def run(self) -> None:
        self.accounts.sockets.append(self)
        try:
            await self.queue.run(self._keep_alive, self._read)
        finally:
            self.accounts.sockets.remove(self)

    async def _read(self) -> None:
        while True:
            incoming = await self.peer.receive()
            if incoming.kind == "pong":
                self._note_pong()
            elif incoming.kind == "text":
                self.queue.put(text_frame(msgspec.json.encode(self._answered(incoming.data))))

    def _answered(self, text: str) -> dict[str, Any]:
        """The form of the WebSocket API; the parameters are signed in the order of their names."""
        try:
            request = msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.DecodeError:
            error = {"code": -1135, "msg": "Invalid JSON Request"}
            return {"id": None, "status": 400, "error": error}
        number, params = request.get("id"), dict(request.get("params") or {})
        if request.get("method") == "ping":
            return {"id": number, "status": 200, "result": {}, "rateLimits": []}
        signature = str(params.pop("signature", ""))
        payload = "&".join(f"{name}={params[name]}" for name in sorted(params)).encode()
        if params.get("apiKey") != API_KEY or not hmac.compare_digest(_sign(payload), signature):
            error = {"code": -1022, "msg": "Signature for this request is not valid."}
            return {"id": number, "status": 400, "error": error}
        now_ms = int(self.publisher.now_ms())
        words = {name: str(value) for name, value in params.items()}
        place = request.get("method") == "order.place"
        result = (self.accounts.place if place else self.accounts.account)(words, now_ms)
        return {"id": number, "status": 200, "result": result, "rateLimits": []}


def _verified(request: Request) -> dict[str, str]:
    """The parameters.  Raises BinanceError."""
    query, body = request.target.partition(b"?")[2], request.body
    parts = [_split(text) for text in (query, body)]
    signature = next((found for _, found in parts if found), "")
    payload = b"".join(text for text, _ in parts)
    if not hmac.compare_digest(_sign(payload), signature):
        raise BinanceError(-1022, "Signature for this request is not valid.")
    return dict(parse_qsl(query.decode("ascii"))) | dict(parse_qsl(body.decode("ascii", "replace")))


def _split(text: bytes) -> tuple[bytes, str]:
    """What is signed, and the signature behind it."""
    before, mark, signature = text.rpartition(_MARK)
    if not mark:
        return text, ""
    return before.removesuffix(b"&"), signature.decode("latin-1")


def _sign(payload: bytes) -> str:
    return hmac.new(SECRET.encode(), payload, sha256).hexdigest()
