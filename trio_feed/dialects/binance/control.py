"""Binance's live subscribing: the requests of one WebSocket client and their answers.

Source: "Live Subscribing/Unsubscribing to streams" of binance-spot-api-docs (2026-07-21).  Errors
come nested, as both markets send them (the page shows them bare): ``{"error":{..},"id":..}``.

A stream in the URL that is not fed is accepted and stays silent, because clients open such
(``/ws/0``) and subscribe afterwards.  One in SUBSCRIBE is refused with the reason, where the
exchange would stay silent for ever: nobody should wait for data that never comes.
"""

import re
from collections.abc import Iterable
from typing import Any

import msgspec
import structlog
import trio
from attrs import define, field

from ...push.fanout.encoded import StreamForm
from ...push.fanout.voice import Farewell
from ...push.protocol import RESTARTING
from ..session import DialectSession
from .streams import Found, Streams, Whole

log = structlog.get_logger()

MOST_STREAMS = 1024
"""Of one connection, by the exchange's rule."""
_MOST_NAMES = 4096
_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_ID = re.compile(r"[A-Za-z0-9_-]{1,36}")
_decode = msgspec.json.Decoder().decode


class Refused(Exception):
    """A request is answered with this error."""

    def __init__(self, code: int, problem: str) -> None:
        super().__init__(problem)
        self.code = code


@define(eq=False)
class BinanceControl:
    """A :class:`..session.Control`.  ``names`` are the streams of the URL; ``combined``: events are
    wrapped, as on ``/stream``."""

    session: DialectSession
    streams: Streams
    names: list[str]
    combined: bool
    _wide: dict[str, None] = field(factory=dict)
    """Its streams of the whole market."""
    _missed: list[str] = field(factory=list)
    """Events that go out behind the answer to its request."""

    def opened(self) -> None:
        self.streams.expect(self.names)
        unfed, taken = [], 0
        for name in dict.fromkeys(self.names):
            found = self.streams.find(name)
            if not isinstance(found, str) and taken < self._most:
                self._subscribe(found)
                taken += 1
            else:
                unfed.append(name)
        self._catch_up()
        if unfed:
            some = [name[:64] for name in unfed[:10]]
            lines, venue = self.session.context.hub.lines, self.streams.profile.venue
            now = trio.current_time()
            lines.say(log.info, "dialect.silent_streams", now, venue=venue, streams=some)

    def take(self, text: str | bytes) -> None:
        number: Any = None
        try:
            request = _object(text)
            number = _id(request)
            self._reply(self._answer(request, text), number)
            self._catch_up()
        except Refused as refused:
            self._refuse(refused.code, str(refused), number)

    def too_many(self, text: str | bytes) -> None:
        try:
            number = _id(_object(text))
        except Refused:
            number = None
        self._refuse(4, "Too many requests", number)

    def restarting(self) -> Farewell:
        """Spot announces it (2026-05-08); clients that do not know the event just reconnect."""
        text = f'{{"e":"serverShutdown","E":{int(self.session.context.now_ms())}}}'
        if self.combined:
            text = f'{{"stream":"!serverShutdown","data":{text}}}'
        spot = self.streams.profile.spot
        return Farewell(RESTARTING, "service restart", text if spot else None)

    def gone(self) -> None:
        self.streams.followers.pop(self, None)

    def joined(self, symbol: str) -> None:
        """A symbol is fed from now on, or known by its name."""
        for name in self._wide:
            part = self.streams.part(name, symbol)
            if part is not None and not self.session.has(name, symbol):
                form = self.streams.wide_form(name, [part], wrapped=self.combined)
                self.session.subscribe(name, part.topic, part.target, form, symbol)

    @property
    def _most(self) -> int:
        return min(MOST_STREAMS, self.session.context.limits.max_subscriptions)

    def _answer(self, request: dict[str, Any], text: str | bytes) -> object:
        """The result.  Raises Refused."""
        end = f"at line 1 column {len(text)}"
        if "method" not in request:
            raise Refused(2, f"Invalid request: missing field `method` {end}")
        method, params = request["method"], request.get("params", [])
        if method not in _METHODS:
            known = ", ".join(f"`{name}`" for name in _METHODS)
            shown = str(method)[:60]
            raise Refused(
                2, f"Invalid request: unknown variant `{shown}`, expected one of {known} {end}"
            )
        if params is None:
            params = []
        if not isinstance(params, list):
            raise Refused(2, f"Invalid request: params must be an array {end}")
        self.session.context.metrics.requests.labels(_COUNTED[method]).inc()
        match method:
            case "SUBSCRIBE":
                self._subscribe_all(_names(params))
            case "UNSUBSCRIBE":
                for name in _names(params):
                    self._wide.pop(name, None)
                    self.session.unsubscribe(name)
            case "LIST_SUBSCRIPTIONS":
                return self._held
            case "SET_PROPERTY":
                self._set(params)
            case _:
                _property(params, 1)
                return self.combined
        return None

    def _subscribe_all(self, names: Iterable[str]) -> None:
        """All of them, or none with the reason."""
        names = list(dict.fromkeys(names))
        self.streams.expect(names)
        found: list[Found | Whole] = []
        for name in names:
            stream = self.streams.find(name)
            if isinstance(stream, str):
                raise Refused(2, f"Invalid request: invalid stream {name[:64]}: {stream}")
            found.append(stream)
        held = set(self._held)
        new = [stream for stream in found if stream.name not in held]
        if len(held) + len(new) > self._most:
            raise Refused(4, f"Too many subscriptions: the limit is {self._most}")
        for stream in new:
            self._subscribe(stream)

    @property
    def _held(self) -> list[str]:
        """Its streams, those of the whole market that nothing is fed of yet at the end."""
        return [*dict.fromkeys([*self.session.names, *self._wide])]

    def _subscribe(self, found: Found | Whole) -> None:
        form = self.streams.form(found, wrapped=self.combined)
        if isinstance(found, Found):
            self.session.subscribe(found.name, found.topic, found.target, form)
            self._missed += self.streams.missed(found, form)
            return
        self._wide[found.name] = None
        self.streams.followers[self] = None
        for part in found.parts:
            own = part.target.symbol
            self.session.subscribe(found.name, part.topic, part.target, form, own)

    def _catch_up(self) -> None:
        missed, self._missed = self._missed, []
        for text in missed:
            self.session.reply(text)

    def _set(self, params: list[Any]) -> None:
        _property(params, 2)
        if len(params) < 2 or not isinstance(params[1], bool):
            raise Refused(1, "Invalid value type: expected Boolean")
        self.combined = params[1]
        self.session.reform(self._form)

    def _form(self, name: str) -> StreamForm | None:
        found = self.streams.find(name)
        if isinstance(found, str):
            return None
        return self.streams.form(found, wrapped=self.combined)

    def _reply(self, result: object, number: Any) -> None:
        self.session.reply(msgspec.json.encode({"result": result, "id": number}).decode())

    def _refuse(self, code: int, problem: str, number: Any) -> None:
        self.session.context.metrics.request_errors.labels(f"binance {code}").inc()
        error = {"error": {"code": code, "msg": problem}, "id": number}
        self.session.reply(msgspec.json.encode(error).decode())


