"""Requests of the push protocol: JSON text in, checked values out.  Pure.

Requests are checked field by field, so that an error names the field and what is allowed.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import msgspec

from ..model import Channel, Interval
from ..settings import Secret
from .protocol import (
    MALFORMED,
    Authenticate,
    Echo,
    History,
    ListSubscriptions,
    Ping,
    Request,
    RequestError,
    RequestId,
    Since,
    Subscribe,
    Target,
    Unsubscribe,
)

_MAX_TEXT = 128
_MAX_ID = 64
_MAX_DEPTH = 16
_MAX_FIELDS = 64
_MAX_BRACKETS = 256
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)
_MAX_NUMBER = 2**53
_TIME_LIMIT_S = 4 * 10**9
_decode = msgspec.json.Decoder().decode
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def peek_echo(text: str | bytes) -> Echo:
    """The same of a client frame that is not served; never raises."""
    try:
        return _readable_echo(_parse_object(text))
    except RequestError:
        return Echo()


def parse_request(text: str | bytes) -> Request:
    """One client frame -> a request.  Raises RequestError (1001)."""
    fields = _parse_object(text)
    try:
        kind = _kind(fields)
        parse = _PARSERS.get(kind)
        if parse is None:
            known = " ".join(_PARSERS)
            raise RequestError(MALFORMED, f"type: {_shown(kind)} is not one of {known}")
        if kind != "ping":  # which carries what its client likes to: a time, some padding
            _check_fields(fields, kind, (*_KIND_FIELDS, *_FIELDS[kind]))
        return parse(fields)
    except RequestError as error:
        error.echo = _readable_echo(fields)
        raise


def _readable_echo(fields: dict[str, Any]) -> Echo:
    """Without what is malformed."""
    number, subscription_id = fields.get("id"), fields.get("subscription_id")
    return Echo(
        number if _is_id(number) else None,
        subscription_id if _is_text(subscription_id) else None,
    )


def _parse_object(text: str | bytes) -> dict[str, Any]:
    """A JSON object of bounded size and depth.  Raises RequestError."""
    try:
        text = text.decode() if isinstance(text, bytes) else text
        _check_nesting(text)
        fields = _decode(text)
    except _NOT_JSON:
        raise RequestError(MALFORMED, "the message is not JSON") from None
    if not isinstance(fields, dict):
        raise RequestError(MALFORMED, "the message is not a JSON object")
    if len(fields) > _MAX_FIELDS:
        raise RequestError(MALFORMED, f"the message has more than {_MAX_FIELDS} fields")
    return fields


def _check_nesting(text: str) -> None:
    """Arrays and objects are few and not deep, told before anything of them is built."""
    brackets = text.count("[") + text.count("{")
    if brackets <= _MAX_DEPTH:
        return
    if brackets > _MAX_BRACKETS:
        raise RequestError(MALFORMED, f"the message has more than {_MAX_BRACKETS} brackets")
    level = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        first = match[0][0]  # a string counts as nothing, whatever is in it
        level += (first in "[{") - (first in "]}")
        if level > _MAX_DEPTH:
            raise RequestError(MALFORMED, f"the message is nested deeper than {_MAX_DEPTH}")


def check_parameters(given: Iterable[tuple[str, str]], known: Sequence[str] = ()) -> None:
    """Each parameter of a URL is known, and there once.  Raises RequestError."""
    seen = set()
    for name, _ in given:  # the value may be a secret in the wrong place
        if name not in known:
            some = _one_of(known, name) if known else "there are none"
            raise RequestError(MALFORMED, f"{_shown(name)}: no parameter; {some}")
        if name in seen:
            raise RequestError(MALFORMED, f"{name}: given twice")
        seen.add(name)


def _check_fields(fields: Mapping[str, Any], of: str, known: Sequence[str]) -> None:
    """A field that nobody reads is most often one that is misspelt: then the answer would not be
    what was asked for."""
    for name in fields:
        if name not in known:
            some = _one_of(known, name)
            raise RequestError(MALFORMED, f"{_shown(name)}: no field of {of}; {some}")


def _one_of(known: Sequence[str], name: str) -> str:
    near = get_close_matches(name[:_MAX_TEXT].lower(), known, 1)
    return f"one of {', '.join(known)}" + (f"; did you mean {near[0]}?" if near else "")


HISTORY_PARAMETERS = ("exchange", "symbol", "channel", "interval", "limit", "from", "to")


def parse_query(params: Mapping[str, str]) -> History:
    """The same question in a URL's query string.  Raises RequestError."""
    numbers = {"limit", "from", "to"}
    fields: dict[str, Any] = {}
    for name, value in params.items():
        number = name in numbers and value.isascii() and value.isdigit() and len(value) < 16
        fields[name] = int(value) if number else value
    return _history(fields)


def _kind(fields: dict[str, Any]) -> str:
    kinds = {fields[name] for name in ("msg_type", "type") if isinstance(fields.get(name), str)}
    if len(kinds) == 2:
        raise RequestError(MALFORMED, "msg_type and type do not agree")
    if not kinds:
        raise RequestError(MALFORMED, "type: missing, or not a string")
    return str(kinds.pop())


def _subscribe(fields: dict[str, Any]) -> Subscribe:
    target = _target(fields)
    return Subscribe(
        target,
        _optional_text(fields, "subscription_id"),
        _limit(fields),
        _since(fields),
        _provisional(fields, target.channel),
        _id(fields),
    )


def _unsubscribe(fields: dict[str, Any]) -> Unsubscribe:
    target = _target(fields)
    return Unsubscribe(target, _optional_text(fields, "subscription_id"), _id(fields))


