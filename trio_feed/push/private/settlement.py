"""Settlement events: from a publisher's request to each user's events.  Pure.

Decimals are strings and leave as they came, digit by digit.  What the protocol does not name
(``client_order_id``, say) is passed through where it is a plain value; what it names is checked.
A trade becomes two deliveries, the taker's and the maker's, and neither learns who the other is.
A broadcast is for every user, its ``data`` is the publisher's own, and only a publisher that may
can send one.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import msgspec
from attrs import frozen

from ...model import Delivery, Settlement
from ...model.escapes import with_whole_characters

_LAST_ID = 2**63 - 1
_MAX_TEXT = 128
_MAX_BODY = 4096
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Unreadable:
    """Stands for a number that is beyond what a decimal can hold."""


def _number(text: str) -> Decimal | _Unreadable:
    """One such number is a fault of its own event, never of the batch: so no exception here."""
    try:
        return Decimal(text)
    except ArithmeticError:
        return _Unreadable()


_decode = msgspec.json.Decoder(float_hook=_number).decode
_split = msgspec.json.Decoder(list[msgspec.Raw]).decode
_look = msgspec.json.Decoder(msgspec.Raw).decode
_encode = msgspec.json.Encoder(decimal_format="number").encode


class BadBody(Exception):
    """Nothing of the request is taken; ``status`` is the HTTP status to answer."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status


class BadEvent(Exception):
    """One event is not taken; the text says which field is wrong."""


def parse_body(body: bytes, max_events: int) -> Iterator[Any]:
    """A JSON array, or one JSON object per line -> events that are not checked yet.

    Each is parsed when it is asked for, so that a caller can pause between them.  Raises BadBody,
    for one that is no JSON when its turn comes.
    """
    text = body.strip()
    if not text:
        raise BadBody(400, "the body is empty; a JSON array, or one JSON object per line")
    if text.startswith(b"["):
        pieces = [("the body is not JSON", piece) for piece in _pieces(text)]
    else:
        lines = enumerate(text.split(b"\n"), 1)
        pieces = [(f"line {n} of the body is not JSON", line) for n, line in lines if line.strip()]
    if len(pieces) > max_events:
        raise BadBody(413, f"more than {max_events} events in one request")
    return (_parsed(piece, problem) for problem, piece in pieces)


def _pieces(text: bytes) -> list[bytes]:
    """The elements of an array, which are looked through but not built."""
    whole = with_whole_characters(text)  # a half one is a fault of its own event
    try:
        found = [bytes(piece) for piece in _split(whole)]
    except _NOT_JSON:
        raise BadBody(400, "the body is not JSON") from None
    if whole == text:
        return found
    pieces, end = [], 0
    for piece in found:
        start = whole.index(piece, end)
        end = start + len(piece)
        pieces.append(text[start:end])
    return pieces


def _parsed(text: bytes, problem: str) -> Any:
    try:
        return _decode(text)
    except _NOT_JSON:
        if not _is_json(text):
            raise BadBody(400, problem) from None
        return _Unreadable()  # a number of 5,000 digits, say, or half a character


def _is_json(text: bytes) -> bool:
    try:
        _look(with_whole_characters(text).decode())
    except (*_NOT_JSON, UnicodeDecodeError):
        return False
    return True


def expand(
    event: Any, received_ms: float, publisher: str, *, may_broadcast: bool = False
) -> Settlement:
    """One event of a publisher -> the deliveries to its users.  Raises BadEvent."""
    if isinstance(event, _Unreadable):
        raise BadEvent("a number or a text in it cannot be read")
    if not isinstance(event, dict):
        raise BadEvent("the event is not a JSON object")
    event_id = _required(event, "event_id", _TEXT)
    kind, data = event.get("type"), event.get("data")
    make = _KINDS.get(kind) if isinstance(kind, str) else None
    if make is None and kind != _BROADCAST:
        raise BadEvent(f"type: not one of {', '.join((*_KINDS, _BROADCAST))}")
    if not isinstance(data, dict):
        raise BadEvent("data: not a JSON object")
    if unknown := event.keys() - {"event_id", "type", "user_id", "data"}:
        raise BadEvent(f"{_shown(min(unknown))}: unknown; what is beside data must be known")
    user_id = event.get("user_id")
    if user_id is not None:
        _required(event, "user_id", _ID)
    if make is None:
        body = _body(kind, _broadcast(user_id, data, may=may_broadcast), event_id)
        return Settlement(publisher, event_id, (), received_ms, body)
    deliveries = make(user_id, data)
    return Settlement(
        publisher,
        event_id,
        tuple(
            Delivery(user, order, _body(kind, fields, event_id))
            for user, order, fields in deliveries
        ),
        received_ms,
    )


Fields = dict[str, Any]
_Deliveries = list[tuple[int | None, int | None, Fields]]


def _order_update(user_id: int | None, data: Fields) -> _Deliveries:
    fields = _checked(data, _ORDER, "data")
    return [(user_id, fields["order_id"], fields)]


def _balance_update(user_id: int | None, data: Fields) -> _Deliveries:
    if user_id is None:
        raise BadEvent("user_id: missing")
    return [(user_id, None, _checked(data, _BALANCE, "data"))]


