"""WebSocket frames of a server's, split out of what a read brought (RFC 6455, section 5).

Pure: bytes in, messages and control frames out.  What a server sends is not masked, so a frame is
a header of two to ten bytes and a slice; a read of 64 KiB brings hundreds of them, and each costs
one turn of one loop.  Extensions are never offered, so their bits are always wrong.
"""

import struct
from collections import deque

from attrs import frozen

_TEXT, _BINARY, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10
_WHOLE_TEXT = 0x80 | _TEXT
_MOST_CONTROL_BYTES = 125
_CLOSE_CODES = frozenset((*range(1000, 1004), *range(1007, 1015)))
"""Of those that the protocol defines, the ones that may stand in a frame (RFC 6455, 7.4, and the
registry of IANA); 3000 to 4999 are free to use."""
_USUAL_HEADER = struct.Struct("!BBH")


class FrameError(Exception):
    """The peer does not keep to the protocol; ``code`` is the close code that says how."""

    def __init__(self, problem: str, code: int = 1002) -> None:
        super().__init__(problem)
        self.code = code


@frozen
class Control:
    """A ping, a pong or a close frame.  ``code`` is a close frame's, 1005 where it carries none."""

    opcode: int
    payload: bytes
    code: int = 1005
    reason: str = ""

    @property
    def is_ping(self) -> bool:
        return self.opcode == _PING

    @property
    def is_close(self) -> bool:
        return self.opcode == _CLOSE


class FrameSplitter:
    """One connection's incoming bytes -> its messages.

    Control frames are put into ``controls``, in their order; the owner takes them out after each
    :meth:`feed`.  ``failure`` is set by the first frame that breaks the protocol.  After it, and
    after a close frame, everything is ignored.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self.controls: deque[Control] = deque()
        self.failure: FrameError | None = None
        self._most = max_message_bytes
        self._rest = bytearray()
        self._needed = 0  # bytes that must be there before looking is worth it
        self._parts: list[bytes] | None = None  # of a message in fragments, and its opcode
        self._parts_size = 0
        self._opcode = 0
        self._closed = False

    def feed(self, data: bytes | bytearray) -> list[str | bytes]:
        """The messages that ``data`` completes, up to the first bad frame."""
        if self._closed:
            return []
        if self._rest:
            # Appending and one look per frame: a peer that sends a large frame byte by byte costs
            # what the frame costs, not its square.
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        messages: list[str | bytes] = []
        try:
            at: int | None = 0
            while at is not None:
                if self._parts is None:
                    at = self._split_usual(data, at, messages)
                at = self._split_one(data, at, messages)
        except FrameError as error:
            self.failure, self._closed = error, True
        return messages

    def _split_usual(self, data: bytes | bytearray, at: int, messages: list[str | bytes]) -> int:
        """Whole text messages of 126 to 65,535 bytes, by the hundred: nearly all of a busy stream.
        Returns where something else begins."""
        size, most = len(data), min(self._most, 65_535)
        last = size - _USUAL_HEADER.size
        while at <= last:
            first, length, longer = _USUAL_HEADER.unpack_from(data, at)
            start = at + _USUAL_HEADER.size
            end = start + longer
            if first != _WHOLE_TEXT or length != 126 or end > size or not 126 <= longer <= most:
                break
            messages.append(_text(data[start:end]))
            at = end
        return at

    def _split_one(
        self, data: bytes | bytearray, at: int, messages: list[str | bytes]
    ) -> int | None:
        """Any frame.  Returns where the next one begins, None: there is no more to split."""
        size = len(data)
        needed = start = at + 2
        if needed <= size:
            first, length = data[at], data[at + 1]
            if length > 127:
                raise FrameError("a masked frame from a server")
            if length > 125:
                start += 2 if length == 126 else 8
                needed = start
                if start <= size:
                    length = _extended(data[at + 2 : start])
            if start <= size:
                if length > self._most:
                    raise FrameError(f"a frame of {length} bytes", 1009)
                needed = end = start + length
                if end <= size:
                    message = self._take(first, bytes(data[start:end]))
                    if message is not None:
                        messages.append(message)
                    return None if self._closed else end
        self._rest += data[at:]
        self._needed = needed - at
        return None

    def _take(self, first: int, payload: bytes) -> str | bytes | None:
        """Any frame but a whole text message -> the message that it completes."""
        if first & 0x70:
            raise FrameError("a bit of an extension that was not negotiated")
        final, opcode = bool(first & 0x80), first & 0x0F
        if opcode & 8:
            if not final or len(payload) > _MOST_CONTROL_BYTES:
                raise FrameError("a control frame in parts, or longer than 125 bytes")
            self.controls.append(_control(opcode, payload))
            self._closed = opcode == _CLOSE
            return None
        if opcode > _BINARY:
            raise FrameError(f"opcode {opcode}, which is reserved")
        if (opcode == 0) != (self._parts is not None):
            raise FrameError("a message inside another one" if opcode else "a part of no message")
        if self._parts is None:
            self._parts, self._parts_size, self._opcode = [], 0, opcode
        if payload:  # empty parts without end take no room
            self._parts.append(payload)
        self._parts_size += len(payload)
        if self._parts_size > self._most:
            raise FrameError(f"a message of more than {self._most} bytes", 1009)
        if not final:
            return None
        whole, self._parts = b"".join(self._parts), None
        return whole if self._opcode == _BINARY else _text(whole)


def client_frame(opcode: int, payload: bytes, mask: bytes) -> bytes:
    """A whole frame of a client's; ``mask`` is four random bytes."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65536:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
    key = (mask * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload) ^ int.from_bytes(key)
    return head + mask + masked.to_bytes(size)


def text_frame(text: str, mask: bytes) -> bytes:
    return client_frame(_TEXT, text.encode(), mask)


def ping_frame(payload: bytes, mask: bytes) -> bytes:
    """``payload``: at most 125 bytes."""
    return client_frame(_PING, payload, mask)


def pong_frame(payload: bytes, mask: bytes) -> bytes:
    """The answer to a ping with this ``payload``."""
    return client_frame(_PONG, payload, mask)


def close_frame(code: int, mask: bytes, reason: str = "") -> bytes:
    """``code`` 1005: a close frame without one."""
    payload = b"" if code == 1005 else struct.pack("!H", code) + reason.encode()[:123]
    return client_frame(_CLOSE, payload, mask)


def _text(payload: bytes | bytearray) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise FrameError("a text that is not UTF-8", 1007) from error


def _extended(field: bytes | bytearray) -> int:
    length = int.from_bytes(field)
    if length < (126 if len(field) == 2 else 65536) or length >= 1 << 63:
        raise FrameError("a length that is not written in the shortest form")
    return length


def _control(opcode: int, payload: bytes) -> Control:
    if opcode in (_PING, _PONG):
        return Control(opcode, payload)
    if opcode != _CLOSE:
        raise FrameError(f"opcode {opcode}, which is reserved")
    if not payload:
        return Control(opcode, payload)
    code = int.from_bytes(payload[:2])
    if len(payload) == 1 or not (code in _CLOSE_CODES or 3000 <= code < 5000):
        raise FrameError("a close frame with a code that may not be sent")
    return Control(opcode, payload, code, _text(payload[2:]))
