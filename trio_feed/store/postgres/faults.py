"""What an error of PostgreSQL means to the person who runs the service.

Its own messages are of several lines, name addresses and users, and are translated on some
servers; so the code decides where there is one.  libpq gives none for a connection that was not
opened: there its words are looked at.  Nothing here quotes a URL or a password.
"""

import re

import psycopg
from psycopg import errors

from .connection import Overdue

_PASSWORD = "correct the password: in the URL, in PGPASSWORD or in ~/.pgpass"
_BY_CODE = {
    "08": "is the server running, and does a firewall let it be reached?",
    "25006": "name the primary, or end its read-only mode (default_transaction_read_only)",
    "28": _PASSWORD,
    "28P01": _PASSWORD,
    "3D000": "create it: createdb -O USER DATABASE",
    "42501": "give the user the rights: see docs/postgresql.md",
    "42P07": "its schema trio_feed is not ours: name another database",
    "42P01": "a table is gone: restart the service, which makes it anew",
    "42703": "a column is gone: the tables were changed by something else",
    "53100": "make room on the server's disk",
    "53200": "give the server more memory",
    "53300": "raise max_connections of the server, or end other clients",
    "57014": "is the server slow or busy?",
    "57P01": "it is tried again until the server is back",
    "57P02": "it is tried again until the server is back",
    "57P03": "it is tried again until the server is back",
    "58": "check the server's disk",
    "XX": "see the server's log",
}
_REACH = "is the server running, and are host and port right?"
_READ_ONLY = "it takes no writes: a standby, or read-only"
_MISTAKES = (
    ("password authentication failed", "it refuses the password", _PASSWORD),
    ("no password supplied", "it wants a password", _PASSWORD),
    ("authentication failed", "it refuses the user", "see its pg_hba.conf"),
    ("pg_hba.conf rejects", "it lets this user not in from here", "see its pg_hba.conf"),
    ("no pg_hba.conf entry", "it lets nobody in from here", "add a line to its pg_hba.conf"),
    ("server does not support SSL", "it speaks no TLS", "give it a certificate, or no sslmode"),
    ("certificate", "its certificate does not verify", "see sslrootcert and sslmode of libpq"),
)
_AWAY = (
    ("session is read-only", _READ_ONLY, _BY_CODE["25006"]),
    ("hot standby mode", _READ_ONLY, _BY_CODE["25006"]),
    ("Connection refused", "nothing listens there", _REACH),
    ("No such file or directory", "nothing listens at that socket", _REACH),
    ("could not translate host name", "no such host", "correct the host in the URL"),
    ("failed to resolve host", "no such host", "correct the host in the URL"),
    ("name or service not known", "no such host", "correct the host in the URL"),
    ("timeout expired", "no answer", _REACH),
    ("No route to host", "no way to that host", _REACH),
    ("Network is unreachable", "no way to that host", _REACH),
    ("starting up", "the server is starting", _BY_CODE["57P03"]),
    ("shutting down", "the server is shutting down", _BY_CODE["57P03"]),
    ("in recovery mode", "the server recovers from a crash", _BY_CODE["57P03"]),
    ("not yet accepting connections", "the server is starting", _BY_CODE["57P03"]),
    ("too many clients", "it has no connection left", _BY_CODE["53300"]),
    ("remaining connection slots", "it has no connection left", _BY_CODE["53300"]),
    ("too many connections", "it has no connection left", _BY_CODE["53300"]),
    ("closed the connection", "the connection was lost", _BY_CODE["57P01"]),
    ("consuming input failed", "the connection was lost", _BY_CODE["57P01"]),
    ("connection is lost", "the connection was lost", _BY_CODE["57P01"]),
    ("Connection reset", "the connection was lost", _BY_CODE["57P01"]),
    ("connection socket closed", "the connection was lost", _BY_CODE["57P01"]),
)
"""A host without an address is among them: names of containers come and go with these."""
_BY_WORDS = _MISTAKES + _AWAY
_AWAY_BY_CODE = ("08", "25006", "40", "53", "55P03", "57", "58")
"""Lost, read-only, another one was faster, no room or memory or connection, a lock, shut down or
slow, its disk: what a running service outlasts."""
_OF_A_KEY = re.compile(
    r'invalid (?:"?\w+"? value: "[^"]*"|integer value "[^"]*" for connection option "\w+")'
)
"""libpq's own words about a value that it does not know; none of those keys is a secret."""


def explain(error: psycopg.Error) -> tuple[str, str]:
    """What is wrong, and what to do about it: a line each."""
    if isinstance(error, Overdue | errors.QueryCanceled):
        return "it took too long", _BY_CODE["57014"]
    text = str(error)
    if (code := error.sqlstate) is not None:
        advice = _BY_CODE.get(code) or _BY_CODE.get(code[:2], "see the server's log")
        return _first_line(text), advice
    if isinstance(error, psycopg.DataError):
        return _first_line(text), "report it"
    if isinstance(error, psycopg.ProgrammingError):
        # Of a URL that libpq does not take; it quotes parts of it.
        key = text.partition('invalid URI query parameter: "')[2].rstrip().rstrip('"')
        what = f"libpq knows no {key}" if key.isidentifier() else "libpq does not take the URL"
        return what, "correct the URL"
    if "database" in text and "does not exist" in text:
        return "there is no such database", _BY_CODE["3D000"]
    if "role" in text and "does not exist" in text:
        return "there is no such user", "create it: createuser --pwprompt USER"
    for words, problem, advice in _BY_WORDS:
        if words.lower() in text.lower():
            return problem, advice
    if found := _OF_A_KEY.search(text):
        return found[0], "correct the URL, or libpq's variables of the environment"
    return _last_reason(text), _BY_CODE["XX"] if "FATAL:" in text else _REACH


def is_away(error: psycopg.Error) -> bool:
    """Whether it may go without anybody mending a setting."""
    if isinstance(error, Overdue | errors.QueryCanceled):
        return True
    if (code := error.sqlstate) is not None:
        return code.startswith(_AWAY_BY_CODE)
    if not isinstance(error, psycopg.OperationalError):
        return False
    text = str(error).lower()
    if "does not exist" in text or any(words.lower() in text for words, *_ in _MISTAKES):
        return False
    # What libpq does not say in words of ours: of the network, unless the server said it.
    there = any(words.lower() in text for words, *_ in _AWAY)
    return there or not ("fatal:" in text or _OF_A_KEY.search(str(error)))


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _last_reason(text: str) -> str:
    """Of ``connection to server at "h", port 1 failed: FATAL: why``: why."""
    line = _first_line(text)
    return line.rpartition("failed: ")[2].removeprefix("FATAL:").strip() or "the connection failed"
