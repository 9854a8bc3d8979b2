"""Breaks one line of the package at a time and counts how many of the broken lines a test notices.

Ours, and not mutmut or cosmic-ray, for three reasons: both choose mutants by position in a run over
everything, while we want a reproducible sample with a quota per room; both run one test command per
mutant, while a suite of more than a minute is only affordable when a mutant runs the tests that
cover its line; and both write mutants into the tree or into a copy of it, where a killed run leaves
them behind.  What is left after that, the operators, is one file over ``ast``
(``mutate_operators.py``).  ``coverage`` says which test runs which line (``mutate_run.py``).

A mutant is *noticed* when a test fails, when nothing can be imported any more, or when the tests
take several times as long as unbroken; it *survived* when they pass, or when no test covers its
line.  Tests that start other processes cannot see a mutant.

Before the mutants each room gets one control: the same tests without a change.  When they fail, the
figures of that room are worth nothing and the exit code is 2.
"""

import argparse
import contextlib
import json
import signal
import sys
import time
import zlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # the package lies beside this folder, installed or not
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.mutate_choice import Equivalents, Limits, covering_tests, room_of, sample
from scripts.mutate_map import Map, Project
from scripts.mutate_operators import Mutant, mutants_of
from scripts.mutate_run import Child, load_map, open_snapshot, run_mutant, warm

LIVE = (
    "tests/live/test_store_live.py",
    "tests/live/test_store_faults_live.py",
    "tests/live/test_store_contract_live.py",
    "tests/live/test_store_costs_live.py",
    "tests/live/test_store_migration_live.py",
    "tests/live/test_instruments_live.py",
    "tests/live/test_server_live.py",
    "tests/live/test_push_live.py",
)
"""Those that stay in one process and open a file or a socket where the others open memory."""
MOST_EQUIVALENT = 0.03


@dataclass(frozen=True)
class Verdict:
    """What became of one mutant: noticed, survived, not covered or equivalent; and by what."""

    key: str
    room: str
    file: str
    line: int
    operator: str
    before: str
    after: str
    verdict: str
    by: str = ""
    tests: int = 0
    seconds: float = 0.0


class Judge:
    """Runs mutants in at most ``jobs`` children at a time and yields verdicts as they come."""

    def __init__(
        self, project: Project, known: Map, limits: Limits, jobs: int, patience_s: float
    ) -> None:
        self._project, self._known, self._limits, self._jobs = project, known, limits, jobs
        self._patience_s = patience_s
        self._seconds = dict(zip(known.tests, known.seconds, strict=True))
        self._running: dict[Child, tuple[Mutant, list[str], float]] = {}

    def run(
        self, mutants: Sequence[Mutant], sources: dict[str, str]
    ) -> Generator[tuple[Mutant, list[str], dict[str, Any], float], None, None]:
        waiting = list(reversed(mutants))
        try:
            while waiting or self._running:
                while waiting and len(self._running) < self._jobs:
                    mutant = waiting.pop()
                    tests = covering_tests(mutant, self._known, self._limits)
                    if not tests:
                        yield mutant, tests, {"code": 0, "failed": "", "ran": 0}, 0.0
                        continue
                    broken = mutant.apply(sources[mutant.file])
                    child = self._start(mutant.file, broken, tests)
                    self._running[child] = (mutant, tests, time.monotonic())
                for child in [child for child in self._running if child.poll()]:
                    mutant, tests, since = self._running.pop(child)
                    yield mutant, tests, child.result, time.monotonic() - since
                time.sleep(0.01)
        finally:
            for child in self._running:
                child.stop()

    def _start(self, file: str, source: str, tests: list[str]) -> Child:
        patience = self._patience_s + 4 * sum(self._seconds[test] for test in tests)
        work = lambda: run_mutant(self._project, file, source, tests)  # noqa: E731
        return Child(self._project, work, patience)


def verdict_of(tests: list[str], result: dict[str, Any]) -> tuple[str, str]:
    """What a child's result says of its mutant, and which test said it."""
    if not tests:
        return "not covered", ""
    if result.get("hang"):
        return "noticed", "hang"
    if "died" in result:
        return "noticed", "the process ended"
    if result["code"] in (0, 5):  # 5: the chosen cases no longer exist, so none of them failed
        return "survived", ""
    return "noticed", result["failed"] or f"pytest exit {result['code']}"


