"""Child processes of the benches: one core for what is measured, the other for what loads it."""

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
_TIMEOUT_S = 100


def cores() -> tuple[int, int]:
    """(what is measured, what loads it); the same twice where there is one core."""
    have = sorted(os.sched_getaffinity(0))
    return have[-1], have[0]


MEASURED, LOADING = cores()


def pin(core: int) -> None:
    """This process runs on ``core`` only."""
    os.sched_setaffinity(0, {core})


def open_files() -> int:
    """Raise the limit as far as it goes; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def rss_kb(pid: int | None = None) -> int:
    """Of a process, by default this one: what is in memory and its own."""
    path = Path(f"/proc/{pid or os.getpid()}/statm")
    resident = int(path.read_text().split()[1])
    return resident * resource.getpagesize() // 1024


def cpu_s(pid: int) -> float:
    """User and system time of a process so far, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Child:
    """A module of this folder as a process, pinned to ``core``: a job (JSON) on its command line,
    then a line of JSON for each line that it is sent.  RuntimeError: it has ended instead."""

    def __init__(self, module: str, job: Any, core: int | str, **environ: str) -> None:
        # A pipe that nobody reads would fill.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in end()
        command = [sys.executable, "-m", f"scripts.benches.{module}", json.dumps(job)]
        self.process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            cwd=ROOT, text=True, env={**os.environ, **environ},
        )  # fmt: skip

    def ask(self, text: str) -> Any:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(text + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None
        return self.read()

    def read(self) -> Any:
        """The next line of JSON."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise self._failure()
        return json.loads(line)

    def _failure(self) -> RuntimeError:
        self.process.kill()
        self.process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return RuntimeError(lines[-1][:200] if lines else f"exit code {self.process.returncode}")

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()
        self._errors.close()


@contextmanager
def child(module: str, job: Any, core: int | str, **environ: str) -> Iterator[Child]:
    """A :class:`Child`, ended with the block."""
    made = Child(module, job, core, **environ)
    try:
        yield made
    finally:
        made.end()
