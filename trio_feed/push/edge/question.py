"""Requests and responses as values, without a server's own types.  Pure."""

from collections.abc import Mapping, Sequence

from attrs import field, frozen


@frozen
class Question:
    """An HTTP request, or the one that opens a WebSocket.  ``query``: its parameters in order.
    ``rest``: what stands in the place of ``*``.  Headers have lower-case names."""

    path: str
    rest: str = ""
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(factory=dict)
    host: str = ""
    """The client's IP address; empty: it has none."""


@frozen
class Reply:
    """An HTTP response; ``body`` is JSON unless ``media_type`` says something else."""

    body: str = ""
    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)
    media_type: str = "application/json"
