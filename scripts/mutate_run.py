"""Tests of a project in forked children of this process: once with coverage, then once per mutant.

``open_snapshot`` copies the project to a temporary folder; everything runs there, so that neither
a mutant nor an editor at work touches the other's files.  A mutant is never written to disk: its
child gives the changed source to the import system in place of the file's.

A child costs little because its parent has imported pytest, trio and the other third-party modules
of the project (never the project itself) before it forks.  Each child leads a process group of its
own; ``Child.stop`` kills that group and nothing else.
"""

import contextlib
import importlib
import importlib.machinery
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from scripts.mutate_map import Map, Project

NOT_COPIED = (".git", ".venv*", "node_modules", ".mutate", "__pycache__", "data", ".*_cache")
FILES_AT_ONCE = 6  # of tests, in one child that measures
MEMORY = 3 << 30  # bytes of address space of a child: a mutant may never stop growing
PYTEST = ["-p", "no:cacheprovider", "-q", "--no-header", "-W"]
PYTEST += ["ignore::pytest.PytestAssertRewriteWarning"]  # imported before the fork, as intended


@contextlib.contextmanager
def open_snapshot(project: Project) -> Iterator[Project]:
    """A copy of the project in a temporary folder, which goes when the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="mutate-")).resolve()
    try:
        root = folder / "project"
        shutil.copytree(
            project.root, root, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED)
        )
        recordings = project.root.parent / "shared"  # tests look for them beside the checkout
        if recordings.is_dir():
            (folder / "shared").symlink_to(recordings)
        yield Project(root, project.package, project.tests, project.live, project.only)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Child:
    """One forked run of ``work``; ``poll`` until it has a result, ``stop`` in any case.

    ``work`` returns what JSON can hold.  ``result`` is that, ``{"hang": True}`` after ``timeout_s``
    of CPU time (virtual time that does not end burns CPU) or six times that on the clock (so that
    a busy machine is no hang), or ``{"died": status}``.
    """

    def __init__(self, project: Project, work: Callable[[], Any], timeout_s: float) -> None:
        handle, name = tempfile.mkstemp(dir=project.root.parent)
        os.close(handle)
        self._answer = Path(name)
        self._deadline = time.monotonic() + 6 * timeout_s
        self._cpu_s = int(timeout_s) + 1
        self.result: Any = None
        sys.stdout.flush()
        sys.stderr.flush()
        self._pid = os.fork()
        if self._pid == 0:
            self._run(project, work)
        # On both sides: whichever comes first, the group exists before anybody kills it.
        with contextlib.suppress(OSError):
            os.setpgid(self._pid, self._pid)

    def _run(self, project: Project, work: Callable[[], Any]) -> None:
        status = 70
        try:
            with contextlib.suppress(OSError):
                os.setpgid(0, 0)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CPU, (self._cpu_s, self._cpu_s + 1))
            _move_into(project)
            text = json.dumps(work())
            self._answer.write_text(text)
            status = 0
        finally:
            os._exit(status)  # the parent's cleanup is the parent's

    def poll(self) -> bool:
        """True once ``result`` is there."""
        if self.result is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._pid = 0
                text = self._answer.read_text()
                slow = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU
                fate = {"hang": True} if slow else {"died": status}
                self.result = json.loads(text) if text else fate
            elif time.monotonic() > self._deadline:
                self.stop()
                self.result = {"hang": True}
        return self.result is not None

    def stop(self) -> None:
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0


def _move_into(project: Project) -> None:
    """Forget where this tool came from: ``import scripts`` has to find the snapshot's."""
    ours = Path(__file__).resolve().parent
    os.chdir(project.root)
    sys.path[:] = [p for p in sys.path if p and Path(p).resolve() not in (ours, ours.parent)]
    sys.path.insert(0, str(project.root))
    for name in [n for n in sys.modules if n.partition(".")[0] == "scripts"]:
        del sys.modules[name]
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(project.root.parent / "hypothesis")
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)


def serve_mutant(path: Path, source: str) -> None:
    """Let every later import of ``path`` in this process get ``source``."""
    original = importlib.machinery.SourceFileLoader.get_code

    def get_code(self: Any, fullname: str) -> CodeType | None:
        if Path(self.path) == path:
            return compile(source, str(path), "exec", dont_inherit=True)
        return original(self, fullname)

    setattr(importlib.machinery.SourceFileLoader, "get_code", get_code)  # noqa: B010 (mypy)


class _Chosen:
    """pytest plugin: only these tests, in this order; remembers the first that failed."""

    def __init__(self, tests: list[str]) -> None:
        self._order = {test: index for index, test in enumerate(tests)}
        self.ran = 0
        self.failed = ""

    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        kept = [item for item in items if item.nodeid in self._order]
        items[:] = sorted(kept, key=lambda item: self._order[item.nodeid])

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.ran += report.when == "call"
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