_COUNTED = {
    "SUBSCRIBE": "subscribe",
    "UNSUBSCRIBE": "unsubscribe",
    "LIST_SUBSCRIPTIONS": "list",
    "SET_PROPERTY": "property",
    "GET_PROPERTY": "property",
}


def _object(text: str | bytes) -> dict[str, Any]:
    """Raises Refused."""
    try:
        found = _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused(3, "Invalid JSON: expected value at line 1 column 1") from None
    if not isinstance(found, dict):
        raise Refused(2, "Invalid request: expected an object at line 1 column 1")
    return found


def _id(request: dict[str, Any]) -> Any:
    """A whole number of 64 bits, a short text, or null.  Raises Refused."""
    number = request.get("id")
    whole = type(number) is int and -(2**63) <= number < 2**63
    if number is None or whole or (isinstance(number, str) and _ID.fullmatch(number)):
        return number
    raise Refused(2, "Invalid request: request ID must be an unsigned integer")


def _names(params: list[Any]) -> list[str]:
    """Raises Refused."""
    if len(params) > _MOST_NAMES:
        raise Refused(2, "Invalid request: too many parameters")
    for name in params:
        if not isinstance(name, str):
            raise Refused(2, "Invalid request: stream name must be a string")
    return params


def _property(params: list[Any], most: int) -> None:
    """Raises Refused."""
    if len(params) > most:
        raise Refused(2, "Invalid request: too many parameters")
    if not params or not isinstance(params[0], str):
        raise Refused(2, "Invalid request: property name must be a string")
    if params[0] != "combined":
        raise Refused(0, "Unknown property")
