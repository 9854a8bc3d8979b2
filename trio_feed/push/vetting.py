"""Request heads are vetted between h11 and hypercorn: what hypercorn would stumble over or accept
against our will (HTTP/2, compression, bytes that are not ASCII) does not reach it."""

import h11


class VettedH11(h11.Connection):
    """h11 whose requests are fit for hypercorn, on every request of a connection.

    A refusal is raised as h11's own protocol error, which hypercorn answers with that status and
    a close.
    """

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        event = super().next_event()
        return _vetted(event) if isinstance(event, h11.Request) else event


def _vetted(request: h11.Request) -> h11.Request:
    """The request without the offers that we decline.  Raises h11.RemoteProtocolError.

    Declining is ignoring: RFC 9110, 7.8 for ``Upgrade: h2c``, RFC 6455, 9.1 for extensions.
    """
    if request.http_version not in (b"1.0", b"1.1"):  # HTTP/2's preface says 2.0
        raise h11.RemoteProtocolError("only HTTP/1.1 is spoken here", error_status_hint=505)
    kept = []
    for name, value in request.headers:
        if name == b"sec-websocket-extensions":
            continue
        if name == b"upgrade" and value.strip().lower() != b"websocket":
            continue
        if name in (b"connection", b"sec-websocket-protocol") and not value.isascii():
            raise h11.RemoteProtocolError(f"{name.decode()} is not ASCII")
        kept.append((name, value))
    return h11.Request(
        method=request.method,
        target=request.target,
        headers=kept,
        http_version=request.http_version,
    )
