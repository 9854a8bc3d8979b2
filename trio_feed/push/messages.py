"""Messages to clients, as text with the exchange's own decimals.  Pure.

What differs between the subscribers of one message is :meth:`Target.splice`, put between a head
and a tail that are written once for all.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ..bus.base import Upstream
from ..core import channels
from ..model import (
    Channel,
    ChannelMessage,
    Interval,
    Kline,
    KlineMessage,
    PrivateMessage,
    StatusMessage,
    plain,
)
from .protocol import Echo, Ping, RequestId, Subscribe, Target, Unsubscribe, quote


def candle(
    kline: Kline, update_count: int, *, revision: bool = False, provisional: bool = False
) -> str:
    """One candle as a JSON object; numbers have the exchange's own decimals, and are null where
    the source does not say."""
    trades = "null" if not kline.trades and kline.volume else kline.trades
    final = "true" if kline.closed else "false"
    mark = ',"provisional":true' if provisional else ""
    kind = "revision" if revision else "final" if kline.closed else "realtime"
    return (
        f'{{"time":{kline.open_ms // 1000},"open":{plain(kline.open)},"high":{plain(kline.high)},'
        f'"low":{plain(kline.low)},"close":{plain(kline.close)},"volume":{plain(kline.volume)},'
        f'"quote_volume":{plain(kline.quote_volume)},"trades":{trades},'
        f'"taker_buy_volume":{channels.number(kline.taker_buy_volume)},'
        f'"taker_buy_quote_volume":{channels.number(kline.taker_buy_quote_volume)},'
        f'"first_trade_id":{_id(kline.first_trade_id)},"last_trade_id":{_id(kline.last_trade_id)},'
        f'"is_final":{final},'
        f'"update_type":"{kind}",'
        f'"update_count":{update_count},"source":"{kline.source}",'
        f'"complete":{"true" if kline.complete else "false"}'
        f"{mark}}}"
    )


def data_head(channel: Channel) -> str:
    """How every data message of a channel begins; the subscriber's splice follows."""
    return f'{{"type":"{channel}_data","data":{{'


def data_tail(message: KlineMessage | ChannelMessage, now_ms: float) -> str:
    """What follows the subscriber's splice, the same for every subscriber."""
    if isinstance(message, KlineMessage):
        return _kline_tail(message, now_ms)
    return _line_tail(message, now_ms)


def _kline_tail(message: KlineMessage, now_ms: float) -> str:
    series, kline = message.series, message.kline
    stamp = int(now_ms)
    return (
        f'"exchange":{quote(series.venue)},"epoch":{message.epoch},"offset":{message.offset},'
        f'"source":"{kline.source}","event_time":{kline.event_ms},'
        f'"received_at":{message.received_ms:.3f},"sent_at":{now_ms:.3f},'
        f'"data":{_candle_of(message)},'
        f'"timestamp":{stamp}}},"timestamp":{stamp}}}'
    )


def _candle_of(message: KlineMessage) -> str:
    return candle(
        message.kline,
        message.update_count,
        revision=message.revision,
        provisional=message.provisional,
    )


def stream_status(own: str, message: StatusMessage, now_ms: float) -> str:
    """``own`` is the subscriber's splice.  ``from`` and ``to``: open times (unix seconds) of the
    first and the last candle concerned, where known."""
    stamp = int(now_ms)
    span = (("from", message.first_ms), ("to", message.last_ms))
    known = "".join(f',"{name}":{at // 1000}' for name, at in span if at is not None)
    return (
        f'{{"type":"stream_status","data":{{{own}'
        f'"exchange":{quote(message.stream_key.venue)},"status":"{message.state}",'
        f'"reason":{quote(message.reason)}{known}}},"timestamp":{stamp}}}'
    )


def _line_tail(message: ChannelMessage, now_ms: float) -> str:
    data = message.data
    body, event_ms = channels.body(data), channels.event_ms(data)
    stamp = int(now_ms)
    return (
        f'"exchange":{quote(message.key.venue)},"epoch":{message.epoch},'
        f'"offset":{message.offset},"source":"{message.source}","event_time":{event_ms},'
        f'"received_at":{message.received_ms:.3f},"sent_at":{now_ms:.3f},'
        f'"data":{body},"timestamp":{stamp}}},"timestamp":{stamp}}}'
    )


