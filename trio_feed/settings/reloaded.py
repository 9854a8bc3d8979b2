"""Which changed settings a running service does not act on.  Pure."""

from collections.abc import Iterator
from typing import Any

import attrs

from .fields import RELOADED
from .tables import Settings


def needing_restart(running: Settings, wanted: Settings) -> list[str]:
    """Dotted names of the keys that differ and that only a restart brings into force.

    A field that says nothing about itself needs one, so a new setting is never promised too much.
    """
    found = list(_differing(running, wanted, ""))
    if bool(running.server.tls_cert_file) != bool(wanted.server.tls_cert_file):
        # Another certificate is one thing, TLS or none another.
        found.append("server.tls_cert_file")
    return found


def _differing(running: Any, wanted: Any, path: str) -> Iterator[str]:
    for attribute in attrs.fields(type(running)):
        old, new = getattr(running, attribute.name), getattr(wanted, attribute.name)
        if old == new or RELOADED.items() <= attribute.metadata.items():
            continue
        name = f"{path}{attribute.name}"
        if attrs.has(type(old)) and type(old) is type(new):
            yield from _differing(old, new, f"{name}.")
        else:
            yield name
