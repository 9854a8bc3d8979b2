"""What Binance's spot and USD-M futures have in common on the WebSocket: envelopes and replies
(the events in them: :mod:`.events`).

Sources: github binance/binance-spot-api-docs (2026-07-21), binance-connector-python 17.2.0
(2026-08-19), developers.binance.com USD-M "Websocket Market Streams" (2026-05-28).  Frames grow
new fields now and then (``nq``, ``st``, ``ps``, ``ap`` in 2026): unknown ones are welcome, missing
ones are not.
"""

from collections.abc import Callable, Sequence

import msgspec

from ...errors import BadMessage
from ...rest_dialects import MALFORMED
from ..base import Ack, Event, GoingAway, Ignored
from ..instruments import Instruments
from .events import MAKERS, READERS
from .forms import NOTHING, AnyEvent, Combined, Envelope

_envelope = msgspec.json.Decoder(Envelope).decode
_combined = msgspec.json.Decoder(Combined).decode
_single: Callable[[str | bytes], AnyEvent] = msgspec.json.Decoder(AnyEvent).decode
_WRAPPED = '{"stream":', b'{"stream":'


def parse(raw: str | bytes, instruments: Instruments) -> Sequence[Event]:
    """One WebSocket message, raw or combined, -> what it says.  Raises BadMessage."""
    try:
        try:  # what comes a thousand times a second is read in one pass
            if raw.startswith(_WRAPPED[isinstance(raw, bytes)]):  # type: ignore[arg-type]
                wrapped = _combined(raw)
                event, stream = wrapped.data, wrapped.stream
            else:
                event, stream = _single(raw), ""
        except MALFORMED:
            return _parse_any(raw, instruments)
        return (MAKERS[type(event)](event, stream, instruments),)
    except MALFORMED as error:
        raise BadMessage(f"malformed: {error}", sample(raw)) from None
    except BadMessage as error:
        raise BadMessage(str(error), sample(raw)) from None


def _parse_any(raw: str | bytes, instruments: Instruments) -> Sequence[Event]:
    """Replies, arrays, what has no event type, and what is wrong."""
    envelope = _envelope(raw)
    if envelope.data == NOTHING:
        inner, kind = raw, envelope.e
        if kind is None and envelope.u == NOTHING:
            return (_reply(envelope),)
    elif bytes(envelope.data)[:1] == b"[":
        return _events_of_array(envelope, instruments)
    else:
        inner = bytes(envelope.data)
        kind = _envelope(inner).e
    kind = kind or _kind_of(envelope.stream or "@bookTicker")
    return _event(kind, inner, envelope.stream, instruments)


def _events_of_array(envelope: Envelope, instruments: Instruments) -> Sequence[Event]:
    """``!miniTicker@arr`` and its like: one event per element."""
    events: list[Event] = []
    for item in msgspec.json.decode(envelope.data, type=list[msgspec.Raw]):
        inner = bytes(item)
        events += _event(_envelope(inner).e, inner, envelope.stream, instruments)
    return events


def _kind_of(stream: str) -> str | None:
    """The kind of a combined frame without event type, by its stream's name."""
    name = stream.partition("@")[2]
    if name == "bookTicker":
        return "bookTicker"
    return "partialDepth" if name.startswith("depth") else None


def _event(
    kind: str | None, raw: str | bytes, stream: str | None, instruments: Instruments
) -> Sequence[Event]:
    reader = READERS.get(kind or "")
    if reader is not None:
        return (reader.make(reader.decode(raw), stream or "", instruments),)
    if kind == "serverShutdown":
        return (GoingAway(),)
    if kind in _UNUSED_KINDS:
        return (Ignored(str(kind)),)
    raise BadMessage(f"unknown event {kind!r}")


_UNUSED_KINDS = frozenset(
    {
        "compositeIndex", "contractInfo", "assetIndexUpdate", "EquityUpdate", "avgPrice",
        "1hTicker", "4hTicker", "1dTicker", "referencePrice", "blockTrade",
    }
)  # fmt: skip


def _reply(envelope: Envelope) -> Event:
    """``{"result":..,"id":..}``, ``{"code":..,"msg":..}`` or ``{"error":{..},"id":..}``."""
    name = "" if envelope.id is None else str(envelope.id)
    if envelope.error != NOTHING:
        return Ack(name, bytes(envelope.error).decode(errors="replace"))
    if envelope.code is not None or envelope.msg is not None:
        return Ack(name, f"{envelope.code} {envelope.msg or ''}".strip())
    if name or envelope.result != NOTHING:
        return Ack(name)
    raise BadMessage("neither an event nor a reply")


def sample(raw: str | bytes) -> str:
    """The beginning of a message, for a log."""
    return raw[:200].decode(errors="replace") if isinstance(raw, bytes) else raw[:200]
