"""A project, and which of its tests run which of its lines: what ``coverage`` found, as a value."""

import hashlib
import sys
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path


@dataclass(frozen=True)
class Project:
    """``root`` holds the folders ``package`` and ``tests``; ``live`` are further test files.

    ``only`` narrows the tests to files whose path matches one of these patterns; empty: all.
    """

    root: Path
    package: str = "trio_feed"
    tests: str = "tests"
    live: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    def sources(self) -> list[str]:
        """Modules of the package, relative to the root, sorted."""
        found = (self.root / self.package).rglob("*.py")
        return sorted(str(path.relative_to(self.root)) for path in found)

    def test_files(self) -> dict[str, str]:
        """Hash of each file of tests that a map is about, by its name relative to the root."""
        top, live = self.root / self.tests, self.root / self.tests / "live"
        found = [path for path in top.rglob("test_*.py") if not path.is_relative_to(live)]
        found += [self.root / name for name in self.live]
        return {str(path.relative_to(self.root)): _hash([path]) for path in sorted(found)}

    def wants(self, file: str) -> bool:
        return not self.only or any(fnmatch(file, pattern) for pattern in self.only)

    def key(self) -> str:
        """A hash of what every test depends on: the package, and what the tests share."""
        tests = (self.root / self.tests).rglob("*.py")
        shared = [path for path in tests if not path.name.startswith("test_")]
        package = (self.root / self.package).rglob("*.py")
        return _hash([*sorted(package), *sorted(shared)])


def _hash(paths: list[Path]) -> str:
    digest = hashlib.sha256(sys.version.encode())
    for path in paths:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:20]


@dataclass
class Map:
    """Which tests ran which line: ``lines[file][line]`` are indices into ``tests``.

    ``seconds`` is what each test took (with coverage, so rather more than without), ``modules``
    the third-party modules that the run imported, ``failed`` the tests that did not pass unbroken
    and are left out, ``files`` the hash of each test file that was run.
    """

    tests: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    lines: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    def covering(self, file: str, lines: range) -> set[int]:
        of_file = self.lines.get(file, {})
        return {test for line in lines for test in of_file.get(str(line), ())}

    def without(self, files: set[str]) -> "Map":
        """The same less the tests of some files; what runs at import stays known."""
        kept = [n for n, test in enumerate(self.tests) if test.partition("::")[0] not in files]
        new = {old: index for index, old in enumerate(kept)}
        return Map(
            [self.tests[n] for n in kept],
            [self.seconds[n] for n in kept],
            {
                file: {line: [new[n] for n in ran if n in new] for line, ran in lines.items()}
                for file, lines in self.lines.items()
            },
            self.modules,
            [test for test in self.failed if test.partition("::")[0] not in files],
            {file: digest for file, digest in self.files.items() if file not in files},
        )

    def add(self, more: "Map") -> None:
        """Take in tests of other files."""
        first = len(self.tests)
        self.tests += more.tests
        self.seconds += more.seconds
        for file, lines in more.lines.items():
            mine = self.lines.setdefault(file, {})
            for line, ran in lines.items():
                mine.setdefault(line, []).extend(first + n for n in ran)
        self.modules = sorted({*self.modules, *more.modules})
        self.failed += more.failed
        self.files |= more.files
