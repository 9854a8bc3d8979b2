"""A server's WebSocket frames, as their receiver sees them."""


def payload_of(frame: bytes) -> bytes:
    """Of one whole frame, plain."""
    length = frame[1]
    return frame[10 if length == 127 else 4 if length == 126 else 2 :]
