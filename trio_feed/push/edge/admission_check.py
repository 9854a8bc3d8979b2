"""The admission check of request heads, between h11 and hypercorn.

It refuses unknown hosts and origins and bodies beyond their bound, and keeps from hypercorn what it
fails on or accepts against our will (HTTP/2, bytes that are not ASCII), and requests for
WebSockets, which hypercorn has no part in.
"""

import binascii
from base64 import b64decode
from collections.abc import Callable

import h11
from attrs import field, frozen

from .admission import Admission
from .extensions import accept_deflate
from .limits import ServerLimits

_Event = h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]
_KEY_BYTES = 16
_VERSION = b"13"  # RFC 6455, 4.2.1
_NAMES = {"host": "Host", "origin": "Origin", "cross_site": "Sec-Fetch-Site", "version": "upgrade"}
_HINTS = {
    "host": " is no name of this server; server.allowed_hosts names them",
    "origin": " is no page that may use this server; server.allowed_origins names them",
    "cross_site": "; pages that may ask are named in server.allowed_origins, and ask with CORS",
    "version": "; only 13 is spoken",
}
_ONE_OF_A_KIND = (b"origin", b"sec-websocket-key", b"sec-websocket-version", b"upgrade")


@frozen
class AdmissionRules:
    """What the server admits.  ``deflate``: clients may agree on compression."""

    admission: Admission = field(factory=Admission)
    deflate: bool = False


