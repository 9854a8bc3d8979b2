"""Which lines ``scripts/mutate`` breaks, and which tests it runs for each of them.  Pure."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.mutate_map import Map
from scripts.mutate_operators import Mutant


@dataclass(frozen=True)
class Limits:
    """How much one mutant may cost: tests, and their seconds without the mutant."""

    tests: int = 150
    seconds: float = 20.0


def room_of(file: str) -> str:
    """``trio_feed/net/rest.py`` is in ``net``, ``trio_feed/service.py`` is a room of its own."""
    parts = Path(file).parts
    return parts[1] if len(parts) > 2 else Path(file).stem


def sample(
    mutants: Sequence[Mutant], count: int, seed: int, quota: dict[str, int] | None = None
) -> list[Mutant]:
    """One mutant each of ``count`` random lines, or of ``quota[room]`` lines of each room.

    Without a quota the rooms share ``count`` by their number of lines.  A room has a random
    generator of its own: a change in one room leaves the sample of the others as it was.
    """
    rooms: dict[str, dict[tuple[str, int], list[Mutant]]] = {}
    for mutant in sorted(mutants, key=lambda m: (m.file, m.start, m.end, m.operator, m.text)):
        lines = rooms.setdefault(room_of(mutant.file), {})
        lines.setdefault((mutant.file, mutant.line), []).append(mutant)
    sizes = {room: len(lines) for room, lines in rooms.items()}
    chosen = []
    for room, many in (quota if quota is not None else _shares(sizes, count)).items():
        lines = rooms.get(room, {})
        chance = random.Random(f"{seed}:{room}")
        for line in chance.sample(sorted(lines), min(many, len(lines))):
            chosen.append(chance.choice(lines[line]))
    return sorted(chosen, key=lambda m: (room_of(m.file), m.file, m.start, m.operator))


def _shares(sizes: dict[str, int], count: int) -> dict[str, int]:
    """Largest remainders."""
    total = sum(sizes.values())
    exact = {room: count * size / total for room, size in sorted(sizes.items())}
    shares = {room: int(part) for room, part in exact.items()}
    by_remainder = sorted(exact, key=lambda room: (shares[room] - exact[room], room))
    for room in by_remainder[: min(count, total) - sum(shares.values())]:
        shares[room] += 1
    return shares


def covering_tests(mutant: Mutant, known: Map, limits: Limits) -> list[str]:
    """The tests that cover the mutant, cheapest first, within the limits; none: not covered.

    A line that runs at import is covered by whatever runs anything of its function (a default
    argument) or of its module (a constant).
    """
    found = known.covering(mutant.file, range(mutant.line, mutant.line + 1))
    if not found:  # the interpreter names one line of a long statement
        found = known.covering(mutant.file, range(mutant.lines[0], mutant.lines[1] + 1))
    if not found and _at_import(mutant, known):
        if mutant.scope:
            found = known.covering(mutant.file, range(mutant.scope[0], mutant.scope[1] + 1))
        else:
            found = {test for ran in known.lines[mutant.file].values() for test in ran}
            # Values and tables run no line of their own; tests of the module come by name.
            names = {f"test_{Path(mutant.file).stem}.py", f"test_{room_of(mutant.file)}.py"}
            for index, test in enumerate(known.tests):
                if test.partition("::")[0].rpartition("/")[2] in names:
                    found.add(index)
    tests: list[int] = []
    spent = 0.0
    for index in sorted(found, key=lambda index: (known.seconds[index], index)):
        spent += known.seconds[index]
        if tests and (spent > limits.seconds or len(tests) >= limits.tests):
            break
        tests.append(index)
    return [known.tests[index] for index in tests]


def _at_import(mutant: Mutant, known: Map) -> bool:
    ran = known.lines.get(mutant.file, {})
    return any(str(line) in ran for line in range(mutant.lines[0], mutant.lines[1] + 1))


class Equivalents:
    """``FILE | line text | operator | reason`` per line; # starts a comment."""

    def __init__(self, text: str) -> None:
        self._reasons: dict[tuple[str, str, str], str] = {}
        for line in text.splitlines():
            if line.strip() and not line.startswith("#"):
                file, before, operator, reason = (part.strip() for part in line.split(" | "))
                self._reasons[file, before, operator] = reason

    def reason(self, mutant: Mutant, before: str) -> str | None:
        return self._reasons.get((mutant.file, before, mutant.operator))