def _id(value: int | None) -> str:
    return "null" if value is None else str(value)


def history_body(
    own: str,
    venue: str,
    candles: Sequence[str],
    *,
    has_more: bool,
    epoch: int,
    offset: int,
) -> str:
    """The ``data`` of ``history_data``: ``candles`` as :func:`candle` writes them, ascending."""
    return (
        f'{{{own}"exchange":{quote(venue)},"epoch":{epoch},"offset":{offset},'
        f'"data":[{",".join(candles)}],"has_more":{"true" if has_more else "false"},'
        f'"total_count":{len(candles)}}}'
    )


def history_data(body: str, now_ms: float, request_id: RequestId | None = None) -> str:
    """``body`` is a :func:`history_body`."""
    number = "" if request_id is None else f',"id":{msgspec.json.encode(request_id).decode()}'
    return f'{{"type":"history_data","data":{body},"timestamp":{int(now_ms)}{number}}}'


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


def subscription_confirmed(
    request: Subscribe,
    epoch: int,
    offset: int,
    upstream: Upstream,
    now_ms: float,
    *,
    recovered: bool = False,
) -> str:
    """``epoch`` and ``offset``: what the first message that follows continues.  ``upstream``: how
    the source stands, with the problem unless it is live."""
    data = _answer(request.target, request.subscription_id)
    data |= {"message": "subscribed", "epoch": epoch, "offset": offset}
    data["upstream"] = upstream.state
    if upstream.problem:
        data["problem"] = upstream.problem
    if request.provisional:
        data["provisional"] = True
    if request.since is not None:
        data["recovered"] = recovered
    number = _numbered(request.id)
    return _json(type="subscription_confirmed", data=data, timestamp=int(now_ms), **number)


def unsubscribe_confirmed(request: Unsubscribe, now_ms: float) -> str:
    data = _answer(request.target, request.subscription_id)
    number = _numbered(request.id)
    return _json(type="unsubscribe_confirmed", data=data, timestamp=int(now_ms), **number)


def error(code: int, message: str, now_ms: float, echo: Echo | None = None) -> str:
    """``echo``: of the request that it answers."""
    repeated = echo.fields if echo is not None else {}
    return _json(type="error", code=code, message=message, timestamp=int(now_ms), **repeated)


def private_event(message: PrivateMessage, epoch: int, now_ms: float) -> str:
    return f'{{{message.body},"epoch":{epoch},"offset":{message.offset},"sent_at":{now_ms:.3f}}}'


def auth_success(
    user_id: int,
    epoch: int,
    offset: int,
    expires_ms: int | None,
    recovered: bool | None,
    request_id: RequestId | None = None,
) -> str:
    """``recovered`` None: nothing was to be resumed."""
    fields: dict[str, Any] = {"user_id": user_id, "epoch": epoch, "offset": offset}
    fields |= {"expires_at": expires_ms}
    if recovered is not None:
        fields |= {"recovered": recovered}
    return _json(type="auth.success", **fields, **_numbered(request_id))


def auth_expiring(user_id: int, expires_ms: int | None) -> str:
    return _json(type="auth.expiring", user_id=user_id, expires_at=expires_ms)


def pong(request: Ping) -> str:
    return _json(type="pong", **_numbered(request.id))


def subscriptions(
    entries: list[dict[str, Any]], now_ms: float, request_id: RequestId | None = None
) -> str:
    number = _numbered(request_id)
    return _json(type="subscriptions", data=entries, timestamp=int(now_ms), **number)


def reconnect(after_ms: int, since: list[dict[str, Any]] | None = None) -> str:
    """``since``: for each subscription where the client may resume."""
    more = {} if since is None else {"since": since}
    return _json(type="reconnect", after_ms=after_ms, **more)


def _numbered(request_id: RequestId | None) -> dict[str, Any]:
    return {} if request_id is None else {"id": request_id}


def _answer(target: Target, subscription_id: str | None) -> dict[str, Any]:
    return {**target.about, "subscription_id": subscription_id, "success": True}


def _json(**fields: Any) -> str:
    return msgspec.json.encode(fields).decode()
