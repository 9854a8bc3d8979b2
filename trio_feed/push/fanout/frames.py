"""WebSocket frames of a server (RFC 6455: final, unmasked), put together from shared pieces.  Pure.

A message is a head of the subscriber's own and a tail that all of them share.  With
permessage-deflate (RFC 7692) each piece is compressed by itself and ends on a byte's boundary, so
compressed pieces can be joined like plain ones: the tail is compressed once for all subscribers.
No piece refers to bytes before its own, so every such frame stands alone, whatever came before it.
"""

import zlib
from struct import pack

PING = b"\x89\x00"

NO_CODE = 1005

_TEXT, _BINARY, _CLOSE, _PONG = 0x81, 0x82, 0x88, 0x8A
_MOST_REASON = 123
_COMPRESSED = 0x40
_LEVEL, _WINDOW_BITS, _MEMORY = 6, -12, 5
"""A window of 4 KiB, because messages are short and a larger one costs time to set up."""
_FLUSH_END = b"\x00\x00\xff\xff"
_WORTH_IT, _TOO_LONG = 256, 64 * 1024
"""A text shorter than so many bytes is sent plain, and a longer one too: to compress an answer of a
megabyte takes 50 ms from everybody."""


def text_frame(*pieces: bytes, deflated: bool = False) -> bytes:
    """One whole text frame around ``pieces``; ``deflated``: they are results of :func:`deflate`."""
    payload = b"".join(pieces)
    if deflated:
        payload = payload.removesuffix(_FLUSH_END)
    length, first = len(payload), _TEXT | _COMPRESSED if deflated else _TEXT
    if length < 126:
        return pack("!BB", first, length) + payload
    if length < 65536:
        return pack("!BBH", first, 126, length) + payload
    return pack("!BBQ", first, 127, length) + payload


def binary_frame(payload: bytes) -> bytes:
    """One whole binary frame."""
    return pack("!B", _BINARY) + text_frame(payload)[1:]


def reply_frame(text: str, *, deflated: bool) -> bytes:
    """A message for one client, compressed where the client can and it is worth it."""
    payload = text.encode()
    if deflated and _WORTH_IT <= len(payload) <= _TOO_LONG:
        return text_frame(deflate(payload), deflated=True)
    return text_frame(payload)


def deflate(piece: bytes) -> bytes:
    """A raw deflate piece that can be joined with others (Z_SYNC_FLUSH, no context before it)."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW_BITS, _MEMORY)
    return packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH)


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping with this ``payload``, of at most 125 bytes."""
    return pack("!BB", _PONG, len(payload)) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """``code`` 1005: a Close frame without one (RFC 6455, 7.4.1).  ``reason`` is cut to fit."""
    if code == NO_CODE:
        return pack("!BB", _CLOSE, 0)
    said = reason.encode()[:_MOST_REASON].decode(errors="ignore").encode()
    return pack("!BBH", _CLOSE, 2 + len(said), code) + said
