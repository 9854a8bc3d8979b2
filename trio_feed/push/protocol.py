"""The push protocol's words: requests in, messages out.  Pure; ``push-protocol`` is its page.

Requests are checked field by field, so that an error names the field and what is allowed.
Messages are written as text with the exchange's own decimals.  What differs between subscribers
of one message (their notation of symbol and interval, their ``subscription_id``) is a short
:func:`splice` put into a message that is otherwise written once for all.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from attrs import frozen

from ..model import Interval, Kline, KlineMessage, plain

MALFORMED = 1001
REFUSED = 1002
HISTORY_FAILED = 1003

SLOW_CLIENT = 4408
RESTARTING = 1012

_MAX_TEXT = 128
_TIME_LIMIT_S = 4 * 10**9
_text = msgspec.json.encode
_decode = msgspec.json.Decoder().decode
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class RequestError(Exception):
    """A client's request cannot be served; becomes an ``error`` message with ``code``."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@frozen
class Target:
    """What a request is about, with the words that the client used for it."""

    symbol: str
    interval: Interval
    notation: str
    exchange: str | None


@frozen
class Subscribe:
    target: Target
    subscription_id: str | None
    limit: int | None
    resuming: bool


@frozen
class Unsubscribe:
    target: Target
    subscription_id: str | None


@frozen
class History:
    """``start_ms`` inclusive, ``end_ms`` exclusive, unix milliseconds."""

    target: Target
    limit: int | None
    start_ms: int | None
    end_ms: int | None


@frozen
class Ping:
    id: str | int | None


@frozen
class ListSubscriptions:
    pass


Request = Subscribe | Unsubscribe | History | Ping | ListSubscriptions


def parse_request(text: str | bytes) -> Request:
    """One client frame -> a request.  Raises RequestError (1001)."""
    try:
        fields = _decode(text)
    except _NOT_JSON:
        raise RequestError(MALFORMED, "the message is not JSON") from None
    if not isinstance(fields, dict):
        raise RequestError(MALFORMED, "the message is not a JSON object")
    kind = _kind(fields)
    parse = _PARSERS.get(kind)
    if parse is None:
        known = " ".join(_PARSERS)
        raise RequestError(MALFORMED, f"type: {kind!r} is not one of {known}")
    return parse(fields)


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
    _only_klines(fields)
    return Subscribe(
        _target(fields),
        _optional_text(fields, "subscription_id"),
        _limit(fields),
        resuming=fields.get("since") is not None,
    )


def _unsubscribe(fields: dict[str, Any]) -> Unsubscribe:
    _only_klines(fields)
    return Unsubscribe(_target(fields), _optional_text(fields, "subscription_id"))


def _history(fields: dict[str, Any]) -> History:
    start, end = _seconds(fields, "from"), _seconds(fields, "to")
    if start is not None and end is not None and end <= start:
        raise RequestError(MALFORMED, "to: not after from")
    return History(_target(fields), _limit(fields), start, end)


def _ping(fields: dict[str, Any]) -> Ping:
    number = fields.get("id")
    if type(number) is int:
        return Ping(number)
    return Ping(_optional_text(fields, "id"))


def _list(_fields: dict[str, Any]) -> ListSubscriptions:
    return ListSubscriptions()


_PARSERS: dict[str, Callable[[dict[str, Any]], Request]] = {
    "subscribe": _subscribe,
    "unsubscribe": _unsubscribe,
    "history": _history,
    "ping": _ping,
    "list": _list,
}


def _target(fields: dict[str, Any]) -> Target:
    symbol = _optional_text(fields, "symbol")
    if symbol is None:
        raise RequestError(MALFORMED, "symbol: missing")
    notation = _optional_text(fields, "interval")
    if notation is None:
        raise RequestError(MALFORMED, "interval: missing")
    try:
        interval = Interval.parse(notation)
    except ValueError as error:
        raise RequestError(MALFORMED, f"interval: {error}") from None
    return Target(symbol, interval, notation, _optional_text(fields, "exchange"))


def _only_klines(fields: dict[str, Any]) -> None:
    channel = fields.get("channel", "kline")
    if channel != "kline":
        raise RequestError(MALFORMED, f"channel: {channel!r} is not one of kline")


