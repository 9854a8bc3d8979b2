"""A client's bytes -> its messages and control frames, each frame checked.  Pure.

Every rule of RFC 6455 that a client can break is here, the bound of a message in bytes (once
inflated), and RFC 7692's inflation.
"""

import zlib

from attrs import frozen

from .throttle import TokenBucket, Verdict

PROTOCOL_ERROR = 1002
BAD_PAYLOAD = 1007
FLOODING = 1008
TOO_BIG = 1009

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_OPCODES = {_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG}
_FIN, _RSV1, _RSV2_3, _MASKED = 0x80, 0x40, 0x30, 0x80
_TAIL = b"\x00\x00\xff\xff"
"""What a sender leaves off the end of a compressed message (RFC 7692, 7.2.1)."""
_CLOSE_CODES = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}
"""Those that may be sent (RFC 6455, 7.4, and the IANA registry)."""


class FrameRefused(Exception):
    """The client broke a rule: the connection is closed with ``code`` and ``str(self)``."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@frozen
class Control:
    """A ping, a pong or a Close frame, in order."""

    opcode: int
    payload: bytes

    @property
    def is_ping(self) -> bool:
        return self.opcode == _PING

    @property
    def is_close(self) -> bool:
        return self.opcode == _CLOSE


class InboundFrames:
    """One connection's frames -> its messages, and control frames between them.

    Holds at most one message and one frame, which are no larger than a message may be.
    ``deflate``: the client may compress its messages.  ``data`` and ``control`` count its frames.
    """

    __slots__ = (
        "_buffer", "_control", "_data", "_deflate", "_message", "_most", "_to_skip", "closed",
    )  # fmt: skip

    def __init__(
        self, max_message_bytes: int, data: TokenBucket, control: TokenBucket, *, deflate: bool
    ) -> None:
        self._most, self._deflate = max_message_bytes, deflate
        self._data, self._control = data, control
        self._buffer = bytearray()
        self._message: _Message | None = None
        self._to_skip = 0
        self.closed = False
        """The client's Close frame was there."""

    def feed(self, data: bytes | bytearray, now: float) -> list[str | bytes | Control]:
        """What the client's bytes complete, in order: texts, binary messages and control frames.
        Raises FrameRefused.

        After its Close frame nothing is looked at any more (RFC 6455, 5.5.1).
        """
        items: list[str | bytes | Control] = []
        if self.closed:
            return items
        self._buffer += data
        position = 0
        try:
            while not self.closed:
                if (end := self._short_text(position)) is not None:
                    if self._data.take(now) is not Verdict.SERVE:
                        raise FrameRefused(FLOODING, "too many frames")
                    payload = bytes(self._buffer[position + 6 : end])
                    items.append(
                        _text(unmasked(payload, self._buffer[position + 2 : position + 6]))
                    )
                    position = end
                    continue
                size = self._frame_size(position)
                if size is None or len(self._buffer) - position < size:
                    break
                frame = bytes(self._buffer[position : position + size])
                bucket = self._control if frame[0] & 8 else self._data
                if bucket.take(now) is not Verdict.SERVE:
                    raise FrameRefused(FLOODING, "too many frames")
                item = self._frame(frame)
                if item is not None:
                    items.append(item)
                position += size
        finally:
            del self._buffer[:position]
        return items

    def skip(self, data: bytes | bytearray) -> None:
        """After our own Close frame: notice the client's, and keep nothing else."""
        self._buffer += data
        while not self.closed:
            dropped = min(self._to_skip, len(self._buffer))
            del self._buffer[:dropped]
            self._to_skip -= dropped
            size = None if self._to_skip else _frame_size(self._buffer[:10])
            if size is None:
                return
            self._to_skip = sum(size)
            self.closed = self._buffer[0] & 0x0F == _CLOSE

    def _short_text(self, at: int) -> int | None:
        """Where the frame ends, if it is what nearly every request is: there as a whole, one
        message, plain, below 126 bytes.  None: it is not, or not known yet."""
        buffer = self._buffer
        if len(buffer) < at + 6 or buffer[at] != _FIN | _TEXT or self._message is not None:
            return None
        length = buffer[at + 1] - _MASKED
        end = at + 6 + length
        if not 0 <= length < 126 or length > self._most or end > len(buffer):
            return None
        return end

    def _frame_size(self, at: int) -> int | None:
        """The whole frame's size, once its head says so; checks all that the head tells."""
        head = self._buffer[at : at + 10]
        if len(head) >= 2:
            self._check_head(head[0], head[1])
        size = _frame_size(head)
        if size is None:
            return None
        head_size, length = size
        if length < {8: 126, 14: 65536}.get(head_size, 0):
            raise FrameRefused(PROTOCOL_ERROR, "a length in more bytes than it needs")
        if not head[0] & 8:
            self._check_length(length, compressed=bool(head[0] & _RSV1))
        return head_size + length

    def _check_head(self, first: int, second: int) -> None:
        opcode, control = first & 0x0F, bool(first & 8)
        if opcode not in _OPCODES or first & _RSV2_3:
            raise FrameRefused(PROTOCOL_ERROR, "unknown opcode or reserved bit")
        if not second & _MASKED:
            raise FrameRefused(PROTOCOL_ERROR, "a client's frame is not masked")
        if control and (not first & _FIN or second & 0x7F > 125):
            raise FrameRefused(PROTOCOL_ERROR, "a control frame in pieces, or too long")
        if first & _RSV1 and (not self._deflate or control or opcode == _CONTINUATION):
            raise FrameRefused(PROTOCOL_ERROR, "compressed, which was not agreed to")
        if not control and (opcode == _CONTINUATION) is (self._message is None):
            raise FrameRefused(PROTOCOL_ERROR, "a continuation of nothing, or none where due")

    def _check_length(self, length: int, *, compressed: bool) -> None:
        so_far = 0
        if self._message is not None:
            so_far, compressed = self._message.taken, self._message.compressed
        most = self._most
        if compressed:  # what zlib can make of a message at worst
            most += most // 1000 + 64
        if so_far + length > most:
            raise FrameRefused(TOO_BIG, f"a message may have {self._most} bytes")

    def _frame(self, frame: bytes) -> str | bytes | Control | None:
        """A whole frame -> what it completes."""
        first, length = frame[0], frame[1] & 0x7F
        at = 2 + (0 if length < 126 else 2 if length == 126 else 8)
        payload = unmasked(frame[at + 4 :], frame[at : at + 4])
        if first & 8:
            if first & 0x0F == _CLOSE:
                _check_close(payload)
                self.closed = True
            return Control(first & 0x0F, payload)
        message = self._message
        if message is None:
            message = _Message(self._most, first & 0x0F, compressed=first & _RSV1 > 0)
        final = bool(first & _FIN)
        self._message = None if final else message
        message.take(payload, final=final)
        return message.content() if final else None


