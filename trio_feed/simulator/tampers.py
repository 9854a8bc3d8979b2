"""Ways to spoil frames on their way, pure: each call makes one for one connection.

A tamper takes the payload of a text frame and says what goes out instead, and when.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import cycle

from .gate import Tamper

Make = Callable[[float], Tamper]
"""From a fault's ``value``."""

_UNKNOWN = (
    b'{"e":"neverHeardOf","E":1,"s":"BTCUSDT","x":true}',
    b'{"stream":"btcusdt@neverHeardOf","data":{"e":"neverHeardOf"}}',
    b'{"event":"neverHeardOf","code":"1","msg":"?"}',
    b'{"arg":{"channel":"neverHeardOf","instId":"BTC-USDT"},"data":[{}]}',
    b'{"data":[]}',
    b"[]",
    b'{"id":99,"result":{"x":1}}',
)
_ONE_IN = 20
_CLOSES = (b'"x":true', b'"1"]]')
"""How a closed candle shows, at Binance and at OKX."""


def closes(payload: bytes) -> bool:
    """Whether this message closes a candle."""
    if _CLOSES[0] in payload:
        return True
    return b'"candle' in payload and _CLOSES[1] in payload


def acknowledges(payload: bytes) -> bool:
    """Whether this message answers a subscription."""
    return b'"result":null' in payload or b'"event":"subscribe"' in payload


def updates_a_book(payload: bytes) -> bool:
    """Whether this message is a change of a book."""
    return b'"depthUpdate"' in payload or (
        b'"channel":"books"' in payload and b'"action":"update"' in payload
    )


def _malformed(payload: bytes) -> Iterator[tuple[float, bytes]]:
    yield 0.0, payload.replace(b":", b"=", 2)


def _truncated(payload: bytes) -> Iterator[tuple[float, bytes]]:
    yield 0.0, payload[: len(payload) * 2 // 3]


def _duplicated(payload: bytes) -> Iterator[tuple[float, bytes]]:
    yield 0.0, payload
    yield 0.0, payload


def _without_closes(payload: bytes) -> Iterator[tuple[float, bytes]]:
    if not closes(payload):
        yield 0.0, payload


def _late_closes(delay_s: float) -> Tamper:
    def late(payload: bytes) -> Iterator[tuple[float, bytes]]:
        yield delay_s if closes(payload) else 0.0, payload

    return late


def _with_unknown(_value: float) -> Tamper:
    strange = cycle(_UNKNOWN)

    def unknown(payload: bytes) -> Iterator[tuple[float, bytes]]:
        yield 0.0, next(strange)
        yield 0.0, payload

    return unknown


def _reordered(_value: float) -> Tamper:
    """Each pair of messages in the other order."""
    held: list[bytes] = []

    def reordered(payload: bytes) -> Iterator[tuple[float, bytes]]:
        if held:
            yield 0.0, payload
            yield 0.0, held.pop()
        else:
            held.append(payload)

    return reordered


def _trickle(_value: float) -> Tamper:
    """One message of many comes through."""
    seen = 0

    def trickle(payload: bytes) -> Iterator[tuple[float, bytes]]:
        nonlocal seen
        seen += 1
        if seen % _ONE_IN == 1:
            yield 0.0, payload

    return trickle


TAMPERS: Mapping[str, Make] = {
    "malformed_json": lambda _value: _malformed,
    "truncated_json": lambda _value: _truncated,
    "unknown_frames": _with_unknown,
    "duplicated_frames": lambda _value: _duplicated,
    "reordered_frames": _reordered,
    "trickle": _trickle,
    "missing_close": lambda _value: _without_closes,
    "late_close": _late_closes,
}
"""By the fault's kind."""
