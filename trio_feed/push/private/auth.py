"""Who a client is: API keys and JSON Web Tokens.  Pure but for reading a key file at the start.
Sole importer of jwt.

API keys are 32 random bytes behind a prefix that secret scanners can look for; the settings hold
their SHA-256 only.  A fast hash is right here: nobody guesses 256 bits, and a slow one would let
strangers keep the processor busy.  Comparing goes through all keys in constant time.

A JWT's algorithm is what the settings say, never what the token says (RFC 8725, 3.1), and times
are checked here rather than in the library, against the clock that the caller hands in.

No error text contains anything of a token.
"""

import hmac
import math
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from secrets import token_urlsafe
from typing import Any, TypeVar

import jwt
from attrs import frozen
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from ...errors import SettingsError
from ...settings import ApiKeySettings, AuthSettings, JwtSettings, PublisherSettings, Secret

USER_KEY = "tfk_"
PUBLISHER_KEY = "tfp_"

_KEY_BYTES = 32
_LONGEST_TOKEN = 8192
_LAST_TIME_S = 4 * 10**9
_LAST_USER = 2**63 - 1
_SHORTEST_SECRET = 32
_SHORTEST_RSA_BITS = 2048
_QUERY_NAMES = {
    "token", "access_token", "auth_token", "auth", "authorization", "bearer", "jwt",
    "key", "api_key", "apikey", "api-key", "secret", "password",
}  # fmt: skip
_Key = TypeVar("_Key", ApiKeySettings, PublisherSettings)


class AuthError(Exception):
    """The token was not accepted; the text is the reason, for the client and the log."""


@frozen
class Identity:
    """``name`` is for the log.  Times in unix milliseconds: what the token says, and that with the
    leeway for clocks that differ; None for a key."""

    user_id: int
    name: str
    expires_ms: int | None = None
    ends_ms: float | None = None
    key: ApiKeySettings | None = None


def new_key(prefix: str) -> tuple[str, str]:
    """A fresh key and its SHA-256 in hex.  Only the latter is for the settings."""
    key = prefix + token_urlsafe(_KEY_BYTES)
    return key, sha256(key.encode()).hexdigest()


def issue_token(settings: JwtSettings, user_id: int, ends_s: int, private_key: bytes = b"") -> str:
    """A JWT that these settings accept until ``ends_s`` (unix seconds), for tests.  ``private_key``
    is PEM: of EdDSA and RS256 the settings know the public one.  Raises AuthError, SettingsError.
    """
    if not settings.algorithm:
        raise AuthError("no JWT is accepted: set auth.jwt.algorithm and its key")
    if settings.algorithm != "HS256" and not private_key:
        raise AuthError(f"{settings.algorithm} wants the private key to sign with")
    claims: dict[str, Any] = {settings.user_claim: str(user_id), "exp": ends_s}
    if settings.audience:
        claims["aud"] = settings.audience
    if settings.issuer:
        claims["iss"] = settings.issuer
    key: Any = private_key
    if settings.algorithm == "HS256":
        key = _load_key(settings)
    elif b"PRIVATE KEY" not in private_key:
        raise AuthError("that file is no private key in PEM")
    try:
        return jwt.encode(claims, key, settings.algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, UnsupportedAlgorithm):
        raise AuthError(f"that private key cannot sign {settings.algorithm}") from None


def names_token(query: Mapping[str, str]) -> str | None:
    """The name of a query parameter that holds a token or is meant to: URLs end up in the logs
    of everything on the way."""
    for name, value in query.items():
        if name.lower() in _QUERY_NAMES or value.startswith((USER_KEY, PUBLISHER_KEY)):
            return name if name.lower() in _QUERY_NAMES else "?"
    return None


class Publishers:
    """Who may report settlement events."""

    def __init__(self, publishers: Iterable[PublisherSettings]) -> None:
        self._publishers = tuple(publishers)

    def replace(self, publishers: Iterable[PublisherSettings]) -> None:
        """From now on these may report; requests under way are finished."""
        self._publishers = tuple(publishers)

    def authenticate(self, authorization: str) -> str:
        """An Authorization header -> the publisher's name.  Raises AuthError."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise AuthError("Authorization: Bearer <publisher key> is missing")
        found = _find(self._publishers, token.strip())
        if found is None:
            raise AuthError("the publisher key is not known")
        return found.name


class Authenticator:
    """Made once from the settings.  Raises SettingsError for a key file that cannot be used."""

    def __init__(self, settings: AuthSettings) -> None:
        self._keys = settings.api_keys
        self._jwt = _JwtCheck(settings.jwt) if settings.jwt.algorithm else None

    def replace_keys(self, settings: AuthSettings) -> None:
        """From now on these are the keys; whom they do not let in any more: :meth:`is_revoked`.
        The key of JWTs is read again; who came in by one stays until the token ends.  Raises
        SettingsError, and then the old keys stay."""
        self._jwt = _JwtCheck(settings.jwt) if settings.jwt.algorithm else None
        self._keys = settings.api_keys

    def is_revoked(self, key: ApiKeySettings) -> bool:
        """Whether the key that let somebody in is gone, or another user's now."""
        return all((own.sha256, own.user_id) != (key.sha256, key.user_id) for own in self._keys)

    def authenticate(self, token: Secret, now_ms: float) -> Identity:
        """Raises AuthError."""
        text = token.reveal()
        if not text.isascii() or len(text) > _LONGEST_TOKEN:
            raise AuthError("the token is neither an API key nor a JWT")
        if text.startswith(USER_KEY):
            found = _find(self._keys, text)
            if found is None:
                raise AuthError("the API key is not known")
            return Identity(found.user_id, found.name, key=found)
        if self._jwt is None:
            raise AuthError("the token is not an API key, and no JWT is accepted here")
        return self._jwt.check(text, now_ms)


