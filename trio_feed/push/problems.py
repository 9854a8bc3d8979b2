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


NO_PLACE_S = 5
"""A client for whom there is no place comes back after so long."""
NO_PLACE = f"too many connections; come back in {NO_PLACE_S} s"


def refused_head(status: int, message: str) -> str:
    """The body for a request that is refused by its head; 503: there is no place for its client."""
    return problem(status, message, TOO_MANY if status == 503 else None)
