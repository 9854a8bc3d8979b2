"""Ways to spoil frames on their way, pure: each call makes one for one connection.

A change_frames takes the payload of a text frame and says what is sent instead, and when.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import count, cycle

from .proxy import FrameFault

Make = Callable[[float], FrameFault]
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
_SENT = re.compile(rb'("E":|"ts":")(\d{13})')
_TIMES = re.compile(rb'("E":|"T":|"ts":")(\d{13})')
"""At Binance and at OKX, whose trades have one time only."""
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


def _late_closes(delay_s: float) -> FrameFault:
    def late(payload: bytes) -> Iterator[tuple[float, bytes]]:
        yield delay_s if closes(payload) else 0.0, payload

    return late


def _with_unknown(_value: float) -> FrameFault:
    strange = cycle(_UNKNOWN)

    def unknown(payload: bytes) -> Iterator[tuple[float, bytes]]:
        yield 0.0, next(strange)
        yield 0.0, payload

    return unknown


def _reordered(_value: float) -> FrameFault:
    """Each pair of messages in the other order."""
    held: list[bytes] = []

    def reordered(payload: bytes) -> Iterator[tuple[float, bytes]]:
        if held:
            yield 0.0, payload
            yield 0.0, held.pop()
        else:
            held.append(payload)

    return reordered


def _trickle(_value: float) -> FrameFault:
    """One message of many comes through."""
    seen = 0

    def trickle(payload: bytes) -> Iterator[tuple[float, bytes]]:
        nonlocal seen
        seen += 1
        if seen % _ONE_IN == 1:
            yield 0.0, payload

    return trickle


def is_trade(payload: bytes) -> bool:
    """Whether this message is of the trades of a symbol."""
    return b'"e":"aggTrade"' in payload or b'"e":"trade"' in payload or b'"trades' in payload


def _trade_disorder(_value: float) -> FrameFault:
    """Of two trades within a second the second comes first."""
    late = cycle((0.9, 0.0))

    def disorder(payload: bytes) -> Iterator[tuple[float, bytes]]:
        yield next(late) if is_trade(payload) else 0.0, payload

    return disorder


def _absurd_time(value: float) -> FrameFault:
    """One message in ten has times of another year, or of two hours later: every second one in its
    time of sending only, the others in the trade's own as well."""
    number = count()

    def absurd(payload: bytes) -> Iterator[tuple[float, bytes]]:
        n = next(number)
        if n % 10 != 3:
            yield 0.0, payload
            return
        pattern = _TIMES if n % 20 == 3 and is_trade(payload) else _SENT

        def other(found: re.Match[bytes]) -> bytes:
            return found[1] + b"%d" % _absurd_ms(value, int(found[2]))

        yield 0.0, pattern.sub(other, payload)

    return absurd


def _absurd_ms(value: float, time_ms: int) -> int:
    if value < 1970:  # hours
        return time_ms + int(value * 3_600_000)
    return time_ms + round((value - 2025) * 365.25 * 86_400_000)


FRAME_FAULTS: Mapping[str, Make] = {
    "malformed_json": lambda _value: _malformed,
    "truncated_json": lambda _value: _truncated,
    "unknown_frames": _with_unknown,
    "duplicated_frames": lambda _value: _duplicated,
    "reordered_frames": _reordered,
    "trickle": _trickle,
    "missing_close": lambda _value: _without_closes,
    "late_close": _late_closes,
    "trade_disorder": _trade_disorder,
    "absurd_time": _absurd_time,
}
"""By the fault's kind."""