def _find(keys: Iterable[_Key], token: str) -> _Key | None:
    """Looks at every key, so that the time taken tells nothing."""
    digest = sha256(token.encode()).hexdigest()
    found = None
    for key in keys:
        if hmac.compare_digest(key.sha256, digest):
            found = key
    return found


class _JwtCheck:
    def __init__(self, settings: JwtSettings) -> None:
        self._settings = settings
        self._key = _load_key(settings)

    def check(self, token: str, now_ms: float) -> Identity:
        claims = self._verified(token)
        leeway_ms = self._settings.leeway_s * 1000
        expires_ms = _time_ms(claims, "exp")
        ends_ms = expires_ms + leeway_ms
        if ends_ms <= now_ms:
            raise AuthError("the token has expired")
        if claims.get("nbf") is not None and _time_ms(claims, "nbf") - leeway_ms > now_ms:
            raise AuthError("the token is not valid yet")
        return Identity(_user(claims, self._settings.user_claim), "jwt", expires_ms, ends_ms)

    def _verified(self, token: str) -> dict[str, Any]:
        """Claims of a token whose signature, audience and issuer are right."""
        wanted = self._settings
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key,
                algorithms=[wanted.algorithm],
                audience=wanted.audience or None,
                issuer=wanted.issuer or None,
                options={
                    "require": ["exp", wanted.user_claim],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "verify_sub": False,
                    "verify_jti": False,
                },
            )
        except jwt.MissingRequiredClaimError as error:
            raise AuthError(f"the token has no {error.claim}") from None
        except jwt.PyJWTError as error:
            raise AuthError(_reason(error, wanted.algorithm)) from None
        except (ValueError, TypeError, RecursionError):  # a header made to trip the library
            raise AuthError(_NOT_JWT) from None
        return claims


_NOT_JWT = "the token is neither an API key nor a JWT"
_REASONS: tuple[tuple[type[jwt.PyJWTError], str], ...] = (
    (jwt.InvalidSignatureError, "the token's signature is wrong"),
    (jwt.InvalidAudienceError, "the token is for another audience"),
    (jwt.InvalidIssuerError, "the token is from another issuer"),
    (jwt.DecodeError, _NOT_JWT),
)


def _reason(error: jwt.PyJWTError, algorithm: str) -> str:
    """Ours, because the library's texts quote tokens."""
    if isinstance(error, jwt.InvalidAlgorithmError):
        return f"the token's algorithm is not {algorithm}"
    return next((text for kind, text in _REASONS if isinstance(error, kind)), _NOT_JWT)


def _time_ms(claims: dict[str, Any], name: str) -> int:
    value = claims[name]
    if type(value) not in (int, float) or not math.isfinite(value):
        raise AuthError(f"the token's {name} is not a time in unix seconds")
    if not 0 <= value <= _LAST_TIME_S:
        raise AuthError(f"the token's {name} is not a time in unix seconds")
    return int(value * 1000)


def _user(claims: dict[str, Any], name: str) -> int:
    value = claims[name]
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if type(value) is not int or not 0 < value <= _LAST_USER:
        raise AuthError(f"the token's {name} is not a user's number")
    return value


def _load_key(settings: JwtSettings) -> Any:
    """What signatures are checked with.  Raises SettingsError."""
    where = "auth.jwt.key_file"
    if settings.secret:
        return settings.secret.reveal().encode()
    try:
        content = Path(settings.key_file).read_bytes()
    except OSError as error:
        problem = error.strerror or "cannot be read"
        raise SettingsError(where, f"{settings.key_file}: {problem}") from None
    if settings.algorithm == "HS256":
        secret = content.strip()
        if len(secret) < _SHORTEST_SECRET or secret.startswith(b"-----BEGIN"):
            raise SettingsError(where, f"HS256 needs a secret of {_SHORTEST_SECRET} bytes or more")
        return secret
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise SettingsError(where, f"{settings.key_file} is no public key in PEM") from None
    wanted = Ed25519PublicKey if settings.algorithm == "EdDSA" else RSAPublicKey
    if not isinstance(key, wanted):
        raise SettingsError(where, f"{settings.key_file} is no key for {settings.algorithm}")
    if isinstance(key, RSAPublicKey) and key.key_size < _SHORTEST_RSA_BITS:
        raise SettingsError(where, f"an RSA key needs {_SHORTEST_RSA_BITS} bits or more")
    return key
