"""What an error of the server, or of the way to it, means to the person who runs the nodes."""

import re
import socket
import ssl

from coredis import exceptions as errors

from ....settings import Secret
from ..base import EngineFault

_BY_KIND: tuple[tuple[type[BaseException], str, bool], ...] = (
    (errors.AuthenticationFailureError, "engine.user or engine.password is wrong", False),
    (errors.AuthenticationRequiredError, "it wants a password: engine.password", False),
    # What it does not know it quotes, the password of HELLO among it.
    (errors.UnknownCommandError, "it is too old; Valkey or Redis 7.0 or newer is needed", False),
    (errors.BusyLoadingError, "it is loading its data", True),
    (errors.ReadOnlyError, "it is a replica, which takes nothing", True),
)
"""The last: whether it may go without anybody mending a setting."""
_FOR_NOW = ("NOREPLICAS", "MISCONF", "OOM", "MASTERDOWN", "BUSY", "UNKILLABLE")
"""Begin the server's own words where it takes nothing for now: its replicas or its disk are away,
it is full, a script runs."""
_OUR_PAPERS = re.compile("ALERT_(.*CERTIFICATE|UNKNOWN_CA)")
"""Alerts (RFC 8446 section 6.2) as OpenSSL names them."""
_OTHER_NAME = "it must be for the name, or address, in engine.urls or told by sentinels"
_BY_VERIFY_CODE = {
    9: "our clock, or a new certificate there",  # X509_V_ERR_CERT_NOT_YET_VALID
    10: "it needs a new one; is our clock right?",
    62: _OTHER_NAME,  # of a host, of an address
    64: _OTHER_NAME,
}
_RIGHTS = "; see the ACL in docs/engine.md"
_IN_A_SCRIPT = "The user executing the script can't"
_OUR_SCRIPTS = "our user may not run all that our scripts do (get, pexpire, del, xrevrange, xadd)"
_WHICH_SCRIPT = re.compile(r"\s*script: [0-9a-f]{40}, on @user_script:\d+\.?$")
_LONGEST = 200


class WrongKind(errors.RedisError):
    """A key of ours holds something else.  ``key``: which one."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} holds a value of another type: delete that key")


class HungUp(errors.ConnectionError):
    """It was no connection yet.  Its cause is coredis' own error."""


def fault(where: str, error: BaseException, secret: Secret) -> EngineFault:
    """``where``: the address of the server.  ``secret``: is not in the text, whoever quoted it."""
    said, is_away = _said(error, secret.reveal())
    return EngineFault(f"{where}: {said[:_LONGEST]}", is_away=is_away)


def _said(error: BaseException, secret: str) -> tuple[str, bool]:
    for kind, text, is_away in _BY_KIND:
        if isinstance(error, kind):
            return text, is_away
    if isinstance(error, errors.ConnectionError):
        return _lost(error)
    if isinstance(error, WrongKind):
        return str(error), False
    if "force unblock" in str(error):  # of a read that waits
        return "it was made a replica just now", True
    if _IN_A_SCRIPT in str(error):
        return f"{_OUR_SCRIPTS}{_RIGHTS}", False
    told = _WHICH_SCRIPT.sub("", str(error))
    refusal = "it refuses: " + " ".join(_without(secret, told).split())
    refusal += _RIGHTS if isinstance(error, errors.AuthorizationError) else ""
    return refusal, str(error).startswith(_FOR_NOW)


def _without(secret: str, text: str) -> str:
    """The server's own words.  A secret that is a word (its user's choice) may stand there as that
    word, and ``***`` in its place would tell it; so it goes only where it is quoted, or a value."""
    if not secret:
        return text
    found = re.escape(secret)
    if secret.isalpha():
        found = rf"(?<=['\"`=:]){found}(?![\w-])"
    return re.sub(found, "***", text)


def _lost(error: errors.ConnectionError) -> tuple[str, bool]:
    if "max number of clients" in str(error):
        return "it has no connection left (its maxclients)", True
    cause: BaseException = error
    for _ in range(10):
        if isinstance(cause, ssl.SSLCertVerificationError):
            told = cause.verify_message.rstrip(".")
            advice = _BY_VERIFY_CODE.get(cause.verify_code, "engine.ca_file")
            return f"its certificate does not verify: {told} ({advice})", False
        if isinstance(cause, ssl.SSLError):
            if _OUR_PAPERS.search(cause.reason or ""):
                return "it refuses our certificate, or wants one: engine.tls_cert_file", False
            return "no TLS: does it speak it there, and does it want a certificate of ours?", False
        inner = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else None
        deeper = inner or cause.__cause__ or cause.__context__
        if deeper is None:
            break
        cause = deeper
    return _unreachable(error, cause), True


def _unreachable(error: errors.ConnectionError, cause: BaseException) -> str:
    if isinstance(cause, socket.gaierror):
        return "no such host"
    if isinstance(cause, OSError) and not isinstance(cause, BrokenPipeError | ConnectionResetError):
        return "it cannot be reached; does it run, and are host and port right?"
    if isinstance(error, HungUp):
        return "it hangs up at once; is it Valkey, and does it want TLS or a certificate of ours?"
    return "the connection was lost"
