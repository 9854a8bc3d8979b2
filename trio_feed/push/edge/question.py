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
    method: str = "GET"
    """WS: it opens a WebSocket."""
    target: bytes = field(default=b"", repr=False)
    """Path, without a mount's prefix, and query as the client wrote them."""
    fields: Sequence[tuple[bytes, bytes]] = field(default=(), repr=False)
    """Its header fields as they came."""


@frozen
class Reply:
    """An HTTP response; ``body`` is JSON unless ``media_type`` says something else.

    ``fields``: these and no others are its header fields."""

    body: str | bytes = ""
    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)
    media_type: str = "application/json"
    fields: Sequence[tuple[bytes, bytes]] | None = field(default=None, repr=False)