def _frame_size(head: bytes | bytearray) -> tuple[int, int] | None:
    """(bytes of the head, bytes of the payload) of the frame that begins so; None: not known yet.

    ``head`` is up to 10 bytes; the mask, which comes behind them, is counted with the head.
    """
    if len(head) < 2:
        return None
    length, mask = head[1] & 0x7F, 4 if head[1] & _MASKED else 0
    if length < 126:
        return 2 + mask, length
    extra = 2 if length == 126 else 8
    if len(head) < 2 + extra:
        return None
    return 2 + extra + mask, int.from_bytes(head[2 : 2 + extra])


class _Message:
    """A message that is coming in: inflated and checked piece by piece."""

    def __init__(self, max_bytes: int, opcode: int, *, compressed: bool) -> None:
        self.opcode = opcode
        self.plain = bytearray()
        """What came of it so far, as it was before compression."""
        self.taken = 0
        """Bytes of it on the wire."""
        self.compressed = compressed
        self._most = max_bytes
        self._inflate = zlib.decompressobj(wbits=-15) if compressed else None

    def take(self, payload: bytes, *, final: bool) -> None:
        """The next piece.  Raises FrameRefused."""
        self.taken += len(payload)
        if self._inflate is not None:
            payload = self._inflated(self._inflate, payload + _TAIL if final else payload)
        self.plain += payload

    def content(self) -> str | bytes:
        """All of it, once the last piece was taken.  Raises FrameRefused."""
        return _text(self.plain) if self.opcode == _TEXT else bytes(self.plain)

    def _inflated(self, inflate: "zlib._Decompress", data: bytes) -> bytes:
        left = self._most - len(self.plain)
        try:
            plain = inflate.decompress(data, left + 1)
        except zlib.error:
            raise FrameRefused(BAD_PAYLOAD, "a compressed message that is broken") from None
        if len(plain) > left:
            raise FrameRefused(TOO_BIG, "a message that is too large once inflated")
        # A sender may end its last block (BFINAL); then only a closing zero and the tail follow.
        if inflate.eof and not (b"\x00" + _TAIL).endswith(inflate.unused_data):
            raise FrameRefused(BAD_PAYLOAD, "a compressed message with something behind it")
        return plain


def _text(payload: bytes | bytearray) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise FrameRefused(BAD_PAYLOAD, "a text that is not UTF-8") from None


def unmasked(payload: bytes, mask: bytes | bytearray) -> bytes:
    """RFC 6455, 5.3; its own inverse."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(size)


def _check_close(payload: bytes) -> None:
    if not payload:
        return
    if len(payload) < 2 or int.from_bytes(payload[:2]) not in _CLOSE_CODES:
        raise FrameRefused(PROTOCOL_ERROR, "a Close frame with a code that is none")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise FrameRefused(BAD_PAYLOAD, "a Close frame whose reason is not UTF-8") from None