def _optional_text(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT:
        raise RequestError(MALFORMED, f"{name}: not a string of 1 to {_MAX_TEXT} characters")
    return value


def _limit(fields: dict[str, Any]) -> int | None:
    value = fields.get("limit")
    if value is not None and (type(value) is not int or not 1 <= value <= 5000):
        raise RequestError(MALFORMED, "limit: not a whole number from 1 to 5000")
    return value


def _seconds(fields: dict[str, Any], name: str) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= _TIME_LIMIT_S:
        raise RequestError(MALFORMED, f"{name}: not a time in unix seconds")
    return value * 1000


def splice(symbol: str, notation: str, subscription_id: str | None) -> str:
    """The part of a message that is the subscriber's own, ready to be put in."""
    text = f'"symbol":{quote(symbol)},"interval":{quote(notation)},'
    if subscription_id is not None:
        text += f'"subscription_id":{quote(subscription_id)},'
    return text


def quote(text: str) -> str:
    return _text(text).decode()


def candle(kline: Kline, update_count: int) -> str:
    """One candle as a JSON object; numbers have the exchange's own decimals."""
    final = "true" if kline.closed else "false"
    return (
        f'{{"time":{kline.open_ms // 1000},"open":{plain(kline.open)},"high":{plain(kline.high)},'
        f'"low":{plain(kline.low)},"close":{plain(kline.close)},"volume":{plain(kline.volume)},'
        f'"quote_volume":{plain(kline.quote_volume)},"trades":{kline.trades},"is_final":{final},'
        f'"update_type":"{"final" if kline.closed else "realtime"}",'
        f'"update_count":{update_count},"source":"{kline.source}",'
        f'"complete":{"true" if kline.complete else "false"}}}'
    )


KLINE_HEAD = '{"type":"kline_data","data":{'


def kline_tail(message: KlineMessage, now_ms: float) -> str:
    """What follows KLINE_HEAD and the subscriber's splice, the same for every subscriber."""
    series, kline = message.series, message.kline
    stamp = int(now_ms)
    return (
        f'"exchange":{quote(series.venue)},"epoch":{message.epoch},"offset":{message.offset},'
        f'"source":"{kline.source}","event_time":{kline.event_ms},'
        f'"received_at":{message.received_ms:.3f},"sent_at":{now_ms:.3f},'
        f'"data":{candle(kline, message.update_count)},"timestamp":{stamp}}},"timestamp":{stamp}}}'
    )


def history_body(
    own: str,
    venue: str,
    rows: Iterable[tuple[Kline, int]],
    *,
    has_more: bool,
    epoch: int,
    offset: int,
) -> str:
    """The ``data`` of ``history_data``: ``rows`` of (candle, update_count), ascending."""
    candles = [candle(kline, count) for kline, count in rows]
    return (
        f'{{{own}"exchange":{quote(venue)},"epoch":{epoch},"offset":{offset},'
        f'"data":[{",".join(candles)}],"has_more":{"true" if has_more else "false"},'
        f'"total_count":{len(candles)}}}'
    )


def history_data(body: str, now_ms: float) -> str:
    return f'{{"type":"history_data","data":{body},"timestamp":{int(now_ms)}}}'


def connection_success(
    client_id: str, symbols: Iterable[str], intervals: Iterable[Interval], now_ms: float
) -> str:
    chosen = list(intervals)
    return _json(
        type="connection_success",
        client_id=client_id,
        server_time=int(now_ms) // 1000,
        supported_symbols=list(symbols),
        supported_intervals=[i.alias for i in chosen] + [i.value for i in chosen],
    )


def subscription_confirmed(request: Subscribe, now_ms: float) -> str:
    data = _answer(request.target, request.subscription_id) | {"message": "subscribed"}
    if request.resuming:
        data["recovered"] = False
    return _json(type="subscription_confirmed", data=data, timestamp=int(now_ms))


def unsubscribe_confirmed(request: Unsubscribe, now_ms: float) -> str:
    data = _answer(request.target, request.subscription_id)
    return _json(type="unsubscribe_confirmed", data=data, timestamp=int(now_ms))


def error(code: int, message: str, now_ms: float) -> str:
    return _json(type="error", code=code, message=message, timestamp=int(now_ms))


def pong(request: Ping) -> str:
    return _json(type="pong") if request.id is None else _json(type="pong", id=request.id)


def subscriptions(entries: list[dict[str, Any]], now_ms: float) -> str:
    return _json(type="subscriptions", data=entries, timestamp=int(now_ms))


def reconnect(after_ms: int) -> str:
    return _json(type="reconnect", after_ms=after_ms)


def _answer(target: Target, subscription_id: str | None) -> dict[str, Any]:
    return {
        "symbol": target.symbol,
        "interval": target.notation,
        "subscription_id": subscription_id,
        "success": True,
    }


def _json(**fields: Any) -> str:
    return _text(fields).decode()