class CheckedH11(h11.Connection):
    """h11 that checks every request of a connection before hypercorn sees it.

    A refusal is raised as h11's own protocol error, which hypercorn answers with that status and
    a close, after a call of ``refused(reason, value)``; ``problem`` is then for the client,
    ``bodiless`` says that its request takes no body for an answer, and ``target`` what it asked
    for, empty where its head was not read.

    ``expects_body``: the last request has a body still to come.  ``upgrade`` is the request for a
    WebSocket that was admitted, after which no more is read; ``deflate`` the answer to its offer
    of compression, None: none.
    """

    def __init__(
        self, rules: AdmissionRules, refused: Callable[[str, str], None], limits: ServerLimits
    ) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=limits.max_head_bytes)
        self.upgrade: h11.Request | None = None
        self.deflate: str | None = None
        self.expects_body = False
        self._looked_at: _Event | h11.RemoteProtocolError | None = None
        self.problem = "the request is not HTTP/1.1"
        self.bodiless = False
        self.target = b""
        self._rules, self._refused = rules, refused
        self._max_body_bytes = limits.max_body_bytes
        self._body_bytes = 0
        self._is_refused = False
        self._max_head_bytes = limits.max_head_bytes
        self._unread = 0  # bytes that came in since the last message

    def receive_data(self, data: bytes) -> None:
        self._unread += len(data)
        super().receive_data(data)

    def send_with_data_passthrough(self, event: h11.Event) -> list[bytes] | None:
        """See h11; what the app still answers to a request whose body was refused is left out."""
        if self._is_refused and self.our_state is h11.MUST_CLOSE:
            return []
        return super().send_with_data_passthrough(event)

    def look(self) -> bool:
        """Whether anything has come that is to be dealt with: an ``upgrade``, or else the next
        event."""
        try:
            self._looked_at = self.next_event()
        except h11.RemoteProtocolError as error:
            self._looked_at = error
        if self._looked_at is h11.NEED_DATA:
            self._looked_at = None
        return self._looked_at is not None or self.upgrade is not None

    @property
    def they_are_waiting_for_100_continue(self) -> bool:
        """Not before their request has been dealt with."""
        waiting: bool = super().they_are_waiting_for_100_continue
        return waiting and self._looked_at is None

    def next_event(self) -> _Event:
        """See h11; once there is an ``upgrade`` nothing comes any more."""
        looked_at, self._looked_at = self._looked_at, None
        if isinstance(looked_at, h11.RemoteProtocolError):
            raise looked_at
        if looked_at is not None:
            return looked_at
        if self.upgrade is not None:
            return h11.NEED_DATA
        event = self._next_event()
        if isinstance(event, h11.Request) and self._is_upgrade(event):
            self.upgrade = event
            return h11.NEED_DATA
        return event

    def _next_event(self) -> _Event:
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == 431:
                self.problem = f"head: more than {self._max_head_bytes} bytes"
            else:
                self.problem = f"the request is not HTTP/1.1: {str(error)[:100]}"
            raise
        if isinstance(event, h11.Request):
            self.target = event.target
            self._check_head()
            return self._checked(event)
        if isinstance(event, h11.Data):
            self._body_bytes += len(event.data)
            self._check_body(self._body_bytes)
        elif isinstance(event, h11.EndOfMessage):
            self.expects_body = False
            self._unread = len(self.trailing_data[0])
        return event

    def _is_upgrade(self, request: h11.Request) -> bool:
        """Of a request that has passed the checks (RFC 6455, 4.1)."""
        if request.method != b"GET":
            return False
        fields = dict(request.headers)
        return b"upgrade" in fields and _names_upgrade(fields)

    def _check_head(self) -> None:
        """h11 applies its bound to a head that is incomplete, not to one that comes in one read."""
        behind = len(self.trailing_data[0])
        if self._unread - behind > self._max_head_bytes:
            raise self._refusal("head", 431, b"a head of more than %d bytes" % self._max_head_bytes)
        self._unread = behind

    def _checked(self, request: h11.Request) -> h11.Request:
        """The request without the offers that we decline.  Raises h11.RemoteProtocolError.

        Declining is ignoring: RFC 9110, 7.8 for ``Upgrade: h2c``, RFC 6455, 9.1 for extensions.
        """
        self.bodiless = request.method == b"HEAD"
        if request.http_version not in (b"1.0", b"1.1"):  # HTTP/2's preface says 2.0
            raise self._refusal("http_version", 505, request.http_version)
        if refusal := self._rules.admission.refusal(request.headers):
            raise self._refusal(refusal.reason, refusal.status, refusal.value.encode())
        names = [name for name, _ in request.headers]
        for name in _ONE_OF_A_KIND:
            if names.count(name) > 1:
                raise self._refusal("malformed", 400, name)
        kept = [(n, v) for n, v in request.headers if self._fit(n, v)]
        upgrade = any(name == b"upgrade" for name, _ in kept)
        self._check_framing(names, request.http_version)
        if upgrade and self.trailing_data[0]:  # a client waits for the 101 (RFC 6455, 4.1)
            raise self._refusal("too_early", 400, b"frames before the 101")
        self._expect_body(kept)
        if upgrade:
            self._check_upgrade(dict(kept), request)
        offers = b",".join(v for n, v in request.headers if n == b"sec-websocket-extensions")
        self.deflate = None
        if self._rules.deflate and upgrade:
            self.deflate = accept_deflate(offers.decode("latin-1"))
        if len(kept) == len(names):
            return request
        return h11.Request(
            method=request.method,
            target=request.target,
            headers=kept,
            http_version=request.http_version,
        )

    def _fit(self, name: bytes, value: bytes) -> bool:
        """Whether a field is passed on."""
        if name == b"sec-websocket-extensions":
            return False
        if name == b"upgrade" and value.strip().lower() != b"websocket":
            return False
        if name in (b"connection", b"sec-websocket-protocol") and not value.isascii():
            raise self._refusal("malformed", 400, name)
        return True

    def _check_framing(self, names: list[bytes], http_version: bytes) -> None:
        """Where a body ends must not be a matter of opinion, or a proxy before us and we take
        different bytes for the next request (RFC 9112, 6.1)."""
        if b"transfer-encoding" not in names:
            return
        if b"content-length" in names:
            value = b"Content-Length with Transfer-Encoding"
            raise self._refusal("malformed", 400, value)
        if http_version == b"1.0":
            raise self._refusal("malformed", 400, b"Transfer-Encoding in HTTP/1.0")

    def _check_upgrade(self, fields: dict[bytes, bytes], request: h11.Request) -> None:
        """RFC 6455, 4.2.1.  Where it is no upgrade (another method, no ``Connection``) only what is
        there has to be right."""
        if self.expects_body:  # its bytes would be taken for frames
            raise self._refusal("malformed", 400, b"an upgrade with a body")
        whole = request.method == b"GET" and _names_upgrade(fields)
        if whole and request.http_version != b"1.1":
            raise self._refusal("malformed", 400, b"an upgrade in HTTP/1.0")
        version = fields.get(b"sec-websocket-version", b"is missing" if whole else _VERSION)
        if version != _VERSION:  # the answer names ours
            raise self._refusal("version", 426, b"Sec-WebSocket-Version " + version)
        key = fields.get(b"sec-websocket-key", b"" if whole else None)
        if key is not None and not _is_key(key):
            raise self._refusal("malformed", 400, b"Sec-WebSocket-Key")

    def _expect_body(self, headers: list[tuple[bytes, bytes]]) -> None:
        fields = dict(headers)
        length = int(fields.get(b"content-length", b"0"))  # h11 has checked that it is a number
        self._check_body(length)
        self._body_bytes = 0
        self.expects_body = length > 0 or b"transfer-encoding" in fields

    def _check_body(self, size: int) -> None:
        if size > self._max_body_bytes:
            self._is_refused = True
            raise self._refusal("body", 413, b"a body of more than %d bytes" % self._max_body_bytes)

    def _refusal(self, reason: str, status: int, value: bytes) -> h11.RemoteProtocolError:
        said = value.decode("latin-1")[:100]
        self._refused(reason, said)
        self.problem = f"{_NAMES.get(reason, reason)}: {said}{_HINTS.get(reason, '')}"
        return h11.RemoteProtocolError(f"{reason}: {said}", error_status_hint=status)


def _names_upgrade(fields: dict[bytes, bytes]) -> bool:
    tokens = fields.get(b"connection", b"").lower().split(b",")
    return b"upgrade" in [token.strip() for token in tokens]


def _is_key(value: bytes) -> bool:
    """Whether it is 16 bytes in base64."""
    try:
        return len(b64decode(value, validate=True)) == _KEY_BYTES
    except binascii.Error:
        return False
