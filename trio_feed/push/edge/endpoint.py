"""The two ends of a connection, and where a listener is, as words."""

import socket
from typing import Any

import trio
from attrs import frozen


@frozen
class Endpoint:
    """The names of a connection's two ends; looks enough like a socket to ask for them.

    ``family`` is AF_UNSPEC, and the names are empty, where there is no socket.
    """

    family: int = socket.AF_UNSPEC
    peer: tuple[str, int] | tuple[()] = ()
    own: tuple[str, int] | tuple[()] = ()

    def getpeername(self) -> tuple[str, int] | tuple[()]:
        return self.peer

    def getsockname(self) -> tuple[str, int] | tuple[()]:
        return self.own

    def __str__(self) -> str:
        return join_address(*self.peer) if self.peer else "memory"


def join_address(host: str, port: int) -> str:
    """``host:port``, or ``[v6]:port``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bound_address(listener: trio.abc.Listener[Any]) -> str:
    """``host:port`` that a listener is bound to (in memory: says it is)."""
    if isinstance(listener, trio.SocketListener):
        host, port = listener.socket.getsockname()[:2]
        return join_address(host, port)
    memory: Any = listener
    return join_address(memory.host, memory.port)


def endpoint_of(transport: trio.abc.Stream) -> Endpoint:
    """Of an accepted connection."""
    if isinstance(transport, trio.SSLStream):
        return endpoint_of(transport.transport_stream)
    if not isinstance(transport, trio.SocketStream):
        return Endpoint()
    sock = transport.socket
    try:
        peer, own = sock.getpeername(), sock.getsockname()
    except OSError:  # gone before we looked
        return Endpoint()
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return Endpoint()
    return Endpoint(sock.family, peer[:2], own[:2])
