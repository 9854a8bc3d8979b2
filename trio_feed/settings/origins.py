"""Where each setting was written: its file, its variable, or the command line.  Pure."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from attrs import define, field

from ..errors import SettingsError

ENV_PREFIX = "TRIO_FEED__"
_LIKE_OURS = re.compile(r"TRIO_?FEED_+(?P<rest>.+)", re.IGNORECASE)
_TABLE_OF_ANY = "exchanges"
"""Below it stand names of venues, which are not fields."""


@define
class Origins:
    """Of all values that were read; what was written later takes the place of the earlier."""

    _of: dict[tuple[str, ...], str] = field(factory=dict)

    def note(self, value: Any, origin: str, path: tuple[str, ...] = ()) -> None:
        """``value`` is a plain value or a tree of them."""
        if isinstance(value, dict):
            for name, inner in value.items():
                self.note(inner, origin, (*path, str(name)))
        else:
            self._of = {at: by for at, by in self._of.items() if at[: len(path)] != path}
            self._of[path] = origin

    def of(self, path: str) -> str:
        """Where the dotted path was written; of one that was not, where what stands closest to it
        was.  Empty: nowhere."""
        wanted = tuple(path.split("."))
        for length in range(len(wanted), 0, -1):
            if wanted[:length] in self._of:  # it, or the list or inline table that it is in
                return self._of[wanted[:length]]
            near = {by: None for at, by in self._of.items() if at[:length] == wanted[:length]}
            if near:
                return ", ".join(near)
        return ""

    def named(self, error: SettingsError) -> SettingsError:
        """The same error, which says where to look."""
        origin = self.of(error.path)
        return SettingsError(error.path, f"{error.problem} ({origin})") if origin else error


def misspelt(environ: Mapping[str, str], kind: type) -> Iterator[tuple[str, str]]:
    """Variables that are not read and were meant to be, with what to write instead.

    Only where nothing but the underscores or the case are wrong: others may well have names of
    ours (Kubernetes sets TRIO_FEED_SERVICE_PORT for a service of that name).
    """
    known = {"_".join(path).upper(): path for path in _paths(kind, ())}
    for name in sorted(environ):
        match = _LIKE_OURS.fullmatch(name)
        if match is None or name.startswith(ENV_PREFIX):
            continue
        rest = re.sub("_+", "_", match["rest"]).upper()
        path = known.get(rest)
        if path is None and "__" in match["rest"]:
            first, *others = match["rest"].lower().split("__")
            path = (first, *others) if first == _TABLE_OF_ANY else None
        if path is not None:
            yield name, ENV_PREFIX + "__".join(path).upper()


def _paths(kind: type, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for each in attrs.fields(kind):
        inner = (*path, each.name)
        if isinstance(each.type, type) and attrs.has(each.type):
            yield from _paths(each.type, inner)
        else:
            yield inner
