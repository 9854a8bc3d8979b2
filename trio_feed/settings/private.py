"""``[auth]`` and ``[settlement]``: who may have private events, and who may report them."""

import re
from typing import Any, Literal

import attrs
from attrs import field, frozen

from .databases import DatabaseUrl, only_one
from .fields import RELOADED, FieldError, Secret, between

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SHORTEST_SECRET = 32


def _name(_instance: object, attribute: "attrs.Attribute[str]", value: str) -> None:
    if not 0 < len(value) <= 64 or not value.isprintable():
        raise FieldError(attribute.name, "is not a name of 1 to 64 characters")


def _sha256(_instance: object, attribute: "attrs.Attribute[str]", value: str) -> None:
    if _SHA256.fullmatch(value) is None:
        raise FieldError(
            attribute.name, "is not a SHA-256 of 64 hex digits; python -m trio_feed key makes one"
        )


def _distinct(_instance: object, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    for what in ("name", "sha256"):
        if len({getattr(item, what) for item in value}) != len(value):
            raise FieldError(attribute.name, f"two have the same {what}")


@frozen
class ApiKeySettings:
    """``[[auth.api_keys]]``: a user's key, of which only the hash is known here."""

    name: str = field(default="", validator=_name)
    """For the log."""
    user_id: int = field(default=0, validator=between(1, 2**63 - 1))
    """Whose private events the key opens."""
    sha256: str = field(default="", validator=_sha256)
    """Hex SHA-256 of the key, as `python -m trio_feed key` prints it."""


@frozen
class JwtSettings:
    """``[auth.jwt]``: tokens of somebody else's login."""

    algorithm: Literal["", "HS256", "EdDSA", "RS256"] = ""
    """The only one that is accepted, whatever a token says; empty: no JWT is accepted."""
    secret: Secret = field(factory=Secret)
    """HS256: the shared secret, 32 bytes or more; better as TRIO_FEED__AUTH__JWT__SECRET."""
    key_file: str = ""
    """EdDSA, RS256: PEM file of the public key.  HS256: file with the secret."""
    audience: str = ""
    """The `aud` a token must have; empty: a token that has one is refused."""
    issuer: str = ""
    """The `iss` a token must have; empty: any."""
    user_claim: str = field(default="sub", validator=_name)
    """Claim that holds the user's number."""
    leeway_s: float = field(default=5.0, validator=between(0, 300))
    """How far clocks may differ."""

    def __attrs_post_init__(self) -> None:
        if not self.algorithm:
            if self.secret or self.key_file:
                raise FieldError("algorithm", "missing although a key is given")
            return
        if self.algorithm != "HS256":
            if self.secret:
                raise FieldError("secret", f"{self.algorithm} takes a public key: key_file")
            if not self.key_file:
                raise FieldError("key_file", f"missing; {self.algorithm} needs a public key")
        elif bool(self.secret) == bool(self.key_file):
            raise FieldError("secret", "HS256 needs one of secret and key_file")
        elif self.secret and len(self.secret.reveal().encode()) < _SHORTEST_SECRET:
            raise FieldError("secret", f"is shorter than {_SHORTEST_SECRET} bytes")


@frozen
class AuthSettings:
    """``[auth]``: who a client is."""

    api_keys: tuple[ApiKeySettings, ...] = field(default=(), validator=_distinct, metadata=RELOADED)
    """Keys of users."""
    jwt: JwtSettings = field(default=JwtSettings(), metadata=RELOADED)
    max_failures: int = field(default=3, validator=between(1, 100))
    """So many wrong tokens in a row close the connection with 4401."""
    expiry_warning_s: float = field(default=60.0, validator=between(0, 86400))
    """`auth.expiring` is sent this long before a token expires."""

    @property
    def enabled(self) -> bool:
        return bool(self.api_keys or self.jwt.algorithm)


@frozen
class PublisherSettings:
    """``[[settlement.publishers]]``: who may report events."""

    name: str = field(default="", validator=_name)
    """For the log; event ids are one publisher's own."""
    sha256: str = field(default="", validator=_sha256)
    """Hex SHA-256 of the key, as `python -m trio_feed key --publisher` prints it."""
    broadcast: bool = False
    """True: it may also send events of type `broadcast`, which every user gets."""


@frozen
class SettlementSettings:
    """``[settlement]``: private events in, and how long they are kept."""

    publishers: tuple[PublisherSettings, ...] = field(
        default=(), validator=_distinct, metadata=RELOADED
    )
    """Keys of those who may report events."""
    path: str = ""
    """SQLite file; empty: beside the store.  ":memory:" keeps nothing over a restart."""
    url: DatabaseUrl = field(factory=DatabaseUrl, validator=only_one)
    """PostgreSQL in the place of the file; empty: that of the store, unless `path` is set."""
    max_body_bytes: int = field(default=1024 * 1024, validator=between(1024, 2**28))
    """A larger request is answered 413."""
    max_events: int = field(default=1000, validator=between(1, 100_000))
    """More in one request are answered 413."""
    max_requests: int = field(default=64, validator=between(1, 10_000))
    """Requests under way at once; one more is answered 503."""
    request_timeout_s: float = field(default=10.0, validator=between(0.1, 600))
    """From a request's head to the end of its body."""
    retention_s: float = field(default=7 * 86400.0, validator=between(1, 3650 * 86400))
    """Events, and with them resuming and the knowledge of duplicates, are kept this long."""
    order_retention_s: float = field(default=400 * 86400.0, validator=between(1, 3650 * 86400))
    """Whose an order is, is known this long after its last event."""
