"""OKX's control messages on an open WebSocket, pure: text in, replies and changes out.

One acknowledgement or one error per arg, with the connection's ``connId`` and the request's
``id``.  Codes and texts: www.okx.com/docs-v5 "Error code - WebSocket public" (2026-07-20),
exchanges.md 5.2; candles on ``/public`` are answered with 60018 since 2024 (aiviaio/okex #76),
with 64001 in 2023.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from attrs import define, field, frozen

from .accounts import PRIVATE_CHANNELS, Accounts, login_problem
from .channels import BUSINESS, PUBLIC
from .rows import Channel

REQUESTS_PER_HOUR = 480
"""Subscribe, unsubscribe and login together, per connection."""
_HOUR_S = 3600.0
_URLS = {"public": frozenset(PUBLIC), "business": frozenset(BUSINESS), "private": frozenset[str]()}
_WANT_LOGIN = ("books-l2-tbt", "books50-l2-tbt")
_MIGRATED = ("mark-price-candle", "index-candle")
_WRONG = "Please use the correct URL, channel and parameters referring to API document."
_MOVED = (
    "This channel has been migrated to the '/business' URL. Please subscribe using the new URL."
)
_TEXT_MAX = 1_000


@frozen
class Step:
    """One reply, and what to do after it was sent."""

    text: str
    follow: Channel | None = None
    leave: Channel | None = None


class _Refused(Exception):
    """A documented error."""

    def __init__(self, code: int, msg: str) -> None:
        super().__init__(msg)
        self.code, self.msg = str(code), msg


@define
class Control:
    """One connection's subscriptions.  ``url`` is public, business or private; ``has`` says
    whether an instrument's channel exists at all."""

    url: str
    conn_id: str
    has: Callable[[Channel], bool]
    accounts: Accounts = field(factory=Accounts)
    subscribed: dict[Channel, None] = field(factory=dict)
    private: set[str] = field(factory=set)
    """Channels of the account, after a login."""
    _logged_in: bool = False
    _requests: deque[float] = field(factory=deque)

    def handle(self, text: str, now_s: float) -> Iterator[Step]:
        """One message other than ``ping`` -> what to answer and do, in order.

        ``now_s`` is any clock that runs in seconds.
        """
        request: dict[str, Any] = {}
        try:
            request = _parse(text)
            operation = self._operation(request, now_s)
            args = _args(request, text)
        except _Refused as refused:
            yield Step(self._error(request, refused))
            return
        for arg in args:
            try:
                yield operation(request, arg)
            except _Refused as refused:
                yield Step(self._error(request, refused))

    def _operation(
        self, request: dict[str, Any], now_s: float
    ) -> Callable[[dict[str, Any], dict[str, Any]], Step]:
        op = request["op"]
        if op == "order" and self._logged_in:
            return self._place
        if op not in ("subscribe", "unsubscribe", "login"):
            raise _Refused(60019, f"Invalid op: {str(op)[:_TEXT_MAX]}")
        while self._requests and now_s - self._requests[0] >= _HOUR_S:
            self._requests.popleft()
        if len(self._requests) >= REQUESTS_PER_HOUR:
            raise _Refused(60014, "Requests too frequent.")
        self._requests.append(now_s)
        return {"login": self._login, "subscribe": self._subscribe}.get(op, self._unsubscribe)

    def _login(self, request: dict[str, Any], arg: dict[str, Any]) -> Step:
        if self.url == "public":
            raise _Refused(
                60028,
                "The current operation is not supported by this URL. "
                "Please use the correct URL and try again.",
            )
        if (problem := login_problem(arg)) is not None:
            raise _Refused(*problem)
        self._logged_in = True
        return Step(self._reply(request, {"event": "login", "code": "0", "msg": ""}))

    def _place(self, request: dict[str, Any], arg: dict[str, Any]) -> Step:
        row = self.accounts.place(arg)
        said = {"id": request.get("id", ""), "op": "order", "code": "0", "msg": "", "data": [row]}
        return Step(_dump(said))

    def _subscribe(self, request: dict[str, Any], arg: dict[str, Any]) -> Step:
        if self._logged_in and arg["channel"] in PRIVATE_CHANNELS:
            self.private.add(arg["channel"])
            return Step(self._ack("subscribe", request, arg))
        channel = self._channel(arg)
        if channel in self.subscribed:
            return Step(self._ack("subscribe", request, arg))
        self.subscribed[channel] = None
        return Step(self._ack("subscribe", request, arg), follow=channel)

    def _unsubscribe(self, request: dict[str, Any], arg: dict[str, Any]) -> Step:
        channel = self._channel(arg)
        self.subscribed.pop(channel, None)
        return Step(self._ack("unsubscribe", request, arg), leave=channel)

    def _channel(self, arg: dict[str, Any]) -> Channel:
        name, inst_id = arg["channel"], arg.get("instId", "")
        if self.url == "private" or (self.url == "public" and name in _WANT_LOGIN):
            raise _Refused(60011, "Please log in.")
        if self.url == "public" and name.startswith(_MIGRATED):
            raise _Refused(64001, _MOVED)
        channel = Channel(name, inst_id if isinstance(inst_id, str) else "")
        here = name in _URLS[self.url] and (channel in self.subscribed or self.has(channel))
        if not here:
            more = [f"channel:{name}", *(f"{key}:{arg[key]}" for key in arg if key != "channel")]
            what = ",".join(more)[:_TEXT_MAX]
            raise _Refused(60018, f"Wrong URL or {what} doesn't exist. {_WRONG}")
        return channel

    def _ack(self, event: str, request: dict[str, Any], arg: dict[str, Any]) -> str:
        return self._reply(request, {"event": event, "arg": arg})

    def _error(self, request: dict[str, Any], refused: _Refused) -> str:
        return self._reply(request, {"event": "error", "code": refused.code, "msg": refused.msg})

    def _reply(self, request: dict[str, Any], reply: dict[str, Any]) -> str:
        named = {"id": request["id"]} if "id" in request else {}
        return _dump({**named, **reply, "connId": self.conn_id})


def notice(conn_id: str) -> str:
    """The announcement of an upgrade, 60 s before it."""
    msg = "The connection will soon be closed for a service upgrade. Please reconnect."
    return _dump({"event": "notice", "code": "64008", "msg": msg, "connId": conn_id})


def _parse(text: str) -> dict[str, Any]:
    try:
        request = json.loads(text)
    except (ValueError, RecursionError):  # not JSON, nested too deep, a number of endless digits
        request = None
    if not isinstance(request, dict) or "op" not in request or not _is_id(request.get("id", "")):
        raise _invalid(text)
    return request


def _is_id(value: object) -> bool:
    if not isinstance(value, str) or len(value) > 32:
        return False
    return value == "" or (value.isascii() and value.isalnum())


def _args(request: dict[str, Any], text: str) -> list[dict[str, Any]]:
    if "args" not in request:
        raise _invalid(text)
    args = request["args"]
    if not isinstance(args, list) or not args:
        raise _Refused(60013, "Invalid args")
    fine = (isinstance(arg, dict) and isinstance(arg.get("channel", ""), str) for arg in args)
    if not all(fine) or (
        request["op"] not in ("login", "order") and any("channel" not in arg for arg in args)
    ):
        raise _Refused(60013, "Invalid args")
    return args


def _invalid(text: str) -> _Refused:
    return _Refused(60012, f"Invalid request: {text[:_TEXT_MAX]}")


def _dump(message: dict[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))
