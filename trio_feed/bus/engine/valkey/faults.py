"""What an error of the server, or of the way to it, means to the person who runs the nodes."""

import re
import socket
import ssl

from coredis import exceptions as errors

from ....settings import Secret
from ..base import EngineFault

_BY_KIND: tuple[tuple[type[BaseException], str], ...] = (
    (errors.AuthenticationFailureError, "engine.user or engine.password is wrong"),
    (errors.AuthenticationRequiredError, "it wants a password: engine.password"),
    # What it does not know it quotes, the password of HELLO among it.
    (errors.UnknownCommandError, "it is too old; Valkey or Redis 7.0 or newer is needed"),
    (errors.BusyLoadingError, "it is loading its data"),
    (errors.ReadOnlyError, "it is a replica, which takes nothing"),
)
_RIGHTS = "; see the ACL in docs/engine.md"
_LONGEST = 150


class HungUp(errors.ConnectionError):
    """It was no connection yet.  Its cause is coredis' own error."""


def fault(where: str, error: BaseException, secret: Secret) -> EngineFault:
    """``where``: the address of the server.  ``secret``: is not in the text, whoever quoted it."""
    return EngineFault(f"{where}: {_said(error, secret.reveal())[:_LONGEST]}")


def _said(error: BaseException, secret: str) -> str:
    for kind, text in _BY_KIND:
        if isinstance(error, kind):
            return text
    if isinstance(error, errors.ConnectionError):
        return _lost(error)
    refusal = "it refuses: " + " ".join(_without(secret, str(error)).split())
    return f"{refusal}{_RIGHTS}" if isinstance(error, errors.AuthorizationError) else refusal


def _without(secret: str, text: str) -> str:
    """The server's own words.  A secret that is a word (its user's choice) may stand there as that
    word, and ``***`` in its place would tell it; so it goes only where it is quoted, or a value."""
    if not secret:
        return text
    found = re.escape(secret)
    if secret.isalpha():
        found = rf"(?<=['\"`=:]){found}(?![\w-])"
    return re.sub(found, "***", text)


def _lost(error: errors.ConnectionError) -> str:
    if "max number of clients" in str(error):
        return "it has no connection left (its maxclients)"
    cause: BaseException = error
    for _ in range(10):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate does not verify: {cause.verify_message} (engine.ca_file)"
        if isinstance(cause, ssl.SSLError):
            return "no TLS: does it speak it there, and does it want a certificate of ours?"
        inner = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else None
        deeper = inner or cause.__cause__ or cause.__context__
        if deeper is None:
            break
        cause = deeper
    if isinstance(cause, socket.gaierror):
        return "no such host"
    if isinstance(cause, OSError) and not isinstance(cause, BrokenPipeError | ConnectionResetError):
        return "it cannot be reached; does it run, and are host and port right?"
    if isinstance(error, HungUp):
        return "it hangs up at once; is it Valkey, and does it want TLS or a certificate of ours?"
    return "the connection was lost"
