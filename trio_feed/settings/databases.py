"""The URL of a PostgreSQL database: checked in form, and shown without what is secret in it.

The form is libpq's (https://www.postgresql.org/docs/15/libpq-connect.html, "Connection URIs", of
2026-11); what its keys mean is libpq's own business.
"""

import re
from typing import Any
from urllib.parse import unquote

import attrs

from .fields import FieldError, Secret

EXAMPLE = "postgresql://feed@127.0.0.1:5432/candles"
_FORM = re.compile(
    r"(?:postgresql|postgres)://"
    r"(?:(?P<user>[^\s@:/?#]*)(?::(?P<password>[^\s@/?#]*))?@)?"
    r"(?P<hosts>[^\s@/?#]*)"
    r"(?:/(?P<database>[^\s@/?#]*))?"
    r"(?:\?(?P<query>[^\s#]*))?"
)
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[\w.%-]*)(?::(?P<port>\d+))?")
_BROKEN_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NOT_ONE = (
    f"is not a PostgreSQL URL such as {EXAMPLE}"
    " (percent-encode special characters in user and password)"
)


class DatabaseUrl(Secret):
    """``postgresql://[user[:password]@][host[:port],...][/database][?key=value&...]``, or empty.

    ``reveal()`` where libpq is given it; everything else sees :attr:`shown`, without password and
    without the keys behind ``?``, of which some are secrets.
    """

    __slots__ = ("shown",)

    def __init__(self, url: str = "") -> None:
        """Raises ValueError, whose text does not quote the URL."""
        super().__init__(url)
        self.shown = _shown(url)

    def __repr__(self) -> str:
        return repr(self.shown)


def _shown(url: str) -> str:
    if not url:
        return ""
    found = _FORM.fullmatch(url)
    if found is None or _BROKEN_PERCENT.search(url):
        raise ValueError(_NOT_ONE)
    for host in found["hosts"].split(","):
        part = _HOST.fullmatch(host)
        if part is None or (part["port"] and not 0 < int(part["port"]) < 65536):
            raise ValueError(_NOT_ONE)
    user = f"{found['user']}@" if found["user"] else ""
    database = f"/{found['database']}" if found["database"] else ""
    text = f"postgresql://{user}{found['hosts']}{database}"
    return "".join(c if c.isprintable() else "?" for c in unquote(text))


def only_one(instance: Any, attribute: "attrs.Attribute[Any]", value: DatabaseUrl) -> None:
    """A validator: a file and a database cannot both be meant.  For classes whose ``path`` is
    empty by default."""
    if value and instance.path:
        raise FieldError(attribute.name, "stands beside `path`: one of both")