def key_of(mutant: Mutant, source: str, known: Map) -> str:
    """Changes with the module's text and with the tests: then a verdict is asked for again."""
    digest = zlib.crc32(repr((source, sorted(known.files.items()))).encode())
    return f"{mutant.file}:{digest:08x}:{mutant.start}:{mutant.end}:{mutant.operator}:{mutant.text}"


def table(verdicts: Sequence[Verdict]) -> str:
    kinds = ("noticed", "survived", "not covered", "equivalent")
    lines = [f"{'room':<14}" + "".join(f"{kind:>13}" for kind in kinds) + f"{'noticed %':>13}"]
    for room in [*sorted({verdict.room for verdict in verdicts}), ""]:
        of_room = [verdict for verdict in verdicts if room in ("", verdict.room)]
        counts = [sum(v.verdict == kind for v in of_room) for kind in kinds]
        percent = share(of_room)
        lines.append(
            f"{room or 'all':<14}" + "".join(f"{count:>13}" for count in counts) + f"{percent:>13}"
        )
    return "\n".join(lines)


def share(verdicts: Sequence[Verdict]) -> float:
    """Percent noticed of those that are not equivalent."""
    real = [verdict for verdict in verdicts if verdict.verdict != "equivalent"]
    noticed = sum(verdict.verdict == "noticed" for verdict in real)
    return round(100 * noticed / len(real), 1) if real else 100.0


def chosen_mutants(
    project: Project, options: argparse.Namespace
) -> tuple[list[Mutant], dict[str, str]]:
    """The sample that the options ask for, and the texts of the modules."""
    sources, mutants = {}, []
    rooms = set(filter(None, (options.room or "").split(",")))
    quota = None
    if options.quota:
        quota = {
            room: int(n) for room, _, n in (q.partition("=") for q in options.quota.split(","))
        }
        rooms |= set(quota)
    module = (options.module or "").removesuffix(".py").replace(".", "/")
    for file in project.sources():
        if module and file not in (f"{module}.py", f"{module}/__init__.py"):
            continue
        if (rooms and room_of(file) not in rooms) or file.endswith("__main__.py"):
            continue
        sources[file] = (project.root / file).read_text()
        mutants += mutants_of(sources[file], file)
    if quota is None and options.sample is None:
        return mutants, sources
    return sample(mutants, options.sample or 0, options.seed, quota), sources


def controls(project: Project, known: Map, mutants: Sequence[Mutant], limits: Limits) -> list[str]:
    """Rooms whose tests fail with nothing broken."""
    bad = []
    for room in sorted({room_of(mutant.file) for mutant in mutants}):
        of_room = [m for m in mutants if room_of(m.file) == room]
        tests = next(filter(None, (covering_tests(m, known, limits) for m in of_room)), [])
        same = Mutant(of_room[0].file, 1, 0, "control", 0, 0, "", (1, 1), None)
        source = (project.root / same.file).read_text()
        work = lambda: run_mutant(project, same.file, source, tests)  # noqa: B023, E731
        child = Child(project, work, 600)
        try:
            while not child.poll():
                time.sleep(0.01)
        finally:
            child.stop()
        if tests and verdict_of(tests, child.result)[0] != "survived":
            print(f"control of {room} failed: {child.result}", file=sys.stderr)
            bad.append(room)
    return bad


