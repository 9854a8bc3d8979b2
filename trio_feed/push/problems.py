"""What an HTTP request that is refused is answered: JSON with the codes of the protocol.  Pure."""

import json

from .protocol import AUTH_FAILED, HISTORY_FAILED, MALFORMED, REFUSED, TOO_MANY

_CODES = {
    401: AUTH_FAILED,
    403: REFUSED,
    421: REFUSED,
    429: TOO_MANY,
    503: HISTORY_FAILED,
}
"""Of a status where the fault is not known more closely; the others are MALFORMED."""


def problem(status: int, message: str, code: int | None = None) -> str:
    """The body of an answer of ``status``; the same fault has the same ``code`` as over
    WebSocket."""
    chosen = _CODES.get(status, MALFORMED) if code is None else code
    return json.dumps({"code": chosen, "message": message})


BUSY = problem(503, "too many connections; come back in 5 s", TOO_MANY).encode()
