"""HTTP Digest credentials (RFC 7616) for a proxy.  Pure: the client's nonce is an argument.

Only what a CONNECT needs: ``qop`` "auth" or none; MD5, SHA-256, SHA-512-256 and their -sess
forms.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping

from attrs import frozen

_ALGORITHMS: Mapping[str, str] = {"MD5": "md5", "SHA-256": "sha256", "SHA-512-256": "sha512_256"}
_PARAMETER = re.compile(r'\s*([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))\s*(?:,|$)')
_DIGEST = re.compile(r"(?:^|,)\s*digest\s+", re.IGNORECASE)
_MOST = 4096
_STRONGEST = ("SHA-512-256", "SHA-256", "MD5")


@frozen
class Challenge:
    """What a proxy asks with.  ``algorithm`` is without "-sess"."""

    realm: str
    nonce: str
    opaque: str = ""
    algorithm: str = "MD5"
    session: bool = False
    qop: bool = True
    stale: bool = False
    """The last nonce was too old, and the credentials were right."""


def read_challenges(values: Iterable[str]) -> Challenge | None:
    """The strongest Digest challenge of some ``Proxy-Authenticate`` headers that we can answer;
    None: there is none."""
    found = [challenge for value in values if (challenge := _read(value)) is not None]
    return min(found, key=lambda c: _STRONGEST.index(c.algorithm), default=None)


def _read(value: str) -> Challenge | None:
    begin = _DIGEST.search(value[:_MOST])
    if begin is None:
        return None
    rest = value[begin.end() : _MOST]
    said: dict[str, str] = {}
    at = 0
    while at < len(rest) and (match := _PARAMETER.match(rest, at)):
        text = match[3] if match[2] is None else re.sub(r"\\(.)", r"\1", match[2])
        said.setdefault(match[1].lower(), text)
        at = match.end()
    name = said.get("algorithm", "MD5").upper()
    algorithm = name.removesuffix("-SESS")
    offered = {word.strip().lower() for word in said.get("qop", "").split(",")} - {""}
    usable = algorithm in _ALGORITHMS and _hash(algorithm) is not None
    if "nonce" not in said or not usable or (offered and "auth" not in offered):
        return None
    return Challenge(
        realm=said.get("realm", ""),
        nonce=said["nonce"],
        opaque=said.get("opaque", ""),
        algorithm=algorithm,
        session=name != algorithm,
        qop=bool(offered),
        stale=said.get("stale", "").lower() == "true",
    )


def authorization(
    challenge: Challenge, username: str, password: str, target: str, count: int, cnonce: str
) -> str:
    """The value of ``Proxy-Authorization`` for a CONNECT of ``target`` (host:port), which is the
    ``count``-th use of the challenge's nonce."""
    digest = _hash(challenge.algorithm)
    assert digest is not None, "read_challenges takes no other"
    first = digest(f"{username}:{challenge.realm}:{password}")
    if challenge.session:
        first = digest(f"{first}:{challenge.nonce}:{cnonce}")
    second = digest(f"CONNECT:{target}")
    uses = f"{count:08x}"
    middle = f"{challenge.nonce}:{uses}:{cnonce}:auth" if challenge.qop else challenge.nonce
    fields = {
        "username": username,
        "realm": challenge.realm,
        "nonce": challenge.nonce,
        "uri": target,
        "response": digest(f"{first}:{middle}:{second}"),
    }
    if challenge.opaque:
        fields["opaque"] = challenge.opaque
    if challenge.qop or challenge.session:
        fields["cnonce"] = cnonce
    text = ", ".join(f"{name}={_quoted(value)}" for name, value in fields.items())
    text += f", algorithm={challenge.algorithm}{'-sess' * challenge.session}"
    return f"Digest {text}{f', qop=auth, nc={uses}' if challenge.qop else ''}"


def _quoted(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def _hash(algorithm: str) -> Callable[[str], str] | None:
    """None: this machine's OpenSSL does not have it."""
    name = _ALGORITHMS[algorithm]
    if name not in hashlib.algorithms_available:
        return None
    return lambda text: hashlib.new(name, text.encode(), usedforsecurity=False).hexdigest()
