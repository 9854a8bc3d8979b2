"""What the fields of all tables are made of."""

import math
import re
from typing import Any
from urllib.parse import urlsplit

import attrs

_DURATION = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


class Secret:
    """A string that never prints itself.  ``reveal()`` where it goes on the wire."""

    __slots__ = ("_value",)

    def __init__(self, value: str = "") -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "'***'" if self._value else "''"


class Duration:
    """A length of time, written as ``90s``, ``30m``, ``36h``, ``7d``, ``2w`` or ``forever``."""

    __slots__ = ("_text", "seconds")

    def __init__(self, text: str) -> None:
        """Raises ValueError."""
        found = _DURATION.fullmatch(text)
        self.seconds = math.inf
        """Infinite where it is forever."""
        if text != "forever":
            if found is None or not int(found[1]):
                raise ValueError(f"{text!r} is no length of time such as 36h, 7d, 2w or forever")
            self.seconds = float(int(found[1]) * _SECONDS[found[2]])
        self._text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and other.seconds == self.seconds

    def __hash__(self) -> int:
        return hash(self.seconds)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Duration({self._text!r})"


RELOADED = {"reloaded": True}
"""Metadata of a field whose change comes into force with a SIGHUP; all others want a restart."""


def masked_url(url: str) -> str:
    """A URL for people to read: scheme, host and port, and ``/***`` for all that follows.

    Keys of RPC providers stand in the path (``/v2/KEY``, ``/TOKEN/``), in the query
    (``?api-key=``, or the whole of it) or before the host (``user:password@``): what is no key
    there cannot be known, so none of it is shown.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "***"
    if not url or not parts.scheme or not _HOST.fullmatch(host):
        return "***" if url else ""
    host = f"[{host}]" if ":" in host else host
    address = host if port is None else f"{host}:{port}"
    hidden = "/***" if parts.path not in ("", "/") or parts.query or parts.fragment else ""
    return f"{parts.scheme}://{address}{hidden}"


_HOST = re.compile(r"[\w.:%-]+")


class FieldError(ValueError):
    """A value that does not fit; ``key`` is the field inside its table."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(problem)
        self.key = key


@attrs.frozen
class Between:
    """A validator: low <= value <= high."""

    low: float
    high: float

    def __call__(self, _instance: object, attribute: "attrs.Attribute[Any]", value: float) -> None:
        if not self.low <= value <= self.high:
            problem = f"{value} is not between {self.low:.15g} and {self.high:.15g}"
            raise FieldError(attribute.name, problem)


between = Between
"""As it reads beside a field."""