def run_tests(tests: list[str]) -> dict[str, Any]:
    """In a child: run these tests, stop at the first failure."""
    chosen = _Chosen(tests)
    files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
    code = int(pytest.main([*PYTEST, "-x", *files], plugins=[chosen]))
    return {"code": code, "failed": chosen.failed, "ran": chosen.ran}


def run_mutant(project: Project, file: str, source: str, tests: list[str]) -> dict[str, Any]:
    """In a child: the same with one module broken."""
    serve_mutant(project.root / file, source)
    return run_tests(tests)


class _Watcher:
    """pytest plugin: names the running test to coverage, notes seconds and failures."""

    def __init__(self, coverage: Any) -> None:
        self._coverage = coverage
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        self._coverage.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            self._coverage.switch_context("")

    def pytest_runtest_logreport(self, report: Any) -> None:
        spent = self.seconds.get(report.nodeid, 0.0) + report.duration
        self.seconds[report.nodeid] = spent
        if not report.passed:
            self.failed.add(report.nodeid)


def measure(project: Project, files: list[str]) -> dict[str, Any]:
    """In a child: the tests of some files once; which lines each of them ran, as ``Map`` has it."""
    os.environ["COVERAGE_CORE"] = "ctrace"  # the others know no contexts
    import coverage

    package = project.root / project.package
    meter = coverage.Coverage(data_file=None, config_file=False, source=[str(package)])
    watcher = _Watcher(meter)
    before = set(sys.modules)
    meter.start()
    code = pytest.main([*PYTEST, *files], plugins=[watcher])
    meter.stop()
    if code not in (0, 1, 5):  # passed, some failed, the files hold no tests
        return {"code": int(code)}
    tests = [test for test in watcher.seconds if test not in watcher.failed]
    numbers = {test: index for index, test in enumerate(tests)}
    data, lines = meter.get_data(), {}
    for path in data.measured_files():
        lines[str(Path(path).relative_to(project.root))] = {
            str(line): [numbers[test] for test in names if test in numbers]
            for line, names in data.contexts_by_lineno(path).items()
        }
    return {
        "tests": tests,
        "seconds": [watcher.seconds[test] for test in tests],
        "lines": lines,
        "modules": sorted(_third_party(project, set(sys.modules) - before)),
        "failed": sorted(watcher.failed),
    }


def _third_party(project: Project, names: set[str]) -> Iterator[str]:
    for name in names:
        file = getattr(sys.modules[name], "__file__", None)
        # coverage is for one run; what hypothesis holds (a seed, a database) is each child's own.
        private = name.partition(".")[0] in ("coverage", "hypothesis", "_hypothesis_pytestplugin")
        if file and not private and not Path(file).is_relative_to(project.root):
            yield name


def load_map(project: Project, cache: Path, jobs: int = 1, timeout_s: float = 1800) -> Map:
    """The map of ``project`` (a snapshot), kept in ``cache``.

    Files of tests that changed are measured anew, all of them when the package did; what is
    measured is kept at once, so that a run that was interrupted goes on where it was.
    Raises ``RuntimeError`` when the tests cannot be collected or do not end.
    """
    file = cache / f"map-{project.key()}.json"
    known = Map(**json.loads(file.read_text())) if file.exists() else Map()
    files = project.test_files()
    stale = sorted(name for name in files if known.files.get(name) != files[name])
    known = known.without({*stale, *(known.files.keys() - files.keys())})
    stale = [name for name in stale if project.wants(name)]
    waiting = [stale[n : n + FILES_AT_ONCE] for n in range(0, len(stale), FILES_AT_ONCE)]
    running: dict[Child, list[str]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                some = waiting.pop(0)
                running[Child(project, partial(measure, project, some), timeout_s)] = some
            for child in [child for child in running if child.poll()]:
                some = running.pop(child)
                if "tests" not in child.result:
                    raise RuntimeError(f"unbroken, {some} did not run: {child.result}")
                known.add(Map(**child.result, files={name: files[name] for name in some}))
                _keep(known, file)
                print(f"measured {len(known.files)}/{len(files)} files of tests", file=sys.stderr)
            time.sleep(0.02)
    finally:
        for child in running:
            child.stop()
    return known.without({name for name in files if not project.wants(name)})


def _keep(known: Map, file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    for old in file.parent.glob("map-*.json"):
        if old != file:
            old.unlink(missing_ok=True)
    fresh = file.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps(vars(known)))
    fresh.replace(file)


def warm(known: Map) -> None:
    """Import here what every child would import again."""
    for name in known.modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