def _history(fields: dict[str, Any]) -> History:
    start, end = _seconds(fields, "from"), _seconds(fields, "to")
    if start is not None and end is not None and end <= start:
        raise RequestError(MALFORMED, "to: not after from")
    target = _target(fields)
    if target.interval is None:
        raise RequestError(MALFORMED, f"channel: {target.channel} has no history; only kline has")
    subscription_id = _optional_text(fields, "subscription_id")
    return History(target, _limit(fields), start, end, subscription_id, _id(fields))


def _auth(fields: dict[str, Any]) -> Authenticate:
    token = fields.get("token")
    if not isinstance(token, str) or not token:
        raise RequestError(MALFORMED, "token: missing, or not a string")
    return Authenticate(Secret(token), _since(fields), _id(fields))


def _ping(fields: dict[str, Any]) -> Ping:
    return Ping(_id(fields))


def _list(fields: dict[str, Any]) -> ListSubscriptions:
    return ListSubscriptions(_id(fields))


_KIND_FIELDS = ("type", "msg_type", "id")
_STREAM_FIELDS = ("exchange", "symbol", "channel", "interval", "subscription_id")
_SUBSCRIBE_FIELDS = (*_STREAM_FIELDS, "limit", "since", "provisional")
_SINCE_FIELDS = ("epoch", "offset", "time")
_ABOUT_FIELDS = ("exchange", "symbol", "channel", "interval")
_FIELDS: dict[str, Sequence[str]] = {
    "subscribe": _SUBSCRIBE_FIELDS,
    "unsubscribe": _SUBSCRIBE_FIELDS,  # what was subscribed to may be sent again, with another type
    "history": (*_STREAM_FIELDS, "limit", "from", "to"),
    "auth": ("token", "since"),
    "list": (),
}
"""What each kind takes beside ``type`` (or ``msg_type``) and ``id``."""

_PARSERS: dict[str, Callable[[dict[str, Any]], Request]] = {
    "subscribe": _subscribe,
    "unsubscribe": _unsubscribe,
    "history": _history,
    "auth": _auth,
    "ping": _ping,
    "list": _list,
}


def _target(fields: dict[str, Any]) -> Target:
    symbol = _optional_text(fields, "symbol")
    if symbol is None:
        raise RequestError(MALFORMED, "symbol: missing")
    channel, exchange = _channel(fields), _optional_text(fields, "exchange")
    if channel is not Channel.KLINE:
        return Target(symbol, channel, None, "", exchange)
    notation = _optional_text(fields, "interval")
    if notation is None:
        raise RequestError(MALFORMED, "interval: missing")
    try:
        interval = Interval.parse(notation)
    except ValueError as error:
        raise RequestError(MALFORMED, f"interval: {error}") from None
    return Target(symbol, channel, interval, notation, exchange)


def _channel(fields: dict[str, Any]) -> Channel:
    name = fields.get("channel", "kline")
    if name not in list(Channel):
        known = " ".join(channel.value for channel in Channel)
        raise RequestError(MALFORMED, f"channel: {_shown(name)} is not one of {known}")
    return Channel(name)


def _optional_text(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    if not _is_text(value):
        raise RequestError(MALFORMED, f"{name}: not a string of 1 to {_MAX_TEXT} characters")
    return str(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_TEXT


def _id(fields: dict[str, Any]) -> RequestId | None:
    value: RequestId | None = fields.get("id")
    if value is not None and not _is_id(value):
        raise RequestError(MALFORMED, f"id: not a string or number of 1 to {_MAX_ID} characters")
    return value


def _is_id(value: object) -> bool:
    """A number has to be one that can be written again as it came."""
    if isinstance(value, str):
        return 0 < len(value) <= _MAX_ID
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return -(10**63) < value < 10**64  # 64 characters, the sign included
    return isinstance(value, float)


def _limit(fields: dict[str, Any]) -> int | None:
    value = fields.get("limit")
    if value is not None and (type(value) is not int or not 1 <= value <= 5000):
        raise RequestError(MALFORMED, "limit: not a whole number from 1 to 5000")
    return value


def _provisional(fields: dict[str, Any], channel: Channel) -> bool:
    value = fields.get("provisional")
    if value is not None and type(value) is not bool:
        raise RequestError(MALFORMED, "provisional: not true or false")
    if value and channel is not Channel.KLINE:
        raise RequestError(MALFORMED, f"provisional: {channel} has no such updates; only kline has")
    return bool(value)


def _since(fields: dict[str, Any]) -> Since | None:
    value = fields.get("since")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise RequestError(MALFORMED, "since: not an object with epoch and offset")
    # A resume point of `reconnect` says of which stream it is, and may be sent back as it came.
    named = {name: value[name] for name in value if name not in _ABOUT_FIELDS}
    _check_fields(named, "since", _SINCE_FIELDS)
    for name in ("epoch", "offset"):
        if type(value.get(name)) is not int or not 0 <= value[name] < _MAX_NUMBER:
            raise RequestError(MALFORMED, f"since.{name}: not a whole number from 0 to 2^53")
    try:
        return Since(value["epoch"], value["offset"], _seconds(value, "time"))
    except RequestError as error:
        raise RequestError(MALFORMED, f"since.{error}") from None


def _seconds(fields: dict[str, Any], name: str) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= _TIME_LIMIT_S:
        raise RequestError(MALFORMED, f"{name}: not a time in unix seconds")
    return value * 1000


def _shown(value: object) -> str:
    """A client's own words in an answer to it, cut short."""
    shown = repr(value) if isinstance(value, str) else type(value).__name__
    return shown if len(shown) <= 60 else f"{shown[:60]}..."
