"""Half characters in JSON: an escape such as ``"\\ud800"`` without its other half (RFC 8259, 8.2).

It fits JSON's grammar but is no text: it can be written neither into SQLite nor into a WebSocket
frame, and msgspec refuses the whole document that it stands in.
"""

import re

_SUSPECT = re.compile(rb"\\u[dD][89a-fA-F]")
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # both halves
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})"
    rb"|.)",
    re.DOTALL,
)


def with_whole_characters(document: bytes) -> bytes:
    """``document`` with U+FFFD for each half character, every byte at its place."""
    if _SUSPECT.search(document) is None:
        return document
    return _ESCAPE.sub(lambda found: rb"\ufffd" if found[1] else found[0], document)