def _broadcast(user_id: int | None, data: Fields, *, may: bool) -> Fields:
    if not may:
        raise BadEvent("type: this publisher may not broadcast (settlement.publishers: broadcast)")
    if user_id is not None:
        raise BadEvent("user_id: a broadcast is for every user")
    if not data:
        raise BadEvent("data: empty")
    return _checked(data, {}, "data")


def _trade(user_id: int | None, data: Fields) -> _Deliveries:
    if user_id is not None:
        raise BadEvent("user_id: a trade names its users in data.taker and data.maker")
    common = {name: value for name, value in data.items() if name not in _SIDES}
    if reserved := common.keys() & (_SIDE.keys() | {"role"}):
        raise BadEvent(f"data.{min(reserved)}: belongs into data.taker and data.maker")
    common = _checked(common, _TRADE, "data")
    deliveries: _Deliveries = []
    for role in _SIDES:
        side = data.get(role)
        if not isinstance(side, dict):
            raise BadEvent(f"data.{role}: not a JSON object")
        own = _checked(side, _SIDE, f"data.{role}")
        if clash := own.keys() & (common.keys() | {"role"}):
            raise BadEvent(f"data.{role}.{min(clash)}: belongs into data")
        deliveries.append((own.pop("user_id"), own["order_id"], _trade_fields(common, own, role)))
    if deliveries[0][2]["side"] == deliveries[1][2]["side"]:
        raise BadEvent("data.maker.side: both sides have the same")
    return deliveries


_SIDES = ("taker", "maker")


def _trade_fields(common: Fields, own: Fields, role: str) -> Fields:
    """The fields for one side, in the order of the protocol's page."""
    every = {**common, **own, "role": role.upper()}
    return {name: every[name] for name in _TRADE_ORDER} | every


def _body(kind: Any, fields: Fields, event_id: str) -> str:
    data = _encode(fields).decode()
    if len(data) > _MAX_BODY:
        raise BadEvent(f"data: longer than {_MAX_BODY} characters")
    return f'"type":"{kind}","data":{data},"event_id":{_encode(event_id).decode()}'


@frozen
class _Rule:
    fits: Callable[[Any], bool]
    wanted: str


def _checked(values: Fields, rules: Mapping[str, _Rule], where: str) -> Fields:
    """The named fields in the order of ``rules``, then what else there is."""
    found = {name: _required(values, name, rule, f"{where}.") for name, rule in rules.items()}
    for name, value in values.items():
        if name not in found:
            if not isinstance(value, _PLAIN) or not 0 < len(name) <= _MAX_TEXT:
                raise BadEvent(f"{where}.{_shown(name)}: unknown, and not a plain value")
            found[name] = value
    return found


_PLAIN = (str, int, Decimal, bool, type(None))


def _required(values: Fields, name: str, rule: _Rule, where: str = "") -> Any:
    if name not in values:
        raise BadEvent(f"{where}{name}: missing")
    value = values[name]
    if not rule.fits(value):
        raise BadEvent(f"{where}{name}: not {rule.wanted}")
    return value


def _shown(name: str) -> str:
    return repr(name[:40])


def _matches(pattern: str) -> Callable[[Any], bool]:
    fits = re.compile(pattern, re.ASCII).fullmatch
    return lambda value: isinstance(value, str) and fits(value) is not None


def _one_of(*words: str) -> _Rule:
    return _Rule(lambda value: value in words, f"one of {', '.join(words)}")


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 < value <= _LAST_ID


def _is_time(value: Any) -> bool:
    return type(value) is int and 10**12 <= value <= 4 * 10**12


_TEXT = _Rule(
    lambda value: isinstance(value, str) and 0 < len(value) <= _MAX_TEXT,
    f"a string of 1 to {_MAX_TEXT} characters",
)
_ID = _Rule(_is_id, "a whole number from 1 to 2^63-1")
_TIME = _Rule(_is_time, "a time in unix milliseconds")
_DECIMAL = _Rule(_matches(r"-?\d{1,30}(\.\d{1,30})?"), "a decimal number in a string")
_SIGNED = _Rule(_matches(r"[+-]?\d{1,30}(\.\d{1,30})?"), "a decimal number in a string")
_AVERAGE = _Rule(lambda value: value is None or _DECIMAL.fits(value), _DECIMAL.wanted)

_ORDER = {
    "order_id": _ID,
    "symbol": _TEXT,
    "status": _one_of("NEW", "PARTIALLY_FILLED", "FILLED", "CANCELED"),
    "filled_qty": _DECIMAL,
    "avg_price": _AVERAGE,
    "updated_at": _TIME,
}
_BALANCE = {
    "asset": _TEXT,
    "avail": _DECIMAL,
    "frozen": _DECIMAL,
    "change": _SIGNED,
    "reason": _TEXT,
}
_TRADE = {
    "trade_id": _ID,
    "symbol": _TEXT,
    "price": _DECIMAL,
    "qty": _DECIMAL,
    "traded_at": _TIME,
}
_SIDE = {
    "user_id": _ID,
    "order_id": _ID,
    "side": _one_of("BUY", "SELL"),
    "fee": _DECIMAL,
}
_TRADE_ORDER = (
    "trade_id", "order_id", "symbol", "side", "price", "qty", "fee", "role", "traded_at",
)  # fmt: skip
_BROADCAST = "broadcast"
_KINDS = {"order.update": _order_update, "trade": _trade, "balance.update": _balance_update}
