"""OKX's requests on a WebSocket, of one client, and their answers: one for each argument.

Sources: "Overview - WebSocket" (2026-07-11) and "Error code - WebSocket" (2026-07-20) of
www.okx.com/docs-v5.  All channels are on ``/public`` and on ``/business``, because some clients
know one URL only; there is no ``/private`` data, and a login says so in OKX's words.

An acknowledged channel begins with how things stand, as OKX's do.
"""

import re
from contextlib import suppress
from typing import Any
from zlib import crc32

import msgspec
from attrs import define, field

from ...push.fanout.voice import Farewell
from ...push.protocol import RESTARTING
from ..session import DialectSession
from .channels import PRIVATE, Channels, Found

_MOST_ARGS = 1_000
_MOST_PRESENT = 8_000_000
"""Bytes of books and the like that one request may get at once."""
_SHOWN = 300
_ID = re.compile(r"[A-Za-z0-9]{0,32}", re.ASCII)
_ORDERS = frozenset(
    {
        "order", "batch-orders", "cancel-order", "batch-cancel-orders", "amend-order",
        "batch-amend-orders", "mass-cancel", "sprd-order", "sprd-amend-order",
        "sprd-cancel-order", "sprd-mass-cancel",
    }
)  # fmt: skip
_WRONG = "Please use the correct URL, channel and parameters referring to API document."
_LOG_IN = "Please log in."
_NO_ACCOUNTS = (
    "trio_feed serves market data, no accounts; dialects.okx.passthrough = ['WS /ws/v5/private'] "
    "passes that on to the exchange"
)
_UPGRADE = "The connection will soon be closed for a service upgrade. Please reconnect."
_decode = msgspec.json.Decoder().decode


class Refused(Exception):
    """A request, or one of its arguments, is answered with this error."""

    def __init__(self, code: int, problem: str) -> None:
        super().__init__(problem)
        self.code = code


