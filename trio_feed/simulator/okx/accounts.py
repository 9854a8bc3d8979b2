"""One account of OKX in a box: enough of it to see that what a client signed arrives as it was.

A signature is checked over the very bytes of time, method, target and body ("REST Authentication"
and "Login" of www.okx.com/docs-v5, 2026-07-11); orders are filled at once and told to the account's
WebSockets.  Its key, secret and passphrase are in the source: who reaches the box may trade.
"""

import hmac
from base64 import b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

import msgspec
from attrs import define, field

from ..machinery.rest import ApiError
from ..machinery.wire import Request, Response

API_KEY, SECRET, PASSPHRASE = "box-key", "box-secret", "box-phrase"
PRIVATE_CHANNELS = frozenset({"account", "orders", "positions", "balance_and_position"})

Tell = Callable[[str], None]


@define(eq=False)
class Accounts:
    """``orders`` that were placed, as their parameters; ``sockets`` get them."""

    orders: list[dict[str, Any]] = field(factory=list)
    sockets: list[Tell] = field(factory=list)

    def answer(self, request: Request) -> Response | None:
        """None: the path is no account's.  Raises ApiError."""
        handle = _HANDLERS.get((request.method, request.path))
        if handle is None:
            return None
        _verify(request)
        try:
            asked = msgspec.json.decode(request.body or b"{}", type=dict[str, Any])
        except (msgspec.DecodeError, msgspec.ValidationError):
            raise _refused(50002, "JSON syntax error", 400) from None
        body = {"code": "0", "msg": "", "data": [handle(self, asked)]}
        return Response(200, msgspec.json.encode(body))

    def place(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The row of the answer."""
        self.orders.append({**asked})
        names = {"ordId": str(len(self.orders)), "clOrdId": str(asked.get("clOrdId", ""))}
        arg = {"channel": "orders", "instType": "ANY", "uid": "1"}
        row = {**asked, **names, "state": "filled"}
        for tell in self.sockets:
            tell(msgspec.json.encode({"arg": arg, "data": [row]}).decode())
        return {**names, "tag": "", "sCode": "0", "sMsg": ""}

    def balance(self, _: Mapping[str, Any]) -> dict[str, Any]:
        details = [{"ccy": "USDT", "eq": "1000", "availBal": "1000", "cashBal": "1000"}]
        return {"totalEq": "1000", "uTime": "1760000000000", "details": details}


def login_problem(arg: Mapping[str, Any]) -> tuple[int, str] | None:
    """Code and text of what is wrong with an argument of ``login``; None: nothing."""
    if arg.get("apiKey") != API_KEY:
        return 60005, "Invalid apiKey"
    if arg.get("passphrase") != PASSPHRASE:
        return 60024, "Wrong passphrase"
    signed = _sign(f"{arg.get('timestamp', '')}GET/users/self/verify".encode())
    if not hmac.compare_digest(signed, str(arg.get("sign", "")).encode()):
        return 60007, "Invalid sign"
    return None


def _verify(request: Request) -> None:
    """Raises ApiError."""
    headers = request.headers
    if not headers.get("ok-access-key"):
        raise _refused(50103, 'Request header "OK-ACCESS-KEY" can not be empty.', 401)
    if headers["ok-access-key"] != API_KEY:
        raise _refused(50111, "Invalid OK-ACCESS-KEY", 401)
    if headers.get("ok-access-passphrase") != PASSPHRASE:
        raise _refused(50105, 'Request header "OK-ACCESS-PASSPHRASE" incorrect.', 401)
    said = headers.get("ok-access-timestamp", "") + request.method
    signed = _sign(said.encode() + request.target + request.body)
    if not hmac.compare_digest(signed, headers.get("ok-access-sign", "").encode()):
        raise _refused(50113, "Invalid Sign", 401)


def _sign(payload: bytes) -> bytes:
    return b64encode(hmac.new(SECRET.encode(), payload, sha256).digest())


def _refused(code: int, problem: str, status: int) -> ApiError:
    body = {"code": str(code), "msg": problem, "data": list[object]()}
    return ApiError(Response(status, msgspec.json.encode(body)))


_HANDLERS: Mapping[tuple[str, str], Callable[[Accounts, Mapping[str, Any]], dict[str, Any]]] = {
    ("GET", "/api/v5/account/balance"): Accounts.balance,
    ("POST", "/api/v5/trade/order"): Accounts.place,
}
