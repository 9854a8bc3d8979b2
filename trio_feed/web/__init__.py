"""The dashboard's files: what a browser gets at ``/``.

Plain HTML, CSS and ES modules without a build step; :mod:`trio_feed.push.edge.pages` serves them.
``vendor/`` holds lightweight-charts as npm has it, with its licence and notice.
"""

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from attrs import frozen

MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "json": "application/json",
    "LICENSE": "text/plain; charset=utf-8",
    "NOTICE": "text/plain; charset=utf-8",
}
"""By the end of a file's name; files that end otherwise are not for browsers."""


@frozen
class Asset:
    """A file as it is sent.  ``etag`` is that of HTTP, with its quotes, and follows the bytes."""

    body: bytes
    media_type: str
    etag: str


def asset(body: bytes, media_type: str) -> Asset:
    return Asset(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


@cache
def load() -> Mapping[str, Asset]:
    """Every file by its path in this folder (``vendor/...``), read once in a process' life."""
    return dict(_walk(files(__name__), ""))


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, Asset]]:
    found = []
    for entry in folder.iterdir():
        name = prefix + entry.name
        media_type = MEDIA_TYPES.get(name.rpartition(".")[2])
        if entry.is_dir():
            found += _walk(entry, f"{name}/")
        elif media_type is not None:
            found.append((name, asset(entry.read_bytes(), media_type)))
    return found
