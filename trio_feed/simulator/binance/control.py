"""Binance control messages on an open WebSocket, pure: text in, reply and changes out.

Replies and errors as documented (exchanges.md 1.3, web-socket-streams.md 2026-07-21): only
"Unknown property" carries the request's id.
"""

import json
from typing import Any

from attrs import define, field

MAX_STREAMS = 1024
"""Streams on one connection."""

_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_VARIANTS = ", ".join(f"`{method}`" for method in _METHODS)


class _Refused(Exception):
    """A documented error: ``reply`` is its JSON."""

    def __init__(self, code: int, msg: str, **more: object) -> None:
        super().__init__(msg)
        self.reply = {"code": code, "msg": msg, **more}


@define
class Subscriptions:
    """What one connection asked for, in order, whether such streams exist or not.

    ``combined`` wraps every event as ``{"stream": ..., "data": ...}``.
    """

    combined: bool
    names: dict[str, None] = field(factory=dict)

    def handle(self, text: str) -> str:
        """Take one control message in.  Returns the reply; ``names`` is changed by then."""
        try:
            request = _parse(text)
            result = self._apply(request.get("method"), request.get("params"), request, text)
        except _Refused as refused:
            return json.dumps(refused.reply, separators=(",", ":"))
        return json.dumps({"result": result, "id": request.get("id")}, separators=(",", ":"))

    def _apply(self, method: Any, params: Any, request: dict[str, Any], text: str) -> Any:
        match method:
            case "SUBSCRIBE":
                names = {**self.names, **dict.fromkeys(_names(params, text))}
                if len(names) > MAX_STREAMS:
                    raise _Refused(2, "Invalid request: too many parameters")
                self.names = names
            case "UNSUBSCRIBE":
                for name in _names(params, text):
                    self.names.pop(name, None)
            case "LIST_SUBSCRIPTIONS":
                return list(self.names)
            case "SET_PROPERTY":
                _check_property(params, 2, request)
                if not isinstance(params[1], bool):
                    raise _Refused(1, "Invalid value type: expected Boolean")
                self.combined = params[1]
            case _:
                _check_property(params, 1, request)
                return self.combined
        return None


def _parse(text: str) -> dict[str, Any]:
    try:
        request = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"at line {error.lineno} column {error.colno}"
        raise _Refused(3, f"Invalid JSON: expected value {where}") from error
    except (RecursionError, ValueError) as error:  # nested too deep; a number of endless digits
        raise _Refused(3, "Invalid JSON: expected value at line 1 column 1") from error
    where = f"at line 1 column {len(text)}"
    if not isinstance(request, dict) or "method" not in request:
        raise _Refused(2, f"Invalid request: missing field `method` {where}")
    if request["method"] not in _METHODS:
        variant = f"unknown variant `{request['method']}`, expected one of {_VARIANTS}"
        raise _Refused(2, f"Invalid request: {variant} at line 1 column 28")
    if not _is_id(request.get("id")):
        raise _Refused(2, "Invalid request: request ID must be an unsigned integer")
    return request


def _is_id(value: object) -> bool:
    """A 64-bit number, null, or up to 36 characters: Binance's own SDK sends UUIDs."""
    if isinstance(value, str):
        return len(value) <= 36 and value.replace("-", "").isalnum()
    if isinstance(value, bool):
        return False
    return value is None or (isinstance(value, int) and -(2**63) <= value < 2**63)


def _names(params: Any, text: str) -> list[str]:
    if not isinstance(params, list) or not all(isinstance(name, str) for name in params):
        raise _Refused(2, f"Invalid request: missing field `params` at line 1 column {len(text)}")
    return params


def _check_property(params: Any, size: int, request: dict[str, Any]) -> None:
    if not isinstance(params, list) or not params or not isinstance(params[0], str):
        raise _Refused(2, "Invalid request: property name must be a string")
    if len(params) > size:
        raise _Refused(2, "Invalid request: too many parameters")
    if params[0] != "combined":
        raise _Refused(0, "Unknown property", id=request.get("id"))
    if len(params) < size:
        raise _Refused(1, "Invalid value type: expected Boolean")
