"""permessage-deflate as RFC 7692 has it: a client's offers in, our one answer out.  Pure.

Neither side keeps its window from message to message: so one compressed message serves all
subscribers, and a client costs no memory between its messages.
"""

import re
from collections.abc import Iterator

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER = rf'[ \t]*;[ \t]*({_TOKEN})(?:[ \t]*=[ \t]*(?:({_TOKEN})|"({_TOKEN})"))?'
_OFFER = re.compile(rf"[ \t]*({_TOKEN})((?:{_PARAMETER})*)[ \t]*(?:,|$)")
_PARAMETERS = re.compile(_PARAMETER)
_BITS = re.compile(r"[89]|1[0-5]")
_MAX_BITS = "15"

Parameter = tuple[str, str | None]


def accept_deflate(offers: str) -> str | None:
    """The answer to a ``Sec-WebSocket-Extensions`` field, None where no offer suits us.

    An offer with an unknown, doubled or malformed parameter is declined (RFC 7692, 7), and so is
    one that wants our window smaller than it is.
    """
    for name, parameters in _parsed(offers):
        if name == "permessage-deflate" and _suits(parameters):
            answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
            limited = any(name == "server_max_window_bits" for name, _ in parameters)
            return f"{answer}; server_max_window_bits={_MAX_BITS}" if limited else answer
    return None


def _parsed(offers: str) -> Iterator[tuple[str, list[Parameter]]]:
    """Each offer's name and parameters; nothing more after what does not fit the grammar."""
    position = 0
    while position < len(offers):
        offer = _OFFER.match(offers, position)
        if offer is None:
            return
        position = offer.end()
        found = _PARAMETERS.findall(offer[2])
        yield offer[1], [(name, plain or quoted or None) for name, plain, quoted in found]


def _suits(parameters: list[Parameter]) -> bool:
    names = [name for name, _ in parameters]
    return len(set(names)) == len(names) and all(
        _parameter_suits(name, value) for name, value in parameters
    )


def _parameter_suits(name: str, value: str | None) -> bool:
    match name:
        case "server_no_context_takeover" | "client_no_context_takeover":
            return value is None
        case "client_max_window_bits":
            return value is None or _BITS.fullmatch(value) is not None
        case "server_max_window_bits":
            return value == _MAX_BITS
    return False
