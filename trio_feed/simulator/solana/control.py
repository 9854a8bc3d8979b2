"""JSON-RPC of a Solana PubSub server, pure: request in, reply out.

Methods, error codes and texts are those of agave's ``rpc_pubsub`` (``logsSubscribe`` and
``logsUnsubscribe``; every other method is unknown here).  Subscription ids are the server's: no
two connections share one.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from attrs import define, field

from ...venues.spinpet.solana import COMMITMENTS, is_pubkey

_PARSE_ERROR = -32700
_INVALID_REQUEST = -32600
_METHOD_NOT_FOUND = -32601
_INVALID_PARAMS = -32602


class _Refused(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@define
class LogSubscriptions:
    """What one connection asked for: subscription id -> the account that must be mentioned, None
    for all transactions.  ``ids`` gives the server's next subscription id."""

    ids: Iterator[int]
    accounts: dict[int, str | None] = field(factory=dict)
    processed: set[int] = field(factory=set)
    """The subscriptions that see what may still vanish."""

    def handle(self, text: str) -> str:
        """Take one request in.  Returns the reply; ``accounts`` is changed by then."""
        request_id: Any = None
        try:
            request = _parse(text)
            request_id = request.get("id")
            reply: dict[str, Any] = {"result": self._apply(request)}
        except _Refused as refused:
            reply = {"error": {"code": refused.code, "message": str(refused)}}
        return msgspec.json.encode({"jsonrpc": "2.0", **reply, "id": request_id}).decode()

    def asking_for(self, mentions: frozenset[str], *, settled: bool = True) -> list[int]:
        """The subscriptions that get a transaction which mentions these accounts."""
        return [
            n
            for n, account in self.accounts.items()
            if (account is None or account in mentions) and (settled or n in self.processed)
        ]

    def _apply(self, request: dict[str, Any]) -> int | bool:
        params = request.get("params")
        match request.get("method"):
            case "logsSubscribe":
                account = _account(params)
                number = next(self.ids)
                self.accounts[number] = account
                if _commitment(params) == "processed":
                    self.processed.add(number)
                return number
            case "logsUnsubscribe":
                asked = params[0] if isinstance(params, list) and params else None
                if not isinstance(asked, int) or asked not in self.accounts:
                    raise _Refused(_INVALID_PARAMS, "Invalid subscription id.")
                del self.accounts[asked]
                self.processed.discard(asked)
                return True
        raise _Refused(_METHOD_NOT_FOUND, "Method not found")


def _parse(text: str) -> dict[str, Any]:
    try:
        request = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _Refused(_PARSE_ERROR, "Parse error") from error
    if not isinstance(request, dict) or request.get("jsonrpc") != "2.0":
        raise _Refused(_INVALID_REQUEST, "Invalid request")
    return request


def _account(params: Any) -> str | None:
    """The account of a logsSubscribe's ``params``, None for a subscription to everything."""
    if not isinstance(params, list) or not 1 <= len(params) <= 2:
        raise _Refused(_INVALID_PARAMS, "`params` should have at least 1 argument(s)")
    options = params[1] if len(params) == 2 else {}
    if not isinstance(options, dict) or _commitment(params) not in COMMITMENTS:
        raise _Refused(_INVALID_PARAMS, "Invalid params: unknown commitment")
    match params[0]:
        case "all" | "allWithVotes":
            return None
        case {"mentions": [str(account)]}:
            if not is_pubkey(account):
                raise _Refused(_INVALID_PARAMS, "Invalid Request: Invalid mentions provided")
            return account
        case {"mentions": [*_]}:
            raise _Refused(_INVALID_PARAMS, "Invalid Request: Only 1 address supported")
    raise _Refused(_INVALID_PARAMS, "Invalid params: unknown filter")


def _commitment(params: Any) -> Any:
    options = params[1] if len(params) == 2 else {}
    return options.get("commitment", "finalized") if isinstance(options, dict) else None
