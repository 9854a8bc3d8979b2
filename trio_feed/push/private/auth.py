"""Who a client is: API keys, and JSON Web Tokens (:mod:`.json_web_tokens`).  Pure.

API keys are 32 random bytes behind a prefix that secret scanners can look for; the settings hold
their SHA-256 only.  A fast hash is right here: nobody guesses 256 bits, and a slow one would let
strangers keep the processor busy.  Comparing goes through all keys in constant time.

No error text contains anything of a token.
"""

import hmac
from collections.abc import Iterable, Mapping
from hashlib import sha256
from secrets import token_urlsafe
from typing import TYPE_CHECKING, TypeVar

from attrs import frozen

from ...settings import ApiKeySettings, AuthSettings, PublisherSettings, Secret

if TYPE_CHECKING:
    from .json_web_tokens import JwtCheck

USER_KEY = "tfk_"
PUBLISHER_KEY = "tfp_"

_KEY_BYTES = 32
_LONGEST_TOKEN = 8192
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
        self._jwt = _jwt_check(settings)

    def replace_keys(self, settings: AuthSettings) -> None:
        """From now on these are the keys; whom they do not let in any more: :meth:`is_revoked`.
        The key of JWTs is read again; who came in by one stays until the token ends.  Raises
        SettingsError, and then the old keys stay."""
        self._jwt = _jwt_check(settings)
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


def _jwt_check(settings: AuthSettings) -> "JwtCheck | None":
    """What checks tokens, where any are accepted.  Its libraries take a tenth of the start, so only
    who wants tokens imports them."""
    if not settings.jwt.algorithm:
        return None
    from .json_web_tokens import JwtCheck

    return JwtCheck(settings.jwt)


def _find(keys: Iterable[_Key], token: str) -> _Key | None:
    """Looks at every key, so that the time taken tells nothing."""
    digest = sha256(token.encode()).hexdigest()
    found = None
    for key in keys:
        if hmac.compare_digest(key.sha256, digest):
            found = key
    return found
