"""The request for a WebSocket as a value, and the bytes of its answers (RFC 6455, 4.2.2).  Pure."""

from base64 import b64encode
from hashlib import sha1
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

import h11

from .question import Question, Reply

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def question_of(request: h11.Request, host: str) -> Question:
    """``host`` is the client's IP address."""
    path, _, query = request.target.decode("latin-1").partition("?")
    return Question(
        unquote(path),
        query=parse_qsl(query, keep_blank_values=True),
        headers={name.decode("latin-1"): v.decode("latin-1") for name, v in request.headers},
        host=host,
        method="WS",
        target=request.target,
        fields=list(request.headers.raw_items()),
    )


def switching(key: bytes, extensions: str | None) -> bytes:
    """The 101 for a request with this ``Sec-WebSocket-Key``; ``extensions``: those agreed on."""
    accept = b64encode(sha1(key + _GUID, usedforsecurity=False).digest())
    agreed = f"Sec-WebSocket-Extensions: {extensions}\r\n".encode() if extensions else b""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n%b\r\n" % (accept, agreed)
    )


def denial(reply: Reply) -> bytes:
    """The response with which a WebSocket is not opened; the connection ends behind it."""
    body = reply.body.encode() if isinstance(reply.body, str) else reply.body
    fields = {
        **reply.headers,
        "Content-Type": reply.media_type,
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    phrase = HTTPStatus(reply.status).phrase
    return f"HTTP/1.1 {reply.status} {phrase}\r\n{head}\r\n".encode("latin-1") + body
