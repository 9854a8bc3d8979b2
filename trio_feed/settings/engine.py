"""``[engine]`` and ``[node]``: what several machines share, and which of them this one is."""

import re
from typing import Any, Literal

import attrs
from attrs import field, frozen

from .fields import FieldError, Secret, between

Role = Literal["ingest", "push"]
EXAMPLE = "valkey://10.0.0.1:6379"
_FORM = re.compile(
    r"(?P<kind>valkey|redis|sentinel)(?P<tls>s?)://"
    r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[\w.-]+)(?::(?P<port>\d{1,5}))?(?:/(?P<path>[\w.-]*))?"
)
_DATABASE = re.compile(r"\d{0,3}", re.ASCII)
_NOT_ONE = f"is not a URL such as {EXAMPLE} or sentinel://10.0.0.1:26379/mymaster"
_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)


@frozen
class EngineUrl:
    """``valkey[s]://host[:6379][/database]`` or ``sentinel[s]://host[:26379][/primary's name]``;
    "redis" is another word for "valkey", "s" is TLS."""

    host: str
    port: int
    tls: bool = False
    sentinel: bool = False
    database: int = 0
    primary: str = "mymaster"

    @classmethod
    def parse(cls, url: str) -> "EngineUrl":
        """Raises ValueError, whose text does not quote the URL."""
        if "@" in url:
            raise ValueError("user and password stand in engine.user and engine.password")
        found = _FORM.fullmatch(url)
        if found is None or int(found["port"] or 0) > 65535:
            raise ValueError(_NOT_ONE)
        host, port, tls = found["host"].strip("[]"), int(found["port"] or 0), bool(found["tls"])
        path = found["path"] or ""
        if found["kind"] == "sentinel":
            return cls(host, port or 26379, tls, sentinel=True, primary=path or "mymaster")
        if not _DATABASE.fullmatch(path):
            raise ValueError(_NOT_ONE)
        return cls(host, port or 6379, tls, database=int(path or 0))

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _urls(_instance: object, attribute: "attrs.Attribute[Any]", value: tuple[str, ...]) -> None:
    for number, each in enumerate(value):
        try:
            EngineUrl.parse(each)
        except ValueError as error:
            raise FieldError(f"{attribute.name}.{number}", str(error)) from None


def _plain_name(_instance: object, attribute: "attrs.Attribute[Any]", value: str) -> None:
    if value and not _NAME.fullmatch(value):
        raise FieldError(attribute.name, "is not a name of letters, digits and .-_, 64 at most")


@frozen
class EngineSettings:
    """``[engine]``: what carries messages between nodes, with the extra ``trio_feed[cluster]``."""

    kind: Literal["memory", "valkey"] = "memory"
    """memory: this process is all there is; valkey: several nodes share a Valkey or Redis 7."""
    urls: tuple[str, ...] = field(default=(), validator=_urls)
    """One server, valkey://10.0.0.1:6379, or all sentinels, sentinel://10.0.0.1:26379/mymaster;
    valkeys:// and sentinels:// with TLS."""
    user: str = ""
    """Of the server's ACL; empty: its default user."""
    password: Secret = field(factory=Secret)
    """Better in TRIO_FEED__ENGINE__PASSWORD.  Sentinels that want one are given the same."""
    ca_file: str = ""
    """PEM file that the server is verified with; empty: the system's authorities."""
    tls_cert_file: str = ""
    """PEM file of our own certificate, where the server wants one."""
    tls_key_file: str = ""
    """PEM file of its key, without passphrase."""
    prefix: str = field(default="tf", validator=_plain_name)
    """With which all our keys begin; another one for each cluster on the same server."""
    shards: int = field(default=4, validator=between(1, 256))
    """Parts of a venue that nodes divide among themselves; the same on all nodes."""
    tick_ms: float = field(default=5.0, validator=between(1, 1000))
    """Messages go out this often."""
    lease_s: float = field(default=3.0, validator=between(0.5, 60))
    """A node that dies is replaced after so long."""
    standby: Literal["cold", "hot"] = "cold"
    """hot: nodes also follow the shards of others, and take over without asking the exchange; twice
    the traffic with it."""
    buffer_bytes: int = field(default=64 * 2**20, validator=between(2**20, 2**34))
    """What a node keeps while the engine takes nothing."""
    retain_s: float = field(default=120.0, validator=between(10, 86400))
    """So long messages stay in the engine, for nodes that were away."""
    retain_bytes: int = field(default=256 * 2**20, validator=between(2**20, 2**36))
    """Of each shard; beyond, the oldest go earlier."""
    timeout_s: float = field(default=1.0, validator=between(0.05, 30))
    """An answer of the engine that takes longer is none."""

    def __attrs_post_init__(self) -> None:
        places = self.places
        if self.kind == "memory":
            if places:
                raise FieldError("urls", 'are of kind = "valkey"')
            return
        if not places:
            raise FieldError("urls", f'missing: where the server is, such as ["{EXAMPLE}"]')
        if len(places) > 1 and not all(each.sentinel for each in places):
            raise FieldError("urls", "several are of sentinels; of servers one is given")
        if len({(each.tls, each.primary) for each in places}) > 1:
            raise FieldError("urls", "are not all of the same primary, and with or without TLS")
        if not self.prefix:
            raise FieldError("prefix", "missing")
        if self.timeout_s >= self.lease_s / 2:
            raise FieldError("timeout_s", f"is not below half of lease_s ({self.lease_s:g})")
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            missing = "tls_key_file" if self.tls_cert_file else "tls_cert_file"
            raise FieldError(missing, "missing: a certificate and its key are given together")
        for_tls = [n for n in ("ca_file", "tls_cert_file") if getattr(self, n)]
        if for_tls and not places[0].tls:  # who set it believes that nobody can listen
            scheme = "sentinels" if places[0].sentinel else "valkeys"
            raise FieldError(
                "urls", f"are without TLS, for which engine.{for_tls[0]} is: {scheme}://"
            )

    @property
    def places(self) -> tuple[EngineUrl, ...]:
        return tuple(map(EngineUrl.parse, self.urls))


@frozen
class NodeSettings:
    """``[node]``: this one of several, where there is an engine."""

    name: str = field(default="", validator=_plain_name)
    """Its own; no other node has it."""
    roles: tuple[Role, ...] = ("ingest", "push")
    """ingest: feeds from exchanges; push: serves clients."""

    def __attrs_post_init__(self) -> None:
        if not self.roles:
            raise FieldError("roles", "none; ingest, push or both")
        if len(set(self.roles)) < len(self.roles):
            raise FieldError("roles", "one is given twice")
