"""What stands twice in a TOML file: tomllib names a line at best, this names both places.  Pure."""

import re
import tomllib
from contextlib import suppress

from attrs import frozen

Path = tuple[str, ...]
_TWICE = re.compile(r"overwrite|twice|redefine|cannot (declare|mutate)", re.I)
_LINE = re.compile(r"at line (\d+)")
_HEADER = re.compile(r"\s*\[\[?\s*([^\]]+?)\s*\]\]?")
_KEY = re.compile(r"\s*([\w\"'. -]+?)\s*=")


@frozen
class _Place:
    """A line that opens a table, or a key and its table."""

    line: int
    path: Path
    header: bool

    def __str__(self) -> str:
        name = ".".join(self.path)
        return f"[{name}] in line {self.line}" if self.header else f"{name} in line {self.line}"


def written_twice(text: str, problem: str) -> str:
    """``a.b.proxy in line 40 stands there already: [a.b.proxy] in line 9; keep one of both``, of
    the text of a file and what tomllib says of it.  Empty where it is about something else."""
    at = _LINE.search(problem)
    if at is None or not _TWICE.search(problem):
        return ""
    # A header without a newline behind it is said to be in its own line, with one in the next.
    places = [place for place in _places(text) if place.line <= int(at[1])]
    if not places:
        return ""
    last = places[-1]
    for place in places[:-1]:
        shorter = min(len(place.path), len(last.path))
        if place.path == last.path or (
            place.path[:shorter] == last.path[:shorter]
            and not (place.header and last.header)
            and not (place.header and len(place.path) < len(last.path))
        ):
            return f"{last} stands there already: {place}; keep one of both"
    return ""


def _places(text: str) -> list[_Place]:
    table: Path = ()
    found: list[_Place] = []
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = _split(header[1])
            if line.lstrip().startswith("[["):  # another row, in which every key is new
                found = [each for each in found if each.path[: len(table)] != table]
            else:
                found.append(_Place(number, table, True))
        elif key := _KEY.match(line):
            found.append(_Place(number, table + _split(key[1]), False))
    return found


def _split(dotted: str) -> Path:
    """The parts of a dotted name, quotes taken off."""
    with suppress(tomllib.TOMLDecodeError):
        tree, parts = tomllib.loads(f"{dotted} = 0"), []
        while isinstance(tree, dict):
            ((name, tree),) = tree.items()
            parts.append(name)
        return tuple(parts)
    return (dotted,)
