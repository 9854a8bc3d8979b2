"""JSON Web Tokens: whose they are, and until when.  Sole importer of jwt and cryptography.
Pure but for reading a key file at the start.

The algorithm is what the settings say, never what the token says (RFC 8725, 3.1), and times are
checked here rather than in the library, against the clock that the caller hands in.

No error text contains anything of a token.
"""

import math
from pathlib import Path
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from ...errors import SettingsError
from ...settings import JwtSettings
from .auth import AuthError, Identity

_LAST_TIME_S = 4 * 10**9
_LAST_USER = 2**63 - 1
_SHORTEST_SECRET = 32
_SHORTEST_RSA_BITS = 2048


class JwtCheck:
    """Made once from the settings.  Raises SettingsError for a key file that cannot be used."""

    def __init__(self, settings: JwtSettings) -> None:
        self._settings = settings
        self._key = _load_key(settings)

    def check(self, token: str, now_ms: float) -> Identity:
        """Raises AuthError."""
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