def judge(project: Project, options: argparse.Namespace) -> tuple[list[Verdict], list[str]]:
    """Everything: verdicts in the order of the sample, and rooms whose control failed."""
    cache, state = project.root / ".mutate", Path(options.state) if options.state else None
    listed = project.root / "scripts" / "mutate.equivalent"
    equivalents = Equivalents(listed.read_text() if listed.exists() else "")
    done: dict[str, Verdict] = {}
    if state and state.exists():
        for line in state.read_text().splitlines():
            verdict = Verdict(**json.loads(line))
            done[verdict.key] = verdict
    with open_snapshot(project) as copy:
        mutants, sources = chosen_mutants(copy, options)
        known = load_map(copy, cache, options.jobs)
        if known.failed:
            print(f"left out, failed or skipped unbroken: {known.failed}", file=sys.stderr)
        warm(known)
        limits = Limits(options.tests, options.seconds)
        keys = {mutant: key_of(mutant, sources[mutant.file], known) for mutant in mutants}
        left = [mutant for mutant in mutants if keys[mutant] not in done]
        bad = controls(copy, known, left, limits)
        work = Judge(copy, known, limits, options.jobs, options.patience).run(left, sources)
        with contextlib.closing(work):
            for mutant, tests, result, seconds in work:
                before, after = mutant.change(sources[mutant.file])
                kind, by = verdict_of(tests, result)
                reason = equivalents.reason(mutant, before)
                if reason is not None and kind != "noticed":
                    kind, by = "equivalent", reason
                verdict = Verdict(
                    keys[mutant], room_of(mutant.file), mutant.file, mutant.line, mutant.operator,
                    before, after, kind, by, len(tests), round(seconds, 2),
                )  # fmt: skip
                done[verdict.key] = verdict
                if state:
                    with state.open("a") as lines:
                        lines.write(json.dumps(vars(verdict)) + "\n")
                place = f"{mutant.file}:{mutant.line} {mutant.operator}"
                print(f"{kind:<11} {verdict.seconds:6.2f} s  {place}", file=sys.stderr)
    return [done[keys[mutant]] for mutant in mutants], bad


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="scripts/mutate", description=__doc__.splitlines()[0])
    made.add_argument("--module", help="only this one: trio_feed.net.rest or trio_feed/net/rest.py")
    made.add_argument("--sample", type=int, help="so many random lines; without it every mutant")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--room", help="core,store,push: only these folders of the package")
    made.add_argument("--quota", help="core=60,store=25: so many lines of each room")
    made.add_argument("--jobs", type=int, choices=(1, 2), default=2)
    made.add_argument("--tests", type=int, default=150, help="at most so many tests per mutant")
    made.add_argument("--seconds", type=float, default=20.0, help="and so many seconds of tests")
    made.add_argument(
        "--patience", type=float, default=15.0, help="CPU seconds beside 4 times the tests' own"
    )
    made.add_argument("--state", help="append verdicts to this file; skip those that it holds")
    made.add_argument(
        "--only", default="", help="measure and run only these files of tests: tests/test_h*.py,..."
    )
    made.add_argument("--live", action="store_true", help="live tests of one process as well")
    made.add_argument("--json", action="store_true", help="one line per mutant instead of a table")
    made.add_argument("--list", action="store_true", help="print the sample and run nothing")
    made.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    made.add_argument("--package", default="trio_feed")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that children and copy go
    live = tuple(f for f in LIVE if (options.root / f).exists()) if options.live else ()
    only = tuple(filter(None, options.only.split(",")))
    project = Project(options.root.resolve(), options.package, "tests", live, only)
    if options.list:
        mutants, sources = chosen_mutants(project, options)
        for mutant in mutants:
            before, after = mutant.change(sources[mutant.file])
            print(f"{mutant.file}:{mutant.line} {mutant.operator}: {before}  ->  {after}")
        return 0
    try:
        verdicts, bad = judge(project, options)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        for verdict in verdicts:
            print(json.dumps(vars(verdict)))
    else:
        for verdict in verdicts:
            if verdict.verdict != "noticed":
                print(f"{verdict.verdict}: {verdict.file}:{verdict.line} {verdict.operator}")
                print(f"  - {verdict.before}\n  + {verdict.after}")
                if verdict.by:
                    print(f"  reason: {verdict.by}")
        print(table(verdicts))
    equivalent = sum(verdict.verdict == "equivalent" for verdict in verdicts)
    total = {
        "mutants": len(verdicts),
        "noticed": sum(verdict.verdict == "noticed" for verdict in verdicts),
        "equivalent": equivalent,
        "percent": share(verdicts),
        "controls_failed": bad,
    }
    print(json.dumps(total))
    if bad:
        return 2
    return int(equivalent > MOST_EQUIVALENT * len(verdicts))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