@define(eq=False)
class OkxControl:
    """A :class:`..session.Control`.  ``private``: the client came to the URL of accounts."""

    session: DialectSession
    channels: Channels
    private: bool
    _conn_id: str = field(init=False)
    _presented: int = 0

    def __attrs_post_init__(self) -> None:
        self._conn_id = f"{crc32(self.session.client_id.encode()):08x}"

    def opened(self) -> None:
        """OKX waits for the first request."""

    def take(self, text: str | bytes) -> None:
        if text in ("ping", b"ping"):
            self.session.reply("pong")
            return
        number: str | None = None
        try:
            request = _object(text)
            number = _id(request, text)
            self._obey(request, text, number)
        except Refused as refused:
            self._refuse(refused, number)

    def too_many(self, text: str | bytes) -> None:
        number: str | None = None
        with suppress(Refused):
            number = _id(_object(text), text)
        self._refuse(Refused(60014, "Requests too frequent."), number)

    def restarting(self) -> Farewell:
        """The exchange says this a minute before; clients reconnect at once."""
        notice = {"event": "notice", "code": "64008", "msg": _UPGRADE, "connId": self._conn_id}
        return Farewell(RESTARTING, "service upgrade", msgspec.json.encode(notice).decode())

    def gone(self) -> None:
        """Nothing is kept of it."""

    @property
    def _most(self) -> int:
        return self.session.context.limits.max_subscriptions

    def _obey(self, request: dict[str, Any], text: str | bytes, number: str | None) -> None:
        """Raises Refused for what concerns the whole request."""
        op = request["op"]
        if op == "login":
            raise Refused(60032, f"API key doesn't exist. ({_NO_ACCOUNTS})")
        if op in _ORDERS:
            raise Refused(60011, f"{_LOG_IN} ({_NO_ACCOUNTS})")
        if op not in ("subscribe", "unsubscribe"):
            raise Refused(60019, f"Invalid op: {str(op)[:_SHOWN]}")
        args = _args(request, text)
        self.session.context.metrics.requests.labels(op).inc()
        self._presented = 0
        for arg in args:
            try:
                if op == "subscribe":
                    self._subscribe(arg, number)
                else:
                    self._unsubscribe(arg, number)
            except Refused as refused:
                self._refuse(refused, number)

    def _subscribe(self, arg: dict[str, str], number: str | None) -> None:
        """Raises Refused.  Who has the channel already gets it from the beginning."""
        found = self._find(arg)
        held = self.session.names
        if found.name not in held and len(held) >= self._most:
            raise Refused(60013, f"Invalid args (trio_feed: the limit of channels is {self._most})")
        form = self.channels.form(found)
        present = form.present()
        if present is not None:
            self._presented += len(present)
            if self._presented > _MOST_PRESENT:
                raise Refused(60014, "Requests too frequent. (trio_feed: subscribe in parts)")
        self._acknowledge("subscribe", arg, number)
        if present is not None:
            self.session.reply(present)
        self.session.subscribe(found.name, found.topic, found.target, form)

    def _unsubscribe(self, arg: dict[str, str], number: str | None) -> None:
        """Raises Refused, for what does not exist."""
        if not self.session.unsubscribe(f"{arg['channel']}:{arg.get('instId', '')}"):
            self._find(arg)
        self._acknowledge("unsubscribe", arg, number)

    def _find(self, arg: dict[str, str]) -> Found:
        """Raises Refused."""
        channel = arg["channel"]
        if channel in PRIVATE:
            raise Refused(60011, f"{_LOG_IN} ({_NO_ACCOUNTS})")
        why = ""
        if not self.private:
            found = self.channels.find(channel, arg.get("instId", ""))
            if isinstance(found, Found):
                return found
            why = found
        rest = (f"{name}:{text}" for name, text in arg.items() if name != "channel")
        what = ",".join([f"channel:{channel}", *rest])[:_SHOWN]
        reason = f" (trio_feed: {why[:_SHOWN]})" if why else ""
        raise Refused(60018, f"Wrong URL or {what} doesn't exist. {_WRONG}{reason}")

    def _acknowledge(self, event: str, arg: dict[str, str], number: str | None) -> None:
        self._reply({"event": event, "arg": arg}, number)

    def _refuse(self, refused: Refused, number: str | None) -> None:
        code = str(refused.code)
        self.session.context.metrics.request_errors.labels(f"okx {code}").inc()
        self._reply({"event": "error", "code": code, "msg": str(refused)}, number)

    def _reply(self, said: dict[str, Any], number: str | None) -> None:
        named = {} if number is None else {"id": number}
        text = msgspec.json.encode({**named, **said, "connId": self._conn_id}).decode()
        self.session.reply(text)


def _object(text: str | bytes) -> dict[str, Any]:
    """Raises Refused."""
    try:
        found = _decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError, OverflowError):
        raise _invalid(text) from None
    if not isinstance(found, dict) or not isinstance(found.get("op"), str):
        raise _invalid(text)
    return found


def _id(request: dict[str, Any], text: str | bytes) -> str | None:
    """Letters and digits, at most 32; None: there is none.  Raises Refused."""
    number = request.get("id")
    if number is None:
        return None
    if not isinstance(number, str) or _ID.fullmatch(number) is None:
        raise _invalid(text)
    return number


def _args(request: dict[str, Any], text: str | bytes) -> list[dict[str, str]]:
    """Each has a channel, and texts only.  Raises Refused."""
    if "args" not in request:
        raise _invalid(text)
    args = request["args"]
    if not isinstance(args, list) or not 0 < len(args) <= _MOST_ARGS:
        raise Refused(60013, "Invalid args")
    for arg in args:
        if not isinstance(arg, dict) or "channel" not in arg:
            raise Refused(60013, "Invalid args")
        if not all(isinstance(value, str) for value in arg.values()):
            raise Refused(60013, "Invalid args")
    return args


def _invalid(text: str | bytes) -> Refused:
    shown = text.decode(errors="replace") if isinstance(text, bytes) else text
    return Refused(60012, f"Invalid request: {shown[:_SHOWN]}")
