"""SOCKS5 over a stream to the proxy (RFC 1928, RFC 1929).

Every answer is read to its exact length and not a byte further, so nothing can be left over.
"""

from collections.abc import Mapping
from ipaddress import ip_address

import trio

from ..errors import ProxyAuthRequired, ProxyProtocolError, ProxyRefused
from .proxy import Proxy
from .tls import step_deadline

_NO_ACCEPTABLE_METHOD = 0xFF
_SOCKS_REPLIES: Mapping[int, str] = {  # RFC 1928 section 6
    1: "general failure",
    2: "connection not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable, or it could not resolve the name",
    5: "connection refused by the target",
    6: "TTL expired",
    7: "command not supported",
    8: "address type not supported",
}


async def socks5(
    stream: trio.abc.Stream, host: str, port: int, proxy: Proxy, where: str, timeout_s: float
) -> None:
    """Ask the proxy at the end of ``stream`` for ``host:port``; names stay names.  The caller
    closes the stream.  Raises TunnelError."""
    user, password = proxy.username.encode(), proxy.password.reveal().encode()
    if len(user) > 255 or len(password) > 255:
        raise ProxyAuthRequired(f"{where}: SOCKS5 carries no user or password beyond 255 bytes")
    request = b"\x05\x01\x00" + _socks_address(host, where) + port.to_bytes(2, "big")
    with step_deadline("SOCKS5 greeting", where, timeout_s):
        await stream.send_all(b"\x05\x02\x00\x02" if user else b"\x05\x01\x00")
        version, method = await _exactly(stream, 2, where)
    if version != 5:
        raise ProxyProtocolError(f"{where} does not speak SOCKS5: check proxy_type and port")
    if method == _NO_ACCEPTABLE_METHOD:
        ours = "no authentication and user/password are both" if user else "it wants credentials:"
        raise ProxyAuthRequired(f"{where}: {ours} refused")
    if method not in ((0, 2) if user else (0,)):
        raise ProxyProtocolError(f"{where} chose SOCKS5 method {method}, which we did not offer")
    if method == 2:
        with step_deadline("SOCKS5 authentication", where, timeout_s):
            await _socks_log_in(stream, user, password, where)
    with step_deadline("SOCKS5 request", where, timeout_s):
        await stream.send_all(request)
        await _socks_reply(stream, where)


def _socks_address(host: str, where: str) -> bytes:
    """ATYP and address, RFC 1928 section 5: names stay names."""
    try:
        address = ip_address(host)
    except ValueError:
        if len(host) > 255:
            raise ProxyProtocolError(f"{where}: SOCKS5 carries no name beyond 255 bytes") from None
        return bytes((3, len(host))) + host.encode("ascii")
    return bytes((1 if address.version == 4 else 4,)) + address.packed


async def _socks_log_in(stream: trio.abc.Stream, user: bytes, password: bytes, where: str) -> None:
    """RFC 1929.  Many proxies just hang up on wrong credentials; it comes to the same."""
    await stream.send_all(b"\x01" + bytes((len(user),)) + user + bytes((len(password),)) + password)
    try:
        version, status = await _exactly(stream, 2, where)
    except (ProxyProtocolError, trio.BrokenResourceError):
        problem = f"{where} hung up on our user name and password: are they right?"
        raise ProxyAuthRequired(problem) from None
    if version != 1:
        raise ProxyProtocolError(f"{where} answered the login with version {version}, not 1")
    if status != 0:
        raise ProxyAuthRequired(f"{where} refused our user name and password (status {status})")


async def _socks_reply(stream: trio.abc.Stream, where: str) -> None:
    version, code = await _exactly(stream, 2, where)
    if version != 5:
        raise ProxyProtocolError(f"{where} answered the request with version {version}, not 5")
    if code != 0:  # some proxies send nothing behind it
        words = _SOCKS_REPLIES.get(code, "unassigned reply code")
        raise ProxyRefused(f"{where} refused: {words} (SOCKS5 reply {code})", code)
    _reserved, kind = await _exactly(stream, 2, where)
    if kind == 3:
        (length,) = await _exactly(stream, 1, where)
    elif kind in (1, 4):
        length = 4 if kind == 1 else 16
    else:
        raise ProxyProtocolError(f"{where} answered with unknown address type {kind}")
    await _exactly(stream, length + 2, where)  # BND.ADDR, BND.PORT: of no use to us


async def _exactly(stream: trio.abc.Stream, count: int, where: str) -> bytes:
    data = b""
    while len(data) < count:
        data += await receive(stream, count - len(data), where)
    return data


async def receive(stream: trio.abc.Stream, limit: int, where: str) -> bytes:
    """Some bytes of a proxy's reply, which has not ended.  Raises ProxyProtocolError."""
    data = await stream.receive_some(limit)
    if not data:
        raise ProxyProtocolError(f"{where} hung up in mid-reply: wrong proxy_type, or credentials?")
    return bytes(data)
